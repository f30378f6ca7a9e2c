/* SPDX-License-Identifier: Apache-2.0
 *
 * Users and groups by the container's own files.  No NSS: its libraries would
 * be the container's (CVE-2019-14271). */
#include "init/init.h"

#include <stdio.h>
#include <sys/stat.h>

/* More than this of passwd or group is not read: the file is the image's. */
#define MAX_FILE (16 * 1024 * 1024)
#define MAX_LINE 65536

struct lines
{
  int fd;
  size_t total, used, at;
  bool skipping;
  char buf[MAX_LINE];
};

static struct lines lines;

/* A file below the root, whatever links the image has there; only a regular
 * one, so that a FIFO cannot hold us up.  Looked at before it is opened, since
 * some devices act on that alone. */
static int
open_file (int root, const char *path)
{
  const uint64_t resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  cleanup_close int seen = sys_openat2 (root, path, O_PATH | O_CLOEXEC, 0, resolve);
  struct stat st;
  int fd;

  if (seen < 0)
    return -1;
  if (fstat (seen, &st) < 0 || !S_ISREG (st.st_mode))
    {
      errno = EINVAL;
      return -1;
    }
  fd = sys_openat2 (root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0, resolve);

  if (fd >= 0 && (fstat (fd, &st) < 0 || !S_ISREG (st.st_mode)))
    {
      close (fd);
      errno = EINVAL;
      return -1;
    }
  return fd;
}

/* The next line without its newline, or NULL.  Lines over MAX_LINE are left
 * out. */
static char *
next_line (struct lines *l)
{
  for (;;)
    {
      char *start = l->buf + l->at;
      char *end = memchr (start, '\n', l->used - l->at);
      ssize_t n;

      if (end != NULL)
        {
          bool skip = l->skipping;
          *end = '\0';
          l->at = end + 1 - l->buf;
          l->skipping = false;
          if (skip)
            continue;
          return start;
        }
      memmove (l->buf, start, l->used - l->at);
      l->used -= l->at;
      l->at = 0;
      if (l->used == sizeof l->buf - 1)
        {
          l->skipping = true;
          l->used = 0;
        }
      if (l->total >= MAX_FILE)
        return NULL;
      n = TEMP_FAILURE_RETRY_ (read (l->fd, l->buf + l->used, sizeof l->buf - 1 - l->used));
      if (n <= 0)
        {
          if (l->used == 0 || l->skipping)
            return NULL;
          l->buf[l->used] = '\0';
          l->used = 0;
          return l->buf;
        }
      l->total += n;
      l->used += n;
    }
}

static void
start (struct lines *l, int fd)
{
  l->fd = fd;
  l->total = l->used = l->at = 0;
  l->skipping = false;
}

/* Decimal digits only, within what the kernel takes; 2^32 - 1 means "leave
 * it" to setresuid and is refused.  -1 when text is no number, -2 when it is
 * one out of range: a number is never a name (CVE-2024-40635). */
static int
number (const char *text, unsigned int *out)
{
  unsigned long long value = 0;

  if (*text == '\0')
    return -1;
  for (const char *p = text; *p != '\0'; p++)
    if (*p < '0' || *p > '9')
      return -1;
  for (const char *p = text; *p != '\0'; p++)
    {
      value = value * 10 + (*p - '0');
      if (value >= 0xffffffffULL)
        return -2;
    }
  *out = value;
  return 0;
}

/* Split a line at its colons in place; how many fields there are. */
static size_t
fields (char *line, char **out, size_t max)
{
  size_t n = 0;

  for (char *p = line; n < max; p++)
    {
      out[n++] = p;
      p = strchr (p, ':');
      if (p == NULL)
        break;
      *p = '\0';
    }
  return n;
}

static int
find_user (int root, const char *name, bool numeric, struct cl_user_entry *out,
           char *login, size_t login_size)
{
  cleanup_close int fd = open_file (root, "etc/passwd");
  char *f[7], *line;

  if (fd < 0)
    return -1;
  start (&lines, fd);
  while ((line = next_line (&lines)) != NULL)
    {
      unsigned int uid, gid;

      if (fields (line, f, 7) < 6 || number (f[2], &uid) != 0 || number (f[3], &gid) != 0)
        continue;
      if (numeric ? uid != out->uid : strcmp (f[0], name) != 0)
        continue;
      out->uid = uid;
      out->gid = gid;
      snprintf (out->home, sizeof out->home, "%s", f[5]);
      snprintf (login, login_size, "%s", f[0]);
      return 0;
    }
  return -1;
}

/* The groups that list the login name as a member. */
static void
find_memberships (int root, const char *login, struct cl_user_entry *out)
{
  cleanup_close int fd = open_file (root, "etc/group");
  char *f[4], *line;

  if (fd < 0 || login[0] == '\0')
    return;
  start (&lines, fd);
  while ((line = next_line (&lines)) != NULL)
    {
      unsigned int gid;
      char *save = NULL;

      if (fields (line, f, 4) < 4 || number (f[2], &gid) != 0)
        continue;
      for (char *m = strtok_r (f[3], ",", &save); m != NULL; m = strtok_r (NULL, ",", &save))
        if (strcmp (m, login) == 0)
          {
            if (out->ngroups < sizeof out->groups / sizeof out->groups[0])
              out->groups[out->ngroups++] = gid;
            break;
          }
    }
}

int
cl_group_resolve (int root, const char *name, unsigned int *gid,
                  struct cl_error *err)
{
  cleanup_close int fd = -1;
  char *f[4], *line;
  int n = number (name, gid);

  if (n == 0)
    return 0;
  if (n == -2)
    return cl_fail (err, CL_STAGE_USER, ERANGE, "group %s", name);
  fd = open_file (root, "etc/group");
  if (fd >= 0)
    {
      start (&lines, fd);
      while ((line = next_line (&lines)) != NULL)
        if (fields (line, f, 4) >= 3 && strcmp (f[0], name) == 0 && number (f[2], gid) == 0)
          return 0;
    }
  return cl_fail (err, CL_STAGE_USER, ENOENT, "group %s", name);
}

int
cl_users_resolve (int root, const char *spec, struct cl_user_entry *out,
                  struct cl_error *err)
{
  char user[256], login[256] = "";
  const char *colon = strchr (spec, ':');
  const char *group = colon != NULL ? colon + 1 : "";
  size_t length = colon != NULL ? (size_t) (colon - spec) : strlen (spec);
  int n;

  memset (out, 0, sizeof *out);
  if (length >= sizeof user)
    return cl_fail (err, CL_STAGE_USER, ENAMETOOLONG, "user %s", spec);
  memcpy (user, spec, length);
  user[length] = '\0';

  n = user[0] == '\0' ? 0 : number (user, &out->uid);
  if (n == -2)
    return cl_fail (err, CL_STAGE_USER, ERANGE, "user %s", user);
  if (n == 0)
    {
      /* An id without an entry is as good as one with: gid 0, home "/". */
      if (find_user (root, NULL, true, out, login, sizeof login) < 0)
        out->gid = 0;
    }
  else if (find_user (root, user, false, out, login, sizeof login) < 0)
    return cl_fail (err, CL_STAGE_USER, ENOENT, "user %s", user);

  if (group[0] != '\0')
    return cl_group_resolve (root, group, &out->gid, err);
  find_memberships (root, login, out);
  return 0;
}
