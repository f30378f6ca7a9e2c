/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode run: from the plan to the container's end.
 *
 * Descriptors, cgroups, namespaces and the lock on the state file all belong
 * to this one process; when it is killed, the kernel ends and frees the rest. */
#include "init/monitor.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <termios.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS 60000
#define BACKOFF_RESET_MS 10000

static struct monitor monitor;

void
monitor_write_state (struct monitor *m)
{
  m->state.seq++;
  m->state.seq_end = m->state.seq;
  /* One write into blocks that exist already: a full disk cannot stop it. */
  TEMP_FAILURE_RETRY_ (pwrite (m->state_fd, &m->state, sizeof m->state, 0));
}

/* A time of a hundred years is no negative one. */
static int
clamp (int64_t value)
{
  return value < 0 ? 0 : value > INT_MAX ? INT_MAX
                                         : value;
}

static void
read_plan (struct monitor *m)
{
  struct cl_record r;

  cl_plan_rewind (&m->plan, &r);
  while (cl_plan_next (&m->plan, &r, NULL) > 0)
    switch (r.op)
      {
      case CL_OP_CONTAINER:
        m->flags = cl_record_int (&r, 0);
        m->stop_signal = cl_record_int (&r, 1);
        m->grace_ms = clamp (cl_record_int (&r, 2));
        m->id = cl_record_str (&r, 0, NULL);
        break;
      case CL_OP_FDS:
        m->state_fd = cl_record_int (&r, 0);
        m->dir_fd = cl_record_int (&r, 1);
        m->run_fd = cl_record_int (&r, 2);
        m->owner_fd = cl_record_int (&r, 3);
        for (int i = 0; i < 3; i++)
          m->capture[i] = cl_record_int (&r, 4 + i);
        break;
      case CL_OP_LOG:
        m->log.max_size = cl_record_int (&r, 0);
        m->log.max_files = cl_record_int (&r, 1);
        break;
      case CL_OP_RESTART:
        m->policy = cl_record_int (&r, 0);
        m->max_retries = cl_record_int (&r, 1);
        break;
      case CL_OP_HEALTH:
        m->health.configured = true;
        m->health.command = r;
        m->health.interval_ms = cl_record_int (&r, 0);
        m->health.timeout_ms = cl_record_int (&r, 1);
        m->health.start_period_ms = cl_record_int (&r, 2);
        m->health.start_interval_ms = cl_record_int (&r, 3);
        m->health.retries = cl_record_int (&r, 4);
        break;
      default:
        break;
      }
}

/* The helper itself works inside the user namespace, as its root: what it
 * makes, mounts and removes has the owners that the container sees. */
static int
enter_userns (const struct cl_plan *plan, struct cl_error *err)
{
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    {
      char text[64];
      int kind = cl_record_int (&r, 0);

      if (r.op != CL_OP_USERNS || kind == CL_USERNS_NONE)
        continue;
      if (kind == CL_USERNS_JOIN)
        {
          if (setns (cl_record_int (&r, 1), CLONE_NEWUSER) < 0)
            return cl_fail (err, CL_STAGE_IDMAP, errno, "join the user namespace");
        }
      else
        {
          static const char *const files[] = { "setgroups", "uid_map", "gid_map" };

          if (unshare (CLONE_NEWUSER) < 0)
            return cl_fail (err, CL_STAGE_IDMAP, errno, "make a user namespace");
          for (int i = 0; i < 3; i++)
            {
              char path[40];
              cleanup_close int fd = -1;

              snprintf (path, sizeof path, "/proc/self/%s", files[i]);
              if (i == 0)
                snprintf (text, sizeof text, "deny");
              else
                snprintf (text, sizeof text, "0 %lld 1", (long long) cl_record_int (&r, 1 + i));
              fd = open (path, O_WRONLY | O_CLOEXEC);
              if (fd < 0 || cl_write_all (fd, text, strlen (text)) < 0)
                return cl_fail (err, CL_STAGE_IDMAP, errno, "write %s", files[i]);
            }
        }
      if (setresgid (0, 0, 0) < 0 || setresuid (0, 0, 0) < 0)
        return cl_fail (err, CL_STAGE_IDMAP, errno, "become root of the user namespace");
    }
  return 0;
}

static int
join_pidns (const struct cl_plan *plan, struct cl_error *err)
{
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    if (r.op == CL_OP_JOIN && cl_record_int (&r, 0) == CLONE_NEWPID
        && setns (cl_record_int (&r, 1), CLONE_NEWPID) < 0)
      return cl_fail (err, CL_STAGE_NAMESPACE, errno, "join the process namespace");
  return 0;
}

static int
open_streams (struct monitor *m, struct cl_launch *l, struct cl_error *err)
{
  int pair[2];

  for (int i = 0; i < 3; i++)
    {
      /* For one run: whoever captures it reads to the end, which comes when
       * the last copy is closed.  A further run has nobody to print for. */
      l->stdio[i] = m->capture[i];
      m->capture[i] = -1;
    }
  if (m->flags & (CL_CAPTURE | CL_TTY))
    return 0;
  for (int i = 0; i < 2; i++)
    {
      if (pipe2 (pair, O_CLOEXEC) < 0)
        return cl_fail (err, CL_STAGE_MONITOR, errno, "make a pipe");
      fcntl (pair[0], F_SETFL, O_NONBLOCK);
      m->out_fd[i] = pair[0];
      l->stdio[1 + i] = pair[1];
    }
  if (m->flags & CL_STDIN_OPEN)
    {
      if (pipe2 (pair, O_CLOEXEC) < 0)
        return cl_fail (err, CL_STAGE_MONITOR, errno, "make a pipe");
      fcntl (pair[1], F_SETFL, O_NONBLOCK);
      m->in_fd = pair[1];
      l->stdio[0] = pair[0];
    }
  return 0;
}

static void
close_streams (struct monitor *m)
{
  for (int i = 0; i < 2; i++)
    {
      if (m->out_fd[i] >= 0)
        close (m->out_fd[i]);
      if (m->in_fd == m->out_fd[i])
        m->in_fd = -1;
      m->out_fd[i] = -1;
    }
  if (m->in_fd >= 0)
    close (m->in_fd);
  m->in_fd = -1;
  clients_forget_input (m);
}

int
monitor_start (struct monitor *m, struct cl_error *err)
{
  struct cl_launch l = { .plan = &m->plan, .cgroups = &m->cgroups, .flags = m->flags, .mount_fd = m->run_fd, .self_fd = m->self_fd, .caller_fd = m->owner_fd, .caller_events = POLLIN };
  /* The groups outlive a restart, and with them their counters. */
  uint64_t oom_kills = cl_cgroups_oom_kills (&m->cgroups);
  int r;

  if (open_streams (m, &l, err) < 0)
    return -1;
  r = cl_launch (&l, &m->main, err);
  for (int i = 0; i < 3; i++)
    if (l.stdio[i] >= 0)
      close (l.stdio[i]);
  if (r < 0)
    {
      m->main.pid = 0;
      close_streams (m);
      return -1;
    }
  if (m->flags & CL_TTY)
    {
      fcntl (m->main.terminal, F_SETFL, O_NONBLOCK);
      m->out_fd[0] = m->in_fd = m->main.terminal;
      /* Held open here, or the terminal would end when the container closes
       * it for a while. */
      m->peer_fd = ioctl (m->main.terminal, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    }
  for (int i = 0; i < 2; i++)
    if (m->out_fd[i] >= 0)
      loop_add (m, m->out_fd[i], EPOLLIN, EVENT_OUTPUT, i);

  m->started_ms = cl_now_ms ();
  m->oom_kills = oom_kills;
  m->state.status = CL_RUNNING;
  m->state.pid = m->main.pid;
  m->state.pid_start = cl_start_time (m->main.pid);
  m->state.started_ns = cl_now_ns ();
  m->state.finished_ns = 0;
  m->state.exit_code = -1;
  m->state.signal = m->state.core_dumped = m->state.oom_killed = 0;
  m->state.stopped_by_user = 0;
  memset (&m->state.error, 0, sizeof m->state.error);
  if (m->flags & CL_KILL_ALL)
    m->mounts_fd = cl_mounts_open (m->main.pid, &m->state.mounts_id);
  if (m->health.configured)
    health_start (m);
  monitor_write_state (m);
  clients_send (m, CL_MSG_STARTED, m->main.pid, NULL, 0);
  return 0;
}

int
monitor_kill (struct monitor *m, int sig)
{
  if (m->main.pid == 0)
    return ESRCH;
  if (sig == SIGKILL || sig == m->stop_signal)
    {
      m->stopping = true;
      m->state.stopped_by_user = 1;
    }
  if (sig == SIGKILL)
    cl_cgroups_thaw (&m->cgroups);
  return sys_pidfd_send_signal (m->main.pidfd, sig) < 0 ? errno : 0;
}

static void
end (struct monitor *m)
{
  m->ended = true;
}

void
monitor_stop (struct monitor *m, int sig, int grace_ms)
{
  m->stopping = true;
  m->again = false;
  if (m->main.pid == 0)
    {
      /* Between two runs: the policy is overruled. */
      m->state.status = CL_EXITED;
      m->state.stopped_by_user = 1;
      end (m);
      return;
    }
  m->state.stopped_by_user = 1;
  monitor_write_state (m);
  if (grace_ms < 0)
    grace_ms = m->grace_ms;
  if (grace_ms == 0)
    {
      monitor_kill (m, SIGKILL);
      return;
    }
  cl_cgroups_thaw (&m->cgroups);
  sys_pidfd_send_signal (m->main.pidfd, sig > 0 ? sig : m->stop_signal);
  loop_timer (m->stop_timer, grace_ms);
}

void
monitor_restart (struct monitor *m, int grace_ms)
{
  struct cl_error err = { 0 };

  if (m->remove)
    return; /* its owner is gone: the end has begun */
  if (m->main.pid != 0)
    {
      monitor_stop (m, 0, grace_ms);
      m->again = true;
      return;
    }
  m->stopping = false;
  if (monitor_start (m, &err) == 0)
    return;
  m->state.status = CL_EXITED;
  m->state.error = err;
  m->state.exit_code = err.code == ENOENT ? 127 : 126;
  m->state.finished_ns = cl_now_ns ();
  clients_send (m, CL_MSG_ERROR, err.code, &err, sizeof err);
  end (m);
}

static bool
wants_restart (const struct monitor *m)
{
  if (m->stopping || m->remove)
    return false;
  switch (m->policy)
    {
    case CL_RESTART_ALWAYS:
    case CL_RESTART_UNLESS_STOPPED:
      return true;
    case CL_RESTART_ON_FAILURE:
      return m->state.exit_code != 0
             && (m->max_retries <= 0 || m->state.restart_count < m->max_retries);
    default:
      return false;
    }
}

void
monitor_exited (struct monitor *m, int status, const void *usage_)
{
  const struct rusage *usage = usage_;
  struct cl_state *s = &m->state;
  bool restart;

  s->finished_ns = cl_now_ns ();
  loop_timer (m->stop_timer, 0);
  m->main.pid = 0;
  close (m->main.pidfd);
  if (m->health.configured)
    health_stop (m);
  if (m->flags & CL_KILL_ALL)
    {
      cl_cgroups_kill (&m->cgroups);
      if (m->cgroups.count == 0)
        cl_mounts_kill (m->mounts_fd);
      if (m->mounts_fd >= 0)
        close (m->mounts_fd);
      m->mounts_fd = -1;
    }
  if (m->peer_fd >= 0)
    close (m->peer_fd);
  m->peer_fd = -1;
  loop_drain (m);
  close_streams (m);

  s->exit_code = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  s->signal = WIFSIGNALED (status) ? WTERMSIG (status) : 0;
  s->core_dumped = WIFSIGNALED (status) && WCOREDUMP (status);
  s->oom_killed = cl_cgroups_oom_kills (&m->cgroups) > m->oom_kills;
  s->user_us = usage->ru_utime.tv_sec * 1000000LL + usage->ru_utime.tv_usec;
  s->system_us = usage->ru_stime.tv_sec * 1000000LL + usage->ru_stime.tv_usec;
  s->max_rss_kb = usage->ru_maxrss;
  s->health = m->health.configured ? CL_HEALTH_UNHEALTHY : CL_HEALTH_NONE;
  s->pid = 0;
  restart = m->again || wants_restart (m);
  s->status = restart ? CL_RESTARTING : CL_EXITED;
  monitor_write_state (m);
  clients_send (m, CL_MSG_EXITED, s->exit_code, s, sizeof *s);
  if (m->again)
    {
      m->again = false;
      monitor_restart (m, 0);
      return;
    }
  if (!restart)
    {
      end (m);
      return;
    }
  s->restart_count++;
  if (cl_now_ms () - m->started_ms >= BACKOFF_RESET_MS || m->backoff_ms == 0)
    m->backoff_ms = BACKOFF_FIRST_MS;
  else
    m->backoff_ms = m->backoff_ms < BACKOFF_LAST_MS / 2 ? m->backoff_ms * 2 : BACKOFF_LAST_MS;
  if (m->restart_timer < 0)
    {
      m->restart_timer = timerfd_create (CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
      loop_add (m, m->restart_timer, EPOLLIN, EVENT_RESTART_TIMER, 0);
    }
  loop_timer (m->restart_timer, m->backoff_ms);
}

static int
prepare (struct monitor *m, struct cl_error *err)
{
  if (cl_plan_map (&m->plan, err) < 0)
    return -1;
  close (FD_PLAN);
  read_plan (m);
  if (m->id == NULL || m->state_fd < 0)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "a plan without container or state");
  if (pread (m->state_fd, &m->state, sizeof m->state, 0) != sizeof m->state
      || m->state.magic != CL_STATE_MAGIC)
    return cl_fail (err, CL_STAGE_MONITOR, EINVAL, "read the state file");
  if (m->flags & CL_DAEMONIZE)
    {
      int pid = fork ();
      if (pid < 0)
        return cl_fail (err, CL_STAGE_MONITOR, errno, "fork");
      if (pid > 0)
        _exit (0);
    }
  setsid ();
  prctl (PR_SET_NAME, "containerlib", 0, 0, 0);
  prctl (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  umask (0);
  if (chdir ("/") < 0)
    return cl_fail (err, CL_STAGE_MONITOR, errno, "enter /");
  m->self_fd = sys_pidfd_open (getpid (), 0);
  m->state.monitor_pid = getpid ();
  cl_score_open ();
  if (enter_userns (&m->plan, err) < 0)
    return -1;
  /* Before the first clone: a container that shares its process namespace
   * sees the child from its birth (CVE-2016-9962).  Not earlier: only a
   * dumpable process may write its own id maps. */
  prctl (PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (loop_open (m, err) < 0 || clients_listen (m, err) < 0)
    return -1;
  fcntl (FD_STATUS, F_SETFL, O_NONBLOCK);
  clients_add (m, FD_STATUS, (m->flags & CL_ATTACHED) ? 7 : 0);
  if (!(m->flags & CL_CAPTURE) && log_open (&m->log, m->dir_fd, err) < 0)
    return -1;
  if (cl_cgroups_open (&m->cgroups, &m->plan, true, err) < 0)
    return -1;
  return join_pidns (&m->plan, err);
}

int
cl_main_run (int argc, char **argv)
{
  struct monitor *m = &monitor;
  struct cl_error err = { 0 };

  (void) argc;
  (void) argv;
  m->state_fd = m->mounts_fd = m->peer_fd = m->dir_fd = m->run_fd = m->owner_fd = m->listener = m->restart_timer = -1;
  m->health_timer = m->in_fd = m->out_fd[0] = m->out_fd[1] = m->log.fd = m->health.output = -1;
  for (int i = 0; i < 3; i++)
    m->capture[i] = -1;
  /* What Python passed is for this process alone. */
  sys_close_range (3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);

  if (prepare (m, &err) < 0 || monitor_start (m, &err) < 0)
    {
      m->state.error = err;
      m->state.status = CL_CREATED;
      m->state.exit_code = err.stage == CL_STAGE_EXEC ? (err.code == ENOENT ? 127 : 126) : -1;
      cl_send (FD_STATUS, CL_MSG_ERROR, err.code, &err, sizeof err, -1, MSG_DONTWAIT);
      if (m->state_fd >= 0 && m->state.magic == CL_STATE_MAGIC)
        monitor_finish (m);
      return 1;
    }
  loop_run (m);
  monitor_finish (m);
  return 0;
}
