/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into user-mode Linux, whose buffer for extended registers (2,696
 * bytes, enough for AVX-512) is smaller than what processors with AMX have.
 * Since 5.16 the kernel refuses to set less than the whole state, so each
 * setting is laid over the state that is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define NT_X86_XSTATE 0x202
#define WHOLE_MAX 65536

typedef long ptrace_function (int request, int pid, void *addr, void *data);

long
ptrace (enum __ptrace_request request, ...)
{
  static ptrace_function *next;
  static char whole[WHOLE_MAX];
  va_list ap;
  va_start (ap, request);
  int pid = va_arg (ap, int);
  void *addr = va_arg (ap, void *);
  void *data = va_arg (ap, void *);
  va_end (ap);

  if (next == NULL)
    next = (ptrace_function *) dlsym (RTLD_NEXT, "ptrace");
  if (request == PTRACE_SETREGSET && (unsigned long) addr == NT_X86_XSTATE)
    {
      struct iovec *part = data;
      struct iovec all = { .iov_base = whole, .iov_len = sizeof whole };
      if (next (PTRACE_GETREGSET, pid, addr, &all) != 0)
        return -1;
      memcpy (whole, part->iov_base, part->iov_len < all.iov_len ? part->iov_len : all.iov_len);
      return next (request, pid, addr, &all);
    }
  return next (request, pid, addr, data);
}
