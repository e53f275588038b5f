/* SPDX-License-Identifier: Apache-2.0 */
/* What snap.c (taking) and snap_list.c (keeping) share. */
#ifndef MOAT_CORE_SNAP_INTERNAL_H
#define MOAT_CORE_SNAP_INTERNAL_H

#include "core/snap.h"

/* Opens a backend on its directory of the workspace's store; *ret_store_fd must outlive it. */
int snap_open_backend(struct app *app, const struct workspace *workspace,
		      const struct plugin *plugin, const struct config *config, int *ret_store_fd,
		      struct backend **ret, struct moat_error *err);
/* The backend that a snapshot was taken with, whatever would be chosen today. */
int
snap_open_own_backend(struct app *app, const struct workspace *workspace, const struct snap *snap,
		      int *ret_store_fd, struct backend **ret, struct moat_error *err);
/* Writes snapshots/ID, complete or not at all. */
int snap_record(const struct workspace *workspace, const struct snap *snap,
		const struct buf *manifest, struct moat_error *err);
/* Lets the backend drop content, but for what the snapshots on record need. */
int snap_remove_content(struct app *app, const struct workspace *workspace, struct backend *backend,
			const char *ref, struct moat_error *err);

#endif
