/* SPDX-License-Identifier: Apache-2.0
 *
 * File systems and bind mounts inside the root. */
#include "init/init.h"

#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statfs.h>

/* A bind of the host's own mount, for what a user namespace may not mount
 * anew: its copies of the flags are kept, so nothing becomes writable. */
static int
host_copy (const char *type, const char *path, unsigned int attrs,
           struct cl_error *err)
{
  const char *source = strcmp (type, "proc") == 0     ? "/proc"
                       : strcmp (type, "sysfs") == 0  ? "/sys"
                       : strcmp (type, "mqueue") == 0 ? "/dev/mqueue"
                                                      : NULL;
  struct cl_mount_attr attr = { .set = attrs, .propagation = MS_PRIVATE };
  int mount;

  if (source == NULL)
    return cl_fail (err, CL_STAGE_MOUNT, EPERM, "mount %s at %s", type, path);
  mount = sys_open_tree (AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (mount < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "copy the mount at %s", source);
  if (sys_mount_setattr (mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0)
    {
      close (mount);
      return cl_fail (err, CL_STAGE_MOUNT, errno, "set attributes of %s", path);
    }
  return mount;
}

static int
new_mount (const struct cl_record *r, int target, struct cl_error *err)
{
  const char *type = cl_record_str (r, 0, NULL);
  const char *path = cl_record_str (r, 1, NULL);
  unsigned int attrs = cl_record_int (r, 0);
  int flags = cl_record_int (r, 1), mount;
  cleanup_close int fs = sys_fsopen (type, FSOPEN_CLOEXEC);

  if (fs < 0)
    {
      /* sysfs shows the network namespace, and refuses here already when that
       * is the host's. */
      if ((flags & CL_MOUNT_FALLBACK_BIND) && errno == EPERM)
        return host_copy (type, path, attrs, err);
      return cl_fail (err, CL_STAGE_MOUNT, errno, "fsopen %s", type);
    }
  if (strcmp (type, "cgroup") != 0 && strcmp (type, "cgroup2") != 0)
    sys_fsconfig (fs, FSCONFIG_SET_STRING, "source", type, 0);
  else
    sys_fsconfig (fs, FSCONFIG_SET_STRING, "source", "cgroup", 0);
  for (unsigned int i = 2; i + 1 < r->nstrs; i += 2)
    {
      const char *key = cl_record_str (r, i, NULL);
      const char *value = cl_record_str (r, i + 1, NULL);
      int n = value[0] != '\0'
                  ? sys_fsconfig (fs, FSCONFIG_SET_STRING, key, value, 0)
                  : sys_fsconfig (fs, FSCONFIG_SET_FLAG, key, NULL, 0);
      if (n < 0)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "%s option %s=%s", type, key, value);
    }
  if (flags & CL_MOUNT_INHERIT_MODE)
    {
      struct stat st;
      char mode[16];

      if (fstat (target, &st) == 0)
        {
          snprintf (mode, sizeof mode, "%o", st.st_mode & 07777);
          sys_fsconfig (fs, FSCONFIG_SET_STRING, "mode", mode, 0);
        }
    }
  if (sys_fsconfig (fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
    {
      if ((flags & CL_MOUNT_FALLBACK_BIND) && (errno == EPERM || errno == EBUSY))
        return host_copy (type, path, attrs, err);
      return cl_fail (err, CL_STAGE_MOUNT, errno, "mount %s at %s", type, path);
    }
  mount = sys_fsmount (fs, FSMOUNT_CLOEXEC, attrs);
  if (mount < 0)
    {
      /* mount_too_revealing: the host's own instance is partly masked. */
      if ((flags & CL_MOUNT_FALLBACK_BIND) && errno == EPERM)
        return host_copy (type, path, attrs, err);
      return cl_fail (err, CL_STAGE_MOUNT, errno, "mount %s at %s", type, path);
    }
  return mount;
}

int
cl_mount (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  const char *path = cl_record_str (r, 1, NULL);
  int flags = cl_record_int (r, 1);
  cleanup_close int target = cl_target (c, path, flags | CL_MOUNT_CREATE_DIR, true, err);
  cleanup_close int mount = -1;

  if (target < 0)
    return -1;
  mount = new_mount (r, target, err);
  if (mount < 0)
    return (flags & CL_MOUNT_OPTIONAL) ? 0 : -1;
  return cl_attach (mount, target, path, err);
}

/* In a user namespace a mount with locked children is copied whole or not at
 * all. */
static int
copy_tree (int dirfd, const char *path, unsigned int flags)
{
  int mount = sys_open_tree (dirfd, path, flags);

  return mount < 0 && errno == EINVAL ? sys_open_tree (dirfd, path, flags | AT_RECURSIVE) : mount;
}

static int
open_source (const struct cl_record *r, struct cl_error *err)
{
  const char *source = cl_record_str (r, 0, NULL);
  const char *sub = cl_record_str (r, 2, NULL);
  int flags = cl_record_int (r, 2), mount;
  unsigned int tree = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
                      | ((flags & CL_MOUNT_RECURSIVE) ? AT_RECURSIVE : 0);

  if (sub[0] != '\0')
    {
      /* A sub-path is inside a volume that containers write to: it may not
       * lead out of it. */
      cleanup_close int base = open (source, O_PATH | O_CLOEXEC | O_DIRECTORY);
      cleanup_close int inner = -1;

      if (base < 0)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "source %s", source);
      while (*sub == '/')
        sub++;
      inner = sys_openat2 (base, sub, O_PATH | O_CLOEXEC, 0,
                           RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
      if (inner < 0)
        return cl_fail (err, CL_STAGE_MOUNT, errno, "sub-path %s of %s", sub, source);
      mount = copy_tree (inner, "", tree | AT_EMPTY_PATH);
    }
  else
    mount = copy_tree (AT_FDCWD, source, tree | ((flags & CL_MOUNT_NOFOLLOW) ? AT_SYMLINK_NOFOLLOW : 0));
  if (mount < 0 && errno == ENOENT && (flags & CL_MOUNT_OPTIONAL))
    return -2;
  if (mount < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "source %s", source);
  return mount;
}

/* A mount of another container, copied while this process is in its mount
 * namespace for a moment: across namespaces a path does not serve. */
static int
open_foreign (const struct cl_record *r, int pidfd, struct cl_error *err)
{
  const char *source = cl_record_str (r, 0, NULL);
  cleanup_close int home = open ("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  cleanup_close int root = open ("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_close int other = -1, inner = -1;
  int mount = -1, code;

  if (home < 0 || root < 0 || setns (pidfd, CLONE_NEWNS) < 0)
    return cl_fail (err, CL_STAGE_NAMESPACE, errno, "enter the mounts of the other container");
  other = open ("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  inner = sys_openat2 (other, source, O_PATH | O_CLOEXEC, 0,
                       RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
  if (inner >= 0)
    mount = sys_open_tree (inner, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  code = errno;
  if (setns (home, CLONE_NEWNS) < 0 || fchdir (root) < 0)
    return cl_fail (err, CL_STAGE_NAMESPACE, errno, "leave the mounts of the other container");
  if (mount < 0)
    return cl_fail (err, CL_STAGE_MOUNT, code, "%s of the other container", source);
  return mount;
}

/* Before the mounts here become slaves, so that a shared source stays in its
 * peer group. */
int
cl_open_sources (struct cl_child *c, struct cl_error *err)
{
  struct cl_record r;
  size_t count = 0;

  cl_plan_rewind (c->launch->plan, &r);
  while (cl_plan_next (c->launch->plan, &r, NULL) > 0)
    count += r.op == CL_OP_BIND;
  if (count == 0)
    return 0;
  c->sources = calloc (count, sizeof *c->sources);
  if (c->sources == NULL)
    return cl_fail (err, CL_STAGE_MOUNT, ENOMEM, "%zu bind mounts", count);
  cl_plan_rewind (c->launch->plan, &r);
  while (cl_plan_next (c->launch->plan, &r, NULL) > 0)
    if (r.op == CL_OP_BIND)
      {
        int pidfd = cl_record_int (&r, 4);
        int fd = pidfd >= 0 ? open_foreign (&r, pidfd, err) : open_source (&r, err);
        if (fd == -1)
          return -1;
        c->sources[c->nsources++] = fd;
      }
  return 0;
}

/* Flags that a user namespace may not clear are kept; clearing one on request
 * is an error, for the caller would believe in it. */
static int
set_attributes (int mount, uint64_t set, uint64_t clear, uint64_t propagation,
                bool recursive, const char *path, struct cl_error *err)
{
  struct cl_mount_attr attr = { .set = set, .clear = clear, .propagation = propagation };
  unsigned int flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);

  if (set == 0 && clear == 0 && propagation == 0)
    return 0;
  if (sys_mount_setattr (mount, "", flags, &attr) < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "set attributes of the mount at %s", path);
  return 0;
}

int
cl_bind (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  const char *path = cl_record_str (r, 1, NULL);
  uint64_t set = cl_record_int (r, 0), clear = cl_record_int (r, 1);
  int flags = cl_record_int (r, 2);
  cleanup_close int mount = c->sources[c->next_source++];
  cleanup_close int target = -1;
  struct stat st;

  if (mount == -2)
    {
      mount = -1;
      return 0;
    }
  if (fstat (mount, &st) < 0)
    return cl_fail (err, CL_STAGE_MOUNT, errno, "source of %s", path);
  if (set_attributes (mount, set, clear, 0, flags & CL_MOUNT_ATTR_RECURSIVE, path, err) < 0
      || set_attributes (mount, 0, 0, cl_record_int (r, 3) & ~MS_REC,
                         cl_record_int (r, 3) & MS_REC, path, err)
             < 0)
    return -1;
  target = cl_target (c, path, flags, S_ISDIR (st.st_mode), err);
  if (target < 0)
    return -1;
  return cl_attach (mount, target, path, err);
}
