# SPDX-License-Identifier: Apache-2.0
# What every plugin's Makefile.am includes.
AM_CPPFLAGS = -I$(top_srcdir) -I$(top_srcdir)/sdk $(MOAT_CPPFLAGS)
AM_CFLAGS = $(MOAT_CFLAGS)
AM_LDFLAGS = -module -avoid-version -shared $(MOAT_LDFLAGS) $(MOAT_MODULE_LDFLAGS) \
	-export-symbols-regex '^moat_plugin_init$$'
