/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with open addressing, at most half full. */
#include "core/locator_set.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define FREE UINT64_MAX

void
locator_set_free(struct locator_set *set)
{
	free(set->slots);
	*set = (struct locator_set){0};
}

static size_t
hash(const uint64_t locator[3])
{
	uint64_t h = locator[0];

	/* Odd constants of 64 bits spread the bits; the locators are mostly small numbers. */
	h = (h ^ (h >> 29)) * 0x9e3779b97f4a7c15u + locator[1];
	h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9u + locator[2];
	h = (h ^ (h >> 31)) * 0x94d049bb133111ebu;
	return (size_t) (h ^ (h >> 30));
}

static struct located *
find(const struct locator_set *set, const uint64_t locator[3])
{
	size_t mask = set->allocated - 1;

	for (size_t i = hash(locator) & mask;; i = (i + 1) & mask) {
		struct located *slot = &set->slots[i];

		if (slot->size == FREE || memcmp(slot->locator, locator, sizeof slot->locator) == 0)
			return slot;
	}
}

static int
grow(struct locator_set *set, struct moat_error *err)
{
	struct locator_set larger = {.allocated = set->allocated == 0 ? 1024 : set->allocated * 2};

	larger.slots = reallocarray(NULL, larger.allocated, sizeof *larger.slots);
	if (larger.slots == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < larger.allocated; i++)
		larger.slots[i].size = FREE;
	for (size_t i = 0; i < set->allocated; i++)
		if (set->slots[i].size != FREE)
			*find(&larger, set->slots[i].locator) = set->slots[i];
	larger.count = set->count;
	larger.bytes = set->bytes;
	free(set->slots);
	*set = larger;
	return 0;
}

int
locator_set_add(struct locator_set *set, const uint64_t locator[3], uint64_t size,
		struct moat_error *err)
{
	struct located *slot;

	if (2 * set->count >= set->allocated && grow(set, err) < 0)
		return -1;
	slot = find(set, locator);
	if (slot->size != FREE)
		return 0;
	memcpy(slot->locator, locator, sizeof slot->locator);
	slot->size = size == FREE ? FREE - 1 : size;
	set->count++;
	set->bytes += slot->size;
	return 0;
}
