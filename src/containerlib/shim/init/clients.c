/* SPDX-License-Identifier: Apache-2.0
 *
 * Who talks to the monitor: the process that started it, and whoever connects
 * to attach.sock.  One datagram is one message. */
#include "init/monitor.h"

#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#define PATIENCE_MS 200 /* for all of them together */
#define NO_ROOM_MS 10

int
clients_listen (struct monitor *m, struct cl_error *err)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "attach.sock" };
  mode_t old;
  int r;

  if (m->run_fd < 0)
    return 0;
  m->listener = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (m->listener < 0)
    return cl_fail (err, CL_STAGE_MONITOR, errno, "make a socket");
  /* A relative name: an address holds 107 bytes, a path may have more. */
  if (fchdir (m->run_fd) < 0)
    return cl_fail (err, CL_STAGE_MONITOR, errno, "enter the run directory");
  unlink ("attach.sock");
  old = umask (0177);
  r = bind (m->listener, (struct sockaddr *) &address, sizeof address);
  umask (old);
  if (r < 0)
    cl_fail (err, CL_STAGE_MONITOR, errno, "bind attach.sock");
  else if ((r = listen (m->listener, 64)) < 0)
    cl_fail (err, CL_STAGE_MONITOR, errno, "listen on attach.sock");
  if (chdir ("/") < 0 || r < 0)
    return -1;
  return loop_add (m, m->listener, EPOLLIN, EVENT_LISTEN, 0);
}

/* What is to be heard of a client now.  While input is on its way nobody's is
 * read, and while an answer has no room no further question.  With nothing to
 * wait for it is out of the loop: a hang-up would be reported over and over. */
static void
watch (struct monitor *m, int index)
{
  struct client *c = &m->clients[index];
  bool waits = c->unanswered || (m->input_size > 0 && (c->attached & CL_ATTACH_STDIN));
  uint32_t events = (waits ? 0 : EPOLLIN) | (c->owes || c->unanswered ? EPOLLOUT : 0);

  if (c->fd < 0 || events == c->events)
    return;
  if (events == 0)
    epoll_ctl (m->epoll, EPOLL_CTL_DEL, c->fd, NULL);
  else
    loop_add (m, c->fd, events, EVENT_CLIENT, index);
  c->events = events;
}

static void
watch_input (struct monitor *m)
{
  for (int i = 0; i < m->nclients; i++)
    if (m->clients[i].attached & CL_ATTACH_STDIN)
      watch (m, i);
}

void
clients_add (struct monitor *m, int fd, int attached)
{
  int i = 0;

  while (i < m->nclients && m->clients[i].fd >= 0)
    i++;
  if (i == m->nclients)
    m->nclients++;
  m->clients[i] = (struct client){ .fd = fd, .attached = attached };
  watch (m, i);
}

static bool
is_full (const struct monitor *m)
{
  if (m->nclients < MAX_CLIENTS)
    return false;
  for (int i = 0; i < MAX_CLIENTS; i++)
    if (m->clients[i].fd < 0)
      return false;
  return true;
}

void
clients_accept (struct monitor *m)
{
  struct ucred peer;
  socklen_t size = sizeof peer;
  int fd;

  if (is_full (m))
    {
      /* Who comes now waits until somebody leaves. */
      epoll_ctl (m->epoll, EPOLL_CTL_DEL, m->listener, NULL);
      m->full = true;
      return;
    }
  fd = accept4 (m->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0)
    {
      /* Without descriptors or memory the connection stays in the queue, and
       * the loop would turn for it without a pause. */
      if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
        poll (NULL, 0, NO_ROOM_MS);
      return;
    }
  /* The directory is 0700 and the socket 0600; this holds even if somebody
   * hands the descriptor on. */
  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0
      || (peer.uid != geteuid () && peer.uid != 0))
    {
      close (fd);
      return;
    }
  clients_add (m, fd, 0);
}

/* It takes nothing more of the present chunk, for which all others wait. */
static void
excuse (struct monitor *m, int index)
{
  m->clients[index].owes = false;
  watch (m, index);
  if (m->blocked && clients_offer (m))
    loop_resume (m);
}

static void
drop (struct monitor *m, int index)
{
  struct client *c = &m->clients[index];
  bool had_stdin = c->attached & CL_ATTACH_STDIN, owed = c->owes;

  if (c->fd < 0)
    return;
  close (c->fd);
  *c = (struct client){ .fd = -1 };
  if (m->full)
    {
      m->full = false;
      loop_add (m, m->listener, EPOLLIN, EVENT_LISTEN, 0);
    }
  if (had_stdin && (m->flags & CL_STDIN_ONCE) && !(m->flags & CL_TTY))
    {
      m->input_eof = true;
      clients_input (m);
    }
  if (owed)
    excuse (m, index);
}

/* Nobody listens there any more, but what was sent before may still wait to
 * be read. */
static void
mute (struct monitor *m, int index)
{
  struct client *c = &m->clients[index];

  c->attached &= CL_ATTACH_STDIN;
  c->watches = c->owes = c->unanswered = false;
  c->mute = true;
  watch (m, index);
}

/* What must arrive: clients with a full queue get a moment to read. */
void
clients_send (struct monitor *m, int type, int arg, const void *data, size_t size)
{
  int64_t deadline = cl_now_ms () + PATIENCE_MS;

  for (int i = 0; i < m->nclients; i++)
    {
      struct client *c = &m->clients[i];
      struct pollfd room = { .fd = c->fd, .events = POLLOUT };
      int64_t left;

      if (c->fd < 0 || c->mute || cl_send (c->fd, type, arg, data, size, -1, MSG_DONTWAIT) == 0)
        continue;
      left = errno == EAGAIN ? deadline - cl_now_ms () : 0;
      if (left > 0 && poll (&room, 1, left) > 0
          && cl_send (c->fd, type, arg, data, size, -1, MSG_DONTWAIT) == 0)
        continue;
      if (errno != EAGAIN)
        {
          mute (m, i);
          excuse (m, i);
        }
    }
}

void
clients_grew (struct monitor *m)
{
  for (int i = 0; i < m->nclients; i++)
    if (m->clients[i].watches)
      cl_send (m->clients[i].fd, CL_MSG_GREW, 0, NULL, 0, -1, MSG_DONTWAIT);
}

/* The attachment that the present chunk is for. */
static int
wanted (const struct monitor *m)
{
  return m->chunk_stream == 0 ? CL_ATTACH_STDOUT : CL_ATTACH_STDERR;
}

bool
clients_offer (struct monitor *m)
{
  int want = wanted (m);
  bool all = true;

  for (int i = 0; i < m->nclients; i++)
    {
      struct client *c = &m->clients[i];

      if (!(c->attached & want) || (m->blocked && !c->owes))
        continue;
      if (cl_send (c->fd, m->chunk_stream == 0 ? CL_MSG_STDOUT : CL_MSG_STDERR, 0, m->chunk,
                   m->chunk_size, -1, MSG_DONTWAIT)
          == 0)
        c->owes = false;
      else if (errno == EAGAIN || errno == ENOBUFS)
        {
          c->owes = true;
          all = false;
        }
      else
        mute (m, i);
      watch (m, i);
    }
  return all;
}

void
clients_drop_slow (struct monitor *m)
{
  m->blocked = false;
  for (int i = 0; i < m->nclients; i++)
    if (m->clients[i].owes)
      {
        m->clients[i].owes = false;
        drop (m, i);
      }
}

static void
close_stdin (struct monitor *m)
{
  if (m->in_fd >= 0 && !(m->flags & CL_TTY))
    {
      close (m->in_fd);
      m->in_fd = -1;
    }
  m->input_eof = false;
}

/* Write what waits; while some is left, nobody's input is read. */
void
clients_input (struct monitor *m)
{
  while (m->input_at < m->input_size && m->in_fd >= 0)
    {
      ssize_t n = TEMP_FAILURE_RETRY_ (
          write (m->in_fd, m->input + m->input_at, m->input_size - m->input_at));
      if (n < 0 && errno == EAGAIN)
        {
          if (!(m->flags & CL_TTY))
            loop_add (m, m->in_fd, EPOLLOUT, EVENT_STDIN, 0);
          else
            loop_change (m, m->in_fd, EPOLLIN | EPOLLOUT, EVENT_OUTPUT, 0);
          m->input_waits = true;
          watch_input (m);
          return;
        }
      if (n < 0)
        break; /* the container has closed its end */
      m->input_at += n;
    }
  m->input_size = m->input_at = 0;
  if (m->input_waits)
    {
      m->input_waits = false;
      if (m->in_fd >= 0 && (m->flags & CL_TTY))
        loop_change (m, m->in_fd, EPOLLIN, EVENT_OUTPUT, 0);
      else if (m->in_fd >= 0)
        epoll_ctl (m->epoll, EPOLL_CTL_DEL, m->in_fd, NULL);
      watch_input (m);
    }
  if (m->input_eof)
    close_stdin (m);
}

void
clients_forget_input (struct monitor *m)
{
  m->input_size = m->input_at = 0;
  m->input_waits = m->input_eof = false;
  watch_input (m);
}

static void
take_input (struct monitor *m, const char *data, size_t size)
{
  if (m->in_fd < 0 || size == 0)
    return;
  if (m->input == NULL)
    m->input = malloc (CL_MSG_MAX);
  if (m->input == NULL)
    return;
  memcpy (m->input, data, size);
  m->input_size = size;
  clients_input (m);
}

static void
answer (struct monitor *m, int index)
{
  struct client *c = &m->clients[index];

  c->unanswered = cl_send (c->fd, CL_MSG_ACK, c->answer, NULL, 0, -1, MSG_DONTWAIT) < 0
                  && (errno == EAGAIN || errno == ENOBUFS);
  watch (m, index);
}

static void
obey (struct monitor *m, int index, const struct cl_msg *head, const char *data, size_t size)
{
  struct client *c = &m->clients[index];
  struct winsize window;
  int32_t words[2] = { 0, 0 };

  c->answer = 0;
  memcpy (words, data, size < sizeof words ? size : sizeof words);
  switch (head->type)
    {
    case CL_MSG_ATTACH:
    case CL_MSG_DETACH:
      /* Leaving on purpose: stdin stays open, the container goes on. */
      c->attached = head->type == CL_MSG_ATTACH ? head->arg : 0;
      if (c->owes && !(c->attached & wanted (m)))
        excuse (m, index);
      break;
    case CL_MSG_WATCH:
      c->watches = head->arg != 0;
      break;
    case CL_MSG_STDIN:
      if (c->attached & CL_ATTACH_STDIN)
        take_input (m, data, size);
      return;
    case CL_MSG_STDIN_EOF:
      if (c->attached & CL_ATTACH_STDIN)
        {
          m->input_eof = true;
          clients_input (m);
        }
      return;
    case CL_MSG_RESIZE:
      window = (struct winsize){ .ws_row = head->arg >> 16, .ws_col = head->arg & 0xffff };
      if (!(m->flags & CL_TTY) || m->out_fd[0] < 0)
        c->answer = ENOTTY;
      else if (ioctl (m->out_fd[0], TIOCSWINSZ, &window) < 0)
        c->answer = errno;
      break;
    case CL_MSG_STOP:
      monitor_stop (m, words[0], head->arg);
      break;
    case CL_MSG_RESTART:
      monitor_restart (m, head->arg);
      break;
    case CL_MSG_KILL:
      c->answer = monitor_kill (m, head->arg);
      break;
    case CL_MSG_POLICY:
      m->policy = words[0];
      m->max_retries = words[1];
      break;
    default:
      c->answer = EPROTO;
      break;
    }
  answer (m, index);
}

void
clients_event (struct monitor *m, int index, uint32_t events)
{
  static char buffer[sizeof (struct cl_msg) + CL_MSG_MAX];
  struct client *c = &m->clients[index];
  struct cl_msg head;
  ssize_t n;

  if (c->fd < 0)
    return;
  if (c->unanswered)
    answer (m, index);
  if (c->owes && clients_offer (m))
    loop_resume (m);
  if (!(c->events & EPOLLIN) || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
    return;
  n = TEMP_FAILURE_RETRY_ (recv (c->fd, buffer, sizeof buffer, MSG_DONTWAIT));
  if (n < 0 && errno == ECONNRESET)
    /* It closed with output unread; told once, before what it had sent. */
    n = TEMP_FAILURE_RETRY_ (recv (c->fd, buffer, sizeof buffer, MSG_DONTWAIT));
  if (n < 0 && errno == EAGAIN)
    return;
  if (n < (ssize_t) sizeof head)
    {
      drop (m, index);
      return;
    }
  memcpy (&head, buffer, sizeof head);
  obey (m, index, &head, buffer + sizeof head, n - sizeof head);
}
