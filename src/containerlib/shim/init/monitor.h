/* SPDX-License-Identifier: Apache-2.0
 *
 * The monitor: one process for one container, from its start to its end. */
#ifndef CONTAINERLIB_MONITOR_H
#define CONTAINERLIB_MONITOR_H

#include "init/init.h"

#define MAX_CLIENTS 512
#define CHUNK 16384

enum event_kind
{
  EVENT_SIGNAL,
  EVENT_LISTEN,
  EVENT_OWNER,
  EVENT_OUTPUT, /* index: 0 stdout or the terminal, 1 stderr */
  EVENT_STDIN,
  EVENT_CLIENT, /* index */
  EVENT_STOP_TIMER,
  EVENT_RESTART_TIMER,
  EVENT_HEALTH_TIMER,
  EVENT_HEALTH_OUTPUT,
};

struct client
{
  int fd;       /* -1: free */
  int attached; /* enum cl_attach */
  int answer;   /* to its last message */
  uint32_t events; /* what the loop looks for */
  bool watches;
  bool owes;    /* has not taken the present chunk */
  bool mute;    /* takes nothing any more */
  bool unanswered; /* there was no room for the answer */
};

struct log
{
  int fd;
  int dir_fd;
  int64_t size, max_size;
  int max_files;
  uint64_t lost;
  bool open[2]; /* the last piece of the stream in the file is not a line's end */
};

struct health
{
  bool configured;
  struct cl_record command;
  int64_t interval_ms, timeout_ms, start_period_ms, start_interval_ms;
  int retries;
  int pid;          /* of a check under way, or 0 */
  int output;       /* its pipe, or -1 */
  bool timed_out;
  struct cl_health_result *result;
};

struct monitor
{
  struct cl_plan plan;
  const char *id;
  int flags, stop_signal, grace_ms;
  int status_fd, state_fd, dir_fd, run_fd, owner_fd, capture[3];
  int self_fd, epoll, signals, listener;
  int stop_timer, restart_timer, health_timer;
  struct cl_cgroups cgroups;

  struct cl_launched main; /* pid 0: not running */
  int in_fd;               /* where the container's stdin is written, or -1 */
  int out_fd[2];           /* its output, or -1 */
  int mounts_fd;           /* the container's mount namespace, when it is to be swept */
  int peer_fd;             /* the terminal's inner side, held open */
  int64_t started_ms;      /* CLOCK_MONOTONIC */
  uint64_t oom_kills;      /* in its groups, before this run */

  int policy, max_retries, backoff_ms;
  bool stopping, remove, again; /* again: a restart was asked for */
  bool ended;

  struct log log;
  struct health health;
  struct client clients[MAX_CLIENTS];
  int nclients; /* places that were ever taken */
  bool full;    /* nobody is let in until one leaves */

  /* One chunk of output waits for the slowest attached client. */
  char chunk[CHUNK];
  size_t chunk_size;
  int chunk_stream;
  bool blocked;
  /* Bytes on their way to the container's stdin, and who sent them. */
  char *input;
  size_t input_size, input_at;
  bool input_waits; /* for room in the pipe or terminal */
  bool input_eof;

  struct cl_state state;
};

int64_t cl_now_ms (void);
int64_t cl_now_ns (void);

/* run.c */
int monitor_start (struct monitor *m, struct cl_error *err);
void monitor_exited (struct monitor *m, int status, const void *usage);
void monitor_stop (struct monitor *m, int signal, int grace_ms);
/* 0, or an errno. */
int monitor_kill (struct monitor *m, int signal);
void monitor_restart (struct monitor *m, int grace_ms);
void monitor_write_state (struct monitor *m);

/* finish.c */
void monitor_finish (struct monitor *m);
/* Field 22 of /proc/PID/stat, or 0. */
uint64_t cl_start_time (int pid);

/* leftover.c */
/* The mount namespace of pid, and its number; -1 when it cannot be opened. */
int cl_mounts_open (int pid, uint64_t *id);
/* SIGKILL to every process in it. */
void cl_mounts_kill (int mounts);

/* loop.c */
int loop_open (struct monitor *m, struct cl_error *err);
int loop_add (struct monitor *m, int fd, uint32_t events, enum event_kind kind, int index);
void loop_change (struct monitor *m, int fd, uint32_t events, enum event_kind kind, int index);
void loop_run (struct monitor *m);
void loop_timer (int timer, int64_t ms);
/* After the end: what is still in the pipes. */
void loop_drain (struct monitor *m);
void loop_resume (struct monitor *m);

/* clients.c */
int clients_listen (struct monitor *m, struct cl_error *err);
void clients_accept (struct monitor *m);
void clients_event (struct monitor *m, int index, uint32_t events);
void clients_send (struct monitor *m, int type, int arg, const void *data, size_t size);
void clients_add (struct monitor *m, int fd, int attached);
/* Offer the chunk to who is attached; false while somebody has no room. */
bool clients_offer (struct monitor *m);
void clients_drop_slow (struct monitor *m);
void clients_grew (struct monitor *m);
void clients_input (struct monitor *m);
/* The container that it was for has ended. */
void clients_forget_input (struct monitor *m);

/* logs.c */
int log_open (struct log *log, int dir_fd, struct cl_error *err);
void log_write (struct log *log, int stream, const char *data, size_t size);

/* health.c */
void health_start (struct monitor *m);
void health_stop (struct monitor *m);
void health_timer (struct monitor *m);
void health_output (struct monitor *m);
/* True when pid was a health check. */
bool health_reaped (struct monitor *m, int pid, int status);

/* exec.c */
/* Fork a process that runs command in the container; its pid, or -1. */
int cl_exec_inside (const struct cl_plan *plan, const struct cl_cgroups *cgroups, int pidfd,
                    const struct cl_record *command, int output, struct cl_error *err);

#endif
