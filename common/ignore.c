/* SPDX-License-Identifier: Apache-2.0 */
/* gitignore patterns: parsing, an index of the patterns, and matching.
 *
 * A list may hold hundreds of patterns and is asked about every file of a workspace, so that most
 * patterns must never be looked at: a pattern that is a plain name is found by the hash of the
 * name, any other by the last byte of the name, when it ends in a byte that matches only itself.
 *
 * Patterns may come from an untrusted workspace: matching never recurses, and takes at worst time
 * in proportion to the pattern's length times the square of the path's. */
#include "common/ignore.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum pattern_flag {
	PATTERN_NEGATED = 1 << 0,
	PATTERN_DIRECTORY = 1 << 1, /* matches directories only */
	PATTERN_NAME = 1 << 2,      /* no slash: matches the last component at any depth */
	PATTERN_SUFFIX = 1 << 3     /* "*" and then plain bytes */
};

struct pattern {
	const char *text; /* without "!", leading and trailing slash; never empty */
	size_t length;
	size_t plain;  /* how many bytes at the start match only themselves */
	uint32_t next; /* the nearest earlier pattern of the same bucket, plus 1; 0: none */
	unsigned flags;
};

#define ANY_BYTE 256 /* the bucket of patterns whose last byte says nothing */

struct ignore_list {
	char *text; /* what the patterns point into */
	struct pattern *patterns;
	size_t count;
	uint32_t *names; /* heads of the buckets of plain names, by hash; NULL: there are none */
	uint32_t name_mask;
	uint32_t tails[ANY_BYTE + 1]; /* heads of the buckets of all others, by last byte */
};

/* ------------------------------------------------------------------------------- one pattern */

static bool
is_special(char c)
{
	return c == '*' || c == '?' || c == '[' || c == '\\';
}

static size_t
plain_length(const char *text, size_t length)
{
	size_t i = 0;

	while (i < length && !is_special(text[i]))
		i++;
	return i;
}

/* Cuts trailing spaces off, but not one that a backslash protects. */
static void
trim_spaces(char *line)
{
	char *end = line; /* behind what must stay */
	char *p;

	for (p = line; *p != '\0'; p++) {
		if (*p == ' ')
			continue;
		if (*p == '\\' && p[1] == '\0')
			return;
		if (*p == '\\')
			p++;
		end = p + 1;
	}
	*end = '\0';
}

/* False: a line that can match nothing. */
static bool
parse_line(char *line, struct pattern *pattern)
{
	*pattern = (struct pattern){.text = line};
	if (*pattern->text == '!') {
		pattern->flags |= PATTERN_NEGATED;
		pattern->text++;
	}
	pattern->length = strlen(pattern->text);
	if (pattern->length > 0 && pattern->text[pattern->length - 1] == '/') {
		pattern->flags |= PATTERN_DIRECTORY;
		pattern->length--;
		line[pattern->text - line + (ptrdiff_t) pattern->length] = '\0';
	}
	if (memchr(pattern->text, '/', pattern->length) == NULL)
		pattern->flags |= PATTERN_NAME;
	if (*pattern->text == '/') {
		pattern->text++;
		pattern->length--;
	}
	pattern->plain = plain_length(pattern->text, pattern->length);
	if (*pattern->text == '*' &&
	    plain_length(pattern->text + 1, pattern->length - 1) == pattern->length - 1)
		pattern->flags |= PATTERN_SUFFIX;
	return pattern->length > 0;
}

/* ------------------------------------------------------------------------------------- lists */

static uint32_t
hash_name(const char *name, size_t length)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char) name[i]) * 16777619u;
	return hash;
}

static bool
is_plain_name(const struct pattern *pattern)
{
	return (pattern->flags & PATTERN_NAME) != 0 && pattern->plain == pattern->length;
}

static uint32_t *
bucket_of(struct ignore_list *list, const struct pattern *pattern)
{
	unsigned char last = (unsigned char) pattern->text[pattern->length - 1];

	if (is_plain_name(pattern))
		return &list->names[hash_name(pattern->text, pattern->length) & list->name_mask];
	/* An escaped byte is itself, too; what stands in a class that is not closed never matches.
	 */
	if (is_special((char) last) || last == ']')
		return &list->tails[ANY_BYTE];
	return &list->tails[last];
}

/* Later patterns win: each bucket is a chain from the last pattern to the first. */
static int
index_patterns(struct ignore_list *list)
{
	size_t names = 0, buckets = 1;

	for (size_t i = 0; i < list->count; i++)
		names += is_plain_name(&list->patterns[i]);
	while (buckets < 2 * names)
		buckets *= 2;
	if (names > 0) {
		list->names = calloc(buckets, sizeof *list->names);
		if (list->names == NULL)
			return -1;
		list->name_mask = (uint32_t) (buckets - 1);
	}
	for (size_t i = 0; i < list->count; i++) {
		uint32_t *head = bucket_of(list, &list->patterns[i]);

		list->patterns[i].next = *head;
		*head = (uint32_t) i + 1;
	}
	return 0;
}

/* Lines end at "\n" or "\r\n", the last one also at the end; a NUL byte ends a pattern. */
static void
parse_lines(struct ignore_list *list, size_t size)
{
	char *line = list->text, *end = list->text + size;

	if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
		line += 3;
	while (line < end) {
		char *newline = memchr(line, '\n', (size_t) (end - line));
		char *stop = newline != NULL ? newline : end;
		char *next = stop + 1;

		if (stop > line && stop[-1] == '\r')
			stop--;
		*stop = '\0';
		if (*line != '#') {
			trim_spaces(line);
			list->count += parse_line(line, &list->patterns[list->count]);
		}
		line = next;
	}
}

struct ignore_list *
ignore_parse(const char *text, size_t size)
{
	struct ignore_list *list = calloc(1, sizeof *list);
	size_t lines = 1;

	if (list == NULL)
		return NULL;
	for (size_t i = 0; i < size; i++)
		lines += text[i] == '\n';
	list->text = malloc(size + 1);
	list->patterns = lines < UINT32_MAX ? calloc(lines, sizeof *list->patterns) : NULL;
	if (list->text == NULL || list->patterns == NULL) {
		ignore_free(list);
		return NULL;
	}
	if (size > 0)
		memcpy(list->text, text, size);
	list->text[size] = '\0';
	parse_lines(list, size);
	if (index_patterns(list) < 0) {
		ignore_free(list);
		return NULL;
	}
	return list;
}

void
ignore_free(struct ignore_list *list)
{
	if (list == NULL)
		return;
	free(list->names);
	free(list->patterns);
	free(list->text);
	free(list);
}

bool
ignore_is_empty(const struct ignore_list *list)
{
	return list->count == 0;
}

/* ---------------------------------------------------------------------------------- matching */

/* What is looked for. */
struct subject {
	const char *path, *name;
	size_t path_length, name_length;
	bool is_directory;
};

static bool
matches_name(const struct pattern *pattern, const struct subject *subject)
{
	size_t tail = pattern->length - 1;

	if (pattern->plain == pattern->length)
		return pattern->length == subject->name_length &&
		       memcmp(pattern->text, subject->name, pattern->length) == 0;
	if (pattern->flags & PATTERN_SUFFIX)
		return tail <= subject->name_length &&
		       memcmp(pattern->text + 1, subject->name + subject->name_length - tail,
			      tail) == 0;
	return ignore_wildmatch(pattern->text, subject->name);
}

static bool
matches_path(const struct pattern *pattern, const struct subject *subject)
{
	if (pattern->plain > subject->path_length ||
	    memcmp(pattern->text, subject->path, pattern->plain) != 0)
		return false;
	if (pattern->plain == pattern->length)
		return pattern->length == subject->path_length;
	/* As git up to 2.51 does: "**" behind the plain part counts as one at the start, so that it
	 * crosses directories although it does not fill a component. */
	return ignore_wildmatch(pattern->text + pattern->plain, subject->path + pattern->plain);
}

/* The later of `best` and the last pattern of the chain that matches. */
static uint32_t
search(const struct ignore_list *list, uint32_t head, uint32_t best, const struct subject *subject)
{
	while (head > best) {
		const struct pattern *pattern = &list->patterns[head - 1];

		if ((subject->is_directory || !(pattern->flags & PATTERN_DIRECTORY)) &&
		    (pattern->flags & PATTERN_NAME ? matches_name(pattern, subject)
						   : matches_path(pattern, subject)))
			return head;
		head = pattern->next;
	}
	return best;
}

enum ignore_match
ignore_check(const struct ignore_list *list, const char *path, const char *name, bool is_directory)
{
	struct subject subject = {.path = path, .name = name, .is_directory = is_directory};
	uint32_t best = 0;

	subject.name_length = strlen(name);
	subject.path_length = (size_t) (name - path) + subject.name_length;
	if (subject.name_length == 0)
		return IGNORE_NONE;
	if (list->names != NULL)
		best = search(list,
			      list->names[hash_name(name, subject.name_length) & list->name_mask],
			      best, &subject);
	best = search(list, list->tails[(unsigned char) name[subject.name_length - 1]], best,
		      &subject);
	best = search(list, list->tails[ANY_BYTE], best, &subject);
	if (best == 0)
		return IGNORE_NONE;
	return list->patterns[best - 1].flags & PATTERN_NEGATED ? IGNORE_INCLUDED : IGNORE_IGNORED;
}

/* --------------------------------------------------------------------------------- wildcards */

/* The POSIX classes, of ASCII whatever the locale; "space" is git's: blank, tab, LF, CR. */
static int
in_named_class(const char *name, size_t length, unsigned char c)
{
	static const char names[][7] = {"alnum", "alpha", "blank", "cntrl", "digit", "graph",
					"lower", "print", "punct", "space", "upper", "xdigit"};
	bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
	bool digit = c >= '0' && c <= '9', graph = c > ' ' && c < 0x7f;
	const bool in[] = {
		lower || upper || digit,
		lower || upper,
		c == ' ' || c == '\t',
		c < ' ' || c == 0x7f,
		digit,
		graph,
		lower,
		graph || c == ' ',
		graph && !lower && !upper && !digit,
		c == ' ' || c == '\t' || c == '\n' || c == '\r',
		upper,
		digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'),
	};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
			return in[i];
	return -1;
}

/* *pp is behind "[:", or, when this is no named class after all, where it was.  1: c is in it; 0:
 * it is not; -1: not a class that exists, or without an end. */
static int
match_named_class(const char **pp, unsigned char c)
{
	const char *name = *pp + 1;
	const char *end = strchr(name, ']');

	if (end == NULL)
		return -1;
	if (end == name || end[-1] != ':') { /* the bracket is an ordinary member */
		*pp -= 1;
		return c == '[';
	}
	*pp = end;
	return in_named_class(name, (size_t) (end - name) - 1, c);
}

/* *pp: behind "[", then behind "]".  1: c is in the class; 0: it is not; -1: this is no class, and
 * the pattern matches nothing. */
static int
match_class(const char **pp, unsigned char c)
{
	const char *p = *pp;
	bool negated = *p == '!' || *p == '^', found = false;
	unsigned char previous = 0; /* a range may start here; 0: not */

	p += negated;
	do { /* a "]" that comes first is a member */
		unsigned char member = (unsigned char) *p;

		if (member == '-' && previous != 0 && p[1] != '\0' && p[1] != ']') {
			p += p[1] == '\\' ? 2 : 1;
			if (c >= previous && c <= (unsigned char) *p)
				found = true;
			previous = 0;
		} else if (member == '[' && p[1] == ':') {
			int in;

			p++;
			in = match_named_class(&p, c);
			if (in < 0)
				return -1;
			found = found || in;
			previous = *p == '[' ? '[' : 0;
		} else {
			p += member == '\\';
			found = found || c == (unsigned char) *p;
			previous = (unsigned char) *p;
		}
		if (*p == '\0')
			return -1;
	} while (*++p != ']');
	*pp = p + 1;
	return found != negated && c != '/';
}

/* One byte of text against what stands at *pp, which is not "*". */
static int
match_one(const char **pp, unsigned char c)
{
	const char *p = (*pp)++;

	switch (*p) {
	case '?':
		return c != '/';
	case '[':
		return match_class(pp, c);
	case '\\':
		if (p[1] == '\0')
			return -1;
		(*pp)++;
		return c == (unsigned char) p[1];
	default:
		return c == (unsigned char) *p;
	}
}

/* Where to go on when the attempt at hand has failed: the pattern behind the star, and the text
 * that it is tried on next.  Only the last "*" of a component and the last "**" need to be tried
 * again: whatever an earlier one could take instead, the last can. */
struct retry {
	const char *pattern, *text; /* NULL: none */
};

/* The next component of text, which is where a "**" may be followed by something. */
static bool
retry_component(struct retry *retry)
{
	const char *slash = retry->pattern == NULL ? NULL : strchr(retry->text, '/');

	if (slash == NULL)
		return false;
	retry->text = slash + 1;
	return true;
}

static bool
retry_byte(struct retry *retry)
{
	if (retry->pattern == NULL || *retry->text == '\0' || *retry->text == '/')
		return false;
	retry->text++;
	return true;
}

/* True when the stars from `stars` up to `after` fill a component: "**" as such. */
static bool
is_alone(const char *pattern, const char *stars, const char *after)
{
	return after - stars > 1 && (stars == pattern || stars[-1] == '/') &&
	       (*after == '\0' || *after == '/' || (after[0] == '\\' && after[1] == '/'));
}

/* The stars at *pp.  1: they match all that is left; 0: go on at *pp and *tt; -1: nothing fits. */
static int
match_stars(const char *pattern, const char **pp, const char **tt, struct retry *star,
	    struct retry *components)
{
	const char *after = *pp + strspn(*pp, "*");
	bool alone = is_alone(pattern, *pp, after);

	*pp = after;
	if (*after == '\0' && (alone || strchr(*tt, '/') == NULL))
		return 1;
	if (!alone) {
		*star = (struct retry){after, *tt};
		return 0;
	}
	star->pattern = NULL;
	*components = (struct retry){after + (*after == '\\' ? 2 : 1), *tt};
	/* An escaped slash does not match "no component at all": git has it so. */
	if (*after == '\\' && !retry_component(components))
		return -1;
	*pp = components->pattern;
	*tt = components->text;
	return 0;
}

bool
ignore_wildmatch(const char *pattern, const char *text)
{
	struct retry star = {NULL, NULL}, components = {NULL, NULL};
	const char *p = pattern;

	for (;;) {
		int matched;

		if (*p == '*') {
			matched = match_stars(pattern, &p, &text, &star, &components);
			if (matched != 0)
				return matched > 0;
			continue;
		}
		if (*text == '\0')
			return *p == '\0'; /* another attempt would leave still less text */
		matched = *p == '\0' ? 0 : match_one(&p, (unsigned char) *text);
		if (matched < 0)
			return false;
		if (matched > 0) {
			text++;
		} else if (retry_byte(&star)) {
			p = star.pattern;
			text = star.text;
		} else if (retry_component(&components)) {
			p = components.pattern;
			text = components.text;
		} else {
			return false;
		}
	}
}
