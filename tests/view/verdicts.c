/* SPDX-License-Identifier: Apache-2.0 */
/* What the seccomp filter of this container answers to each system call; none
 * is executed.
 *
 * A thread puts a filter of its own on top, which hands every call with a mark
 * in its sixth argument to the main thread.  Of several filters the strictest
 * answer counts, and an error is stricter than a notification: a call that the
 * container's filter refuses comes back with its errno, all others come back
 * with the main thread's. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MARK 0x76696577
#define LAST 600
/* The largest that is taken for an errno. */
#define ALLOWED 4095

static int listener[2];

static void
fail (const char *what)
{
  perror (what);
  exit (1);
}

static void *
ask (void *unused)
{
  struct sock_filter code[] = {
    BPF_STMT (BPF_LD | BPF_W | BPF_ABS, offsetof (struct seccomp_data, args[5])),
    BPF_JUMP (BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
    BPF_STMT (BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    BPF_STMT (BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = { .len = 4, .filter = code };
  int fd;

  (void) unused;
  if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    fail ("no_new_privs");
  fd = (int) syscall (SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  if (fd < 0)
    fail ("seccomp");
  if (write (listener[1], &fd, sizeof fd) != sizeof fd)
    fail ("write");
  for (long number = 0; number <= LAST; number++)
    {
      long result;

      /* uretprobe and uprobe are let past all filters (Linux 6.14), and are
       * fatal but where the kernel itself has put them. */
      if (number == 335 || number == 336)
        continue;
      errno = 0;
      result = syscall (number, -1L, -1L, -1L, -1L, -1L, (long) MARK);
      if (result != -1)
        printf ("%ld %ld\n", number, result);
      else if (errno == ALLOWED)
        printf ("%ld allow\n", number);
      else
        printf ("%ld %s\n", number, strerrorname_np (errno));
    }
  fflush (stdout);
  exit (0);
}

int
main (void)
{
  struct seccomp_notif *call;
  struct seccomp_notif_resp *answer;
  struct seccomp_notif_sizes sizes;
  pthread_t thread;
  int fd;

  if (syscall (SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
    fail ("sizes");
  call = calloc (1, sizes.seccomp_notif);
  answer = calloc (1, sizes.seccomp_notif_resp);
  if (call == NULL || answer == NULL)
    fail ("calloc");
  if (pipe (listener) < 0 || pthread_create (&thread, NULL, ask, NULL) != 0)
    fail ("thread");
  if (read (listener[0], &fd, sizeof fd) != sizeof fd)
    fail ("read");
  for (;;)
    {
      memset (call, 0, sizes.seccomp_notif);
      if (ioctl (fd, SECCOMP_IOCTL_NOTIF_RECV, call) < 0)
        continue;
      memset (answer, 0, sizes.seccomp_notif_resp);
      answer->id = call->id;
      answer->error = -ALLOWED;
      ioctl (fd, SECCOMP_IOCTL_NOTIF_SEND, answer);
    }
}
