/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode remove: delete a tree that may hold anything.
 *
 *   containerlib-init remove [--userns] NAME
 *
 * The tree was written by a container: it may be thousands of levels deep,
 * have directories without any permission, and links to anywhere.  Depth is
 * met by moving what lies deeper than MAX_DEPTH up to the top of the tree:
 * no path grows, no ".." is trusted, and memory stays bounded. */
#include "init/init.h"
#include "init/trees.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

#define MAX_DEPTH 32
#define WALK_RESOLVE \
  (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)

struct remover
{
  int top;                /* where deep directories are moved to */
  unsigned int moved;     /* numbers their names */
  bool failed;
  struct cl_error *err;   /* the first failure */
};

struct dirent_raw
{
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

static int remove_directory (struct remover *r, int dir, const char *name, int depth);

static int
fail_once (struct remover *r, int code, const char *what, const char *name)
{
  if (!r->failed)
    cl_fail (r->err, CL_STAGE_REMOVE, code, "%s %s", what, name);
  r->failed = true;
  return -1;
}

/* Give the owner all rights on a directory that it cannot even open. */
static int
make_accessible (int dir, const char *name)
{
  cleanup_close int fd
      = openat (dir, name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
  char path[40];

  if (fd < 0)
    return -1;
  if (syscall (SYS_fchmodat2, fd, "", 0700, AT_EMPTY_PATH) == 0)
    return 0;
  if (errno != ENOSYS && errno != EINVAL && errno != EPERM)
    return -1;
  /* Before Linux 6.6, or a seccomp filter that does not know the call. */
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  return chmod (path, 0700);
}

static int
open_directory (int dir, const char *name)
{
  const uint64_t flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  int fd = sys_openat2 (dir, name, flags, 0, WALK_RESOLVE);

  if (fd < 0 && errno == EACCES && make_accessible (dir, name) == 0)
    fd = sys_openat2 (dir, name, flags, 0, WALK_RESOLVE);
  return fd;
}

static int
move_to_top (struct remover *r, int dir, const char *name)
{
  bool tried = false;

  for (;;)
    {
      char target[40];

      snprintf (target, sizeof target, ".containerlib-removed-%u", r->moved++);
      if (renameat2 (dir, name, r->top, target, RENAME_NOREPLACE) == 0)
        return 0;
      if (errno == EEXIST)
        continue;
      /* Moving a directory rewrites its "..": that takes write permission on
       * it, besides that on the two that it is taken from and put in. */
      if (errno != EACCES || tried || fchmod (dir, 0700) < 0
          || fchmod (r->top, 0700) < 0 || make_accessible (dir, name) < 0)
        return fail_once (r, errno, "move", name);
      tried = true;
    }
}

static int
remove_entry (struct remover *r, int dir, const char *name, int type, int depth)
{
  bool tried = false;

  if (type == DT_DIR)
    return remove_directory (r, dir, name, depth);
  for (;;)
    {
      if (unlinkat (dir, name, 0) == 0 || errno == ENOENT)
        return 0;
      if (errno == EISDIR)
        return remove_directory (r, dir, name, depth);
      if (errno != EACCES || tried || fchmod (dir, 0700) < 0)
        return fail_once (r, errno, "remove", name);
      tried = true;
    }
}

/* Delete what is in the directory; how many entries are gone or moved, and
 * in *left how many were found. */
static size_t
empty_directory (struct remover *r, int fd, int depth, size_t *left)
{
  char buf[8192] __attribute__ ((aligned (8)));
  size_t gone = 0;

  *left = 0;
  if (lseek (fd, 0, SEEK_SET) < 0)
    return 0;
  for (;;)
    {
      long n = syscall (SYS_getdents64, fd, buf, sizeof buf);

      if (n < 0)
        fail_once (r, errno, "list", "directory");
      if (n <= 0)
        return gone;
      for (long at = 0; at < n;)
        {
          struct dirent_raw *entry = (struct dirent_raw *) (buf + at);

          at += entry->reclen;
          if (strcmp (entry->name, ".") == 0 || strcmp (entry->name, "..") == 0)
            continue;
          ++*left;
          if (remove_entry (r, fd, entry->name, entry->type, depth + 1) == 0)
            gone++;
        }
    }
}

static int
remove_directory (struct remover *r, int dir, const char *name, int depth)
{
  cleanup_close int fd = -1;
  bool tried = false;
  int top = r->top;

  /* Most directories that overlayfs leaves are empty, and one of them,
   * work/work, has mode 0. */
  if (unlinkat (dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
    return 0;
  if (errno == ENOTDIR)
    return remove_entry (r, dir, name, DT_UNKNOWN, depth);
  if (errno == EBUSY)
    return fail_once (r, EBUSY, "remove the mount point", name);
  if (depth >= MAX_DEPTH)
    return move_to_top (r, dir, name);
  fd = open_directory (dir, name);
  if (fd < 0)
    return fail_once (r, errno, errno == EXDEV ? "remove the mount point" : "open", name);
  if (depth == 0)
    r->top = fd;
  for (;;)
    {
      size_t left, gone = empty_directory (r, fd, depth, &left);

      if (unlinkat (dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        break;
      if (errno == EACCES && !tried && depth > 0 && fchmod (dir, 0700) == 0)
        {
          tried = true;
          continue;
        }
      /* Entries may have been moved here, or skipped by the file system
       * because the directory shrank while it was read. */
      if ((errno != ENOTEMPTY && errno != EEXIST) || gone == 0)
        {
          r->top = top;
          return fail_once (r, errno, "remove", name);
        }
    }
  r->top = top;
  return 0;
}

int
cl_remove_tree (int dirfd, const char *name, struct cl_error *err)
{
  struct remover r = { .top = -1, .err = err };

  if (name[0] == '\0' || strchr (name, '/') != NULL || strcmp (name, ".") == 0
      || strcmp (name, "..") == 0)
    return cl_fail (err, CL_STAGE_REMOVE, EINVAL, "remove %s", name);
  remove_entry (&r, dirfd, name, DT_DIR, 0);
  return r.failed ? -1 : 0;
}

int
cl_join_userns (int fd, int stage, struct cl_error *err)
{
  if (setns (fd, CLONE_NEWUSER) < 0)
    return cl_fail (err, stage, errno, "join the user namespace");
  if (setresgid (0, 0, 0) < 0 || setresuid (0, 0, 0) < 0)
    return cl_fail (err, stage, errno, "become root of the user namespace");
  return 0;
}

int
cl_main_remove (int argc, char **argv)
{
  struct cl_error err = { 0 };
  bool userns = argc > 2 && strcmp (argv[1], "--userns") == 0;

  if (argc != (userns ? 3 : 2))
    cl_fail (&err, CL_STAGE_REMOVE, EINVAL, "remove: wrong arguments");
  else if ((!userns || cl_join_userns (FD_USERNS, CL_STAGE_REMOVE, &err) == 0)
           && cl_remove_tree (FD_TREE, argv[argc - 1], &err) == 0)
    return 0;
  cl_write_all (FD_ERROR, &err, sizeof err);
  return 1;
}
