/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls that the C library of Debian 12 has no wrapper or no constant
 * for. */
#ifndef CONTAINERLIB_SYSCALLS_H
#define CONTAINERLIB_SYSCALLS_H

#include "common.h"

#include <linux/openat2.h>
#include <linux/sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x4
#endif
#ifndef MOVE_MOUNT_T_EMPTY_PATH
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

static inline int
sys_openat2 (int dirfd, const char *path, uint64_t flags, uint64_t mode,
             uint64_t resolve)
{
  struct open_how how = { .flags = flags, .mode = mode, .resolve = resolve };
  long fd;
  int tries = 0;

  /* EAGAIN: a rename raced the walk and the kernel could not be sure that
   * it stayed below the root. */
  do
    fd = syscall (SYS_openat2, dirfd, path, &how, sizeof how);
  while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 256)));
  return fd;
}

static inline int
sys_open_tree (int dirfd, const char *path, unsigned int flags)
{
  return syscall (SYS_open_tree, dirfd, path, flags);
}

static inline int
sys_move_mount (int from_fd, const char *from, int to_fd, const char *to,
                unsigned int flags)
{
  return syscall (SYS_move_mount, from_fd, from, to_fd, to, flags);
}

static inline int
sys_fsopen (const char *type, unsigned int flags)
{
  return syscall (SYS_fsopen, type, flags);
}

static inline int
sys_fsconfig (int fd, unsigned int cmd, const char *key, const void *value,
              int aux)
{
  return syscall (SYS_fsconfig, fd, cmd, key, value, aux);
}

static inline int
sys_fsmount (int fd, unsigned int flags, unsigned int attrs)
{
  return syscall (SYS_fsmount, fd, flags, attrs);
}

struct cl_mount_attr
{
  uint64_t set;
  uint64_t clear;
  uint64_t propagation;
  uint64_t userns_fd;
};

static inline int
sys_mount_setattr (int dirfd, const char *path, unsigned int flags,
                   struct cl_mount_attr *attr)
{
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
  return syscall (SYS_mount_setattr, dirfd, path, flags, attr, sizeof *attr);
}

static inline int
sys_pivot_root (const char *new_root, const char *put_old)
{
  return syscall (SYS_pivot_root, new_root, put_old);
}

static inline int
sys_pidfd_open (int pid, unsigned int flags)
{
  return syscall (SYS_pidfd_open, pid, flags);
}

static inline int
sys_pidfd_getfd (int pidfd, int fd, unsigned int flags)
{
  return syscall (SYS_pidfd_getfd, pidfd, fd, flags);
}

static inline int
sys_pidfd_send_signal (int pidfd, int sig)
{
  return syscall (SYS_pidfd_send_signal, pidfd, sig, NULL, 0);
}

static inline int
sys_close_range (unsigned int first, unsigned int last, unsigned int flags)
{
  return syscall (SYS_close_range, first, last, flags);
}

static inline int
sys_clone3 (struct clone_args *args)
{
  return syscall (SYS_clone3, args, sizeof *args);
}

#endif
