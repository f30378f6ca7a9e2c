/* SPDX-License-Identifier: Apache-2.0 */
#include "init/init.h"

#include <stdio.h>

static const struct
{
  const char *name;
  int (*main) (int argc, char **argv);
} modes[] = {
  { "unpack", cl_main_unpack },
  { "remove", cl_main_remove },
};

int
main (int argc, char **argv)
{
  if (argc >= 2)
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
      if (strcmp (argv[1], modes[i].name) == 0)
        return modes[i].main (argc - 1, argv + 1);
  dprintf (2, "containerlib-init: a part of containerlib, not for direct use\n");
  return 64;
}
