/* SPDX-License-Identifier: Apache-2.0
 *
 * The helper's parts, from the outside in:
 *
 *   main.c      picks a mode by argv[1]
 *   run.c       mode run: a container's monitor, from plan to last breath
 *   loop.c      the monitor's event loop       clients.c  its protocol
 *   logs.c      log files and their rotation   health.c   health checks
 *   exec.c      mode exec: a process in a running container; mode connect
 *   userns.c    mode userns: a user namespace with newuidmap's ranges
 *   launch.c    clone and the first process    reaper.c   a first process that only reaps
 *   child.c     the plan's steps inside        rootfs.c   mounts
 *   devices.c   /dev and terminals             masks.c    what is hidden or read-only
 *   identity.c  user, capabilities, seccomp    users.c    passwd and group
 *   cgroup.c    control groups                 unpack.c, remove.c   trees on disk
 */
#ifndef CONTAINERLIB_INIT_H
#define CONTAINERLIB_INIT_H

#include "plan.h"
#include "syscalls.h"

#include <sys/socket.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO ('T', 0x41) /* Linux 4.13 */
#endif

/* Each is one mode of the helper and returns its exit status. */
int cl_main_run (int argc, char **argv);
int cl_main_exec (int argc, char **argv);
int cl_main_connect (int argc, char **argv);
int cl_main_userns (int argc, char **argv);
int cl_main_unpack (int argc, char **argv);
int cl_main_remove (int argc, char **argv);

/* Descriptors that Python always passes at these numbers. */
enum
{
  FD_PLAN = 3,
  FD_STATUS = 4,
};

/* Map the plan behind FD_PLAN and check all of it. */
int cl_plan_map (struct cl_plan *plan, struct cl_error *err);

/* One datagram, with a descriptor if fd >= 0; 0, or -1 with errno. */
int cl_send (int sock, int type, int arg, const void *data, size_t size,
             int fd, int flags);

/* ---- cgroup.c ---- */

#define CL_MAX_CGROUPS 16

struct cl_cgroup
{
  int version;
  int kind;
  int fd;
  const char *path;
};

struct cl_cgroups
{
  int count;
  bool narrow; /* version 1: fd is the file "tasks" */
  struct cl_cgroup dir[CL_MAX_CGROUPS];
};

/* Make the plan's directories, or with create false open existing ones. */
int cl_cgroups_open (struct cl_cgroups *groups, const struct cl_plan *plan,
                     bool create, struct cl_error *err);
/* The descriptor for CLONE_INTO_CGROUP, or -1. */
int cl_cgroups_unified (const struct cl_cgroups *groups);
/* Before joining a container: keep only what cl_cgroups_enter needs, which is
 * no directory where that can be, for ".." of one leads to the host. */
int cl_cgroups_narrow (struct cl_cgroups *groups, struct cl_error *err);
/* Called by the process that is to be in them; single-threaded. */
int cl_cgroups_enter (const struct cl_cgroups *groups, struct cl_error *err);
/* How many processes in them were killed for want of memory. */
uint64_t cl_cgroups_oom_kills (const struct cl_cgroups *groups);
bool cl_cgroups_frozen (const struct cl_cgroups *groups);
void cl_cgroups_thaw (const struct cl_cgroups *groups);
/* SIGKILL to every process in them. */
void cl_cgroups_kill (const struct cl_cgroups *groups);
void cl_cgroups_remove (struct cl_cgroups *groups);

/* ---- launch.c, child.c ---- */

/* What the first process of a container, or one run in it, is made from. */
struct cl_launch
{
  const struct cl_plan *plan;
  const struct cl_cgroups *cgroups;
  int flags;        /* enum cl_container_flag */
  int stdio[3];     /* -1: the container's /dev/null */
  int mount_fd;     /* the directory to attach the root at, -1 for exec */
  int self_fd;      /* pidfd of the process that launches */
  int caller_fd;    /* what ends a start that is still under way, or -1 */
  int caller_events;
  bool inside;      /* exec: the namespaces are joined already, but one: */
  int cgroupns;     /* exec: pidfd of a process in the cgroup namespace, or -1 */
  const struct cl_record *command; /* instead of the plan's; for health checks */
};

/* CLONE_NEW* bits of the plan. */
uint64_t cl_namespace_flags (const struct cl_plan *plan);

struct cl_launched
{
  int pid;
  int pidfd;
  int terminal; /* master, or -1 */
};

/* Once, before this process changes its ids. */
void cl_score_open (void);
/* What is born in between has the plan's out-of-memory score. */
int cl_score_take (const struct cl_plan *plan, struct cl_error *err);
void cl_score_give_back (void);
/* Returns when execve has succeeded, or -1 with what failed. */
int cl_launch (const struct cl_launch *launch, struct cl_launched *out,
               struct cl_error *err);

/* State of the steps inside. */
struct cl_child
{
  const struct cl_launch *launch;
  int sync;          /* to the launcher */
  int host_proc;     /* O_PATH of the host's /proc, opened before any mount */
  int root;          /* O_PATH of the new root */
  int empty_mount;   /* where the shared empty directory is attached */
  int null_mount;    /* O_PATH of a verified /dev/null */
  bool pivoted;
  bool terminal;
  unsigned int uid;
  unsigned int gid;
  unsigned int *groups;
  size_t ngroups;
  char home[256];
  const char *workdir;
  int workdir_flags;
  const struct cl_record *environment;
  const struct cl_record *exec;
  struct cl_record environment_store;
  struct cl_record exec_store;
  int *sources;      /* detached bind sources, in the order of the plan */
  size_t nsources, next_source;
};

void cl_child_main (struct cl_child *child) __attribute__ ((noreturn));
/* Report and leave. */
void cl_child_fail (struct cl_child *child, const struct cl_error *err)
    __attribute__ ((noreturn));

/* ---- rootfs.c ---- */

int cl_open_sources (struct cl_child *c, struct cl_error *err);
int cl_root_overlay (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_root_tmpfs (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_overlay (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_mount (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_bind (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_mkdir (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_symlink (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_pivot (struct cl_child *c, struct cl_error *err);

/* Open path below the new root; flags on top of O_PATH | O_CLOEXEC. */
int cl_in_root (struct cl_child *c, const char *path, int flags, uint64_t resolve);
/* Open the parent of path in the root, made when missing; *name is the rest. */
int cl_parent_in_root (struct cl_child *c, const char *path, const char **name,
                       struct cl_error *err);
/* Open a mount target, made as a directory or file when missing. */
int cl_target (struct cl_child *c, const char *path, int flags, bool is_dir,
               struct cl_error *err);
/* Attach a detached mount; refuses to cover procfs. */
int cl_attach (int mount, int target, const char *path, struct cl_error *err);

/* ---- masks.c ---- */

int cl_readonly_path (struct cl_child *c, const char *path, bool own, struct cl_error *err);
int cl_mask_path (struct cl_child *c, const char *path, struct cl_error *err);
int cl_root_readonly (struct cl_child *c, struct cl_error *err);
int cl_sysctl (struct cl_child *c, const char *key, const char *value, struct cl_error *err);

/* ---- devices.c ---- */

int cl_device (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_console (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
/* The container's own /dev/null, verified; for standard streams. */
int cl_open_null (struct cl_child *c, struct cl_error *err);
bool cl_is_null (int fd);

/* ---- identity.c, users.c ---- */

int cl_user (struct cl_child *c, const struct cl_record *r, struct cl_error *err);
int cl_identity (struct cl_child *c, const struct cl_record *caps, struct cl_error *err);
int cl_seccomp (const struct cl_record *r, struct cl_error *err);
int cl_enter_workdir (struct cl_child *c, bool last, struct cl_error *err);
int cl_exec (struct cl_child *c, struct cl_error *err);

struct cl_user_entry
{
  unsigned int uid;
  unsigned int gid;
  char home[256];
  unsigned int groups[64];
  size_t ngroups;
};

/* Resolve "user[:group]" with etc/passwd and etc/group below root. */
int cl_users_resolve (int root, const char *spec, struct cl_user_entry *out,
                      struct cl_error *err);
int cl_group_resolve (int root, const char *name, unsigned int *gid,
                      struct cl_error *err);

/* ---- reaper.c ---- */

/* Fork; the child returns, the parent reaps as the container's init. */
int cl_reaper (struct cl_child *c, struct cl_error *err);

#endif
