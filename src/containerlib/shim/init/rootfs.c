/* SPDX-License-Identifier: Apache-2.0
 *
 * The new root and what is mounted in it.  Every target is a descriptor from
 * openat2 below the root, every mount is complete before it is attached. */
#include "init/init.h"

#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

int
cl_in_root (struct cl_child *c, const char *path, int flags, uint64_t resolve)
{
  while (*path == '/')
    path++;
  return sys_openat2 (c->root, *path != '\0' ? path : ".",
                      flags | O_PATH | O_CLOEXEC, 0, IN_ROOT | resolve);
}

/* Copy the path's components up to and without the last one; the last one is
 * *name.  A trailing slash is dropped: openat would follow a link before it. */
static int
split (const char *path, char *dir, size_t size, const char **name,
       char *last, size_t last_size)
{
  size_t length = strlen (path);
  const char *start;

  while (length > 0 && path[length - 1] == '/')
    length--;
  start = path + length;
  while (start > path && start[-1] != '/')
    start--;
  if ((size_t) (start - path) >= size || length - (start - path) >= last_size)
    return -1;
  memcpy (dir, path, start - path);
  dir[start - path] = '\0';
  memcpy (last, start, path + length - start);
  last[path + length - start] = '\0';
  *name = last;
  return 0;
}

int
cl_parent_in_root (struct cl_child *c, const char *path, const char **name,
                   struct cl_error *err)
{
  static char last[NAME_MAX + 1];
  char dir[PATH_MAX];
  int fd;

  if (split (path, dir, sizeof dir, name, last, sizeof last) < 0)
    return cl_fail (err, CL_STAGE_MOUNT, ENAMETOOLONG, "path %s", path);
  if (last[0] == '\0' || strcmp (last, ".") == 0 || strcmp (last, "..") == 0)
    return cl_fail (err, CL_STAGE_MOUNT, EINVAL, "path %s", path);
  fd = cl_in_root (c, dir, O_DIRECTORY, 0);
  if (fd >= 0 || errno != ENOENT)
    return fd >= 0 ? fd : cl_fail (err, CL_STAGE_MOUNT, errno, "open %s in the root", dir);

  /* Make what is missing, one component at a time, each below a descriptor
   * that was resolved inside the root. */
  for (char *slash = dir; slash != NULL;)
    {
      int next;
      char saved;

      slash = strchr (slash + 1, '/');
      saved = slash != NULL ? *slash : '\0';
      if (slash != NULL)
        *slash = '\0';
      next = cl_in_root (c, dir, O_DIRECTORY, 0);
      if (next < 0 && errno == ENOENT)
        {
          cleanup_close int parent = -1;
          char above[PATH_MAX], leaf[NAME_MAX + 1];
          const char *part;

          if (split (dir, above, sizeof above, &part, leaf, sizeof leaf) < 0)
            return cl_fail (err, CL_STAGE_MOUNT, ENAMETOOLONG, "path %s", dir);
          parent = cl_in_root (c, above, O_DIRECTORY, 0);
          if (parent < 0)
            return cl_fail (err, CL_STAGE_MOUNT, errno, "open %s in the root", above);
          if (mkdirat (parent, part, 0755) < 0 && errno != EEXIST)
            return cl_fail (err, CL_STAGE_MOUNT, errno, "make directory %s", dir);
          next = sys_openat2 (parent, part,
                              O_PATH | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW, 0,
                              RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
        }
      if (next < 0)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "make directory %s", dir);
      if (slash == NULL || slash[1] == '\0')
        return next;
      close (next);
      *slash = saved;
    }
  return cl_fail (err, CL_STAGE_MOUNT, EINVAL, "path %s", path);
}

int
cl_target (struct cl_child *c, const char *path, int flags, bool is_dir,
           struct cl_error *err)
{
  cleanup_close int parent = -1;
  const char *name;
  int fd;
  uint64_t resolve = (flags & CL_MOUNT_EXACT) ? RESOLVE_NO_SYMLINKS : 0;

  fd = cl_in_root (c, path, is_dir ? O_DIRECTORY : 0, resolve);
  if (fd >= 0)
    return fd;
  if (errno != ENOENT
      || !(flags & (CL_MOUNT_CREATE_DIR | CL_MOUNT_CREATE_FILE | CL_MOUNT_CREATE_AUTO)))
    return cl_fail (err, CL_STAGE_MOUNT, errno, "target %s", path);

  parent = cl_parent_in_root (c, path, &name, err);
  if (parent < 0)
    return -1;
  if (is_dir)
    {
      if (mkdirat (parent, name, 0755) < 0 && errno != EEXIST)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "make target %s", path);
    }
  else
    {
      cleanup_close int made = openat (parent, name,
                                       O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644);
      if (made < 0 && errno != EEXIST)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "make target %s", path);
    }
  fd = sys_openat2 (parent, name, O_PATH | O_CLOEXEC | O_NOFOLLOW | (is_dir ? O_DIRECTORY : 0),
                    0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
  if (fd < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "target %s", path);
  return fd;
}

int
cl_attach (int mount, int target, const char *path, struct cl_error *err)
{
  struct statfs fs;

  /* What covers part of /proc could fake a process's attributes or undo a
   * mask (CVE-2019-16884). */
  if (fstatfs (target, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC)
    return cl_fail (err, CL_STAGE_MOUNT, EPERM, "mount over /proc at %s", path);
  if (sys_move_mount (mount, "", target, "",
                      MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
      < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "attach %s", path);
  return 0;
}

/* ---- overlay ---- */

#define FD_NAMES "/proc/self/fd"

/* The kernel takes at most 255 bytes a parameter and splits some at commas
 * and colons: a descriptor's name has neither length nor odd characters.  It
 * is looked up from FD_NAMES, where the caller is. */
static int
by_descriptor (const char *path, char *out, size_t size, struct cl_error *err)
{
  int fd = open (path, O_PATH | O_CLOEXEC | O_DIRECTORY);

  if (fd < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "open layer %s", path);
  snprintf (out, size, "%d", fd);
  return fd;
}

static int
overlay_options (const struct cl_record *r, unsigned int first, int fs,
                 bool plus, int *fds, size_t *nfds, struct cl_error *err)
{
  char name[16], joined[256] = "";
  size_t used = 0;
  static const char *const keys[] = { "upperdir", "workdir" };

  for (unsigned int i = first; i < r->nstrs; i++)
    {
      const char *path = cl_record_str (r, i, NULL);
      const char *key = i - first < 2 ? keys[i - first] : "lowerdir+";
      int fd;

      if (path[0] == '\0')
        continue; /* no upper: a read-only overlay */
      fd = by_descriptor (path, name, sizeof name, err);
      if (fd < 0)
        return -1;
      fds[(*nfds)++] = fd;
      if (i - first >= 2 && !plus)
        {
          int n = snprintf (joined + used, sizeof joined - used, "%s%s",
                            used > 0 ? ":" : "", name);
          if (n < 0 || (size_t) n >= sizeof joined - used)
            return cl_fail (err, CL_STAGE_ROOTFS, E2BIG,
                            "overlay of %u layers (this kernel takes fewer)", r->nstrs - first - 2);
          used += n;
          continue;
        }
      if (sys_fsconfig (fs, FSCONFIG_SET_STRING, key, name, 0) < 0)
        return cl_fail (err, CL_STAGE_ROOTFS, errno, "overlay %s=%s", key, path);
    }
  if (!plus && sys_fsconfig (fs, FSCONFIG_SET_STRING, "lowerdir", joined, 0) < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "overlay lowerdir");
  return 0;
}

static int
overlay_try (const struct cl_record *r, unsigned int first, bool plus,
             struct cl_error *err)
{
  cleanup_close int fs = -1;
  int flags = cl_record_int (r, 0), mount = -1, fds[512], code;
  size_t nfds = 0;

  if (r->nstrs > first + 500)
    return cl_fail (err, CL_STAGE_ROOTFS, E2BIG, "overlay of %u layers", r->nstrs - first - 2);
  fs = sys_fsopen ("overlay", FSOPEN_CLOEXEC);
  if (fs < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "fsopen overlay");
  if (chdir (FD_NAMES) < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "enter %s", FD_NAMES);
  sys_fsconfig (fs, FSCONFIG_SET_STRING, "source", "overlay", 0);
  if (overlay_options (r, first, fs, plus, fds, &nfds, err) == 0)
    {
      if (flags & CL_MOUNT_USERXATTR)
        sys_fsconfig (fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0);
      if (flags & CL_MOUNT_VOLATILE)
        sys_fsconfig (fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0);
      sys_fsconfig (fs, FSCONFIG_SET_STRING, "index", "off", 0);
      if (sys_fsconfig (fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        cl_fail (err, CL_STAGE_ROOTFS, errno, "mount overlay of %s",
                 cl_record_str (r, r->nstrs - 1, NULL));
      else
        {
          mount = sys_fsmount (fs, FSMOUNT_CLOEXEC, 0);
          if (mount < 0)
            cl_fail (err, CL_STAGE_ROOTFS, errno, "fsmount overlay");
        }
    }
  code = errno;
  for (size_t i = 0; i < nfds; i++)
    close (fds[i]);
  if (chdir ("/") < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "enter /");
  errno = code;
  return mount;
}

/* All layers in one parameter, which every kernel takes; those that do not fit
 * one by one, which is Linux 6.5.  Not the other way about: an older kernel
 * would note each start in its log. */
static int
overlay_mount (const struct cl_record *r, unsigned int first,
               struct cl_error *err)
{
  int mount = overlay_try (r, first, false, err);

  if (mount < 0 && errno == E2BIG)
    {
      struct cl_error second;

      mount = overlay_try (r, first, true, &second);
      if (mount < 0 && second.code != EINVAL)
        *err = second;
    }
  return mount;
}

/* The run directory is the mount point: the mount is seen in this
 * namespace alone, and no empty directory is needed for it. */
static int
attach_root (struct cl_child *c, int mount, struct cl_error *err)
{
  char link[40], path[PATH_MAX];
  ssize_t n;

  snprintf (link, sizeof link, "/proc/self/fd/%d", c->launch->mount_fd);
  /* The descriptor belongs to the launcher's namespace, where nothing may be
   * attached from here: the path is opened again in this one. */
  n = readlink (link, path, sizeof path - 1);
  if (n < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "read link %s", link);
  path[n] = '\0';
  if (sys_move_mount (mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "attach the root at %s", path);
  c->root = mount;
  return 0;
}

int
cl_root_overlay (struct cl_child *c, const struct cl_record *r,
                 struct cl_error *err)
{
  int mount = overlay_mount (r, 0, err);

  return mount < 0 ? -1 : attach_root (c, mount, err);
}

int
cl_overlay (struct cl_child *c, const struct cl_record *r,
            struct cl_error *err)
{
  const char *path = cl_record_str (r, 0, NULL);
  cleanup_close int mount = overlay_mount (r, 1, err);
  cleanup_close int target = -1;

  if (mount < 0)
    return -1;
  target = cl_target (c, path, CL_MOUNT_CREATE_DIR, true, err);
  return target < 0 ? -1 : cl_attach (mount, target, path, err);
}

static int
set_options (int fs, char *options, const char *type, struct cl_error *err)
{
  char *save = NULL;

  for (char *word = strtok_r (options, ",", &save); word != NULL;
       word = strtok_r (NULL, ",", &save))
    {
      char *value = strchr (word, '=');
      int r;

      if (value != NULL)
        {
          *value++ = '\0';
          r = sys_fsconfig (fs, FSCONFIG_SET_STRING, word, value, 0);
        }
      else
        r = sys_fsconfig (fs, FSCONFIG_SET_FLAG, word, NULL, 0);
      if (r < 0)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "%s option %s", type, word);
    }
  return 0;
}

int
cl_root_tmpfs (struct cl_child *c, const struct cl_record *r,
               struct cl_error *err)
{
  cleanup_close int fs = sys_fsopen ("tmpfs", FSOPEN_CLOEXEC);
  char options[256];
  int mount;

  if (fs < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "fsopen tmpfs");
  snprintf (options, sizeof options, "%s", cl_record_str (r, 0, NULL));
  if (set_options (fs, options, "tmpfs", err) < 0)
    return -1;
  mount = sys_fsconfig (fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0
              ? -1
              : sys_fsmount (fs, FSMOUNT_CLOEXEC, 0);
  if (mount < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "mount the root's tmpfs");
  return attach_root (c, mount, err);
}

int
cl_mkdir (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  const char *path = cl_record_str (r, 0, NULL), *name;
  cleanup_close int parent = cl_parent_in_root (c, path, &name, err);

  if (parent < 0)
    return -1;
  if (mkdirat (parent, name, cl_record_int (r, 0)) < 0 && errno != EEXIST)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "make directory %s", path);
  return 0;
}

int
cl_symlink (struct cl_child *c, const struct cl_record *r,
            struct cl_error *err)
{
  const char *path = cl_record_str (r, 1, NULL), *name;
  cleanup_close int parent = cl_parent_in_root (c, path, &name, err);

  if (parent < 0)
    return -1;
  if (symlinkat (cl_record_str (r, 0, NULL), parent, name) < 0 && errno != EEXIST)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "make link %s", path);
  return 0;
}

int
cl_pivot (struct cl_child *c, struct cl_error *err)
{
  cleanup_close int old = open ("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

  if (old < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "open /");
  if (fchdir (c->root) < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "enter the new root");
  if (sys_pivot_root (".", ".") < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "pivot_root");
  if (fchdir (old) < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "enter the old root");
  /* A slave sees the host unmount things; private would pin them. */
  if (mount (NULL, ".", NULL, MS_REC | MS_SLAVE, NULL) < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "make the old root a slave");
  if (umount2 (".", MNT_DETACH) < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "detach the old root");
  if (chdir ("/") < 0)
    return cl_fail (err, CL_STAGE_PIVOT, errno, "enter /");
  c->pivoted = true;
  return 0;
}
