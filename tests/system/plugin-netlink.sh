#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tracer-netlink through its table, on the real proc connector.
exec ./test-netlink
