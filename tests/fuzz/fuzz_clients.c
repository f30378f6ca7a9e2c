/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients that send anything, read when they like and leave in the middle:
 * the monitor waits for somebody who is there or for nobody, and what is
 * written reaches the process once, whole and in order.
 *
 * Input: steps of three bytes, what, who, how much. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "init/monitor.h"

#define PEERS 3
#define STEPS 200

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static struct monitor m;
static int peers[PEERS], outlet;
static uint8_t written, read_back; /* the next byte of the input */

/* What the rest of the monitor would do. */

int64_t
cl_now_ms (void)
{
  static int64_t now;

  return now += 1000; /* nobody is waited for */
}

int
cl_send (int sock, int type, int arg, const void *data, size_t size, int fd, int flags)
{
  struct cl_msg head = { .type = type, .arg = arg };
  struct iovec iov[2] = { { &head, sizeof head }, { (void *) (uintptr_t) data, size } };
  struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

  (void) fd;
  return sendmsg (sock, &msg, flags | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int
loop_add (struct monitor *monitor, int fd, uint32_t events, enum event_kind kind, int index)
{
  struct epoll_event event = { .events = events, .data.u64 = (uint64_t) kind << 32 | (uint32_t) index };
  int r = epoll_ctl (monitor->epoll, EPOLL_CTL_ADD, fd, &event);

  return r < 0 && errno == EEXIST ? epoll_ctl (monitor->epoll, EPOLL_CTL_MOD, fd, &event) : r;
}

void
loop_change (struct monitor *monitor, int fd, uint32_t events, enum event_kind kind, int index)
{
  loop_add (monitor, fd, events, kind, index);
}

void
loop_resume (struct monitor *monitor)
{
  monitor->blocked = false;
}

int
monitor_kill (struct monitor *monitor, int signal)
{
  (void) monitor;
  return signal;
}

void
monitor_stop (struct monitor *monitor, int signal, int grace_ms)
{
  (void) monitor;
  (void) signal;
  (void) grace_ms;
}

void
monitor_restart (struct monitor *monitor, int grace_ms)
{
  (void) grace_ms;
  clients_send (monitor, CL_MSG_STARTED, 1, NULL, 0);
}

static void
open_monitor (void)
{
  int pair[2];

  memset (&m, 0, sizeof m);
  m.listener = m.out_fd[0] = m.out_fd[1] = -1;
  m.epoll = epoll_create1 (EPOLL_CLOEXEC);
  if (m.epoll < 0 || pipe2 (pair, O_CLOEXEC | O_NONBLOCK) < 0)
    abort ();
  fcntl (pair[1], F_SETPIPE_SZ, 4096);
  outlet = pair[0];
  m.in_fd = pair[1];
  written = read_back = 0;
}

static void
add_peer (int index, int attached)
{
  int pair[2], room = 4096;

  if (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
    abort ();
  setsockopt (pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  peers[index] = pair[1];
  clients_add (&m, pair[0], attached);
}

static void
close_monitor (void)
{
  for (int i = 0; i < PEERS; i++)
    if (peers[i] >= 0)
      close (peers[i]);
  for (int i = 0; i < m.nclients; i++)
    if (m.clients[i].fd >= 0)
      close (m.clients[i].fd);
  if (m.in_fd >= 0)
    close (m.in_fd);
  close (outlet);
  close (m.epoll);
  free (m.input);
}

/* Only the first peer types, so that the order of all bytes is known. */
static void
say (int index, int type, int amount)
{
  struct
  {
    struct cl_msg head;
    uint8_t bytes[8192];
  } message = { .head = { .type = type, .arg = amount } };
  size_t size = (size_t) amount * 32;

  if (type == CL_MSG_STDIN && index != 0)
    return;
  if (type == CL_MSG_ATTACH && index == 0)
    message.head.arg |= CL_ATTACH_STDIN;
  if (type == CL_MSG_DETACH && index == 0)
    return;
  for (size_t i = 0; i < size; i++)
    message.bytes[i] = written + i;
  if (send (peers[index], &message, sizeof message.head + size, MSG_NOSIGNAL) > 0 && type == CL_MSG_STDIN)
    written += size;
}

static void
hear (int index)
{
  char buffer[CHUNK + sizeof (struct cl_msg)];

  if (recv (peers[index], buffer, sizeof buffer, 0) == 0)
    abort (); /* nobody is dropped who has not left */
}

static void
take (size_t amount)
{
  uint8_t buffer[8192];
  ssize_t n = read (outlet, buffer, amount);

  for (ssize_t i = 0; i < n; i++)
    if (buffer[i] != read_back++)
      abort ();
}

static void
turn (void)
{
  struct epoll_event events[8];
  int n = epoll_wait (m.epoll, events, 8, 0);

  for (int i = 0; i < n; i++)
    if (events[i].data.u64 >> 32 == EVENT_CLIENT)
      clients_event (&m, (int32_t) events[i].data.u64, events[i].events);
    else
      clients_input (&m);
}

static void
check (void)
{
  int owing = 0;

  for (int i = 0; i < m.nclients; i++)
    owing += m.clients[i].fd >= 0 && m.clients[i].owes;
  if (m.blocked != (owing > 0) || m.input_at > m.input_size || m.input_size > CL_MSG_MAX)
    abort ();
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  open_monitor ();
  for (int i = 0; i < PEERS; i++)
    add_peer (i, i == 0 ? 7 : 0);
  for (size_t i = 0; i + 3 <= size && i < 3 * STEPS; i += 3)
    {
      int who = data[i + 1] % PEERS, amount = data[i + 2];

      switch (data[i] % 8)
        {
        case 0:
          say (who, CL_MSG_ATTACH + amount % 10, data[i + 1] / PEERS);
          break;
        case 1:
          say (0, CL_MSG_STDIN, amount);
          break;
        case 2:
          hear (who);
          break;
        case 3:
          take (amount * 32);
          break;
        case 4:
          if (!m.blocked)
            {
              m.chunk_stream = amount % 2;
              m.chunk_size = amount * 32;
              m.blocked = !clients_offer (&m);
            }
          break;
        case 5:
          if (who != 0 && amount > 200)
            {
              close (peers[who]);
              add_peer (who, amount % 8 & ~CL_ATTACH_STDIN);
            }
          break;
        default:
          turn ();
          break;
        }
      check ();
    }

  /* All that was typed arrives once it is read, unless the end was typed. */
  for (int i = 0; i < 256 && read_back != written && m.in_fd >= 0; i++)
    {
      turn ();
      take (8192);
      hear (0);
      check ();
    }
  if (read_back != written && m.in_fd >= 0)
    abort ();
  close_monitor ();
  return 0;
}
