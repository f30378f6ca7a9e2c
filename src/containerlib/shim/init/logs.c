/* SPDX-License-Identifier: Apache-2.0
 *
 * The log in the format of the Container Runtime Interface: a time, the
 * stream, F for a whole line or P for a piece of one, the bytes. */
#include "init/monitor.h"

#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#define PREFIX 48

int
log_open (struct log *log, int dir_fd, struct cl_error *err)
{
  struct stat st;

  log->dir_fd = dir_fd;
  log->fd = openat (dir_fd, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (log->fd < 0)
    return cl_fail (err, CL_STAGE_LOG, errno, "open the log");
  log->size = fstat (log->fd, &st) == 0 ? st.st_size : 0;
  return 0;
}

static void
rotate (struct log *log)
{
  char from[32], to[32];
  int fd;

  /* First what may fail: on a disk without room for a file the old ones stay,
   * and the present one grows.  A new file, not an emptied one: who follows
   * keeps the old one open. */
  fd = openat (log->dir_fd, ".log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return;
  for (int i = log->max_files - 1; i >= 1; i--)
    {
      snprintf (to, sizeof to, "log.%d", i);
      snprintf (from, sizeof from, i > 1 ? "log.%d" : "log", i - 1);
      renameat (log->dir_fd, from, log->dir_fd, to);
    }
  renameat (log->dir_fd, ".log", log->dir_fd, "log");
  close (log->fd);
  log->fd = fd;
  log->size = 0;
}

/* All of it, or nothing: a full disk may take the beginning of a line. */
static bool
append (struct log *log, const char *data, size_t size)
{
  ssize_t n = TEMP_FAILURE_RETRY_ (write (log->fd, data, size));

  if (n > 0 && n < (ssize_t) size && ftruncate (log->fd, log->size) == 0)
    return false;
  if (n > 0)
    log->size += n;
  return n == (ssize_t) size;
}

/* A full disk may lose lines, never the container or half a line. */
static void
flush (struct log *log, int stream, const char *data, size_t size, bool open)
{
  if (size == 0)
    return;
  if (append (log, data, size))
    log->open[stream] = open;
  else
    log->lost += size;
}

/* Year, month and day of a day since 1970, in the Gregorian calendar: eras of
 * 400 years that begin in March, so that the leap day is the last. */
static void
calendar (int64_t day, int *year, int *month, int *mday)
{
  int64_t days = day + 719468, era = days / 146097;
  int of_era = days - era * 146097;
  int year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  int of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  int march = (5 * of_year + 2) / 153;

  *mday = of_year - (153 * march + 2) / 5 + 1;
  *month = march < 10 ? march + 3 : march - 9;
  *year = year_of_era + era * 400 + (*month <= 2);
}

static int
prefix (char *out, size_t size, const struct timespec *now, int stream, char tag)
{
  static time_t last;
  static char text[32];

  if (last != now->tv_sec || text[0] == '\0')
    {
      int year, month, day, second = now->tv_sec % 86400;

      calendar (now->tv_sec / 86400, &year, &month, &day);
      snprintf (text, sizeof text, "%04u-%02u-%02uT%02u:%02u:%02u", (unsigned int) year % 10000,
                (unsigned int) month % 100, (unsigned int) day % 100, (unsigned int) second / 3600,
                (unsigned int) second / 60 % 60, (unsigned int) second % 60);
      last = now->tv_sec;
    }
  return snprintf (out, size, "%s.%09ldZ %s %c ", text, now->tv_nsec, stream == 0 ? "stdout" : "stderr",
                   tag);
}

static void
note_lost (struct log *log, const struct timespec *now)
{
  char line[3 * 160];
  int n = 0;

  if (log->lost == 0)
    return;
  /* What comes next is not the rest of the line whose beginning stands there. */
  for (int i = 0; i < 2; i++)
    if (log->open[i])
      {
        n += prefix (line + n, sizeof line - n, now, i, 'F');
        line[n++] = '\n';
      }
  n += prefix (line + n, sizeof line - n, now, 1, 'F');
  n += snprintf (line + n, sizeof line - n, "containerlib: %llu bytes of the log were lost: disk full\n",
                 (unsigned long long) log->lost);
  if (append (log, line, n))
    {
      log->lost = 0;
      log->open[0] = log->open[1] = false;
    }
}

void
log_write (struct log *log, int stream, const char *data, size_t size)
{
  static char out[2 * CHUNK];
  size_t used = 0;
  bool open = false;
  struct timespec now;

  clock_gettime (CLOCK_REALTIME, &now);
  if (log->max_size > 0 && log->size >= log->max_size)
    rotate (log);
  note_lost (log, &now);
  while (size > 0)
    {
      const char *end = memchr (data, '\n', size);
      size_t length = end != NULL ? (size_t) (end - data) : size;

      if (used + PREFIX + length + 1 > sizeof out)
        {
          flush (log, stream, out, used, open);
          used = 0;
          if (log->max_size > 0 && log->size >= log->max_size)
            rotate (log);
        }
      open = end == NULL;
      used += prefix (out + used, PREFIX, &now, stream, open ? 'P' : 'F');
      memcpy (out + used, data, length);
      used += length;
      out[used++] = '\n';
      length += end != NULL;
      data += length;
      size -= length;
    }
  flush (log, stream, out, used, open);
}
