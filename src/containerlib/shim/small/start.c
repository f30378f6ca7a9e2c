/* SPDX-License-Identifier: Apache-2.0
 *
 * Entry and system calls of the helper where it runs without a C library.
 *
 * glibc's static start-up costs 450 us, most of it in questions to the
 * processor that a virtual machine traps, and 700 kB of pages that a memfd
 * makes private to each monitor.  The helper needs a hundred small functions
 * of the library, has one thread and no signal handler: they are here, behind
 * the library's own headers.  The sanitizers' build uses the real one. */
#include "small/small.h"

#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static int error_number;

int *
__errno_location (void)
{
  return &error_number;
}

extern int main (int argc, char **argv, char **envp);

/* ---- what a loader would do -------------------------------------------- */

/* Set by the linker: our own header and relocations. */
extern const Elf64_Ehdr __ehdr_start __attribute__ ((visibility ("hidden")));
extern const Elf64_Dyn _DYNAMIC[] __attribute__ ((visibility ("hidden")));

#ifdef __x86_64__
#define RELATIVE R_X86_64_RELATIVE
#else
#define RELATIVE R_AARCH64_RELATIVE
#endif

/* The program lies at an address of the kernel's choice; every pointer in its
 * data counts from there.  Nothing that needs one may be used before. */
static void
relocate (void)
{
  uintptr_t base = (uintptr_t) &__ehdr_start;
  const Elf64_Rela *rela = NULL;
  size_t size = 0;

  for (const Elf64_Dyn *d = _DYNAMIC; d->d_tag != DT_NULL; d++)
    if (d->d_tag == DT_RELA)
      rela = (const void *) (base + d->d_un.d_ptr);
    else if (d->d_tag == DT_RELASZ)
      size = d->d_un.d_val;
  for (size_t i = 0; i < size / sizeof *rela; i++)
    if ((rela[i].r_info & 0xffffffff) == RELATIVE)
      *(uintptr_t *) (base + rela[i].r_offset) = base + rela[i].r_addend;
}

/* Constant pointers are read-only from now on. */
static void
protect (void)
{
  uintptr_t base = (uintptr_t) &__ehdr_start;
  const Elf64_Phdr *p = (const void *) (base + __ehdr_start.e_phoff);

  for (int i = 0; i < __ehdr_start.e_phnum; i++)
    if (p[i].p_type == PT_GNU_RELRO)
      {
        uintptr_t start = (base + p[i].p_vaddr) & -(uintptr_t) 4096;
        uintptr_t end = (base + p[i].p_vaddr + p[i].p_memsz) & -(uintptr_t) 4096;

        if (end > start)
          small_call (SYS_mprotect, start, end - start, PROT_READ, 0, 0, 0);
      }
}

/* What -fstack-protector compares, a word of the kernel's random bytes. */
uintptr_t __stack_chk_guard = 0;

void __stack_chk_fail (void) __attribute__ ((noreturn));

void
__stack_chk_fail (void)
{
  __builtin_trap ();
}

void small_start (long *stack) __attribute__ ((noreturn, used));

void
small_start (long *stack)
{
  int argc = stack[0];
  char **argv = (char **) (stack + 1), **envp = argv + argc + 1, **p = envp;

  relocate ();
  protect ();
  while (*p != NULL)
    p++;
  for (const Elf64_auxv_t *a = (const void *) (p + 1); a->a_type != AT_NULL; a++)
    if (a->a_type == AT_RANDOM)
      __stack_chk_guard = *(const uintptr_t *) a->a_un.a_val;
  _exit (main (argc, argv, envp));
}

#if defined __x86_64__
__asm__ (".globl _start\n"
         ".type _start, @function\n"
         "_start:\n"
         "  xor %ebp, %ebp\n"
         "  mov %rsp, %rdi\n"
         "  and $-16, %rsp\n"
         "  call small_start\n");

long
small_call (long n, long a, long b, long c, long d, long e, long f)
{
  register long r10 __asm__ ("r10") = d;
  register long r8 __asm__ ("r8") = e;
  register long r9 __asm__ ("r9") = f;
  long result;

  __asm__ volatile ("syscall"
                    : "=a"(result)
                    : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                    : "rcx", "r11", "memory");
  return result;
}
#elif defined __aarch64__
__asm__ (".globl _start\n"
         ".type _start, %function\n"
         "_start:\n"
         "  mov x29, #0\n"
         "  mov x30, #0\n"
         "  mov x0, sp\n"
         "  b small_start\n");

long
small_call (long n, long a, long b, long c, long d, long e, long f)
{
  register long x8 __asm__ ("x8") = n;
  register long x0 __asm__ ("x0") = a;
  register long x1 __asm__ ("x1") = b;
  register long x2 __asm__ ("x2") = c;
  register long x3 __asm__ ("x3") = d;
  register long x4 __asm__ ("x4") = e;
  register long x5 __asm__ ("x5") = f;

  __asm__ volatile ("svc 0"
                    : "+r"(x0)
                    : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                    : "memory");
  return x0;
}
#else
#error "small/ knows x86_64 and aarch64; build the helper with the C library"
#endif

long
small_result (long result)
{
  if (result < 0 && result > -4096)
    {
      error_number = -result;
      return -1;
    }
  return result;
}

/* Reads six words whatever was passed: the kernel ignores the rest. */
long
syscall (long n, ...)
{
  va_list ap;
  long a[6];

  va_start (ap, n);
  for (int i = 0; i < 6; i++)
    a[i] = va_arg (ap, long);
  va_end (ap);
  return small_result (small_call (n, a[0], a[1], a[2], a[3], a[4], a[5]));
}
