/* SPDX-License-Identifier: Apache-2.0
 *
 * Health checks: a command in the container at intervals, and what its exit
 * codes add up to.  The last five results stay in the file "health". */
#include "init/monitor.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

static bool
in_start_period (const struct monitor *m)
{
  return cl_now_ms () - m->started_ms < m->health.start_period_ms;
}

static void
schedule (struct monitor *m)
{
  int64_t ms = m->health.interval_ms;

  if (m->state.health == CL_HEALTH_STARTING && in_start_period (m) && m->health.start_interval_ms > 0)
    ms = m->health.start_interval_ms;
  loop_timer (m->health_timer, ms > 0 ? ms : 1);
}

void
health_start (struct monitor *m)
{
  if (m->health_timer < 0)
    {
      m->health_timer = timerfd_create (CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
      loop_add (m, m->health_timer, EPOLLIN, EVENT_HEALTH_TIMER, 0);
    }
  if (m->health.result == NULL)
    m->health.result = calloc (1, sizeof *m->health.result);
  m->state.health = CL_HEALTH_STARTING;
  m->state.health_streak = 0;
  schedule (m);
}

static void
close_output (struct monitor *m)
{
  if (m->health.output >= 0)
    close (m->health.output);
  m->health.output = -1;
}

void
health_stop (struct monitor *m)
{
  if (m->health_timer >= 0)
    loop_timer (m->health_timer, 0);
  /* Its processes died with the container; the one that waits for them here
   * is ours to end. */
  if (m->health.pid > 0)
    {
      kill (m->health.pid, SIGKILL);
      m->health.pid = 0;
    }
  close_output (m);
}

static void
record (struct monitor *m, int exit_code)
{
  struct health *h = &m->health;
  cleanup_close int fd = openat (m->dir_fd, "health", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  struct cl_state *s = &m->state;
  int slot = s->health_count % CL_HEALTH_SLOTS;

  if (h->result != NULL)
    {
      h->result->end_ns = cl_now_ns ();
      h->result->exit_code = exit_code;
      if (fd >= 0)
        TEMP_FAILURE_RETRY_ (pwrite (fd, h->result, sizeof *h->result, slot * sizeof *h->result));
    }
  s->health_count++;
  if (exit_code == 0)
    {
      s->health_streak = 0;
      s->health = CL_HEALTH_HEALTHY;
    }
  else if (s->health != CL_HEALTH_STARTING || !in_start_period (m))
    {
      /* Failures while it starts do not count. */
      s->health_streak++;
      if (s->health_streak >= h->retries)
        s->health = CL_HEALTH_UNHEALTHY;
    }
  monitor_write_state (m);
  clients_grew (m);
}

void
health_timer (struct monitor *m)
{
  struct health *h = &m->health;
  struct cl_error err = { 0 };
  int pair[2];

  if (m->main.pid == 0)
    return;
  if (h->pid > 0)
    {
      /* The time-out: killing the waiting process kills the command, by its
       * parent-death signal. */
      h->timed_out = true;
      kill (h->pid, SIGKILL);
      return;
    }
  /* Nothing can be asked of a paused container. */
  if (h->result == NULL || cl_cgroups_frozen (&m->cgroups) || pipe2 (pair, O_CLOEXEC) < 0)
    {
      schedule (m);
      return;
    }
  memset (h->result, 0, sizeof *h->result);
  h->result->start_ns = cl_now_ns ();
  h->timed_out = false;
  fcntl (pair[0], F_SETFL, O_NONBLOCK);
  h->output = pair[0];
  h->pid = cl_exec_inside (&m->plan, &m->cgroups, m->main.pidfd, &h->command, pair[1], &err);
  close (pair[1]);
  if (h->pid < 0)
    {
      h->pid = 0;
      close_output (m);
      record (m, 126);
      schedule (m);
      return;
    }
  loop_add (m, h->output, EPOLLIN, EVENT_HEALTH_OUTPUT, 0);
  loop_timer (m->health_timer, h->timeout_ms);
}

void
health_output (struct monitor *m)
{
  struct cl_health_result *r = m->health.result;
  char scratch[512];
  size_t room = r != NULL ? sizeof r->output - r->size : 0;
  ssize_t n = room > 0 ? read (m->health.output, r->output + r->size, room)
                       : read (m->health.output, scratch, sizeof scratch);

  if (n > 0 && room > 0)
    r->size += n;
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    close_output (m);
}

bool
health_reaped (struct monitor *m, int pid, int status)
{
  struct health *h = &m->health;
  static const char text[] = "health check exceeded its timeout";
  int code;

  if (pid != h->pid || pid == 0)
    return false;
  h->pid = 0;
  while (h->output >= 0)
    {
      int32_t before = h->result->size;
      health_output (m);
      if (h->output >= 0 && h->result->size == before)
        break;
    }
  close_output (m);
  if (h->timed_out && h->result->size + sizeof text <= sizeof h->result->output)
    {
      memcpy (h->result->output + h->result->size, text, sizeof text - 1);
      h->result->size += sizeof text - 1;
    }
  code = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  record (m, h->timed_out ? -1 : code);
  schedule (m);
  return true;
}
