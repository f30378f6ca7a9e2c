/* SPDX-License-Identifier: Apache-2.0
 *
 * What a monitor takes away when its container has ended for good. */
#include "init/monitor.h"
#include "init/trees.h"

#include <stdio.h>
#include <sys/stat.h>

uint64_t
cl_start_time (int pid)
{
  char path[40], text[1024], *p;
  cleanup_close int fd = -1;
  ssize_t n;
  unsigned long long value = 0;

  snprintf (path, sizeof path, "/proc/%d/stat", pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || (n = read (fd, text, sizeof text - 1)) <= 0)
    return 0;
  text[n] = '\0';
  /* After the name, which may hold anything, come fields 3 and on. */
  p = strrchr (text, ')');
  for (int field = 2; p != NULL && field < 22; field++)
    p = strchr (p + 1, ' ');
  if (p != NULL)
    value = strtoull (p + 1, NULL, 10);
  return value;
}

/* The same steps, in the same order and with the same temporary name, as
 * store/objects.py: killed in the middle, the next sweep goes on. */
static void
remove_container (struct monitor *m)
{
  cleanup_close int above = openat (m->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  char doomed[NAME_MAX + 1], name[256], link[PATH_MAX], holder[256];
  ssize_t n;

  if (above < 0)
    return;
  snprintf (doomed, sizeof doomed, ".del-%s-%d-%llu-%.16s", m->id, getpid (),
            (unsigned long long) cl_start_time (getpid ()), m->state.boot_id);
  if (renameat (above, m->id, above, doomed) < 0)
    return;
  n = readlinkat (m->dir_fd, "name", name, sizeof name - 1);
  if (n > 0)
    {
      name[n] = '\0';
      snprintf (link, sizeof link, "by-name/%s", name);
      n = readlinkat (above, link, holder, sizeof holder - 1);
      if (n > 0 && (size_t) n == strlen (m->id) && memcmp (holder, m->id, n) == 0)
        unlinkat (above, link, 0);
    }
  cl_remove_tree (above, doomed, NULL);
}

/* After the last run.  The lock goes last, with the process: until then the
 * container counts as running, and nobody starts or removes it. */
void
monitor_finish (struct monitor *m)
{
  static const char *const files[] = { "attach.sock", "hosts", "hostname", "resolv.conf" };

  cl_cgroups_remove (&m->cgroups);
  if (m->run_fd >= 0)
    {
      cleanup_close int above = openat (m->run_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

      for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        unlinkat (m->run_fd, files[i], 0);
      if (above >= 0)
        unlinkat (above, m->id, AT_REMOVEDIR);
    }
  if (m->remove || ((m->flags & CL_AUTO_REMOVE) && m->state.status == CL_EXITED))
    {
      m->state.status = CL_REMOVING;
      monitor_write_state (m);
      remove_container (m);
    }
  else
    monitor_write_state (m);
  clients_send (m, CL_MSG_ENDED, m->state.exit_code, NULL, 0);
}
