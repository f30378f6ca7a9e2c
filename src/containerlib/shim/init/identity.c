/* SPDX-License-Identifier: Apache-2.0
 *
 * Who the process becomes, what it may do, and what it executes. */
#include "init/init.h"

#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>

int
cl_user (struct cl_child *c, const struct cl_record *r, struct cl_error *err)
{
  cleanup_close int root = open ("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  static struct cl_user_entry entry;
  size_t count;

  if (root < 0)
    return cl_fail (err, CL_STAGE_USER, errno, "open /");
  if (cl_users_resolve (root, cl_record_str (r, 0, NULL), &entry, err) < 0)
    return -1;
  c->uid = entry.uid;
  c->gid = entry.gid;
  snprintf (c->home, sizeof c->home, "%s", entry.home[0] != '\0' ? entry.home : "/");

  count = 1 + entry.ngroups + r->nstrs - 1;
  c->groups = calloc (count, sizeof *c->groups);
  if (c->groups == NULL)
    return cl_fail (err, CL_STAGE_USER, ENOMEM, "%zu groups", count);
  /* The primary group is always among them: a file that denies its group
   * would be readable otherwise (CVE-2022-36109). */
  c->groups[c->ngroups++] = c->gid;
  for (size_t i = 0; i < entry.ngroups; i++)
    c->groups[c->ngroups++] = entry.groups[i];
  for (unsigned int i = 1; i < r->nstrs; i++)
    if (cl_group_resolve (root, cl_record_str (r, i, NULL), &c->groups[c->ngroups++], err) < 0)
      return -1;
  return 0;
}

/* So that /dev/stdout can be opened by an ordinary user inside. */
static void
own_stdio (struct cl_child *c)
{
  for (int fd = 0; fd < 3; fd++)
    {
      struct stat st;

      if (fstat (fd, &st) == 0 && st.st_uid != c->uid && !cl_is_null (fd)
          && (S_ISFIFO (st.st_mode) || c->terminal))
        if (fchown (fd, c->uid, -1) < 0)
          continue; /* unmapped or foreign: it stays as it is */
    }
}

static int
set_groups (struct cl_child *c, struct cl_error *err)
{
  char text[16] = "";
  cleanup_close int fd = -1;

  if (setgroups (c->ngroups, c->groups) == 0)
    return 0;
  if (errno == EPERM)
    {
      /* A user namespace with one id has setgroups denied for good. */
      fd = open ("/proc/self/setgroups", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
      if (fd >= 0 && read (fd, text, sizeof text - 1) > 0 && strncmp (text, "deny", 4) == 0)
        return 0;
      errno = EPERM;
    }
  return cl_fail (err, CL_STAGE_USER, errno, "set groups");
}

int
cl_identity (struct cl_child *c, const struct cl_record *r,
             struct cl_error *err)
{
  uint64_t bounding = cl_record_int (r, 0), permitted = cl_record_int (r, 1);
  uint64_t effective = cl_record_int (r, 2), ambient = cl_record_int (r, 3);
  struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
  struct __user_cap_data_struct data[2];

  own_stdio (c);
  for (int cap = 0; cap < 64; cap++)
    {
      if (bounding & (1ULL << cap))
        continue;
      if (prctl (PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
        {
          if (errno == EINVAL)
            break; /* past the last one that this kernel knows */
          return cl_fail (err, CL_STAGE_CAPS, errno, "drop capability %d", cap);
        }
    }
  if (prctl (PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
    return cl_fail (err, CL_STAGE_CAPS, errno, "keep capabilities");
  if (set_groups (c, err) < 0)
    return -1;
  if (setresgid (c->gid, c->gid, c->gid) < 0)
    return cl_fail (err, CL_STAGE_USER, errno, "become group %u", c->gid);
  if (setresuid (c->uid, c->uid, c->uid) < 0)
    return cl_fail (err, CL_STAGE_USER, errno, "become user %u", c->uid);
  prctl (PR_SET_KEEPCAPS, 0, 0, 0, 0);
  if (cl_enter_workdir (c, true, err) < 0)
    return -1;

  /* Inheritable stays empty (CVE-2022-29162) but for what is ambient. */
  for (int i = 0; i < 2; i++)
    {
      data[i].permitted = permitted >> (32 * i);
      data[i].effective = effective >> (32 * i);
      data[i].inheritable = ambient >> (32 * i);
    }
  if (syscall (SYS_capset, &head, data) < 0)
    return cl_fail (err, CL_STAGE_CAPS, errno, "set capabilities");
  prctl (PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (int cap = 0; cap < 64; cap++)
    if ((ambient & (1ULL << cap)) && prctl (PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
      return cl_fail (err, CL_STAGE_CAPS, errno, "raise ambient capability %d", cap);
  /* A change of ids cleared it. */
  prctl (PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  return 0;
}

int
cl_seccomp (const struct cl_record *r, struct cl_error *err)
{
  size_t size;
  const char *filter = cl_record_str (r, 0, &size);
  struct sock_fprog program;

  if (size == 0 || size % sizeof (struct sock_filter) != 0
      || size / sizeof (struct sock_filter) > BPF_MAXINSNS)
    return cl_fail (err, CL_STAGE_SECCOMP, EINVAL, "filter of %zu bytes", size);
  program.len = size / sizeof (struct sock_filter);
  /* The kernel copies it with copy_from_user: no alignment is needed. */
  program.filter = (struct sock_filter *) (uintptr_t) filter;
  if (syscall (SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned int) cl_record_int (r, 0), &program) < 0)
    return cl_fail (err, CL_STAGE_SECCOMP, errno, "load a filter of %u instructions", program.len);
  return 0;
}

/* A directory by a name that the image chose: a link of /proc, like
 * /proc/1/root beside the host's processes, would lead out. */
static int
open_directory (const char *path)
{
  return sys_openat2 (AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
}

/* Make what is missing of the path, each part below a descriptor of the one
 * before. */
static int
make_directories (const char *path, struct cl_error *err)
{
  cleanup_close int at = open_directory ("/");
  const char *whole = path;
  char part[NAME_MAX + 1];

  while (at >= 0)
    {
      size_t length;
      int next;

      path += strspn (path, "/");
      length = strcspn (path, "/");
      if (length == 0)
        return 0;
      if (length >= sizeof part)
        return cl_fail (err, CL_STAGE_WORKDIR, ENAMETOOLONG, "working directory %s", whole);
      memcpy (part, path, length);
      part[length] = '\0';
      path += length;
      if (mkdirat (at, part, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES
          && errno != EPERM)
        break;
      next = sys_openat2 (at, part, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
      close (at);
      at = next;
    }
  return cl_fail (err, CL_STAGE_WORKDIR, errno, "make working directory %s", whole);
}

/* Twice: as root the directory may be on a file system that refuses root, as
 * the user it may be one that only the user enters. */
int
cl_enter_workdir (struct cl_child *c, bool last, struct cl_error *err)
{
  const char *path = c->workdir;
  cleanup_close int fd = -1;
  char where[PATH_MAX];
  long n;

  if (path == NULL)
    return 0;
  fd = open_directory (path);
  if (fd < 0 && errno == ENOENT && !last && (c->workdir_flags & CL_WORKDIR_CREATE))
    {
      if (make_directories (path, err) == 0)
        fd = open_directory (path);
      else if (errno != EACCES && errno != EPERM)
        return -1;
    }
  if (fd < 0 || fchdir (fd) < 0)
    {
      if (!last && (errno == EACCES || errno == EPERM))
        return 0;
      return cl_fail (err, CL_STAGE_WORKDIR, errno, "working directory %s", path);
    }
  /* A directory outside the root, reached by a leaked descriptor, reads as
   * "(unreachable)" (CVE-2024-21626). */
  n = syscall (SYS_getcwd, where, sizeof where);
  if (n < 0 || where[0] != '/')
    return cl_fail (err, CL_STAGE_WORKDIR, n < 0 ? errno : EXDEV,
                    "working directory %s is outside the container", path);
  return 0;
}

static const char *
lookup_env (const struct cl_record *r, const char *name)
{
  size_t length = strlen (name);
  const char *word = r != NULL ? cl_record_str (r, 0, NULL) : NULL;

  for (unsigned int i = 0; r != NULL && i < r->nstrs; i++, word = cl_record_next_str (word))
    {
      if (strncmp (word, name, length) == 0 && word[length] == '=')
        return word + length + 1;
    }
  return NULL;
}

/* Append the record's strings to the vector. */
static unsigned int
collect (const struct cl_record *r, char **out)
{
  const char *word = cl_record_str (r, 0, NULL);

  for (unsigned int i = 0; i < r->nstrs; i++, word = cl_record_next_str (word))
    out[i] = (char *) (uintptr_t) word;
  return r->nstrs;
}

/* The first executable file of that name on the path, as execvp does. */
static int
find_command (const char *name, const char *path, char *out, size_t size,
              struct cl_error *err)
{
  int code = ENOENT;

  if (name[0] == '\0')
    return cl_fail (err, CL_STAGE_EXEC, ENOENT, "%s", "\"\"");
  if (strchr (name, '/') != NULL)
    {
      if ((size_t) snprintf (out, size, "%s", name) >= size)
        return cl_fail (err, CL_STAGE_EXEC, ENAMETOOLONG, "%s", name);
      return 0;
    }
  while (path != NULL)
    {
      size_t length = strcspn (path, ":");
      struct stat st;

      if ((size_t) snprintf (out, size, "%.*s%s%s", (int) length, path, length > 0 ? "/" : "", name) < size
          && stat (out, &st) == 0 && S_ISREG (st.st_mode))
        {
          if (faccessat (AT_FDCWD, out, X_OK, AT_EACCESS) == 0)
            return 0;
          code = EACCES;
        }
      path = path[length] == ':' ? path + length + 1 : NULL;
    }
  return cl_fail (err, CL_STAGE_EXEC, code, "%s", name);
}

int
cl_exec (struct cl_child *c, struct cl_error *err)
{
  static const char fallback[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  const struct cl_record *e = c->environment, *x = c->exec;
  unsigned int nenv = e != NULL ? e->nstrs : 0;
  const char *path = lookup_env (e, "PATH");
  char file[PATH_MAX], home[sizeof c->home + 8];
  cleanup_free char **argv = calloc (x->nstrs + 1, sizeof *argv);
  cleanup_free char **envp = calloc (nenv + 2, sizeof *envp);
  struct stat st;
  unsigned int n = 0;

  if (argv == NULL || envp == NULL)
    return cl_fail (err, CL_STAGE_EXEC, ENOMEM, "%s", cl_record_str (x, 0, NULL));
  collect (x, argv);
  if (nenv > 0)
    n = collect (e, envp);
  if (lookup_env (e, "HOME") == NULL)
    {
      snprintf (home, sizeof home, "HOME=%s", c->home[0] != '\0' ? c->home : "/");
      envp[n++] = home;
    }
  if (find_command (argv[0], path != NULL ? path : fallback, file, sizeof file, err) < 0)
    return -1;

  /* The one that is left closes itself, and says by that that exec worked. */
  execve (file, argv, envp);
  if (errno == ENOENT && stat (file, &st) == 0)
    return cl_fail (err, CL_STAGE_EXEC, ENOEXEC, "%s: its interpreter is missing", argv[0]);
  return cl_fail (err, CL_STAGE_EXEC, errno, "%s", argv[0]);
}
