/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTAINERLIB_SMALL_H
#define CONTAINERLIB_SMALL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <sys/syscall.h>

/* The kernel's answer as it is: negative for an error. */
long small_call (long n, long a, long b, long c, long d, long e, long f);
/* The same with errno. */
long small_result (long result);

#define CALL(n, a, b, c, d, e, f) \
  small_result (small_call (n, (long) (a), (long) (b), (long) (c), (long) (d), (long) (e), (long) (f)))

#endif
