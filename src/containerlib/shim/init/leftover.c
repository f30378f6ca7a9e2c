/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a container that shares another's process namespace: its first
 * process takes nobody with it.  Without control groups its processes are
 * those in its mount namespace, which none of them can leave: that takes
 * CAP_SYS_ADMIN. */
#include "init/monitor.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#ifndef NS_GET_MNTNS_ID
#define NS_GET_MNTNS_ID _IOR (0xb7, 0x5, uint64_t) /* Linux 6.10 */
#endif

struct entry
{
  uint64_t ino;
  int64_t off;
  uint16_t size;
  uint8_t type;
  char name[];
};

/* Held open, the namespace's inode number belongs to nobody else. */
int
cl_mounts_open (int pid, uint64_t *id)
{
  char path[40];
  int fd;

  snprintf (path, sizeof path, "/proc/%d/ns/mnt", pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ioctl (fd, NS_GET_MNTNS_ID, id) < 0)
    *id = 0;
  return fd;
}

static bool
is_inside (const char *pid, const struct stat *mounts)
{
  char path[64];
  struct stat st;

  if ((size_t) snprintf (path, sizeof path, "/proc/%s/ns/mnt", pid) >= sizeof path)
    return false;
  return stat (path, &st) == 0 && st.st_ino == mounts->st_ino && st.st_dev == mounts->st_dev;
}

static int
kill_round (int proc, const struct stat *mounts)
{
  char buffer[4096] __attribute__ ((aligned (8)));
  int killed = 0;
  long n;

  lseek (proc, 0, SEEK_SET);
  while ((n = syscall (SYS_getdents64, proc, buffer, sizeof buffer)) > 0)
    for (long at = 0; at < n;)
      {
        const struct entry *entry = (const void *) (buffer + at);
        int pid = atoi (entry->name);

        if (pid > 1 && pid != getpid () && is_inside (entry->name, mounts) && kill (pid, SIGKILL) == 0)
          killed++;
        at += entry->size;
      }
  return killed;
}

void
cl_mounts_kill (int mounts)
{
  cleanup_close int proc = open ("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st;

  if (proc < 0 || mounts < 0 || fstat (mounts, &st) < 0)
    return;
  /* Until a round finds none: one may fork while it is looked for. */
  for (int round = 0; round < 1000 && kill_round (proc, &st) > 0; round++)
    poll (NULL, 0, 1);
}
