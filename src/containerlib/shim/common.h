/* SPDX-License-Identifier: Apache-2.0
 *
 * What every C file of the shim shares: errors, ownership, loops. */
#ifndef CONTAINERLIB_COMMON_H
#define CONTAINERLIB_COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

#define UNLIKELY(x) __builtin_expect (!!(x), 0)

/* Fill *err (when given) and return -1: `return cl_fail (err, stage, errno, "open %s", path);` */
int cl_fail (struct cl_error *err, int stage, int code, const char *fmt, ...)
    __attribute__ ((format (printf, 4, 5)));

static inline void
cl_cleanup_close (int *fd)
{
  if (*fd >= 0)
    {
      int saved = errno;
      close (*fd);
      errno = saved;
    }
}

static inline void
cl_cleanup_free (void *p)
{
  free (*(void **) p);
}

#define cleanup_close __attribute__ ((cleanup (cl_cleanup_close)))
#define cleanup_free __attribute__ ((cleanup (cl_cleanup_free)))

/* Hand a descriptor out of a scope that would close it. */
static inline int
cl_steal_fd (int *fd)
{
  int out = *fd;
  *fd = -1;
  return out;
}

#define TEMP_FAILURE_RETRY_(expr)       \
  (__extension__ ({                     \
    __typeof__ (expr) r_;               \
    do                                  \
      r_ = (expr);                      \
    while (r_ == -1 && errno == EINTR); \
    r_;                                 \
  }))

/* Write all of buf; -1 with errno on failure. */
int cl_write_all (int fd, const void *buf, size_t size);
/* Read until size bytes or end of file; how many, or -1. */
ssize_t cl_read_all (int fd, void *buf, size_t size);

#endif
