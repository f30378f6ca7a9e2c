/* SPDX-License-Identifier: Apache-2.0
 *
 * The monitor's event loop. */
#include "init/monitor.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>

/* The most that a pipe holds, /proc/sys/fs/pipe-max-size. */
#define PIPE_MAX 1048576

int64_t
cl_now_ms (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

int64_t
cl_now_ns (void)
{
  struct timespec t;

  clock_gettime (CLOCK_REALTIME, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int
control (struct monitor *m, int op, int fd, uint32_t events, enum event_kind kind, int index)
{
  struct epoll_event event = { .events = events, .data.u64 = (uint64_t) kind << 32 | (uint32_t) index };

  return epoll_ctl (m->epoll, op, fd, &event);
}

int
loop_add (struct monitor *m, int fd, uint32_t events, enum event_kind kind, int index)
{
  int r = control (m, EPOLL_CTL_ADD, fd, events, kind, index);

  return r < 0 && errno == EEXIST ? control (m, EPOLL_CTL_MOD, fd, events, kind, index) : r;
}

void
loop_change (struct monitor *m, int fd, uint32_t events, enum event_kind kind, int index)
{
  control (m, EPOLL_CTL_MOD, fd, events, kind, index);
}

void
loop_timer (int timer, int64_t ms)
{
  struct itimerspec spec = { .it_value = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 } };

  timerfd_settime (timer, 0, &spec, NULL);
}

int
loop_open (struct monitor *m, struct cl_error *err)
{
  sigset_t set;

  sigfillset (&set);
  sigprocmask (SIG_SETMASK, &set, NULL);
  sigemptyset (&set);
  sigaddset (&set, SIGCHLD);
  sigaddset (&set, SIGTERM);
  sigaddset (&set, SIGINT);
  m->epoll = epoll_create1 (EPOLL_CLOEXEC);
  m->signals = signalfd (-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  m->stop_timer = timerfd_create (CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (m->epoll < 0 || m->signals < 0 || m->stop_timer < 0
      || loop_add (m, m->signals, EPOLLIN, EVENT_SIGNAL, 0) < 0
      || loop_add (m, m->stop_timer, EPOLLIN, EVENT_STOP_TIMER, 0) < 0)
    return cl_fail (err, CL_STAGE_MONITOR, errno, "set up the event loop");
  if (m->owner_fd >= 0 && loop_add (m, m->owner_fd, EPOLLIN, EVENT_OWNER, 0) < 0)
    return cl_fail (err, CL_STAGE_MONITOR, errno, "watch the owner");
  return 0;
}

static void
reap (struct monitor *m)
{
  struct signalfd_siginfo info;
  struct rusage usage;
  int status, pid;
  bool terminate = false;

  while (read (m->signals, &info, sizeof info) == sizeof info)
    terminate |= info.ssi_signo != SIGCHLD;
  if (terminate)
    monitor_stop (m, 0, -1);
  while ((pid = wait4 (-1, &status, WNOHANG, &usage)) > 0)
    {
      if (pid == m->main.pid)
        monitor_exited (m, status, &usage);
      else
        health_reaped (m, pid, status);
    }
}

/* Output is not read while an attached client has no room: the container
 * waits, as it would for a pipe's reader.  Taken out of the loop, not only
 * masked: a hang-up is always reported. */
static void
pause_output (struct monitor *m)
{
  m->blocked = true;
  for (int i = 0; i < 2; i++)
    if (m->out_fd[i] >= 0)
      epoll_ctl (m->epoll, EPOLL_CTL_DEL, m->out_fd[i], NULL);
}

void
loop_resume (struct monitor *m)
{
  m->blocked = false;
  for (int i = 0; i < 2; i++)
    if (m->out_fd[i] >= 0)
      loop_add (m, m->out_fd[i],
                EPOLLIN | (m->out_fd[i] == m->in_fd && m->input_size > 0 ? EPOLLOUT : 0),
                EVENT_OUTPUT, i);
}

/* One chunk from the container to the log and the clients.  False when there
 * is nothing now, or nothing any more. */
static bool
pump (struct monitor *m, int index)
{
  ssize_t n = TEMP_FAILURE_RETRY_ (read (m->out_fd[index], m->chunk, sizeof m->chunk));

  if (n < 0 && errno == EAGAIN)
    return false;
  if (n <= 0)
    {
      /* A pipe's end, or EIO: nobody has the terminal open any more. */
      close (m->out_fd[index]);
      if (m->in_fd == m->out_fd[index])
        m->in_fd = -1;
      m->out_fd[index] = -1;
      return false;
    }
  if (m->log.fd >= 0)
    {
      log_write (&m->log, index, m->chunk, n);
      clients_grew (m);
    }
  m->chunk_size = n;
  m->chunk_stream = index;
  if (!clients_offer (m))
    pause_output (m);
  return true;
}

void
loop_drain (struct monitor *m)
{
  int64_t deadline = cl_now_ms () + 10000;
  int rest = PIPE_MAX / CHUNK;

  for (int i = 0; i < 2; i++)
    while (m->out_fd[i] >= 0)
      {
        bool late = cl_now_ms () > deadline;

        if (m->blocked)
          {
            /* A client that takes nothing for this long loses the rest. */
            if (late)
              clients_drop_slow (m);
            else if (!clients_offer (m))
              {
                poll (NULL, 0, 1);
                continue;
              }
            m->blocked = false;
          }
        /* Somebody outside to whom the container gave the pipe may write into
         * it without an end. */
        if ((late && rest-- == 0) || !pump (m, i))
          break;
      }
}

static void
dispatch (struct monitor *m, enum event_kind kind, int index, uint32_t events)
{
  uint64_t ticks;

  switch (kind)
    {
    case EVENT_SIGNAL:
      reap (m);
      break;
    case EVENT_LISTEN:
      clients_accept (m);
      break;
    case EVENT_OWNER:
      epoll_ctl (m->epoll, EPOLL_CTL_DEL, m->owner_fd, NULL);
      m->remove = true;
      monitor_stop (m, 0, -1);
      break;
    case EVENT_OUTPUT:
      if (events & EPOLLOUT)
        clients_input (m);
      if (m->out_fd[index] >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !m->blocked)
        pump (m, index);
      break;
    case EVENT_STDIN:
      clients_input (m);
      break;
    case EVENT_CLIENT:
      clients_event (m, index, events);
      break;
    case EVENT_STOP_TIMER:
      if (read (m->stop_timer, &ticks, sizeof ticks) > 0)
        monitor_kill (m, SIGKILL);
      break;
    case EVENT_RESTART_TIMER:
      if (read (m->restart_timer, &ticks, sizeof ticks) > 0 && m->main.pid == 0)
        monitor_restart (m, 0);
      break;
    case EVENT_HEALTH_TIMER:
      if (read (m->health_timer, &ticks, sizeof ticks) > 0)
        health_timer (m);
      break;
    case EVENT_HEALTH_OUTPUT:
      health_output (m);
      break;
    default:
      break;
    }
}

void
loop_run (struct monitor *m)
{
  struct epoll_event events[8];

  while (!m->ended)
    {
      int n = epoll_wait (m->epoll, events, 8, -1);

      for (int i = 0; i < n && !m->ended; i++)
        dispatch (m, events[i].data.u64 >> 32, (int32_t) events[i].data.u64, events[i].events);
    }
}
