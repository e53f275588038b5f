/* SPDX-License-Identifier: Apache-2.0 */
/* Trees in memory and back. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ATTRIBUTE "user.test"
#define PATH_ROOM 4096

void
die(const char *format, ...)
{
	va_list arguments;

	(void) fflush(stdout);
	(void) fputs("fault: ", stderr);
	va_start(arguments, format);
	(void) vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void) fputc('\n', stderr);
	exit(2);
}

static void
join(char *path, const char *root, const char *name)
{
	int length = snprintf(path, PATH_ROOM, *name ? "%s/%s" : "%s", root, name);

	if (length < 0 || length >= PATH_ROOM)
		die("a path is too long: %s/%s", root, name);
}

/* ------------------------------------------------------------------------------------- reading */

static struct tree_node *
add_node(struct tree *tree, const char *path, const struct stat *st)
{
	struct tree_node *node;

	if (tree->count == tree->size) {
		/* Links between nodes are made when all are there. */
		tree->size = tree->size ? tree->size * 2 : 64;
		tree->nodes = reallocarray(tree->nodes, tree->size, sizeof(*tree->nodes));
		if (!tree->nodes)
			die("out of memory");
	}
	node = &tree->nodes[tree->count++];
	*node = (struct tree_node){.path = strdup(path), .st = *st};
	return node;
}

static void
load_file(struct tree_node *node, const char *path)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n;

	node->content = malloc((size_t) node->st.st_size + 1);
	if (fd < 0 || !node->content)
		die("%s: %s", path, strerror(errno));
	while (node->length < (size_t) node->st.st_size &&
	       (n = read(fd, node->content + node->length,
			 (size_t) node->st.st_size - node->length)) > 0)
		node->length += (size_t) n;
	(void) close(fd);
}

static void
load_link(struct tree_node *node, const char *path)
{
	char text[PATH_ROOM];
	ssize_t n = readlink(path, text, sizeof(text) - 1);

	if (n < 0)
		die("%s: %s", path, strerror(errno));
	text[n] = '\0';
	node->content = strdup(text);
}

static void
load_attribute(struct tree_node *node, const char *path)
{
	char value[256];
	ssize_t n = getxattr(path, ATTRIBUTE, value, sizeof(value) - 1);

	if (n >= 0) {
		value[n] = '\0';
		node->attribute = strdup(value);
	}
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* Calls `each` with the path of every name in a directory, in order. */
static void
each_name(const char *path, void (*each)(const char *path, void *data), void *data)
{
	struct dirent **names;
	int count = scandir(path, &names, NULL, by_name);
	char child[PATH_ROOM];

	if (count < 0)
		return;
	for (int i = 0; i < count; i++) {
		if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0) {
			join(child, path, names[i]->d_name);
			each(child, data);
		}
		free(names[i]);
	}
	free(names);
}

struct loading {
	struct tree *tree;
	size_t root_length;
};

static void
load(const char *path, void *data)
{
	struct loading *loading = data;
	const char *below = path + loading->root_length;
	struct tree_node *node;
	struct stat st;
	mode_t wanted;

	if (lstat(path, &st) < 0)
		die("%s: %s", path, strerror(errno));
	wanted = S_ISDIR(st.st_mode) ? 0700 : 0600;
	node = add_node(loading->tree, *below == '/' ? below + 1 : below, &st);
	if (S_ISLNK(st.st_mode)) {
		load_link(node, path);
		return;
	}
	if ((st.st_mode & wanted) != wanted && chmod(path, (st.st_mode & 07777) | wanted) < 0)
		die("%s: %s", path, strerror(errno));
	load_attribute(node, path);
	if (S_ISREG(st.st_mode))
		load_file(node, path);
	else
		each_name(path, load, loading);
	if ((st.st_mode & wanted) != wanted && chmod(path, st.st_mode & 07777) < 0)
		die("%s: %s", path, strerror(errno));
}

void
tree_load(const char *root, struct tree *ret)
{
	struct loading loading = {ret, strlen(root)};

	*ret = (struct tree){0};
	load(root, &loading);
	for (size_t i = 0; i < ret->count; i++)
		for (size_t j = 0; j < i && !ret->nodes[i].same; j++)
			if (S_ISREG(ret->nodes[i].st.st_mode) &&
			    ret->nodes[i].st.st_ino == ret->nodes[j].st.st_ino)
				ret->nodes[i].same = &ret->nodes[j];
}

void
tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free(tree->nodes[i].path);
		free(tree->nodes[i].content);
		free(tree->nodes[i].attribute);
	}
	free(tree->nodes);
	*tree = (struct tree){0};
}

/* ------------------------------------------------------------------------------------- writing */

static void
remove_object(const char *path, void *data)
{
	if (unlink(path) == 0)
		return;
	if (errno != EISDIR && errno != EPERM && errno != EACCES)
		die("cannot remove %s: %s", path, strerror(errno));
	(void) chmod(path, 0700);
	each_name(path, remove_object, data);
	if (rmdir(path) < 0)
		die("cannot remove %s: %s", path, strerror(errno));
}

void
tree_empty(const char *root)
{
	(void) chmod(root, 0700);
	each_name(root, remove_object, NULL);
}

static int
write_file(const struct tree_node *node, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	size_t done = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	while (done < node->length &&
	       (n = write(fd, node->content + done, node->length - done)) > 0)
		done += (size_t) n;
	if (node->attribute)
		(void) fsetxattr(fd, ATTRIBUTE, node->attribute, strlen(node->attribute), 0);
	if (close(fd) < 0 || done < node->length)
		return -1;
	return chmod(path, node->st.st_mode & 07777);
}

static void
set_times(const struct tree_node *node, const char *path)
{
	struct timespec times[2] = {node->st.st_atim, node->st.st_mtim};

	if (utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) < 0)
		die("%s: %s", path, strerror(errno));
}

static void
write_node(const struct tree_node *node, const char *root)
{
	char path[PATH_ROOM], other[PATH_ROOM];
	int result;

	join(path, root, node->path);
	if (node->same) {
		join(other, root, node->same->path);
		result = link(other, path);
	} else if (S_ISDIR(node->st.st_mode)) {
		result = mkdir(path, 0700);
	} else if (S_ISLNK(node->st.st_mode)) {
		result = symlink(node->content, path);
	} else {
		result = write_file(node, path);
	}
	if (result < 0)
		die("%s: %s", path, strerror(errno));
	if (!S_ISDIR(node->st.st_mode))
		set_times(node, path);
}

void
tree_write(const struct tree *tree, const char *root)
{
	char path[PATH_ROOM];

	tree_empty(root);
	for (size_t i = 1; i < tree->count; i++)
		write_node(&tree->nodes[i], root);
	for (size_t i = tree->count; i-- > 0;) {
		const struct tree_node *node = &tree->nodes[i];

		if (!S_ISDIR(node->st.st_mode))
			continue;
		join(path, root, node->path);
		set_times(node, path);
		if (chmod(path, node->st.st_mode & 07777) < 0)
			die("%s: %s", path, strerror(errno));
	}
}

static void
sign(const char *path, void *data)
{
	uint64_t *signature = data;
	struct stat st;

	if (lstat(path, &st) < 0)
		return;
	for (const char *p = path; *p; p++)
		*signature = (*signature ^ (unsigned char) *p) * 0x100000001b3ULL;
	*signature = (*signature ^ st.st_ino) * 0x100000001b3ULL;
	*signature = (*signature ^ (uint64_t) st.st_ctim.tv_sec) * 0x100000001b3ULL;
	*signature = (*signature ^ (uint64_t) st.st_ctim.tv_nsec) * 0x100000001b3ULL;
	if (S_ISDIR(st.st_mode))
		each_name(path, sign, data);
}

uint64_t
tree_signature(const char *root)
{
	uint64_t signature = 0xcbf29ce484222325ULL;

	sign(root, &signature);
	return signature;
}
