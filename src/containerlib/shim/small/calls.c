/* SPDX-License-Identifier: Apache-2.0
 *
 * One function a system call, with the C library's names and types.  Where an
 * architecture lacks an old call (open, dup2, poll), the newer one serves. */
#include "small/small.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* The kernel's sets of signals have 64 bits. */
#define SIGSET 8

#define F0(type, name, n) \
  type name (void) { return CALL (n, 0, 0, 0, 0, 0, 0); }
#define F1(type, name, n, A) \
  type name (A a) { return CALL (n, a, 0, 0, 0, 0, 0); }
#define F2(type, name, n, A, B) \
  type name (A a, B b) { return CALL (n, a, b, 0, 0, 0, 0); }
#define F3(type, name, n, A, B, C) \
  type name (A a, B b, C c) { return CALL (n, a, b, c, 0, 0, 0); }
#define F4(type, name, n, A, B, C, D) \
  type name (A a, B b, C c, D d) { return CALL (n, a, b, c, d, 0, 0); }
#define F5(type, name, n, A, B, C, D, E) \
  type name (A a, B b, C c, D d, E e) { return CALL (n, a, b, c, d, e, 0); }

/* ---- descriptors and files ---- */

F1 (int, close, SYS_close, int)
F3 (ssize_t, read, SYS_read, int, void *, size_t)
F3 (ssize_t, write, SYS_write, int, const void *, size_t)
F4 (ssize_t, pread, SYS_pread64, int, void *, size_t, off_t)
F4 (ssize_t, pwrite, SYS_pwrite64, int, const void *, size_t, off_t)
F3 (off_t, lseek, SYS_lseek, int, off_t, int)
F2 (int, ftruncate, SYS_ftruncate, int, off_t)
F1 (int, syncfs, SYS_syncfs, int)
F1 (int, dup, SYS_dup, int)
F3 (int, dup3, SYS_dup3, int, int, int)
F2 (int, pipe2, SYS_pipe2, int *, int)
F1 (int, chdir, SYS_chdir, const char *)
F1 (int, fchdir, SYS_fchdir, int)
F3 (int, mkdirat, SYS_mkdirat, int, const char *, mode_t)
F4 (int, mknodat, SYS_mknodat, int, const char *, mode_t, dev_t)
F3 (int, unlinkat, SYS_unlinkat, int, const char *, int)
F3 (int, symlinkat, SYS_symlinkat, const char *, int, const char *)
F5 (int, linkat, SYS_linkat, int, const char *, int, const char *, int)
F4 (ssize_t, readlinkat, SYS_readlinkat, int, const char *, char *, size_t)
F2 (int, fchmod, SYS_fchmod, int, mode_t)
F3 (int, fchown, SYS_fchown, int, uid_t, gid_t)
F5 (int, fchownat, SYS_fchownat, int, const char *, uid_t, gid_t, int)
F2 (int, fstatfs, SYS_fstatfs, int, struct statfs *)
F4 (int, utimensat, SYS_utimensat, int, const char *, const struct timespec *, int)
F5 (int, fsetxattr, SYS_fsetxattr, int, const char *, const void *, size_t, int)
F5 (int, renameat2, SYS_renameat2, int, const char *, int, const char *, unsigned int)
F1 (mode_t, umask, SYS_umask, mode_t)

int
openat (int dir, const char *path, int flags, ...)
{
  va_list ap;
  int mode;

  va_start (ap, flags);
  mode = va_arg (ap, int);
  va_end (ap);
  return CALL (SYS_openat, dir, path, flags, mode, 0, 0);
}

int
open (const char *path, int flags, ...)
{
  va_list ap;
  int mode;

  va_start (ap, flags);
  mode = va_arg (ap, int);
  va_end (ap);
  return CALL (SYS_openat, AT_FDCWD, path, flags, mode, 0, 0);
}

int
fcntl (int fd, int command, ...)
{
  va_list ap;
  long argument;

  va_start (ap, command);
  argument = va_arg (ap, long);
  va_end (ap);
  return CALL (SYS_fcntl, fd, command, argument, 0, 0, 0);
}

int
ioctl (int fd, unsigned long request, ...)
{
  va_list ap;
  long argument;

  va_start (ap, request);
  argument = va_arg (ap, long);
  va_end (ap);
  return CALL (SYS_ioctl, fd, request, argument, 0, 0, 0);
}

int
dup2 (int from, int to)
{
  /* dup3 refuses two equal ones. */
  if (from == to)
    return fcntl (from, F_GETFD) < 0 ? -1 : to;
  return dup3 (from, to, 0);
}

int
fstatat (int dir, const char *path, struct stat *st, int flags)
{
  return CALL (SYS_newfstatat, dir, path, st, flags, 0, 0);
}

int
stat (const char *path, struct stat *st)
{
  return fstatat (AT_FDCWD, path, st, 0);
}

int
fstat (int fd, struct stat *st)
{
  return CALL (SYS_fstat, fd, st, 0, 0, 0, 0);
}

int
faccessat (int dir, const char *path, int mode, int flags)
{
  int result = CALL (SYS_faccessat2, dir, path, mode, flags, 0, 0);

  /* Before 5.8 with the real ids, which are the effective ones here. */
  if (result < 0 && (errno == ENOSYS || errno == EPERM))
    result = CALL (SYS_faccessat, dir, path, mode, 0, 0, 0);
  return result;
}

int
access (const char *path, int mode)
{
  return CALL (SYS_faccessat, AT_FDCWD, path, mode, 0, 0, 0);
}

int
mkdir (const char *path, mode_t mode)
{
  return mkdirat (AT_FDCWD, path, mode);
}

int
rmdir (const char *path)
{
  return unlinkat (AT_FDCWD, path, AT_REMOVEDIR);
}

int
unlink (const char *path)
{
  return unlinkat (AT_FDCWD, path, 0);
}

int
renameat (int from_dir, const char *from, int to_dir, const char *to)
{
  return renameat2 (from_dir, from, to_dir, to, 0);
}

ssize_t
readlink (const char *path, char *out, size_t size)
{
  return readlinkat (AT_FDCWD, path, out, size);
}

int
chmod (const char *path, mode_t mode)
{
  return CALL (SYS_fchmodat, AT_FDCWD, path, mode, 0, 0, 0);
}

int
futimens (int fd, const struct timespec times[2])
{
  return CALL (SYS_utimensat, fd, NULL, times, 0, 0, 0);
}

/* ---- mounts and namespaces ---- */

F5 (int, mount, SYS_mount, const char *, const char *, const char *, unsigned long, const void *)
F2 (int, umount2, SYS_umount2, const char *, int)
F2 (int, setns, SYS_setns, int, int)
F1 (int, unshare, SYS_unshare, int)
F2 (int, sethostname, SYS_sethostname, const char *, size_t)
F2 (int, setdomainname, SYS_setdomainname, const char *, size_t)

/* ---- processes ---- */

F0 (pid_t, getpid, SYS_getpid)
F0 (uid_t, geteuid, SYS_geteuid)
F0 (gid_t, getegid, SYS_getegid)
F0 (pid_t, setsid, SYS_setsid)
F2 (int, setpgid, SYS_setpgid, pid_t, pid_t)
F2 (int, kill, SYS_kill, pid_t, int)
F3 (int, setresuid, SYS_setresuid, uid_t, uid_t, uid_t)
F3 (int, setresgid, SYS_setresgid, gid_t, gid_t, gid_t)
F2 (int, setgroups, SYS_setgroups, size_t, const gid_t *)
F3 (int, execve, SYS_execve, const char *, char *const *, char *const *)
F4 (pid_t, wait4, SYS_wait4, pid_t, int *, int, struct rusage *)

void
_exit (int status)
{
  for (;;)
    small_call (SYS_exit_group, status, 0, 0, 0, 0, 0);
}

pid_t
fork (void)
{
  return CALL (SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
}

pid_t
waitpid (pid_t pid, int *status, int options)
{
  return wait4 (pid, status, options, NULL);
}

int
prctl (int option, ...)
{
  va_list ap;
  unsigned long a[4];

  va_start (ap, option);
  for (int i = 0; i < 4; i++)
    a[i] = va_arg (ap, unsigned long);
  va_end (ap);
  return CALL (SYS_prctl, option, a[0], a[1], a[2], a[3], 0);
}

int
setrlimit (__rlimit_resource_t resource, const struct rlimit *limit)
{
  return CALL (SYS_prlimit64, 0, resource, limit, 0, 0, 0);
}

int
tcsetpgrp (int fd, pid_t group)
{
  return ioctl (fd, TIOCSPGRP, &group);
}

void *
mmap (void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
  return (void *) CALL (SYS_mmap, at, size, protection, flags, fd, offset);
}

F2 (int, munmap, SYS_munmap, void *, size_t)

/* ---- signals ---- */

int
sigemptyset (sigset_t *set)
{
  *(unsigned long *) set = 0;
  return 0;
}

int
sigfillset (sigset_t *set)
{
  *(unsigned long *) set = ~0UL;
  return 0;
}

int
sigaddset (sigset_t *set, int sig)
{
  *(unsigned long *) set |= 1UL << (sig - 1);
  return 0;
}

int
sigprocmask (int how, const sigset_t *set, sigset_t *old)
{
  return CALL (SYS_rt_sigprocmask, how, set, old, SIGSET, 0, 0);
}

int
sigwait (const sigset_t *set, int *sig)
{
  long result;

  do
    result = small_call (SYS_rt_sigtimedwait, (long) set, 0, 0, SIGSET, 0, 0);
  while (result == -EINTR);
  if (result < 0)
    return -result;
  *sig = result;
  return 0;
}

int
signalfd (int fd, const sigset_t *set, int flags)
{
  return CALL (SYS_signalfd4, fd, set, SIGSET, flags, 0, 0);
}

/* ---- waiting ---- */

int
poll (struct pollfd *fds, nfds_t count, int ms)
{
  struct timespec limit = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L };

  return CALL (SYS_ppoll, fds, count, ms < 0 ? NULL : &limit, NULL, SIGSET, 0);
}

F1 (int, epoll_create1, SYS_epoll_create1, int)
F4 (int, epoll_ctl, SYS_epoll_ctl, int, int, int, struct epoll_event *)

int
epoll_wait (int fd, struct epoll_event *events, int count, int ms)
{
  return CALL (SYS_epoll_pwait, fd, events, count, ms, NULL, SIGSET);
}

int
timerfd_create (clockid_t clock, int flags)
{
  return CALL (SYS_timerfd_create, clock, flags, 0, 0, 0, 0);
}

F4 (int, timerfd_settime, SYS_timerfd_settime, int, int, const struct itimerspec *, struct itimerspec *)
F2 (int, clock_gettime, SYS_clock_gettime, clockid_t, struct timespec *)

/* ---- sockets ---- */

F3 (int, socket, SYS_socket, int, int, int)
F4 (int, socketpair, SYS_socketpair, int, int, int, int *)
F3 (ssize_t, sendmsg, SYS_sendmsg, int, const struct msghdr *, int)
F3 (ssize_t, recvmsg, SYS_recvmsg, int, struct msghdr *, int)
F2 (int, listen, SYS_listen, int, int)
F2 (int, shutdown, SYS_shutdown, int, int)
F5 (int, getsockopt, SYS_getsockopt, int, int, int, void *, socklen_t *)

int
bind (int fd, const struct sockaddr *address, socklen_t size)
{
  return CALL (SYS_bind, fd, address, size, 0, 0, 0);
}

int
connect (int fd, const struct sockaddr *address, socklen_t size)
{
  return CALL (SYS_connect, fd, address, size, 0, 0, 0);
}

int
accept4 (int fd, struct sockaddr *address, socklen_t *size, int flags)
{
  return CALL (SYS_accept4, fd, address, size, flags, 0, 0);
}

ssize_t
recv (int fd, void *buf, size_t size, int flags)
{
  return CALL (SYS_recvfrom, fd, buf, size, flags, 0, 0);
}

/* ---- device numbers, as the kernel's new_encode_dev has them ---- */

dev_t
gnu_dev_makedev (unsigned int major, unsigned int minor)
{
  return ((dev_t) (major & 0xfffff000u) << 32) | ((dev_t) (major & 0xfffu) << 8)
         | ((dev_t) (minor & 0xffffff00u) << 12) | (minor & 0xffu);
}
