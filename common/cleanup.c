/* SPDX-License-Identifier: Apache-2.0 */
/* What the cleanup attributes call at the end of a scope; errno is that of the failure that led
 * there. */
#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

void
cleanup_free(void *pointer_to_pointer)
{
	int saved = errno;

	free(*(void **) pointer_to_pointer);
	errno = saved;
}

void
cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void) close(*fd);
	errno = saved;
}

void
cleanup_closedir(DIR **directory)
{
	int saved = errno;

	if (*directory != NULL)
		(void) closedir(*directory);
	errno = saved;
}

void
cleanup_fclose(FILE **stream)
{
	int saved = errno;

	if (*stream != NULL)
		(void) fclose(*stream);
	errno = saved;
}
