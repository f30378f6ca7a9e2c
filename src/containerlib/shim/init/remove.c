/* SPDX-License-Identifier: Apache-2.0 */
#include "init/init.h"

int
cl_main_remove (int argc, char **argv)
{
  (void) argc;
  (void) argv;
  return 2;
}
