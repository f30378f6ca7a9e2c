/* SPDX-License-Identifier: Apache-2.0
 *
 * One clone3 into the new namespaces, and what the new process says. */
#include "init/init.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

uint64_t
cl_namespace_flags (const struct cl_plan *plan)
{
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    if (r.op == CL_OP_NAMESPACES)
      return cl_record_int (&r, 0);
  return 0;
}

/* The score is inherited, so the launcher takes it on for a moment: a process
 * that may not be traced cannot write its own in a user namespace.  Opened
 * while that is still allowed. */
static int score_fd = -1;
static char score_before[16];
static bool score_taken;

void
cl_score_open (void)
{
  score_fd = open ("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
  if (score_fd >= 0 && pread (score_fd, score_before, sizeof score_before - 1, 0) <= 0)
    score_before[0] = '\0';
}

int
cl_score_take (const struct cl_plan *plan, struct cl_error *err)
{
  char text[24];
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    if (r.op == CL_OP_OOM_SCORE_ADJ)
      {
        snprintf (text, sizeof text, "%lld", (long long) cl_record_int (&r, 0));
        if (score_fd < 0 || pwrite (score_fd, text, strlen (text), 0) < 0)
          return cl_fail (err, CL_STAGE_RLIMIT, errno, "oom_score_adj %s", text);
        score_taken = true;
      }
  return 0;
}

/* When that is refused the launcher keeps the higher score: it dies first, not
 * wrongly. */
void
cl_score_give_back (void)
{
  int saved = errno;

  if (score_taken && pwrite (score_fd, score_before, strlen (score_before), 0) >= 0)
    score_taken = false;
  errno = saved;
}

/* clone3 into the cgroup: moving there later waits for a grace period of
 * RCU, ten milliseconds and more. */
static int
clone_process (const struct cl_launch *l, int *pidfd, struct cl_error *err)
{
  int cgroup = cl_cgroups_unified (l->cgroups);
  uint64_t spaces = l->inside ? 0 : cl_namespace_flags (l->plan) & ~(uint64_t) CLONE_NEWCGROUP;
  struct clone_args args = {
    .flags = spaces | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
    .pidfd = (uintptr_t) pidfd,
    .exit_signal = SIGCHLD,
    .cgroup = cgroup >= 0 ? cgroup : 0,
  };
  int pid = sys_clone3 (&args);

  if (pid < 0)
    return cl_fail (err, errno == EUSERS || errno == ENOSPC ? CL_STAGE_NAMESPACE : CL_STAGE_SPAWN,
                    errno, "clone3 %#llx", (unsigned long long) args.flags);
  return pid;
}

/* What the child sends until it execs: a terminal, an error, nothing.  A step
 * may block for long (a file system that hangs), but not beyond the caller. */
static int
listen_to (const struct cl_launch *l, int sock, struct cl_launched *out, struct cl_error *err)
{
  struct pollfd fds[2] = { { .fd = sock, .events = POLLIN },
                           { .fd = l->caller_fd, .events = l->caller_events } };

  for (;;)
    {
      struct
      {
        struct cl_msg head;
        struct cl_error error;
      } message;
      union
      {
        char buf[CMSG_SPACE (sizeof (int))];
        struct cmsghdr align;
      } control;
      struct iovec iov = { &message, sizeof message };
      struct msghdr msg = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.buf,
                            .msg_controllen = sizeof control.buf };
      struct cmsghdr *cmsg;
      ssize_t n;

      if (poll (fds, 2, -1) < 0)
        continue;
      if (fds[0].revents == 0 && fds[1].revents != 0)
        return cl_fail (err, CL_STAGE_SPAWN, ECANCELED, "start: its caller is gone");
      n = TEMP_FAILURE_RETRY_ (recvmsg (sock, &msg, MSG_CMSG_CLOEXEC));
      cmsg = n > 0 ? CMSG_FIRSTHDR (&msg) : NULL;
      if (n == 0)
        return 0;
      if (n < (ssize_t) sizeof message.head)
        return cl_fail (err, CL_STAGE_SPAWN, n < 0 ? errno : EPROTO, "hear from the first process");
      if (cmsg != NULL && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
        memcpy (&out->terminal, CMSG_DATA (cmsg), sizeof out->terminal);
      if (message.head.type == CL_MSG_ERROR && n == (ssize_t) sizeof message)
        {
          *err = message.error;
          errno = err->code;
          return -1;
        }
    }
}

int
cl_launch (const struct cl_launch *l, struct cl_launched *out,
           struct cl_error *err)
{
  cleanup_close int mine = -1, theirs = -1;
  int pair[2], pid, pidfd = -1, r;

  out->terminal = -1;
  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
    return cl_fail (err, CL_STAGE_SPAWN, errno, "make a socket pair");
  mine = pair[0];
  theirs = pair[1];
  /* A health check's waiter was born with the score. */
  if (l->command == NULL && cl_score_take (l->plan, err) < 0)
    return -1;
  pid = clone_process (l, &pidfd, err);
  if (pid != 0 && l->command == NULL)
    cl_score_give_back ();
  if (pid < 0)
    return -1;
  if (pid == 0)
    {
      struct cl_child child = { .launch = l,
                                .sync = theirs,
                                .host_proc = -1,
                                .root = -1,
                                .empty_mount = -1,
                                .null_mount = -1 };
      close (mine);
      cl_child_main (&child);
    }
  close (theirs);
  theirs = -1;
  r = listen_to (l, mine, out, err);
  if (r == 0)
    {
      /* End of file means exec, or a death before it (killed from outside, or
       * by a filter that allows no exec), which its exit status then tells. */
      out->pid = pid;
      out->pidfd = pidfd;
      return 0;
    }
  kill (pid, SIGKILL);
  TEMP_FAILURE_RETRY_ (waitpid (pid, NULL, 0));
  close (pidfd);
  if (out->terminal >= 0)
    close (out->terminal);
  out->terminal = -1;
  errno = err->code;
  return -1;
}
