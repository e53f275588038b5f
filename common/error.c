/* SPDX-License-Identifier: Apache-2.0 */
/* Setting, wrapping and clearing errors; nothing here allocates memory, and errno is kept. */
#include "common/error.h"

#include <errno.h>

static const struct {
	int sys_errno;
	int code;
} codes[] = {
	{ENOENT, MOAT_NOT_FOUND}, {EEXIST, MOAT_EXISTS},          {EACCES, MOAT_PERMISSION},
	{EPERM, MOAT_PERMISSION}, {EROFS, MOAT_PERMISSION},       {ENOSPC, MOAT_NO_SPACE},
	{EDQUOT, MOAT_NO_SPACE},  {EFBIG, MOAT_NO_SPACE},         {ENOSYS, MOAT_UNSUPPORTED},
	{EBUSY, MOAT_BUSY},       {EOPNOTSUPP, MOAT_UNSUPPORTED}, {EAGAIN, MOAT_BUSY},
	{ETXTBSY, MOAT_BUSY},     {ENOMEM, MOAT_NO_MEMORY},       {ETIMEDOUT, MOAT_TIMEOUT},
	{EINTR, MOAT_CANCELLED},  {ECANCELED, MOAT_CANCELLED},    {ESTALE, MOAT_GONE},
	{ESRCH, MOAT_GONE},
};

int
moat_code_of_errno(int sys_errno)
{
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
		if (codes[i].sys_errno == sys_errno)
			return codes[i].code;
	}
	return MOAT_FAILED;
}

/* Writes ": TEXT" at `used`, and makes a message that has become too long end in "...". */
static void
append(struct moat_error *err, size_t used, const char *text)
{
	size_t space = sizeof err->message - used;

	if (snprintf(err->message + used, space, ": %s", text) >= (int) space)
		memcpy(err->message + sizeof err->message - 4, "...", 4);
}

int
moat_fail(struct moat_error *err, int code, const char *format, ...)
{
	int saved = errno;
	va_list args;

	va_start(args, format);
	(void) moat_error_vset(err, code, 0, format, args);
	va_end(args);
	errno = saved;
	return -1;
}

int
moat_fail_errno(struct moat_error *err, const char *format, ...)
{
	int saved = errno;
	char text[256];
	va_list args;

	if (err == NULL || err->code != MOAT_OK)
		return -1;
	va_start(args, format);
	(void) moat_error_vset(err, moat_code_of_errno(saved), saved, format, args);
	va_end(args);
	append(err, strlen(err->message), strerror_r(saved, text, sizeof text));
	errno = saved;
	return -1;
}

int
moat_fail_memory(struct moat_error *err)
{
	return moat_fail(err, MOAT_NO_MEMORY, "out of memory");
}

int
moat_wrap(struct moat_error *err, const char *format, ...)
{
	int saved = errno;
	char inner[sizeof err->message];
	va_list args;
	int used;

	if (err == NULL || err->code == MOAT_OK)
		return -1;
	memcpy(inner, err->message, sizeof inner);
	va_start(args, format);
	used = vsnprintf(err->message, sizeof err->message, format, args);
	va_end(args);
	if (used < 0)
		used = 0;
	if ((size_t) used >= sizeof err->message)
		used = sizeof err->message - 1;
	append(err, (size_t) used, inner);
	errno = saved;
	return -1;
}

void
moat_error_clear(struct moat_error *err)
{
	if (err == NULL)
		return;
	err->struct_size = sizeof *err;
	err->code = MOAT_OK;
	err->sys_errno = 0;
	err->message[0] = '\0';
}
