/* SPDX-License-Identifier: Apache-2.0 */
/* What inject.sh and failmalloc.sh try their tools on.
 *
 *     allocates all      eight allocations, a letter for each, in capitals when there was no memory
 *     allocates leak     one that is not freed
 *     allocates threads  two threads write a line each; 7 when one cannot */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *__attribute__((format(printf, 1, 2))) formatted(const char *format, ...)
{
	va_list arguments;
	char *text;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	return length < 0 ? NULL : text;
}

static void
tell(void *got, char letter, char *letters)
{
	letters[letter - 'a'] = got ? letter : (char) (letter - 'a' + 'A');
	free(got);
}

static int
allocate_all(void)
{
	char letters[9] = {0}, *text;
	void *grown, *aligned = NULL;

	tell(malloc(10), 'a', letters);
	tell(calloc(2, 10), 'b', letters);
	tell(strdup("text"), 'c', letters);
	tell(strndup("text", 2), 'd', letters);
	tell(asprintf(&text, "%d", 1) < 0 ? NULL : text, 'e', letters);
	tell(formatted("%d", 2), 'f', letters);
	tell(posix_memalign(&aligned, 64, 10) == 0 ? aligned : NULL, 'g', letters);
	grown = realloc(NULL, 50);
	tell(grown, 'h', letters);
	return puts(letters) < 0;
}

static void *
write_line(void *line)
{
	const char *text = line;

	return (void *) (intptr_t) (write(STDOUT_FILENO, text, strlen(text)) < 0);
}

static int
write_by_threads(void)
{
	static char lines[2][4] = {"1\n", "2\n"};
	pthread_t threads[2];
	void *failed[2];

	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, write_line, lines[i]) != 0)
			return 1;
	for (int i = 0; i < 2; i++)
		(void) pthread_join(threads[i], &failed[i]);
	return failed[0] || failed[1] ? 7 : 0;
}

int
main(int argc, char **argv)
{
	static char *volatile kept;

	if (argc < 2)
		return 2;
	if (strcmp(argv[1], "all") == 0)
		return allocate_all();
	if (strcmp(argv[1], "threads") == 0)
		return write_by_threads();
	kept = malloc(77);
	(void) printf("%c\n", kept ? 'a' : 'A');
	return 0;
}
