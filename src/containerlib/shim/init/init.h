/* SPDX-License-Identifier: Apache-2.0
 *
 * The helper's parts.  main.c picks one by argv[1]. */
#ifndef CONTAINERLIB_INIT_H
#define CONTAINERLIB_INIT_H

#include "common.h"

/* Each is one mode of the helper and returns its exit status. */
int cl_main_unpack (int argc, char **argv);
int cl_main_remove (int argc, char **argv);

#endif
