/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel's calls for Python: one function each, errors as records. */
#include "syscalls.h"

#include <sched.h>

int
cl_openat2 (int dirfd, const char *path, uint64_t flags, uint64_t mode,
            uint64_t resolve, struct cl_error *err)
{
  int fd = sys_openat2 (dirfd, path, flags, mode, resolve);

  if (fd < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "openat2 %s", path);
  return fd;
}

int
cl_open_tree (int dirfd, const char *path, unsigned int flags,
              struct cl_error *err)
{
  int fd = sys_open_tree (dirfd, path, flags);

  if (fd < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "open_tree %s", path);
  return fd;
}

int
cl_move_mount (int from_fd, const char *from, int to_fd, const char *to,
               unsigned int flags, struct cl_error *err)
{
  if (sys_move_mount (from_fd, from, to_fd, to, flags) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "move_mount to %s", to);
  return 0;
}

int
cl_fsopen (const char *type, struct cl_error *err)
{
  int fd = sys_fsopen (type, FSOPEN_CLOEXEC);

  if (fd < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "fsopen %s", type);
  return fd;
}

int
cl_fsconfig_string (int fd, const char *key, const char *value,
                    struct cl_error *err)
{
  if (sys_fsconfig (fd, FSCONFIG_SET_STRING, key, value, 0) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "fsconfig %s=%s", key, value);
  return 0;
}

int
cl_fsconfig_flag (int fd, const char *key, struct cl_error *err)
{
  if (sys_fsconfig (fd, FSCONFIG_SET_FLAG, key, NULL, 0) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "fsconfig %s", key);
  return 0;
}

int
cl_fsmount (int fd, unsigned int attrs, struct cl_error *err)
{
  int mnt;

  if (sys_fsconfig (fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "fsconfig create");
  mnt = sys_fsmount (fd, FSMOUNT_CLOEXEC, attrs);
  if (mnt < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "fsmount");
  return mnt;
}

int
cl_mount_setattr (int dirfd, const char *path, unsigned int flags,
                  uint64_t set, uint64_t clear, uint64_t propagation,
                  int userns_fd, struct cl_error *err)
{
  struct cl_mount_attr attr = { set, clear, propagation,
                                userns_fd < 0 ? 0 : (uint64_t) userns_fd };

  if (sys_mount_setattr (dirfd, path, flags, &attr) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "mount_setattr %s", path);
  return 0;
}

int
cl_pivot_root (const char *new_root, const char *put_old, struct cl_error *err)
{
  if (sys_pivot_root (new_root, put_old) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "pivot_root %s", new_root);
  return 0;
}

int
cl_umount (const char *path, int flags, struct cl_error *err)
{
  if (umount2 (path, flags) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "umount %s", path);
  return 0;
}

int
cl_setns (int fd, int nstype, struct cl_error *err)
{
  if (setns (fd, nstype) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "setns");
  return 0;
}

int
cl_unshare (int flags, struct cl_error *err)
{
  if (unshare (flags) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "unshare %#x", flags);
  return 0;
}

int
cl_pidfd_getfd (int pidfd, int fd, struct cl_error *err)
{
  int out = sys_pidfd_getfd (pidfd, fd, 0);

  if (out < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "pidfd_getfd %d", fd);
  return out;
}

int
cl_close_range (unsigned int first, unsigned int last, unsigned int flags,
                struct cl_error *err)
{
  if (sys_close_range (first, last, flags) < 0)
    return cl_fail (err, CL_STAGE_SYSCALL, errno, "close_range %u", first);
  return 0;
}
