/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode exec: a process in a running container.  Mode connect: a socket in a
 * running container's network. */
#include "init/monitor.h"
#include "init/trees.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

static int
exit_status (int status)
{
  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}

static int
join (int pidfd, int mask, struct cl_error *err)
{
  if (setns (pidfd, mask) < 0)
    return cl_fail (err, CL_STAGE_NAMESPACE, errno, "join the container's namespaces");
  if ((mask & CLONE_NEWUSER) && (setresgid (0, 0, 0) < 0 || setresuid (0, 0, 0) < 0))
    return cl_fail (err, CL_STAGE_IDMAP, errno, "become root of the user namespace");
  return 0;
}

/* What the container has of its own, or shares with another one; what is the
 * host's cannot be joined by a user, and need not be by root. */
static int
joinable (const struct cl_plan *plan)
{
  int mask = cl_namespace_flags (plan);
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    if (r.op == CL_OP_JOIN)
      mask |= cl_record_int (&r, 0);
  return mask;
}

/* Close all from 3 on but the group's descriptors and those in keep, which
 * has room for them: inside, a descriptor would lead out (CVE-2016-9962). */
static void
close_others (const struct cl_cgroups *groups, int *keep, size_t count)
{
  unsigned int from = 3;

  for (int i = 0; i < groups->count; i++)
    keep[count++] = groups->dir[i].fd;
  for (;;)
    {
      unsigned int next = ~0U;

      for (size_t i = 0; i < count; i++)
        if (keep[i] >= (int) from && (unsigned int) keep[i] < next)
          next = keep[i];
      if (next > from)
        sys_close_range (from, next == ~0U ? ~0U : next - 1, 0);
      if (next == ~0U)
        return;
      from = next + 1;
    }
}

int
cl_exec_inside (const struct cl_plan *plan, const struct cl_cgroups *cgroups, int pidfd,
                const struct cl_record *command, int output, struct cl_error *err)
{
  struct cl_cgroups entries = *cgroups;
  int mask = joinable (plan);
  struct cl_launch l = { .plan = plan,
                         .cgroups = &entries,
                         .mount_fd = -1,
                         .caller_fd = -1,
                         .inside = true,
                         .cgroupns = (mask & CLONE_NEWCGROUP) ? pidfd : -1,
                         .command = command,
                         .stdio = { -1, output, output } };
  int keep[3 + CL_MAX_CGROUPS];
  struct cl_launched launched;
  struct cl_error failure = { 0 };
  int status, n, pid;

  if (cl_score_take (plan, err) < 0)
    return -1;
  pid = fork ();
  if (pid != 0)
    cl_score_give_back ();
  if (pid < 0)
    return cl_fail (err, CL_STAGE_SPAWN, errno, "fork");
  if (pid > 0)
    return pid;
  prctl (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  l.self_fd = sys_pidfd_open (getpid (), 0);
  n = cl_cgroups_narrow (&entries, &failure);
  if (n == 0)
    n = join (pidfd, mask & ~CLONE_NEWCGROUP, &failure);
  keep[0] = output;
  keep[1] = l.self_fd;
  keep[2] = pidfd;
  close_others (&entries, keep, 3);
  if (n < 0 || cl_launch (&l, &launched, &failure) < 0)
    {
      cl_write_all (output, failure.msg, strlen (failure.msg));
      _exit (failure.code == ENOENT ? 127 : 126);
    }
  if (TEMP_FAILURE_RETRY_ (waitpid (launched.pid, &status, 0)) < 0)
    _exit (125);
  _exit (exit_status (status));
}

/* ---- mode exec -------------------------------------------------------- */

struct exec
{
  struct cl_plan plan;
  struct cl_cgroups cgroups;
  struct cl_launch launch;
  struct cl_launched launched;
  int target, mask, flags;
};

static void
read_plan (struct exec *x)
{
  struct cl_record r;

  x->target = -1;
  for (int i = 0; i < 3; i++)
    x->launch.stdio[i] = -1;
  cl_plan_rewind (&x->plan, &r);
  while (cl_plan_next (&x->plan, &r, NULL) > 0)
    switch (r.op)
      {
      case CL_OP_CONTAINER:
        x->flags = cl_record_int (&r, 0);
        break;
      case CL_OP_FDS:
        for (int i = 0; i < 3; i++)
          x->launch.stdio[i] = cl_record_int (&r, 4 + i);
        break;
      case CL_OP_TARGET:
        x->target = cl_record_int (&r, 0);
        x->mask = cl_record_int (&r, 1);
        break;
      default:
        break;
      }
}

/* SIGKILL is for all of it: the process leads a group of its own, in which its
 * children are but for those that a shell's job control took out.  It is not
 * reaped yet, so the number is still its. */
static int
send_signal (struct exec *x, int sig)
{
  int code = sys_pidfd_send_signal (x->launched.pidfd, sig) < 0 ? errno : 0;

  if (sig == SIGKILL)
    kill (-x->launched.pid, SIGKILL);
  return code;
}

/* A signal; a resize is the caller's own doing on the terminal it holds. */
static void
obey (struct exec *x)
{
  struct cl_msg head;
  ssize_t n = recv (FD_STATUS, &head, sizeof head, MSG_DONTWAIT);

  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    {
      /* The caller is gone, or has let go of a process that is to live on. */
      if (x->flags & CL_OWNED)
        send_signal (x, SIGKILL);
      shutdown (FD_STATUS, SHUT_RDWR);
      x->flags |= CL_DAEMONIZE;
      return;
    }
  if (n == sizeof head && head.type == CL_MSG_KILL)
    cl_send (FD_STATUS, CL_MSG_ACK, send_signal (x, head.arg), NULL, 0, -1, MSG_DONTWAIT);
}

static int
wait_for_end (struct exec *x)
{
  struct pollfd fds[2] = { { .fd = x->launched.pidfd, .events = POLLIN },
                           { .fd = FD_STATUS, .events = POLLIN } };
  int status;

  for (;;)
    {
      fds[1].fd = (x->flags & CL_DAEMONIZE) ? -1 : FD_STATUS;
      if (poll (fds, 2, -1) < 0)
        continue;
      if (fds[0].revents != 0)
        break;
      if (fds[1].revents != 0)
        obey (x);
    }
  if (TEMP_FAILURE_RETRY_ (waitpid (x->launched.pid, &status, 0)) < 0)
    return 125;
  return exit_status (status);
}

int
cl_main_exec (int argc, char **argv)
{
  static struct exec x;
  struct cl_error err = { 0 };
  sigset_t all;
  int code;

  (void) argc;
  (void) argv;
  sys_close_range (3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
  sigfillset (&all);
  sigprocmask (SIG_SETMASK, &all, NULL);
  prctl (PR_SET_NAME, "containerlib", 0, 0, 0);
  cl_score_open ();
  prctl (PR_SET_DUMPABLE, 0, 0, 0, 0);
  x.launch = (struct cl_launch){ .plan = &x.plan, .cgroups = &x.cgroups, .mount_fd = -1, .caller_fd = -1, .inside = true, .cgroupns = -1 };
  x.launch.self_fd = sys_pidfd_open (getpid (), 0);

  if (cl_plan_map (&x.plan, &err) < 0)
    goto fail;
  close (FD_PLAN);
  read_plan (&x);
  x.launch.flags = x.flags;
  /* A hang-up alone: what it has sent meanwhile is heard afterwards. */
  if (x.flags & CL_OWNED)
    x.launch.caller_fd = FD_STATUS;
  /* Opened before the namespaces change: the host's paths are not there. */
  if (cl_cgroups_open (&x.cgroups, &x.plan, false, &err) < 0
      || cl_cgroups_narrow (&x.cgroups, &err) < 0
      || join (x.target, x.mask & ~CLONE_NEWCGROUP, &err) < 0)
    goto fail;
  x.launch.cgroupns = (x.mask & CLONE_NEWCGROUP) ? x.target : -1;
  if (cl_launch (&x.launch, &x.launched, &err) < 0)
    goto fail;
  close (x.target);
  for (int i = 0; i < 3; i++)
    if (x.launch.stdio[i] >= 0)
      close (x.launch.stdio[i]);
  if (x.launched.terminal >= 0)
    {
      cl_send (FD_STATUS, CL_MSG_TERMINAL, 0, NULL, 0, x.launched.terminal, 0);
      close (x.launched.terminal);
    }
  cl_send (FD_STATUS, CL_MSG_STARTED, x.launched.pid, NULL, 0, -1, 0);
  code = wait_for_end (&x);
  cl_send (FD_STATUS, CL_MSG_EXITED, code, NULL, 0, -1, MSG_DONTWAIT);
  return code;

fail:
  cl_send (FD_STATUS, CL_MSG_ERROR, err.code, &err, sizeof err, -1, 0);
  return 125;
}

/* ---- mode connect ------------------------------------------------------ */

/* The address in hexadecimal digits, as many bytes as the family has. */
static int
read_address (const char *text, unsigned char *out, size_t size)
{
  if (strlen (text) != 2 * size)
    return -1;
  for (size_t i = 0; i < size; i++)
    {
      char pair[3] = { text[2 * i], text[2 * i + 1], '\0' }, *end;

      out[i] = strtoul (pair, &end, 16);
      if (*end != '\0')
        return -1;
    }
  return 0;
}

/* connect TARGET-FD MASK FAMILY ADDRESS PORT: the connected socket goes back
 * over the status socket.  A new one of the same network namespace serves as
 * if its owner were inside. */
int
cl_main_connect (int argc, char **argv)
{
  struct cl_error err = { 0 };
  union
  {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address;
  cleanup_close int sock = -1;
  socklen_t size;
  bool v6;

  if (argc != 6)
    return 64;
  v6 = strcmp (argv[3], "6") == 0;
  memset (&address, 0, sizeof address);
  address.any.sa_family = v6 ? AF_INET6 : AF_INET;
  if (v6)
    address.v6.sin6_port = htons (atoi (argv[5]));
  else
    address.v4.sin_port = htons (atoi (argv[5]));
  size = v6 ? sizeof address.v6 : sizeof address.v4;
  if (read_address (argv[4], v6 ? (unsigned char *) &address.v6.sin6_addr : (unsigned char *) &address.v4.sin_addr,
                    v6 ? 16 : 4)
      < 0)
    return 64;
  if (join (atoi (argv[1]), strtol (argv[2], NULL, 0), &err) < 0)
    goto fail;
  sock = socket (v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (sock < 0 || TEMP_FAILURE_RETRY_ (connect (sock, &address.any, size)) < 0)
    {
      cl_fail (&err, CL_STAGE_NAMESPACE, errno, "connect to port %s in the container", argv[5]);
      goto fail;
    }
  return cl_send (FD_STATUS, CL_MSG_TERMINAL, 0, NULL, 0, sock, 0) < 0 ? 1 : 0;

fail:
  cl_send (FD_STATUS, CL_MSG_ERROR, err.code, &err, sizeof err, -1, 0);
  return 1;
}
