/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into moat: makes one of its own allocations fail, and tells what it did not free.
 *
 *     MOAT_FAIL_ALLOC=N    the N-th allocation of moat's own code fails with ENOMEM (N+: and all
 * later) MOAT_COUNT_ALLOC=F   at the end the number of them is written to the file F MOAT_LEAKS=F
 * at the end those that are still there are written to F, a line for each: MODULE+0xOFFSET SIZE
 *
 * Own code is the program and its plugins (KIND-NAME.so), told by the address that is returned to:
 * what the libraries under it allocate for themselves neither counts nor fails.  Text that libc
 * makes for its caller (strdup, asprintf) counts as the caller's. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)
#define LIVE ((size_t) 1 << 18)

/* glibc's own names of what is interposed here; they can be called before anything is bound. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *pointer);

static atomic_long counted;
static long fail_at;
static bool fail_later;
static const void *program; /* where it is loaded */

/* What own code has allocated and not freed: a hash table with open addressing. */
static struct live {
	void *pointer;
	const void *caller;
	size_t size;
} * live;
static pthread_mutex_t live_lock = PTHREAD_MUTEX_INITIALIZER;

/* --------------------------------------------------------------------------- whose code is it? */

static bool
is_plugin(const char *path)
{
	static const char *const kinds[] = {"snapshot-", "sandbox-", "runtime-", "tracer-"};
	const char *name = path ? strrchr(path, '/') : NULL;

	for (size_t i = 0; name && i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strncmp(name + 1, kinds[i], strlen(kinds[i])) == 0)
			return true;
	return false;
}

/* No lock of this file's is held while the loader is asked: it may allocate, and has locks itself.
 */
static bool
is_own(const void *caller)
{
	static _Thread_local bool asking;
	static _Thread_local const void *last_page;
	static _Thread_local bool last_answer;
	const void *page = (const void *) ((uintptr_t) caller & ~(uintptr_t) 4095);
	Dl_info info;

	if (asking || !program)
		return false;
	if (page == last_page)
		return last_answer;
	asking = true;
	if (dladdr(caller, &info) != 0) {
		last_answer = info.dli_fbase == program || is_plugin(info.dli_fname);
		last_page = page;
	} else {
		last_answer = false;
	}
	asking = false;
	return last_answer;
}

/* Counts an allocation of own code; true when it is to fail. */
static bool
fails(bool own)
{
	long n;

	if (!own)
		return false;
	n = atomic_fetch_add(&counted, 1) + 1;
	if (fail_at == 0 || (n != fail_at && !(fail_later && n > fail_at)))
		return false;
	errno = ENOMEM;
	return true;
}

/* -------------------------------------------------------------------------- what is still there */

static size_t
slot_of(const void *pointer)
{
	size_t i = (size_t) (((uintptr_t) pointer >> 4) * 0x9e3779b97f4a7c15ULL) & (LIVE - 1);

	while (live[i].pointer && live[i].pointer != pointer)
		i = (i + 1) & (LIVE - 1);
	return i;
}

static void *
note(void *pointer, bool own, const void *caller, size_t size)
{
	static size_t used;
	size_t i;

	if (!pointer || !own || !live)
		return pointer;
	(void) pthread_mutex_lock(&live_lock);
	i = slot_of(pointer);
	if (live[i].pointer || used < LIVE / 2) {
		used += live[i].pointer == NULL;
		live[i] = (struct live){pointer, caller, size};
	}
	(void) pthread_mutex_unlock(&live_lock);
	return pointer;
}

/* The slot stays taken, with no caller: what is behind it in its chain must be found. */
static void
forget(const void *pointer)
{
	size_t i;

	if (!pointer || !live)
		return;
	(void) pthread_mutex_lock(&live_lock);
	i = slot_of(pointer);
	if (live[i].pointer)
		live[i].caller = NULL;
	(void) pthread_mutex_unlock(&live_lock);
}

/* ---------------------------------------------------------------------------------- interposed */

PUBLIC void *
malloc(size_t size)
{
	bool own = is_own(CALLER);

	return fails(own) ? NULL : note(__libc_malloc(size), own, CALLER, size);
}

PUBLIC void *
calloc(size_t count, size_t size)
{
	bool own = is_own(CALLER);

	return fails(own) ? NULL : note(__libc_calloc(count, size), own, CALLER, count * size);
}

static void *
resize(void *pointer, size_t size, const void *caller)
{
	bool own = is_own(caller);
	void *moved;

	if (fails(own))
		return NULL;
	moved = __libc_realloc(pointer, size);
	if (moved || size == 0)
		forget(pointer);
	return note(moved, own, caller, size);
}

PUBLIC void *
realloc(void *pointer, size_t size)
{
	return resize(pointer, size, CALLER);
}

PUBLIC void *
reallocarray(void *pointer, size_t count, size_t size)
{
	size_t all;

	if (__builtin_mul_overflow(count, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return resize(pointer, all, CALLER);
}

PUBLIC int
posix_memalign(void **ret, size_t alignment, size_t size)
{
	bool own = is_own(CALLER);

	if (fails(own))
		return ENOMEM;
	*ret = note(__libc_memalign(alignment, size), own, CALLER, size);
	return *ret ? 0 : ENOMEM;
}

PUBLIC void *
aligned_alloc(size_t alignment, size_t size)
{
	bool own = is_own(CALLER);

	return fails(own) ? NULL : note(__libc_memalign(alignment, size), own, CALLER, size);
}

PUBLIC void
free(void *pointer)
{
	forget(pointer);
	__libc_free(pointer);
}

static char *
copy_text(const char *text, size_t length, const void *caller)
{
	bool own = is_own(caller);
	char *copy;

	if (fails(own))
		return NULL;
	copy = note(__libc_malloc(length + 1), own, caller, length + 1);
	if (copy) {
		memcpy(copy, text, length);
		copy[length] = '\0';
	}
	return copy;
}

PUBLIC char *
strdup(const char *text)
{
	return copy_text(text, strlen(text), CALLER);
}

PUBLIC char *
strndup(const char *text, size_t room)
{
	return copy_text(text, strnlen(text, room), CALLER);
}

static int __attribute__((format(printf, 2, 0)))
print_text(char **ret, const char *format, va_list arguments, const void *caller)
{
	bool own = is_own(caller);
	va_list again;
	int length;

	*ret = NULL;
	if (fails(own))
		return -1;
	va_copy(again, arguments);
	length = vsnprintf(NULL, 0, format, again);
	va_end(again);
	if (length < 0)
		return -1;
	*ret = note(__libc_malloc((size_t) length + 1), own, caller, (size_t) length + 1);
	if (!*ret)
		return -1;
	return vsnprintf(*ret, (size_t) length + 1, format, arguments);
}

#undef asprintf
#undef vasprintf

PUBLIC int __attribute__((format(printf, 2, 0)))
vasprintf(char **ret, const char *format, va_list arguments)
{
	return print_text(ret, format, arguments, CALLER);
}

PUBLIC int
asprintf(char **ret, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = print_text(ret, format, arguments, CALLER);
	va_end(arguments);
	return length;
}

/* What the two become with _FORTIFY_SOURCE. */
PUBLIC int __vasprintf_chk(char **ret, int flag, const char *format, va_list arguments)
	__attribute__((format(printf, 3, 0)));
PUBLIC int
__asprintf_chk(char **ret, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));

PUBLIC int
__vasprintf_chk(char **ret, int flag, const char *format, va_list arguments)
{
	(void) flag;
	return print_text(ret, format, arguments, CALLER);
}

PUBLIC int
__asprintf_chk(char **ret, int flag, const char *format, ...)
{
	va_list arguments;
	int length;

	(void) flag;
	va_start(arguments, format);
	length = print_text(ret, format, arguments, CALLER);
	va_end(arguments);
	return length;
}

/* ----------------------------------------------------------------------------- start and end */

static void
write_leaks(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char line[512];
	Dl_info info;

	for (size_t i = 0; fd >= 0 && i < LIVE; i++) {
		const void *caller = live[i].caller;
		const char *name;
		int n;

		if (!live[i].pointer || !caller)
			continue;
		if (dladdr(caller, &info) == 0)
			info = (Dl_info){.dli_fname = "?"};
		name = strrchr(info.dli_fname, '/');
		n = snprintf(line, sizeof(line), "%s+%#zx %zu\n", name ? name + 1 : info.dli_fname,
			     (size_t) ((uintptr_t) caller - (uintptr_t) info.dli_fbase),
			     live[i].size);
		if (write(fd, line, (size_t) n) != n)
			break;
	}
	if (fd >= 0)
		(void) close(fd);
}

static void
at_end(void)
{
	const char *count = getenv("MOAT_COUNT_ALLOC"), *leaks = getenv("MOAT_LEAKS");
	long n = atomic_load(&counted);
	char line[32];
	int fd, length = snprintf(line, sizeof(line), "%ld\n", n);

	fail_at = 0;
	program = NULL; /* from here on nothing is counted */
	fd = count ? open(count, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (fd >= 0) {
		if (write(fd, line, (size_t) length) != length)
			(void) unlink(count);
		(void) close(fd);
	}
	if (leaks && live)
		write_leaks(leaks);
}

static void __attribute__((constructor)) at_start(void)
{
	const char *fail = getenv("MOAT_FAIL_ALLOC");
	Dl_info info;

	/* The headers that the kernel points to are the program's. */
	if (dladdr((const void *) getauxval(AT_PHDR), &info) != 0)
		program = info.dli_fbase;
	if (fail) {
		fail_at = atol(fail);
		fail_later = strchr(fail, '+') != NULL;
	}
	if (getenv("MOAT_LEAKS"))
		live = __libc_calloc(LIVE, sizeof(*live));
	(void) atexit(at_end);
}
