/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode unpack: make the entries of a stream below a directory.
 *
 *   containerlib-init unpack [--userns] [--keep-owner] [--lenient] [--sync]
 *
 * Python reads tar headers and decides what is made; this touches the file
 * system.  It trusts neither: a path must be clean, a parent is resolved by
 * the kernel inside the directory, the last component is never followed, and
 * nothing is opened that was not made by O_EXCL just now. */
#include "init/init.h"
#include "init/trees.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define ROOT_RESOLVE (RESOLVE_IN_ROOT | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS)
struct unpack
{
  struct cl_stream in;
  bool keep_owner;       /* --keep-owner: chown to the entry's ids */
  bool lenient;          /* --lenient: no error for attributes that need more rights */
  bool root;             /* may do everything in the tree */
  char *body;
  char parent[PATH_MAX]; /* path of parent_fd, the last directory used */
  int parent_fd;
};

/* ---- walking ------------------------------------------------------------ */

/* Python cleans paths; one that is not clean is a mistake or an attack. */
static bool
is_clean (const char *path)
{
  while (*path != '\0')
    {
      size_t n = strcspn (path, "/");

      if (n == 0 || (n == 1 && path[0] == '.')
          || (n == 2 && path[0] == '.' && path[1] == '.'))
        return false;
      path += n;
      if (*path == '/' && *++path == '\0')
        return false;
    }
  return true;
}

static void
forget_parent (struct unpack *u)
{
  if (u->parent_fd >= 0)
    close (u->parent_fd);
  u->parent_fd = -1;
}

static int
open_in_root (const char *path)
{
  return sys_openat2 (FD_TREE, path[0] == '\0' ? "." : path,
                      O_PATH | O_DIRECTORY | O_CLOEXEC, 0, ROOT_RESOLVE);
}

/* Make the directories of path that are missing, as mode 0755 of root. */
static int
make_parents (struct unpack *u, const char *path, struct cl_error *err)
{
  char part[PATH_MAX];
  size_t n = 0, total = strlen (path);

  while (n < total)
    {
      cleanup_close int dir = -1;
      cleanup_close int fd = -1;
      size_t start = n == 0 ? 0 : n + 1;
      const char *name;

      memcpy (part, path, n);
      part[n] = '\0';
      dir = open_in_root (part);
      if (dir < 0)
        return cl_fail (err, CL_STAGE_UNPACK, errno, "open directory %s", part);
      n = start + strcspn (path + start, "/");
      memcpy (part, path, n);
      part[n] = '\0';
      fd = open_in_root (part);
      if (fd >= 0)
        continue;
      name = part + start;
      if (errno != ENOENT || mkdirat (dir, name, 0755) < 0
          || (u->keep_owner && fchownat (dir, name, 0, 0, AT_SYMLINK_NOFOLLOW) < 0))
        return cl_fail (err, CL_STAGE_UNPACK, errno, "make directory %s", part);
    }
  return 0;
}

/* The directory that holds path, and in *leaf the last component. */
static int
open_parent (struct unpack *u, const char *path, const char **leaf, struct cl_error *err)
{
  const char *slash = strrchr (path, '/');
  size_t n = slash == NULL ? 0 : slash - path;

  *leaf = slash == NULL ? path : slash + 1;
  if (n >= sizeof u->parent)
    return cl_fail (err, CL_STAGE_UNPACK, ENAMETOOLONG, "open the parent of %s", path);
  if (u->parent_fd >= 0 && strncmp (u->parent, path, n) == 0 && u->parent[n] == '\0')
    return u->parent_fd;
  forget_parent (u);
  memcpy (u->parent, path, n);
  u->parent[n] = '\0';
  u->parent_fd = open_in_root (u->parent);
  if (u->parent_fd < 0 && errno == ENOENT)
    {
      if (make_parents (u, u->parent, err) < 0)
        return -1;
      u->parent_fd = open_in_root (u->parent);
    }
  if (u->parent_fd < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "open the parent of %s", path);
  return u->parent_fd;
}

/* Take away what stands where an entry is to be made. */
static int
clear_place (int dir, const char *leaf, const char *path, struct cl_error *err)
{
  if (unlinkat (dir, leaf, 0) == 0 || errno == ENOENT)
    return 0;
  if (errno != EISDIR && errno != EPERM)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "replace %s", path);
  return cl_remove_tree (dir, leaf, err);
}

/* ---- attributes --------------------------------------------------------- */

static int
set_xattrs (struct unpack *u, int fd, const struct cl_entry *e, const char *path,
            struct cl_error *err)
{
  const char *at = u->body + e->path_size + e->link_size;
  size_t left = e->xattr_size;

  for (int i = 0; i < e->nxattrs; i++)
    {
      struct cl_entry_xattr x;

      if (left < sizeof x)
        return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "attributes of %s", path);
      memcpy (&x, at, sizeof x);
      at += sizeof x;
      left -= sizeof x;
      if (x.name_size == 0 || x.name_size > left || x.value_size > left - x.name_size
          || at[x.name_size - 1] != '\0')
        return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "attributes of %s", path);
      if (fsetxattr (fd, at, at + x.name_size, x.value_size, 0) < 0
          && !(u->lenient && (errno == EPERM || errno == EACCES || errno == EINVAL))
          && errno != EOPNOTSUPP)
        return cl_fail (err, CL_STAGE_UNPACK, errno, "set %s of %s", at, path);
      at += x.name_size + x.value_size;
      left -= x.name_size + x.value_size;
    }
  return 0;
}

static struct timespec
mtime_of (const struct cl_entry *e)
{
  return (struct timespec){ .tv_sec = e->mtime_sec, .tv_nsec = e->mtime_nsec };
}

/* Owner first: chown clears the set-id bits and the file capabilities. */
static int
set_attributes (struct unpack *u, int fd, const struct cl_entry *e, mode_t mode,
                const char *path, struct cl_error *err)
{
  struct timespec times[2] = { mtime_of (e), mtime_of (e) };

  if (u->keep_owner && fchown (fd, e->uid, e->gid) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "chown %s to %u:%u", path, e->uid, e->gid);
  if (set_xattrs (u, fd, e, path, err) < 0)
    return -1;
  if (fchmod (fd, mode) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "chmod %s", path);
  if (futimens (fd, times) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "set the time of %s", path);
  return 0;
}

/* The same for what cannot be opened: links, fifos, devices. */
static int
set_owner_and_time (struct unpack *u, int dir, const char *leaf, const struct cl_entry *e,
                    const char *path, struct cl_error *err)
{
  struct timespec times[2] = { mtime_of (e), mtime_of (e) };

  if (u->keep_owner && fchownat (dir, leaf, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "chown %s to %u:%u", path, e->uid, e->gid);
  if (utimensat (dir, leaf, times, AT_SYMLINK_NOFOLLOW) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "set the time of %s", path);
  return 0;
}

/* ---- entries ------------------------------------------------------------ */

static int
make_file (struct unpack *u, const struct cl_entry *e, const char *path, struct cl_error *err)
{
  const char *leaf;
  int dir = open_parent (u, path, &leaf, err);
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  cleanup_close int fd = -1;

  if (dir < 0)
    return -1;
  fd = openat (dir, leaf, flags, 0600);
  if (fd < 0 && errno == EEXIST)
    {
      if (clear_place (dir, leaf, path, err) < 0)
        return -1;
      fd = openat (dir, leaf, flags, 0600);
    }
  if (fd < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "make file %s", path);
  if (e->nsegments == 0)
    {
      if (cl_stream_copy (&u->in, fd, 0, e->size, path, err) < 0)
        return -1;
    }
  else
    {
      for (uint32_t i = 0; i < e->nsegments; i++)
        {
          struct cl_entry_segment s;

          if (cl_stream_take (&u->in, &s, sizeof s, err) < 0
              || cl_stream_copy (&u->in, fd, s.offset, s.size, path, err) < 0)
            return -1;
          if (s.offset + s.size > e->size)
            return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "segment beyond the end of %s", path);
        }
      if (e->size > INT64_MAX || ftruncate (fd, e->size) < 0)
        return cl_fail (err, CL_STAGE_UNPACK, e->size > INT64_MAX ? EFBIG : errno,
                        "set the size of %s", path);
    }
  return set_attributes (u, fd, e, e->mode & 07777, path, err);
}

static int
open_directory (struct unpack *u, const char *path, struct cl_error *err)
{
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const char *leaf;
  int dir, fd;

  if (path[0] == '\0')
    return sys_openat2 (FD_TREE, ".", flags, 0, ROOT_RESOLVE);
  dir = open_parent (u, path, &leaf, err);
  if (dir < 0)
    return -1;
  if (mkdirat (dir, leaf, 0700) < 0 && errno != EEXIST)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "make directory %s", path);
  fd = openat (dir, leaf, flags);
  if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
    {
      if (clear_place (dir, leaf, path, err) < 0)
        return -1;
      if (mkdirat (dir, leaf, 0700) < 0)
        return cl_fail (err, CL_STAGE_UNPACK, errno, "make directory %s", path);
      fd = openat (dir, leaf, flags);
    }
  return fd;
}

static int
make_directory (struct unpack *u, const struct cl_entry *e, const char *path,
                struct cl_error *err)
{
  cleanup_close int fd = open_directory (u, path, err);

  if (fd < 0)
    return err->code != 0 ? -1
                          : cl_fail (err, CL_STAGE_UNPACK, errno, "open directory %s", path);
  /* Without CAP_DAC_OVERRIDE nothing could be made in a read-only directory;
   * CL_ENTRY_FINISH sets the real mode. */
  return set_attributes (u, fd, e, (e->mode & 07777) | (u->root ? 0 : 0700), path, err);
}

static int
finish_directory (const struct cl_entry *e, const char *path, struct cl_error *err)
{
  struct timespec times[2] = { mtime_of (e), mtime_of (e) };
  cleanup_close int fd
      = sys_openat2 (FD_TREE, path[0] == '\0' ? "." : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                     0, ROOT_RESOLVE | RESOLVE_NO_SYMLINKS);

  /* A later entry may have replaced it, or a directory above it by a link to
   * another one, which has attributes of its own. */
  if (fd < 0)
    return 0;
  if (fchmod (fd, e->mode & 07777) < 0 || futimens (fd, times) < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "finish directory %s", path);
  return 0;
}

static int
make_symlink (struct unpack *u, const struct cl_entry *e, const char *path,
              const char *text, struct cl_error *err)
{
  const char *leaf;
  int dir = open_parent (u, path, &leaf, err);

  if (dir < 0)
    return -1;
  if (symlinkat (text, dir, leaf) < 0
      && (errno != EEXIST || clear_place (dir, leaf, path, err) < 0
          || symlinkat (text, dir, leaf) < 0))
    return cl_fail (err, CL_STAGE_UNPACK, errno, "make symbolic link %s", path);
  return set_owner_and_time (u, dir, leaf, e, path, err);
}

static int
make_hardlink (struct unpack *u, const char *path, const char *target, struct cl_error *err)
{
  const char *leaf, *target_leaf;
  cleanup_close int target_dir = -1;
  struct stat a, b;
  int dir = open_parent (u, target, &target_leaf, err);

  if (dir < 0)
    return -1;
  target_dir = fcntl (dir, F_DUPFD_CLOEXEC, 10);
  if (target_dir < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "link %s to %s", path, target);
  dir = open_parent (u, path, &leaf, err);
  if (dir < 0)
    return -1;
  /* Flag 0: a symbolic link is linked itself, never what it points to; a
   * directory is refused with EPERM. */
  if (linkat (target_dir, target_leaf, dir, leaf, 0) == 0)
    return 0;
  if (errno == EEXIST && fstatat (target_dir, target_leaf, &a, AT_SYMLINK_NOFOLLOW) == 0
      && fstatat (dir, leaf, &b, AT_SYMLINK_NOFOLLOW) == 0)
    {
      if (a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return 0;
      if (clear_place (dir, leaf, path, err) < 0)
        return -1;
      if (linkat (target_dir, target_leaf, dir, leaf, 0) == 0)
        return 0;
    }
  return cl_fail (err, CL_STAGE_UNPACK, errno, "link %s to %s", path, target);
}

static int
make_node (struct unpack *u, const struct cl_entry *e, const char *path, mode_t type,
           struct cl_error *err)
{
  dev_t device = type == S_IFIFO ? 0 : makedev (e->major, e->minor);
  mode_t mode = type | (e->mode & 07777);
  const char *leaf;
  int dir;

  /* overlayfs would take it for a whiteout. */
  if (type == S_IFCHR && device == 0)
    return cl_fail (err, CL_STAGE_UNPACK, EPERM, "make device 0:0 %s", path);
  dir = open_parent (u, path, &leaf, err);
  if (dir < 0)
    return -1;
  if (mknodat (dir, leaf, mode, device) < 0
      && (errno != EEXIST || clear_place (dir, leaf, path, err) < 0
          || mknodat (dir, leaf, mode, device) < 0))
    return cl_fail (err, CL_STAGE_UNPACK, errno, "make node %s", path);
  return set_owner_and_time (u, dir, leaf, e, path, err);
}

static int
make_entry (struct unpack *u, const struct cl_entry *e, struct cl_error *err)
{
  const char *path = u->body;
  const char *link = u->body + e->path_size;

  if (!is_clean (path))
    return cl_fail (err, CL_STAGE_UNPACK, EINVAL, "refuse the path %s", path);
  if (path[0] == '\0' && e->type != CL_ENTRY_DIRECTORY && e->type != CL_ENTRY_FINISH)
    return cl_fail (err, CL_STAGE_UNPACK, EINVAL, "refuse to replace the root directory");
  switch (e->type)
    {
    case CL_ENTRY_FILE:
      return make_file (u, e, path, err);
    case CL_ENTRY_DIRECTORY:
      return make_directory (u, e, path, err);
    case CL_ENTRY_FINISH:
      return finish_directory (e, path, err);
    case CL_ENTRY_SYMLINK:
      return make_symlink (u, e, path, link, err);
    case CL_ENTRY_HARDLINK:
      if (link[0] == '\0' || !is_clean (link))
        return cl_fail (err, CL_STAGE_UNPACK, EINVAL, "refuse the link target %s", link);
      return make_hardlink (u, path, link, err);
    case CL_ENTRY_FIFO:
      return make_node (u, e, path, S_IFIFO, err);
    case CL_ENTRY_CHAR:
      return make_node (u, e, path, S_IFCHR, err);
    case CL_ENTRY_BLOCK:
      return make_node (u, e, path, S_IFBLK, err);
    default:
      return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "entry type %d of %s", e->type, path);
    }
}

/* With one id, all files are the one user's, whatever the entries say. */
static bool
has_single_id (void)
{
  cleanup_close int fd = open ("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
  char map[128] = { 0 };
  char *end = map;

  if (fd < 0 || cl_read_all (fd, map, sizeof map - 1) <= 0)
    return false;
  /* One line "inside outside count". */
  strtoul (map, &end, 10);
  strtoul (end, &end, 10);
  return strtoul (end, &end, 10) == 1 && strcmp (end, "\n") == 0;
}

static int
unpack (struct unpack *u, struct cl_error *err)
{
  u->root = geteuid () == 0;
  u->keep_owner = u->keep_owner && !has_single_id ();
  for (;;)
    {
      struct cl_entry e;
      uint64_t size;

      if (cl_stream_take (&u->in, &e, sizeof e, err) < 0)
        return -1;
      if (e.magic != CL_ENTRY_MAGIC)
        return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "record without its mark");
      if (e.type == CL_ENTRY_END)
        return 0;
      size = (uint64_t) e.path_size + e.link_size + e.xattr_size;
      if (size > CL_ENTRY_BODY_MAX || e.path_size == 0 || e.link_size == 0)
        return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "record of %llu bytes",
                        (unsigned long long) size);
      if (cl_stream_take (&u->in, u->body, size, err) < 0)
        return -1;
      if (memchr (u->body, '\0', e.path_size) != u->body + e.path_size - 1
          || memchr (u->body + e.path_size, '\0', e.link_size)
                 != u->body + e.path_size + e.link_size - 1)
        return cl_fail (err, CL_STAGE_UNPACK, EPROTO, "path with a NUL");
      if (make_entry (u, &e, err) < 0)
        return -1;
    }
}

int
cl_main_unpack (int argc, char **argv)
{
  struct cl_error err = { 0 };
  cleanup_free void *buf = malloc (CL_STREAM_BUFFER);
  cleanup_free void *body = malloc (CL_ENTRY_BODY_MAX);
  struct unpack u = { .in = { .buf = buf }, .body = body, .parent_fd = -1 };
  bool userns = false, sync = false, known = true;

  for (int i = 1; i < argc; i++)
    if (strcmp (argv[i], "--userns") == 0)
      userns = true;
    else if (strcmp (argv[i], "--keep-owner") == 0)
      u.keep_owner = true;
    else if (strcmp (argv[i], "--lenient") == 0)
      u.lenient = true;
    else if (strcmp (argv[i], "--sync") == 0)
      sync = true;
    else
      known = false;
  umask (0);
  if (!known)
    cl_fail (&err, CL_STAGE_UNPACK, EINVAL, "unpack: wrong arguments");
  else if (buf == NULL || body == NULL)
    cl_fail (&err, CL_STAGE_UNPACK, ENOMEM, "unpack: no memory");
  else if ((!userns || cl_join_userns (FD_USERNS, CL_STAGE_UNPACK, &err) == 0)
           && unpack (&u, &err) == 0)
    {
      if (!sync || syncfs (FD_TREE) == 0)
        return 0;
      cl_fail (&err, CL_STAGE_UNPACK, errno, "sync");
    }
  cl_write_all (FD_ERROR, &err, sizeof err);
  return 1;
}
