/* SPDX-License-Identifier: Apache-2.0 */
#include "common.h"

#include <stdarg.h>
#include <stdio.h>

int
cl_fail (struct cl_error *err, int stage, int code, const char *fmt, ...)
{
  if (err != NULL)
    {
      va_list ap;

      err->code = code;
      err->stage = stage;
      va_start (ap, fmt);
      vsnprintf (err->msg, sizeof err->msg, fmt, ap);
      va_end (ap);
    }
  errno = code;
  return -1;
}

int
cl_write_all (int fd, const void *buf, size_t size)
{
  const char *p = buf;

  while (size > 0)
    {
      ssize_t n = TEMP_FAILURE_RETRY_ (write (fd, p, size));
      if (n < 0)
        return -1;
      p += n;
      size -= n;
    }
  return 0;
}

ssize_t
cl_read_all (int fd, void *buf, size_t size)
{
  char *p = buf;
  size_t got = 0;

  while (got < size)
    {
      ssize_t n = TEMP_FAILURE_RETRY_ (read (fd, p + got, size - got));
      if (n < 0)
        return -1;
      if (n == 0)
        break;
      got += n;
    }
  return got;
}
