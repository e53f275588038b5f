/* SPDX-License-Identifier: Apache-2.0 */
/* What a scope owns is released when the scope ends; what it hands over is stolen first.
 *
 *     AUTO_FREE char *text = NULL;
 *     AUTO_CLOSE int fd = -1;
 *     ...
 *     *ret_fd = steal_fd(&fd);
 */
#ifndef MOAT_COMMON_CLEANUP_H
#define MOAT_COMMON_CLEANUP_H

#include <dirent.h>
#include <stdio.h>

void cleanup_free(void *pointer_to_pointer);
void cleanup_close(int *fd); /* keeps errno; -1 is allowed */
void cleanup_closedir(DIR **directory);
void cleanup_fclose(FILE **stream);

#define CLEANUP(function) __attribute__((cleanup(function)))
#define AUTO_FREE CLEANUP(cleanup_free)
#define AUTO_CLOSE CLEANUP(cleanup_close)
#define AUTO_CLOSEDIR CLEANUP(cleanup_closedir)
#define AUTO_FCLOSE CLEANUP(cleanup_fclose)

/* Returns *fd and leaves -1. */
static inline int
steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* Returns *(void **) p and leaves NULL; STEAL(p) keeps the type. */
static inline void *
steal_pointer(void *pointer_to_pointer)
{
	void **p = (void **) pointer_to_pointer;
	void *taken = *p;

	*p = (void *) 0;
	return taken;
}
#define STEAL(p) ((__typeof__(p)) steal_pointer(&(p)))

#endif
