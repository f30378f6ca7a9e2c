/* SPDX-License-Identifier: Apache-2.0
 *
 * Mode userns: a user namespace with the ranges that newuidmap and newgidmap
 * grant.  Its descriptor goes back over the status socket; it lives as long as
 * somebody holds it or lives in it. */
#include "init/init.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int
run (char **argv)
{
  int pid = fork ();

  if (pid == 0)
    {
      char *const env[] = { "PATH=/usr/bin:/bin:/usr/sbin:/sbin", NULL };
      execve (argv[0], argv, env);
      _exit (127);
    }
  return pid;
}

static int
finished (int pid, const char *what, struct cl_error *err)
{
  int status;

  if (pid < 0 || TEMP_FAILURE_RETRY_ (waitpid (pid, &status, 0)) < 0)
    return cl_fail (err, CL_STAGE_IDMAP, errno, "run %s", what);
  if (!WIFEXITED (status) || WEXITSTATUS (status) != 0)
    return cl_fail (err, CL_STAGE_IDMAP, EPERM, "%s refused the map (status %d)", what,
                    WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status));
  return 0;
}

/* userns NEWUIDMAP NEWGIDMAP UID-TRIPLES... -- GID-TRIPLES... */
int
cl_main_userns (int argc, char **argv)
{
  struct cl_error err = { 0 };
  char pid_text[16], path[40], *uid_argv[64], *gid_argv[64];
  int ready[2], done[2], pid, nu = 0, ng = 0, uid_pid, gid_pid;
  cleanup_close int ns = -1;
  bool gids = false;
  char byte = 0;

  if (argc < 4 || argc > 100 || pipe2 (ready, O_CLOEXEC) < 0 || pipe2 (done, O_CLOEXEC) < 0)
    return 64;
  uid_argv[nu++] = argv[1];
  gid_argv[ng++] = argv[2];
  uid_argv[nu++] = gid_argv[ng++] = pid_text;
  for (int i = 3; i < argc; i++)
    if (strcmp (argv[i], "--") == 0)
      gids = true;
    else if (gids && ng < 62)
      gid_argv[ng++] = argv[i];
    else if (!gids && nu < 62)
      uid_argv[nu++] = argv[i];
  uid_argv[nu] = gid_argv[ng] = NULL;

  pid = fork ();
  if (pid < 0)
    {
      cl_fail (&err, CL_STAGE_IDMAP, errno, "fork");
      goto fail;
    }
  if (pid == 0)
    {
      prctl (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
      close (done[1]);
      byte = unshare (CLONE_NEWUSER) < 0 ? errno : 0;
      cl_write_all (ready[1], &byte, 1);
      _exit (cl_read_all (done[0], &byte, 1) < 0);
    }
  close (ready[1]);
  if (cl_read_all (ready[0], &byte, 1) != 1 || byte != 0)
    {
      cl_fail (&err, CL_STAGE_IDMAP, byte, "make a user namespace");
      goto fail;
    }
  snprintf (pid_text, sizeof pid_text, "%d", pid);
  /* Both at once: each is a set-uid program that has to be started. */
  uid_pid = run (uid_argv);
  gid_pid = run (gid_argv);
  if ((finished (uid_pid, "newuidmap", &err) < 0) | (finished (gid_pid, "newgidmap", &err) < 0))
    goto fail;
  snprintf (path, sizeof path, "/proc/%d/ns/user", pid);
  ns = open (path, O_RDONLY | O_CLOEXEC);
  if (ns < 0)
    {
      cl_fail (&err, CL_STAGE_IDMAP, errno, "open the user namespace");
      goto fail;
    }
  cl_send (FD_STATUS, CL_MSG_TERMINAL, 0, NULL, 0, ns, 0);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  return 0;

fail:
  cl_send (FD_STATUS, CL_MSG_ERROR, err.code, &err, sizeof err, -1, 0);
  return 1;
}
