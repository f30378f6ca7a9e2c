/* SPDX-License-Identifier: Apache-2.0
 *
 * Control groups, version 1, 2 or both; what to do comes from the plan. */
#include "init/init.h"

#include <dirent.h>
#include <linux/bpf.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

static int
make_directory (struct cl_cgroup *g, const struct cl_record *r, bool create,
                struct cl_error *err)
{
  g->version = cl_record_int (r, 0);
  g->kind = cl_record_int (r, 1);
  g->path = cl_record_str (r, 0, NULL);
  g->fd = -1;
  if (g->kind == CL_CGROUP_LATE)
    return 0;
  if (create && mkdir (g->path, 0755) < 0 && errno != EEXIST)
    return cl_fail (err, CL_STAGE_CGROUP, errno, "make control group %s", g->path);
  g->fd = open (g->path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (g->fd < 0)
    return cl_fail (err, CL_STAGE_CGROUP, errno, "open control group %s", g->path);
  return 0;
}

/* What the file says, cut to size; false without one. */
static bool
read_value (const struct cl_cgroup *g, const char *file, char *out, size_t size)
{
  cleanup_close int fd = openat (g->fd, file, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : TEMP_FAILURE_RETRY_ (read (fd, out, size - 1));

  if (n < 0)
    return false;
  out[n] = '\0';
  return true;
}

static int
write_value (const struct cl_cgroup *g, const char *file, const char *value)
{
  cleanup_close int fd = openat (g->fd, file, O_WRONLY | O_CLOEXEC);
  ssize_t n;

  if (fd < 0)
    return -1;
  n = TEMP_FAILURE_RETRY_ (write (fd, value, strlen (value)));
  return n < 0 ? -1 : 0;
}

static int
attach_program (const struct cl_cgroup *g, const char *program, size_t size,
                struct cl_error *err)
{
  static const char license[] = "Apache-2.0";
  cleanup_close int dir = open (g->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cleanup_close int prog = -1;
  cleanup_free void *copy = malloc (size);
  union bpf_attr attr;

  if (dir < 0 || copy == NULL)
    return cl_fail (err, CL_STAGE_CGROUP, errno, "open control group %s", g->path);
  memcpy (copy, program, size);
  memset (&attr, 0, sizeof attr);
  attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attr.insn_cnt = size / sizeof (struct bpf_insn);
  attr.insns = (uintptr_t) copy;
  attr.license = (uintptr_t) license;
  prog = syscall (SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
  if (prog < 0)
    return cl_fail (err, CL_STAGE_CGROUP, errno, "load the device program");
  memset (&attr, 0, sizeof attr);
  attr.target_fd = dir;
  attr.attach_bpf_fd = prog;
  attr.attach_type = BPF_CGROUP_DEVICE;
  attr.attach_flags = BPF_F_ALLOW_MULTI;
  if (syscall (SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr) < 0)
    return cl_fail (err, CL_STAGE_CGROUP, errno, "attach the device program to %s", g->path);
  return 0;
}

static int
apply (struct cl_cgroups *groups, const struct cl_record *r,
       struct cl_error *err)
{
  int64_t index = cl_record_int (r, 0);
  const struct cl_cgroup *g;

  if (index < 0 || index >= groups->count)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "control group %lld", (long long) index);
  g = &groups->dir[index];
  if (r->op == CL_OP_CGROUP_BPF)
    {
      size_t size;
      const char *program = cl_record_str (r, 0, &size);
      return attach_program (g, program, size, err);
    }
  if (write_value (g, cl_record_str (r, 0, NULL), cl_record_str (r, 1, NULL)) < 0
      && !(cl_record_int (r, 1) & CL_CGROUP_OPTIONAL))
    return cl_fail (err, CL_STAGE_CGROUP, errno, "%s/%s=%s", g->path,
                    cl_record_str (r, 0, NULL), cl_record_str (r, 1, NULL));
  return 0;
}

int
cl_cgroups_open (struct cl_cgroups *groups, const struct cl_plan *plan,
                 bool create, struct cl_error *err)
{
  struct cl_record r;

  groups->count = 0;
  groups->narrow = false;
  cl_plan_rewind (plan, &r);
  while (cl_plan_next (plan, &r, NULL) > 0)
    {
      int n = 0;

      if (r.op == CL_OP_CGROUP_DIR)
        {
          if (groups->count == CL_MAX_CGROUPS)
            return cl_fail (err, CL_STAGE_PLAN, E2BIG, "control groups");
          n = make_directory (&groups->dir[groups->count], &r, create, err);
          if (n == 0)
            groups->count++;
        }
      else if (create && (r.op == CL_OP_CGROUP_WRITE || r.op == CL_OP_CGROUP_BPF))
        n = apply (groups, &r, err);
      if (n < 0)
        {
          struct cl_error first = *err;
          if (create)
            cl_cgroups_remove (groups);
          *err = first;
          errno = first.code;
          return -1;
        }
    }
  return 0;
}

int
cl_cgroups_unified (const struct cl_cgroups *groups)
{
  for (int i = 0; i < groups->count; i++)
    if (groups->dir[i].version == 2 && groups->dir[i].fd >= 0)
      return groups->dir[i].fd;
  return -1;
}

int
cl_cgroups_narrow (struct cl_cgroups *groups, struct cl_error *err)
{
  for (int i = 0; i < groups->count; i++)
    {
      struct cl_cgroup *g = &groups->dir[i];
      int fd;

      if (g->version != 1 || g->fd < 0)
        continue;
      fd = openat (g->fd, "tasks", O_WRONLY | O_CLOEXEC);
      if (fd < 0)
        return cl_fail (err, CL_STAGE_CGROUP, errno, "open control group %s", g->path);
      close (g->fd);
      g->fd = fd;
    }
  groups->narrow = true;
  return 0;
}

/* "0" to "tasks": the kernel moves a single-threaded writer without the
 * global lock that makes cgroup.procs cost ten milliseconds. */
int
cl_cgroups_enter (const struct cl_cgroups *groups, struct cl_error *err)
{
  for (int i = 0; i < groups->count; i++)
    {
      const struct cl_cgroup *g = &groups->dir[i];

      if (g->version == 1 && g->fd >= 0
          && (groups->narrow ? cl_write_all (g->fd, "0", 1) : write_value (g, "tasks", "0")) < 0)
        return cl_fail (err, CL_STAGE_CGROUP, errno, "enter control group %s", g->path);
    }
  return 0;
}

uint64_t
cl_cgroups_oom_kills (const struct cl_cgroups *groups)
{
  uint64_t kills = 0;

  for (int i = 0; i < groups->count; i++)
    {
      const struct cl_cgroup *g = &groups->dir[i];
      const char *file = g->version == 2               ? "memory.events"
                         : g->kind == CL_CGROUP_MEMORY ? "memory.oom_control"
                                                       : NULL;
      char text[1024];
      char *found;

      if (file == NULL || !read_value (g, file, text, sizeof text))
        continue;
      found = strstr (text, "oom_kill ");
      if (found != NULL)
        kills += strtoul (found + 9, NULL, 10);
    }
  return kills;
}

bool
cl_cgroups_frozen (const struct cl_cgroups *groups)
{
  char text[16];

  for (int i = 0; i < groups->count; i++)
    {
      const struct cl_cgroup *g = &groups->dir[i];
      if (g->kind == CL_CGROUP_FREEZER && read_value (g, "freezer.state", text, sizeof text)
          && strcmp (text, "THAWED\n") != 0)
        return true;
      if (g->version == 2 && read_value (g, "cgroup.freeze", text, sizeof text) && text[0] == '1')
        return true;
    }
  return false;
}

void
cl_cgroups_thaw (const struct cl_cgroups *groups)
{
  for (int i = 0; i < groups->count; i++)
    {
      const struct cl_cgroup *g = &groups->dir[i];
      if (g->kind == CL_CGROUP_FREEZER)
        write_value (g, "freezer.state", "THAWED");
      else if (g->version == 2)
        write_value (g, "cgroup.freeze", "0");
    }
}

static int
kill_members (const struct cl_cgroup *g)
{
  cleanup_close int fd = openat (g->fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  static char text[4096];
  size_t used = 0;
  int killed = 0;

  if (fd < 0)
    return 0;
  for (;;)
    {
      ssize_t n = TEMP_FAILURE_RETRY_ (read (fd, text + used, sizeof text - 1 - used));
      char *p = text, *end;

      if (n <= 0)
        return killed;
      used += n;
      text[used] = '\0';
      while ((end = strchr (p, '\n')) != NULL)
        {
          int pid = atoi (p);
          if (pid > 1 && pid != getpid () && kill (pid, SIGKILL) == 0)
            killed++;
          p = end + 1;
        }
      used -= p - text;
      memmove (text, p, used);
    }
}

void
cl_cgroups_kill (const struct cl_cgroups *groups)
{
  for (int i = 0; i < groups->count; i++)
    if (groups->dir[i].version == 2 && write_value (&groups->dir[i], "cgroup.kill", "1") == 0)
      return;
  /* A process may fork between the read and the kill: until none is left,
   * or for as long as it takes to see that something cannot be killed. */
  for (int round = 0; round < 1000; round++)
    {
      int killed = 0;

      cl_cgroups_thaw (groups);
      if (groups->count > 0)
        killed = kill_members (&groups->dir[0]);
      if (killed == 0)
        return;
      poll (NULL, 0, 1);
    }
}

struct entry
{
  uint64_t ino;
  int64_t off;
  uint16_t size;
  uint8_t type;
  char name[];
};

/* Groups that the container made inside its own go first. */
static void
remove_below (int parent, const char *name, int depth)
{
  cleanup_close int fd = -1;
  char buffer[2048] __attribute__ ((aligned (8)));
  long n;

  if (unlinkat (parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT || depth > 64)
    return;
  fd = openat (parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return;
  while ((n = syscall (SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
    for (long at = 0; at < n;)
      {
        const struct entry *entry = (const void *) (buffer + at);

        if (entry->type == DT_DIR && entry->name[0] != '.')
          remove_below (fd, entry->name, depth + 1);
        at += entry->size;
      }
  unlinkat (parent, name, AT_REMOVEDIR);
}

void
cl_cgroups_remove (struct cl_cgroups *groups)
{
  for (int i = 0; i < groups->count; i++)
    {
      struct cl_cgroup *g = &groups->dir[i];

      if (g->fd >= 0)
        close (g->fd);
      /* Busy for a moment while the kernel lets the last process go. */
      for (int tries = 0; rmdir (g->path) < 0 && tries < 500; tries++)
        {
          if (errno != EBUSY && errno != ENOTEMPTY)
            break;
          remove_below (AT_FDCWD, g->path, 0);
          if (access (g->path, F_OK) < 0)
            break;
          poll (NULL, 0, tries < 20 ? 1 : 10);
        }
    }
  groups->count = 0;
}
