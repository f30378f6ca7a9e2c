/* SPDX-License-Identifier: Apache-2.0
 *
 * What the container may see but not change, and what it may not see. */
#include "init/init.h"

#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>

/* A mount of our own is changed in place, anything else gets a read-only
 * mount of itself on top. */
int
cl_readonly_path (struct cl_child *c, const char *path, bool own, struct cl_error *err)
{
  struct cl_mount_attr attr = { .set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE };
  cleanup_close int target = cl_in_root (c, path, 0, RESOLVE_NO_SYMLINKS);
  cleanup_close int mount = -1;

  if (target < 0)
    {
      if (errno == ENOENT || errno == EACCES)
        return 0;
      return cl_fail (err, CL_STAGE_MASK, errno, "open %s", path);
    }
  if (own)
    {
      if (sys_mount_setattr (target, "", AT_EMPTY_PATH, &attr) < 0)
        return cl_fail (err, CL_STAGE_MASK, errno, "make %s read-only", path);
      return 0;
    }
  mount = sys_open_tree (target, "",
                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
  if (mount < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "copy the mount of %s", path);
  if (sys_mount_setattr (mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "make %s read-only", path);
  if (sys_move_mount (mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "attach %s", path);
  return 0;
}

/* One read-only empty tmpfs serves all masked directories: superblocks are
 * dear to reap. */
static int
empty_directory (struct cl_child *c, struct cl_error *err)
{
  cleanup_close int fs = -1;
  int mount;

  if (c->empty_mount >= 0)
    {
      mount = sys_open_tree (c->empty_mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
      return mount >= 0 ? mount : cl_fail (err, CL_STAGE_MASK, errno, "copy the empty directory");
    }
  fs = sys_fsopen ("tmpfs", FSOPEN_CLOEXEC);
  if (fs < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "fsopen tmpfs");
  sys_fsconfig (fs, FSCONFIG_SET_STRING, "source", "tmpfs", 0);
  sys_fsconfig (fs, FSCONFIG_SET_STRING, "nr_inodes", "1", 0);
  sys_fsconfig (fs, FSCONFIG_SET_STRING, "mode", "755", 0);
  sys_fsconfig (fs, FSCONFIG_SET_FLAG, "ro", NULL, 0);
  if (sys_fsconfig (fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0
      || (mount = sys_fsmount (fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY)) < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "mount an empty directory");
  c->empty_mount = fcntl (mount, F_DUPFD_CLOEXEC, 3);
  return mount;
}

/* The container's own /dev/null may be a link to what should be hidden
 * (CVE-2025-31133): only a character device 1:3 is ever bound. */
static int
null_file (struct cl_child *c, struct cl_error *err)
{
  int mount;

  if (c->null_mount < 0)
    c->null_mount = cl_open_null (c, err);
  if (c->null_mount < 0)
    return -1;
  mount = sys_open_tree (c->null_mount, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  if (mount < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "copy the mount of /dev/null");
  return mount;
}

int
cl_mask_path (struct cl_child *c, const char *path, struct cl_error *err)
{
  cleanup_close int target = cl_in_root (c, path, 0, RESOLVE_NO_SYMLINKS);
  cleanup_close int mount = -1;
  struct stat st;

  if (target < 0)
    {
      if (errno == ENOENT || errno == EACCES || errno == ENOTDIR)
        return 0;
      return cl_fail (err, CL_STAGE_MASK, errno, "open %s", path);
    }
  if (fstat (target, &st) < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "stat %s", path);
  mount = S_ISDIR (st.st_mode) ? empty_directory (c, err) : null_file (c, err);
  if (mount < 0)
    return -1;
  if (sys_move_mount (mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    return cl_fail (err, CL_STAGE_MASK, errno, "mask %s", path);
  return 0;
}

int
cl_root_readonly (struct cl_child *c, struct cl_error *err)
{
  struct cl_mount_attr attr = { .set = MOUNT_ATTR_RDONLY };
  int fd = c->pivoted ? AT_FDCWD : c->root;

  if (sys_mount_setattr (fd, c->pivoted ? "/" : "", c->pivoted ? 0 : AT_EMPTY_PATH, &attr) < 0)
    return cl_fail (err, CL_STAGE_ROOTFS, errno, "make the root read-only");
  return 0;
}

/* Written through the host's procfs, never the container's, which may show
 * another file at this name (CVE-2025-52881). */
int
cl_sysctl (struct cl_child *c, const char *key, const char *value,
           struct cl_error *err)
{
  char path[512];
  struct statfs fs;
  cleanup_close int fd = -1;

  if ((size_t) snprintf (path, sizeof path, "sys/%s", key) >= sizeof path)
    return cl_fail (err, CL_STAGE_SYSCTL, ENAMETOOLONG, "sysctl %s", key);
  /* "../sysrq-trigger" is below /proc, too. */
  if (strstr (key, "..") != NULL)
    return cl_fail (err, CL_STAGE_SYSCTL, EINVAL, "sysctl %s", key);
  fd = sys_openat2 (c->host_proc, path, O_WRONLY | O_CLOEXEC, 0,
                    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (fd < 0 && errno == EROFS)
    {
      /* Nested: the outer container's /proc/sys is read-only, a private
       * instance may not be. */
      cleanup_close int conf = sys_fsopen ("proc", FSOPEN_CLOEXEC);
      cleanup_close int mount = -1;

      if (conf >= 0 && sys_fsconfig (conf, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = sys_fsmount (conf, FSMOUNT_CLOEXEC, 0);
      if (mount >= 0)
        fd = sys_openat2 (mount, path, O_WRONLY | O_CLOEXEC, 0,
                          RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
      if (fd < 0)
        errno = EROFS;
    }
  if (fd < 0)
    return cl_fail (err, CL_STAGE_SYSCTL, errno, "sysctl %s", key);
  if (fstatfs (fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
    return cl_fail (err, CL_STAGE_SYSCTL, ENODEV, "sysctl %s: not procfs", key);
  if (cl_write_all (fd, value, strlen (value)) < 0)
    return cl_fail (err, CL_STAGE_SYSCTL, errno, "sysctl %s=%s", key, value);
  return 0;
}
