/* SPDX-License-Identifier: Apache-2.0 */
/* A small tree with everything in it that makes a restore difficult, and its edited form. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tree.h"

enum what { DIRECTORY, FILE_OF, SYMLINK, LINK, MODE, REMOVE, REMOVE_DIRECTORY, ATTRIBUTE, BIG };

struct step {
	enum what what;
	const char *path, *text;
	mode_t mode; /* 0: as it comes */
};

static const struct step old_steps[] = {
	{FILE_OF, ".gitignore", "*.log\nbuild/\n", 0},
	{DIRECTORY, "keep", NULL, 0},
	{FILE_OF, "keep/a", "one\n", 0},
	{FILE_OF, "keep/same", "the same in both\n", 0},
	{ATTRIBUTE, "keep/a", "old", 0},
	{DIRECTORY, "dir", NULL, 0},
	{DIRECTORY, "dir/sub", NULL, 0},
	{FILE_OF, "dir/sub/b", "two\n", 0},
	{FILE_OF, "dir/noise.log", "ignored\n", 0},
	{DIRECTORY, "build", NULL, 0},
	{FILE_OF, "build/out", "ignored, too\n", 0},
	{DIRECTORY, "gone", NULL, 0},
	{FILE_OF, "gone/c", "three\n", 0},
	{DIRECTORY, "gone/deep", NULL, 0},
	{FILE_OF, "gone/deep/d", "four\n", 0},
	{SYMLINK, "gone/link", "c", 0},
	{DIRECTORY, "empty", NULL, 0},
	{SYMLINK, "link", "keep/a", 0},
	{SYMLINK, "turns", "elsewhere", 0},
	{FILE_OF, "mode", "five\n", 0600},
	{FILE_OF, "linked1", "six\n", 0},
	{LINK, "linked2", "linked1", 0},
	{LINK, "keep/linked3", "linked1", 0},
	{FILE_OF, "grows", "seven\n", 0},
	{BIG, "big", "old", 0},
	{FILE_OF, "odd\nname \\\377", "eight\n", 0},
	{DIRECTORY, "locked", NULL, 0},
	{FILE_OF, "locked/x", "nine\n", 0},
	{FILE_OF, "locked/y", "ten\n", 0444},
	{MODE, "locked", NULL, 0555},
	{DIRECTORY, "closed", NULL, 0},
	{FILE_OF, "closed/in", "eleven\n", 0},
	{FILE_OF, "closed-file", "twelve\n", 0640},
	/* An ordinary user's snapshot cannot hold these: a restore must leave them alone. */
	{DIRECTORY, "sealed", NULL, 0},
	{FILE_OF, "sealed/in", "thirteen\n", 0},
	{MODE, "sealed", NULL, 0000},
	{0},
};

static const struct step edits[] = {
	{FILE_OF, "keep/a", "changed\n", 0},
	{ATTRIBUTE, "keep/a", "new", 0},
	{REMOVE, "dir/sub/b", NULL, 0},
	{REMOVE_DIRECTORY, "dir/sub", NULL, 0},
	{FILE_OF, "dir/sub", "a file now\n", 0},
	{REMOVE, "gone/c", NULL, 0},
	{REMOVE, "gone/deep/d", NULL, 0},
	{REMOVE_DIRECTORY, "gone/deep", NULL, 0},
	{REMOVE, "gone/link", NULL, 0},
	{REMOVE_DIRECTORY, "gone", NULL, 0},
	{REMOVE_DIRECTORY, "empty", NULL, 0},
	{REMOVE, "link", NULL, 0},
	{DIRECTORY, "link", NULL, 0},
	{FILE_OF, "link/y", "in what was a link\n", 0},
	{REMOVE, "turns", NULL, 0},
	{SYMLINK, "turns", "somewhere else", 0},
	{MODE, "mode", NULL, 0644},
	{REMOVE, "linked2", NULL, 0},
	{FILE_OF, "linked2", "apart\n", 0},
	{FILE_OF, "grows", "seven, and much more of it\n", 0},
	{BIG, "big", "new", 0},
	{MODE, "locked", NULL, 0755},
	{REMOVE, "locked/x", NULL, 0},
	{FILE_OF, "locked/z", "came\n", 0},
	{MODE, "locked", NULL, 0555},
	{FILE_OF, "closed/in", "changed\n", 0},
	{FILE_OF, "closed/more", "came\n", 0},
	{MODE, "closed", NULL, 0000},
	{FILE_OF, "closed-file", "changed\n", 0},
	{MODE, "closed-file", NULL, 0000},
	{DIRECTORY, "added", NULL, 0},
	{FILE_OF, "added/1", "new one\n", 0},
	{LINK, "added/2", "added/1", 0},
	{DIRECTORY, "added/deep", NULL, 0},
	{FILE_OF, "added/deep/z", "new two\n", 0},
	{DIRECTORY, "added/deep/locked", NULL, 0},
	{FILE_OF, "added/deep/locked/in", "new three\n", 0},
	{MODE, "added/deep/locked", NULL, 0555},
	{SYMLINK, "added/dangling", "nowhere", 0},
	{DIRECTORY, "added/empty", NULL, 0},
	{0},
};

static int
write_text(int root, const struct step *step)
{
	int fd = openat(root, step->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t length = strlen(step->text), times = step->what == BIG ? 5000 : 1;

	if (fd < 0)
		return -1;
	for (size_t i = 0; i < times; i++) {
		char line[64];
		int n = snprintf(line, sizeof(line), "%s %zu\n", step->text, i * i);

		if (step->what == BIG ? write(fd, line, (size_t) n) != n
				      : write(fd, step->text, length) != (ssize_t) length) {
			(void) close(fd);
			return -1;
		}
	}
	return close(fd);
}

static int
set_attribute(int root, const struct step *step)
{
	int fd = openat(root, step->path, O_RDONLY | O_CLOEXEC);

	/* Not on every filesystem: the tree does without then. */
	if (fd < 0)
		return -1;
	(void) fsetxattr(fd, "user.test", step->text, strlen(step->text), 0);
	return close(fd);
}

static int
take(int root, const struct step *step)
{
	switch (step->what) {
	case DIRECTORY:
		return mkdirat(root, step->path, 0755);
	case FILE_OF:
	case BIG:
		return write_text(root, step);
	case SYMLINK:
		return symlinkat(step->text, root, step->path);
	case LINK:
		return linkat(root, step->text, root, step->path, 0);
	case REMOVE:
		return unlinkat(root, step->path, 0);
	case REMOVE_DIRECTORY:
		return unlinkat(root, step->path, AT_REMOVEDIR);
	case ATTRIBUTE:
		return set_attribute(root, step);
	case MODE:
		return 0;
	}
	return -1;
}

/* What lies below a closed directory keeps the time of its making: two writings differ there, too.
 */
static void
set_time(int root, const char *path, time_t seconds)
{
	struct timespec times[2] = {{seconds, 0}, {seconds, 500000001}};

	(void) utimensat(root, path, times, AT_SYMLINK_NOFOLLOW);
}

static void
take_steps(const char *root, const struct step *steps, time_t seconds)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mode_t mask = umask(022);

	if (fd < 0)
		die("%s: %s", root, strerror(errno));
	for (const struct step *step = steps; step->path; step++) {
		if (take(fd, step) < 0)
			die("%s/%s: %s", root, step->path, strerror(errno));
		if (step->what != REMOVE && step->what != REMOVE_DIRECTORY)
			set_time(fd, step->path, seconds++);
		if (step->mode || step->what == MODE)
			if (fchmodat(fd, step->path, step->mode, 0) < 0)
				die("%s/%s: %s", root, step->path, strerror(errno));
	}
	/* Directories last: everything else has touched them. */
	for (const struct step *step = steps; step->path; step++)
		if (step->what == DIRECTORY)
			set_time(fd, step->path, seconds++);
	set_time(fd, "dir", seconds++);
	set_time(fd, "locked", seconds++);
	set_time(fd, ".", seconds++);
	(void) umask(mask);
	(void) close(fd);
}

void
tree_make_old(const char *root)
{
	take_steps(root, old_steps, 981173106);
}

void
tree_edit(const char *root)
{
	take_steps(root, edits, 1323785656);
}
