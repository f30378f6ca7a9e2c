/* SPDX-License-Identifier: Apache-2.0
 *
 * Whatever an image has as passwd and group, and whatever a user is called:
 * an error that says so, or ids that the kernel takes.
 *
 * Input: the user, a newline, passwd, a byte 255, group. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "init/init.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static int
make_file (int root, const char *path, const uint8_t *data, size_t size)
{
  cleanup_close int fd = openat (root, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  return fd < 0 ? -1 : cl_write_all (fd, data, size);
}

static void
check_failure (const struct cl_error *err)
{
  if (err->code == 0 || err->stage != CL_STAGE_USER || err->msg[0] == '\0')
    abort ();
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static int root = -1;
  const uint8_t *end = data + size;
  const uint8_t *passwd = memchr (data, '\n', size), *group;
  cleanup_free char *spec = strndup ((const char *) data, passwd != NULL ? (size_t) (passwd - data) : size);
  struct cl_user_entry entry;
  struct cl_error err = { 0 };
  unsigned int gid = ~0U;

  if (root < 0)
    {
      if (mkdir ("root", 0700) < 0 || mkdir ("root/etc", 0700) < 0)
        abort ();
      root = open ("root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
  if (spec == NULL || root < 0)
    abort ();
  passwd = passwd != NULL ? passwd + 1 : end;
  group = memchr (passwd, 255, end - passwd);
  if (make_file (root, "etc/passwd", passwd, (group != NULL ? group : end) - passwd) < 0
      || make_file (root, "etc/group", group != NULL ? group + 1 : end, group != NULL ? end - group - 1 : 0) < 0)
    abort ();

  if (cl_users_resolve (root, spec, &entry, &err) < 0)
    check_failure (&err);
  else if (entry.uid == ~0U || entry.gid == ~0U || memchr (entry.home, '\0', sizeof entry.home) == NULL
           || entry.ngroups > sizeof entry.groups / sizeof entry.groups[0])
    abort ();
  for (size_t i = 0; err.code == 0 && i < entry.ngroups; i++)
    if (entry.groups[i] == ~0U)
      abort ();

  memset (&err, 0, sizeof err);
  if (cl_group_resolve (root, spec, &gid, &err) < 0)
    check_failure (&err);
  else if (gid == ~0U)
    abort ();
  return 0;
}
