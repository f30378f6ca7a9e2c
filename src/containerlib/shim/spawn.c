/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MAX_FDS 64
#define STACK_SIZE (64 * 1024)

struct spawn
{
  int exe_fd;
  char *const *argv;
  char *const *envp;
  const int *fds;
  int nfds;
  sigset_t mask;
  int error;
};

/* Runs on its own stack in the caller's memory while the caller's thread is
 * suspended: only async-signal-safe calls, nothing is allocated. */
static int
child (void *arg)
{
  struct spawn *s = arg;
  struct sigaction action = { .sa_handler = SIG_DFL };
  int high[MAX_FDS], exe, base = s->nfds + 1;

  /* All signals are blocked; no handler of Python's may ever run here. */
  for (int sig = 1; sig < _NSIG; sig++)
    sigaction (sig, &action, NULL);

  /* First above every target, then down: sources and targets may overlap. */
  exe = fcntl (s->exe_fd, F_DUPFD_CLOEXEC, base);
  if (exe < 0)
    goto fail;
  for (int i = 0; i < s->nfds; i++)
    {
      high[i] = -1;
      if (s->fds[i] >= 0)
        {
          high[i] = fcntl (s->fds[i], F_DUPFD_CLOEXEC, base);
          if (high[i] < 0)
            goto fail;
        }
      else if (i <= 2)
        {
          int null = open ("/dev/null", O_RDWR | O_CLOEXEC);
          if (null < 0)
            goto fail;
          high[i] = fcntl (null, F_DUPFD_CLOEXEC, base);
          if (high[i] < 0)
            goto fail;
        }
    }
  for (int i = 0; i < s->nfds; i++)
    {
      if (high[i] < 0)
        close (i);
      else if (dup2 (high[i], i) < 0)
        goto fail;
    }
  /* CLOEXEC rather than closing, for exe must survive until execveat. */
  if (syscall (SYS_close_range, s->nfds, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */) < 0)
    for (int fd = s->nfds; fd < 65536; fd++)
      fcntl (fd, F_SETFD, FD_CLOEXEC);

  sigemptyset (&s->mask);
  sigprocmask (SIG_SETMASK, &s->mask, NULL);
  syscall (SYS_execveat, exe, "", s->argv, s->envp, 0x1000 /* AT_EMPTY_PATH */);
fail:
  s->error = errno;
  _exit (127);
}

int
cl_spawn (int exe_fd, char *const argv[], char *const envp[], const int *fds,
          int nfds, int *pidfd, struct cl_error *err)
{
  struct spawn s = { .exe_fd = exe_fd, .argv = argv, .envp = envp, .fds = fds, .nfds = nfds };
  sigset_t all, old;
  char *stack;
  int pid, cancel;

  if (nfds < 3 || nfds > MAX_FDS)
    return cl_fail (err, CL_STAGE_SPAWN, EINVAL, "spawn with %d descriptors", nfds);
  stack = mmap (NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED)
    return cl_fail (err, CL_STAGE_SPAWN, errno, "map a stack");

  sigfillset (&all);
  pthread_sigmask (SIG_BLOCK, &all, &old);
  /* The child shares this thread's memory, a pending cancellation too. */
  pthread_setcancelstate (PTHREAD_CANCEL_DISABLE, &cancel);
  /* CLONE_VM | CLONE_VFORK: the cost does not grow with the caller's memory,
   * and no page of it is copied.  CLONE_PIDFD: a caller that waits for all
   * its children, or ignores SIGCHLD, may have the pid reaped at once. */
  pid = clone (child, stack + STACK_SIZE, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &s, pidfd);
  if (pid < 0)
    s.error = errno;
  pthread_setcancelstate (cancel, NULL);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  munmap (stack, STACK_SIZE);

  if (pid < 0)
    return cl_fail (err, CL_STAGE_SPAWN, s.error, "clone");
  if (s.error != 0)
    {
      TEMP_FAILURE_RETRY_ (waitpid (pid, NULL, 0));
      close (*pidfd);
      return cl_fail (err, CL_STAGE_SPAWN, s.error, "execute %s", argv[0]);
    }
  return pid;
}
