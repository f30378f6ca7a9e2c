/* SPDX-License-Identifier: Apache-2.0
 *
 * The steps inside, in the order of the plan. */
#include "init/init.h"

#include <linux/magic.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>

void
cl_child_fail (struct cl_child *c, const struct cl_error *err)
{
  cl_send (c->sync, CL_MSG_ERROR, err->code, err, sizeof *err, -1, 0);
  _exit (127);
}

static int
write_proc (struct cl_child *c, const char *path, const char *text)
{
  cleanup_close int fd = openat (c->host_proc, path, O_WRONLY | O_CLOEXEC);

  return fd < 0 ? -1 : cl_write_all (fd, text, strlen (text));
}

static int
step_limit (const struct cl_record *r, struct cl_error *err)
{
  struct rlimit limit = { .rlim_cur = cl_record_int (r, 1), .rlim_max = cl_record_int (r, 2) };

  if (setrlimit (cl_record_int (r, 0), &limit) < 0)
    return cl_fail (err, CL_STAGE_RLIMIT, errno, "resource limit %lld", (long long) cl_record_int (r, 0));
  return 0;
}

static int
loopback (struct cl_error *err)
{
  cleanup_close int sock = socket (AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = { .ifr_name = "lo" };

  /* A kernel without IPv4 has nothing to bring up. */
  if (sock < 0)
    return errno == EAFNOSUPPORT ? 0 : cl_fail (err, CL_STAGE_NAMESPACE, errno, "make a socket");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl (sock, SIOCSIFFLAGS, &request) < 0)
    return cl_fail (err, CL_STAGE_NAMESPACE, errno, "bring the loopback interface up");
  return 0;
}

static int
step_lsm (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  char path[128];

  if ((size_t) snprintf (path, sizeof path, "thread-self/attr/%s", cl_record_str (r, 0, NULL)) >= sizeof path
      || write_proc (c, path, cl_record_str (r, 1, NULL)) < 0)
    return cl_fail (err, CL_STAGE_CAPS, errno, "security label %s", cl_record_str (r, 1, NULL));
  return 0;
}

static int
step (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  size_t size;
  const char *text;

  switch (r->op)
    {
    case CL_OP_RLIMIT:
      return step_limit (r, err);
    case CL_OP_ROOT_OVERLAY:
      return cl_root_overlay (c, r, err);
    case CL_OP_ROOT_TMPFS:
      return cl_root_tmpfs (c, r, err);
    case CL_OP_OVERLAY:
      return cl_overlay (c, r, err);
    case CL_OP_MOUNT:
      return cl_mount (c, r, err);
    case CL_OP_BIND:
      return cl_bind (c, r, err);
    case CL_OP_DEVICE:
      return cl_device (c, r, err);
    case CL_OP_MKDIR:
      return cl_mkdir (c, r, err);
    case CL_OP_SYMLINK:
      return cl_symlink (c, r, err);
    case CL_OP_CONSOLE:
      return cl_console (c, r, err);
    case CL_OP_LOOPBACK:
      return loopback (err);
    case CL_OP_SYSCTL:
      return cl_sysctl (c, cl_record_str (r, 0, NULL), cl_record_str (r, 1, NULL), err);
    case CL_OP_HOSTNAME:
      text = cl_record_str (r, 0, &size);
      if (sethostname (text, size) < 0)
        return cl_fail (err, CL_STAGE_HOSTNAME, errno, "host name %s", text);
      return 0;
    case CL_OP_DOMAINNAME:
      text = cl_record_str (r, 0, &size);
      if (setdomainname (text, size) < 0)
        return cl_fail (err, CL_STAGE_HOSTNAME, errno, "domain name %s", text);
      return 0;
    case CL_OP_READONLY_PATH:
      return cl_readonly_path (c, cl_record_str (r, 0, NULL), cl_record_int (r, 0) != 0, err);
    case CL_OP_MASK_PATH:
      return cl_mask_path (c, cl_record_str (r, 0, NULL), err);
    case CL_OP_ROOT_READONLY:
      return cl_root_readonly (c, err);
    case CL_OP_PIVOT:
      return cl_pivot (c, err);
    case CL_OP_KEYRING:
      /* Without a keyring of its own the container would read the caller's.
       * ENOSYS and EPERM: a kernel or an outer filter without keyrings has
       * none. */
      if (syscall (SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, cl_record_str (r, 0, NULL)) < 0
          && errno != ENOSYS && errno != EPERM)
        return cl_fail (err, CL_STAGE_NAMESPACE, errno, "session keyring");
      return 0;
    case CL_OP_USER:
      return cl_user (c, r, err);
    case CL_OP_CAPS:
      return cl_identity (c, r, err);
    case CL_OP_NO_NEW_PRIVS:
      if (prctl (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return cl_fail (err, CL_STAGE_CAPS, errno, "no new privileges");
      return 0;
    case CL_OP_SECCOMP:
      return cl_seccomp (r, err);
    case CL_OP_LSM:
      return step_lsm (c, r, err);
    case CL_OP_WORKDIR:
      c->workdir = cl_record_str (r, 0, NULL);
      c->workdir_flags = cl_record_int (r, 0);
      return cl_enter_workdir (c, false, err);
    case CL_OP_ENVIRON:
      c->environment_store = *r;
      c->environment = &c->environment_store;
      return 0;
    case CL_OP_EXEC:
      c->exec_store = *r;
      c->exec = &c->exec_store;
      return 0;
    default:
      return 0; /* the launcher's */
    }
}

static int
join_namespaces (const struct cl_plan *plan, struct cl_error *err)
{
  struct cl_record r;

  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    if (r.op == CL_OP_JOIN && cl_record_int (&r, 0) != CLONE_NEWPID
        && setns (cl_record_int (&r, 1), cl_record_int (&r, 0)) < 0)
      return cl_fail (err, CL_STAGE_NAMESPACE, errno, "join namespace %#llx",
                      (long long) cl_record_int (&r, 0));
  return 0;
}

static int
standard_streams (struct cl_child *c, struct cl_error *err)
{
  for (int i = 0; i < 3 && !c->terminal; i++)
    {
      int fd = c->launch->stdio[i];
      cleanup_close int null = -1;

      if (fd < 0)
        {
          fd = null = open ("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
          if (null < 0 || !cl_is_null (null))
            return cl_fail (err, CL_STAGE_DEVICE, null < 0 ? errno : ENODEV,
                            "open /dev/null of the container");
        }
      if (dup2 (fd, i) < 0)
        return cl_fail (err, CL_STAGE_EXEC, errno, "standard stream %d", i);
    }
  return 0;
}

/* Inside for good: nothing that leads out stays open while names that the
 * image chose are walked (CVE-2024-21626). */
static int
settle (struct cl_child *c, struct cl_error *err)
{
  if (standard_streams (c, err) < 0)
    return -1;
  if (c->sync != 3)
    {
      if (dup3 (c->sync, 3, O_CLOEXEC) < 0)
        return cl_fail (err, CL_STAGE_EXEC, errno, "move a descriptor");
      c->sync = 3;
    }
  if (sys_close_range (4, ~0U, 0) < 0)
    for (int fd = 4; fd < 4096; fd++)
      close (fd);
  c->root = c->host_proc = c->empty_mount = c->null_mount = -1;
  return 0;
}

void
cl_child_main (struct cl_child *c)
{
  const struct cl_launch *l = c->launch;
  struct pollfd launcher = { .fd = l->self_fd, .events = POLLIN };
  struct cl_error err = { 0 };
  struct cl_record r;
  struct statfs fs;
  bool settled = false;
  sigset_t none;

  /* Nothing lives on without its monitor.  It may have died before this call:
   * its pidfd tells. */
  prctl (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  prctl (PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (l->self_fd >= 0 && poll (&launcher, 1, 0) > 0)
    _exit (127);
  umask (0);
  setsid ();

  c->pivoted = l->inside;
  if (!l->inside)
    {
      c->host_proc = open ("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
      if (c->host_proc < 0 || fstatfs (c->host_proc, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
        {
          cl_fail (&err, CL_STAGE_NAMESPACE, c->host_proc < 0 ? errno : ENODEV, "open /proc");
          cl_child_fail (c, &err);
        }
      if (cl_cgroups_enter (l->cgroups, &err) < 0 || join_namespaces (l->plan, &err) < 0)
        cl_child_fail (c, &err);
      /* Only now: its root is the group that the process sits in. */
      if ((cl_namespace_flags (l->plan) & CLONE_NEWCGROUP) && unshare (CLONE_NEWCGROUP) < 0
          && errno != EINVAL)
        {
          cl_fail (&err, CL_STAGE_NAMESPACE, errno, "unshare the cgroup namespace");
          cl_child_fail (c, &err);
        }
      if (cl_open_sources (c, &err) < 0)
        cl_child_fail (c, &err);
      if (mount (NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        {
          cl_fail (&err, CL_STAGE_NAMESPACE, errno, "make the mounts here slaves");
          cl_child_fail (c, &err);
        }
    }
  else
    {
      /* The container is all around: no step here needs a descriptor. */
      settled = true;
      if (cl_cgroups_enter (l->cgroups, &err) < 0)
        cl_child_fail (c, &err);
      /* Only now: with nsdelegate, nobody enters a group from outside of his
       * namespace's root, and the launcher sits outside of the container's. */
      if (l->cgroupns >= 0 && setns (l->cgroupns, CLONE_NEWCGROUP) < 0)
        {
          cl_fail (&err, CL_STAGE_NAMESPACE, errno, "join the cgroup namespace");
          cl_child_fail (c, &err);
        }
      if (settle (c, &err) < 0)
        cl_child_fail (c, &err);
    }

  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  cl_plan_rewind (l->plan, &r);
  while (cl_plan_next (l->plan, &r, NULL) > 0)
    {
      if (!settled && r.op > CL_OP_PIVOT)
        {
          settled = true;
          if (settle (c, &err) < 0)
            cl_child_fail (c, &err);
        }
      if (l->command != NULL && (r.op == CL_OP_EXEC || r.op == CL_OP_CONSOLE))
        continue;
      if (l->inside && l->command != NULL && r.op <= CL_OP_PIVOT && r.op != CL_OP_RLIMIT)
        continue; /* a health check: the mounts are made */
      if (step (c, &r, &err) < 0)
        cl_child_fail (c, &err);
    }
  umask (0022);
  if (l->command != NULL)
    {
      c->exec_store = *l->command;
      c->exec = &c->exec_store;
    }
  if (c->exec == NULL)
    {
      cl_fail (&err, CL_STAGE_PLAN, EINVAL, "no command in the plan");
      cl_child_fail (c, &err);
    }
  if ((l->flags & CL_INIT) && l->command == NULL && cl_reaper (c, &err) < 0)
    cl_child_fail (c, &err);
  cl_exec (c, &err);
  cl_child_fail (c, &err);
}
