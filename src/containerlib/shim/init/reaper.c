/* SPDX-License-Identifier: Apache-2.0
 *
 * A first process that hands signals on and reaps what is left to it, for
 * commands that were not written to be process 1. */
#include "init/init.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void
reap (int pid) __attribute__ ((noreturn));

static void
reap (int pid)
{
  sigset_t set;

  sigfillset (&set);
  for (;;)
    {
      int sig = 0, status, ended;

      while ((ended = waitpid (-1, &status, WNOHANG)) > 0)
        if (ended == pid)
          _exit (WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status));
      if (sigwait (&set, &sig) != 0)
        continue;
      if (sig != SIGCHLD && sig != SIGTTIN && sig != SIGTTOU && sig != SIGTSTP)
        kill (pid, sig);
    }
}

int
cl_reaper (struct cl_child *c, struct cl_error *err)
{
  sigset_t all, none;
  int pid;

  sigfillset (&all);
  sigprocmask (SIG_SETMASK, &all, NULL);
  pid = fork ();
  if (pid < 0)
    return cl_fail (err, CL_STAGE_EXEC, errno, "fork the command");
  if (pid > 0)
    {
      prctl (PR_SET_NAME, "init", 0, 0, 0);
      sys_close_range (0, ~0U, 0);
      /* What was not executed stays undumpable, and then the namespaces of
       * process 1 can be joined only with privilege over the host's (ptrace(2),
       * "access mode checking").  The plan, which names the host's paths, goes
       * first. */
      munmap ((void *) c->launch->plan->data, c->launch->plan->size);
      prctl (PR_SET_DUMPABLE, 1, 0, 0, 0);
      reap (pid);
    }
  if (c->terminal)
    {
      /* Its own foreground group; every signal is still blocked, so that
       * SIGTTOU cannot stop us. */
      setpgid (0, 0);
      tcsetpgrp (0, getpid ());
    }
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  return 0;
}
