/* SPDX-License-Identifier: Apache-2.0
 *
 * Device nodes and the terminal. */
#include "init/init.h"

#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <termios.h>

bool
cl_is_null (int fd)
{
  struct stat st;

  /* A pipe and a regular file have rdev 0: the type must be compared too. */
  return fstat (fd, &st) == 0 && S_ISCHR (st.st_mode) && st.st_rdev == makedev (1, 3);
}

int
cl_open_null (struct cl_child *c, struct cl_error *err)
{
  int fd;

  if (c->pivoted)
    fd = open ("/dev/null", O_PATH | O_CLOEXEC | O_NOFOLLOW);
  else
    fd = cl_in_root (c, "dev/null", O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
  if (fd < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "open /dev/null of the container");
  if (!cl_is_null (fd))
    {
      close (fd);
      return cl_fail (err, CL_STAGE_DEVICE, ENODEV, "/dev/null of the container is another file");
    }
  return fd;
}

static int
bind_device (const struct cl_record *r, int parent, const char *name,
             struct cl_error *err)
{
  const char *host = cl_record_str (r, 0, NULL), *path = cl_record_str (r, 1, NULL);
  dev_t wanted = makedev (cl_record_int (r, 1), cl_record_int (r, 2));
  cleanup_close int mount
      = sys_open_tree (AT_FDCWD, host, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
  cleanup_close int target = -1;
  struct stat st;

  if (mount < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "device %s", host);
  if (fstat (mount, &st) < 0 || (st.st_mode & S_IFMT) != (cl_record_int (r, 0) & S_IFMT)
      || st.st_rdev != wanted)
    return cl_fail (err, CL_STAGE_DEVICE, ENODEV, "device %s has changed", host);
  target = openat (parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0666);
  if (target < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "make %s", path);
  if (sys_move_mount (mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "attach device %s", path);
  return 0;
}

int
cl_device (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  const char *path = cl_record_str (r, 1, NULL), *name;
  mode_t mode = cl_record_int (r, 0);
  dev_t rdev = makedev (cl_record_int (r, 1), cl_record_int (r, 2));
  cleanup_close int parent = cl_parent_in_root (c, path, &name, err);
  cleanup_close int fd = -1;
  struct stat st;

  if (parent < 0)
    return -1;
  if (cl_record_int (r, 5) & CL_MOUNT_FALLBACK_BIND)
    return bind_device (r, parent, name, err);
  if (unlinkat (parent, name, 0) < 0 && errno != ENOENT)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "replace %s", path);
  if (mknodat (parent, name, mode, rdev) < 0)
    {
      if (errno == EPERM)
        return bind_device (r, parent, name, err);
      return cl_fail (err, CL_STAGE_DEVICE, errno, "make device %s", path);
    }
  if (cl_record_int (r, 3) == 0 && cl_record_int (r, 4) == 0)
    return 0; /* umask is 0 and the owner is root already */
  fd = openat (parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || fstat (fd, &st) < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "open device %s", path);
  if ((st.st_mode & S_IFMT) != (mode & S_IFMT) || st.st_rdev != rdev)
    return cl_fail (err, CL_STAGE_DEVICE, ENODEV, "device %s was swapped", path);
  if (fchownat (fd, "", cl_record_int (r, 3), cl_record_int (r, 4), AT_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_DEVICE, errno, "owner of device %s", path);
  return 0;
}

/* The terminal of the container's own devpts.  Its name is never looked up
 * again: the peer comes from the master by TIOCGPTPEER (CVE-2025-52565). */
static int
open_terminal (struct cl_child *c, int *peer, struct cl_error *err)
{
  cleanup_close int master = -1, path = -1;
  struct stat st;
  struct statfs fs;
  char link[40];
  int zero = 0;

  if (c->root >= 0)
    path = cl_in_root (c, "dev/pts/ptmx", O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
  else
    path = sys_openat2 (AT_FDCWD, "/dev/pts/ptmx", O_PATH | O_CLOEXEC | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
  if (path < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "open /dev/pts/ptmx of the container");
  if (fstat (path, &st) < 0 || !S_ISCHR (st.st_mode) || st.st_rdev != makedev (5, 2)
      || fstatfs (path, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
    return cl_fail (err, CL_STAGE_CONSOLE, ENODEV, "/dev/pts/ptmx of the container is another file");
  if (c->host_proc >= 0)
    {
      snprintf (link, sizeof link, "self/fd/%d", path);
      master = openat (c->host_proc, link, O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
  else
    /* exec: /proc is the container's; opening the name again is checked as
     * strictly as before. */
    {
      master = sys_openat2 (AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0,
                            RESOLVE_NO_SYMLINKS);
      if (master >= 0
          && (fstat (master, &st) < 0 || !S_ISCHR (st.st_mode) || st.st_rdev != makedev (5, 2)
              || fstatfs (master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC))
        return cl_fail (err, CL_STAGE_CONSOLE, ENODEV, "/dev/pts/ptmx was swapped");
      /* It was for a FIFO's sake; whoever reads the terminal waits. */
      if (master >= 0)
        fcntl (master, F_SETFL, O_RDWR);
    }
  if (master < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "open a terminal");
  if (ioctl (master, TIOCSPTLCK, &zero) < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "unlock the terminal");
  *peer = ioctl (master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*peer < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "open the terminal's peer");
  return cl_steal_fd (&master);
}

/* /dev/console is the terminal itself, bound by descriptor. */
static int
bind_console (struct cl_child *c, int peer, struct cl_error *err)
{
  const char *name;
  cleanup_close int mount
      = sys_open_tree (peer, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  cleanup_close int parent = -1, target = -1;
  struct stat st;

  if (mount < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "copy the terminal's mount");
  parent = cl_parent_in_root (c, "dev/console", &name, err);
  if (parent < 0)
    return -1;
  /* What a volume over /dev has there is covered, never opened: a FIFO would
   * hold us up, a device might act. */
  if (mknodat (parent, name, S_IFREG | 0620, 0) < 0 && errno != EEXIST)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "make /dev/console");
  target = openat (parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (target < 0 || fstat (target, &st) < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "open /dev/console");
  if (S_ISLNK (st.st_mode))
    return cl_fail (err, CL_STAGE_CONSOLE, ELOOP, "open /dev/console");
  if (sys_move_mount (mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "attach /dev/console");
  return 0;
}

int
cl_console (struct cl_child *c, const struct cl_record *r,
            struct cl_error *err)
{
  struct winsize size = { .ws_row = cl_record_int (r, 0), .ws_col = cl_record_int (r, 1) };
  cleanup_close int peer = -1;
  cleanup_close int master = open_terminal (c, &peer, err);

  if (master < 0)
    return -1;
  if (size.ws_row > 0)
    ioctl (master, TIOCSWINSZ, &size);
  if (c->root >= 0 && bind_console (c, peer, err) < 0)
    return -1;
  if (cl_send (c->sync, CL_MSG_TERMINAL, 0, NULL, 0, master, 0) < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "hand over the terminal");
  if (ioctl (peer, TIOCSCTTY, 0) < 0)
    return cl_fail (err, CL_STAGE_CONSOLE, errno, "make it the controlling terminal");
  for (int fd = 0; fd < 3; fd++)
    if (dup2 (peer, fd) < 0)
      return cl_fail (err, CL_STAGE_CONSOLE, errno, "use the terminal");
  c->terminal = true;
  return 0;
}
