/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings, numbers, formats and memory of the helper. */
#include "small/small.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- bytes ---- */

void *
memcpy (void *restrict to, const void *restrict from, size_t size)
{
  char *t = to;
  const char *f = from;

#ifdef __x86_64__
  __asm__ volatile ("rep movsb" : "+D"(t), "+S"(f), "+c"(size) : : "memory");
#else
  while (size-- > 0)
    *t++ = *f++;
#endif
  return to;
}

void *
memmove (void *to, const void *from, size_t size)
{
  char *t = to;
  const char *f = from;

  if (t <= f || t >= f + size)
    return memcpy (to, from, size);
  while (size-- > 0)
    t[size] = f[size];
  return to;
}

void *
memset (void *to, int byte, size_t size)
{
  char *t = to;

#ifdef __x86_64__
  __asm__ volatile ("rep stosb" : "+D"(t), "+c"(size) : "a"(byte) : "memory");
#else
  while (size-- > 0)
    *t++ = byte;
#endif
  return to;
}

int
memcmp (const void *left, const void *right, size_t size)
{
  const unsigned char *l = left, *r = right;

  for (; size > 0; size--, l++, r++)
    if (*l != *r)
      return *l - *r;
  return 0;
}

void *
memchr (const void *in, int byte, size_t size)
{
  const unsigned char *p = in;

  for (; size > 0; size--, p++)
    if (*p == (unsigned char) byte)
      return (void *) (uintptr_t) p;
  return NULL;
}

/* ---- strings ---- */

size_t
strlen (const char *text)
{
  const char *p = text;

  while (*p != '\0')
    p++;
  return p - text;
}

size_t
strnlen (const char *text, size_t max)
{
  const char *end = memchr (text, '\0', max);

  return end != NULL ? (size_t) (end - text) : max;
}

int
strncmp (const char *left, const char *right, size_t size)
{
  for (; size > 0; size--, left++, right++)
    if (*left != *right || *left == '\0')
      return (unsigned char) *left - (unsigned char) *right;
  return 0;
}

int
strcmp (const char *left, const char *right)
{
  return strncmp (left, right, SIZE_MAX);
}

char *
strchr (const char *text, int character)
{
  for (;; text++)
    {
      if (*text == (char) character)
        return (char *) (uintptr_t) text;
      if (*text == '\0')
        return NULL;
    }
}

char *
strrchr (const char *text, int character)
{
  const char *found = NULL;

  for (;; text++)
    {
      if (*text == (char) character)
        found = text;
      if (*text == '\0')
        return (char *) (uintptr_t) found;
    }
}

char *
strstr (const char *text, const char *part)
{
  size_t size = strlen (part);

  for (; *text != '\0' || size == 0; text++)
    if (strncmp (text, part, size) == 0)
      return (char *) (uintptr_t) text;
  return NULL;
}

size_t
strcspn (const char *text, const char *stop)
{
  size_t n = 0;

  while (text[n] != '\0' && strchr (stop, text[n]) == NULL)
    n++;
  return n;
}

size_t
strspn (const char *text, const char *set)
{
  size_t n = 0;

  while (text[n] != '\0' && strchr (set, text[n]) != NULL)
    n++;
  return n;
}

char *
stpcpy (char *restrict to, const char *restrict from)
{
  size_t size = strlen (from);

  memcpy (to, from, size + 1);
  return to + size;
}

char *
strcpy (char *restrict to, const char *restrict from)
{
  stpcpy (to, from);
  return to;
}

char *
strtok_r (char *restrict text, const char *restrict separators, char **restrict save)
{
  char *p = text != NULL ? text : *save;

  p += strspn (p, separators);
  if (*p == '\0')
    {
      *save = p;
      return NULL;
    }
  text = p;
  p += strcspn (p, separators);
  if (*p != '\0')
    *p++ = '\0';
  *save = p;
  return text;
}

/* ---- numbers ---- */

static unsigned long
digits (const char *text, char **end, int base, int *negative)
{
  unsigned long value = 0;

  while (*text == ' ' || (*text >= '\t' && *text <= '\r'))
    text++;
  *negative = *text == '-';
  if (*text == '-' || *text == '+')
    text++;
  if ((base == 0 || base == 16) && text[0] == '0' && (text[1] | 32) == 'x')
    {
      text += 2;
      base = 16;
    }
  if (base == 0)
    base = text[0] == '0' ? 8 : 10;
  for (;; text++)
    {
      int c = *text | 32, digit = base;

      if (c >= 'a')
        digit = c - 'a' + 10;
      else if (c <= '9')
        digit = *text - '0';
      if (digit < 0 || digit >= base)
        break;
      value = value * base + digit;
    }
  if (end != NULL)
    *end = (char *) (uintptr_t) text;
  return value;
}

unsigned long
strtoul (const char *restrict text, char **restrict end, int base)
{
  int negative;
  unsigned long value = digits (text, end, base, &negative);

  return negative ? -value : value;
}

long
strtol (const char *restrict text, char **restrict end, int base)
{
  return strtoul (text, end, base);
}

unsigned long long
strtoull (const char *restrict text, char **restrict end, int base)
{
  return strtoul (text, end, base);
}

int
atoi (const char *text)
{
  return strtol (text, NULL, 10);
}

/* The names that newer headers redirect to. */
unsigned long __isoc23_strtoul (const char *, char **, int) __attribute__ ((alias ("strtoul")));
long __isoc23_strtol (const char *, char **, int) __attribute__ ((alias ("strtol")));
unsigned long long __isoc23_strtoull (const char *, char **, int) __attribute__ ((alias ("strtoull")));

/* ---- formats: %s %.*s %d %u %x %o %c %%, with l, ll, z, 0, width, # ---- */

struct sink
{
  char *out;
  size_t size, used;
};

static void
put (struct sink *s, char c)
{
  if (s->used + 1 < s->size)
    s->out[s->used] = c;
  s->used++;
}

static void
put_number (struct sink *s, unsigned long value, unsigned int base, int negative, int width,
            char pad, int prefix)
{
  char text[24];
  int n = 0;

  do
    {
      unsigned int digit = value % base;
      text[n++] = digit < 10 ? '0' + digit : 'a' + digit - 10;
      value /= base;
    }
  while (value != 0);
  if (negative && pad == '0')
    put (s, '-');
  for (int i = n + negative; i < width; i++)
    put (s, pad);
  if (negative && pad != '0')
    put (s, '-');
  if (prefix)
    {
      put (s, '0');
      put (s, 'x');
    }
  while (n > 0)
    put (s, text[--n]);
}

int
vsnprintf (char *restrict out, size_t size, const char *restrict format, va_list ap)
{
  struct sink s = { out, size, 0 };

  for (; *format != '\0'; format++)
    {
      int width = 0, precision = -1, wide = 0, prefix = 0;
      unsigned int base;
      char pad = ' ';
      long value;

      if (*format != '%')
        {
          put (&s, *format);
          continue;
        }
      format++;
      for (; *format == '0' || *format == '#'; format++)
        if (*format == '0')
          pad = '0';
        else
          prefix = 1;
      for (; *format >= '0' && *format <= '9'; format++)
        width = width * 10 + *format - '0';
      if (*format == '.')
        {
          format++;
          if (*format == '*')
            {
              precision = va_arg (ap, int);
              format++;
            }
          else
            for (precision = 0; *format >= '0' && *format <= '9'; format++)
              precision = precision * 10 + *format - '0';
        }
      for (; *format == 'l' || *format == 'z'; format++)
        wide = 1;
      switch (*format)
        {
        case 's':
          {
            const char *text = va_arg (ap, const char *);
            size_t length;

            if (text == NULL)
              text = "(null)";
            length = precision < 0 ? strlen (text) : strnlen (text, precision);
            for (size_t i = 0; i < length; i++)
              put (&s, text[i]);
            break;
          }
        case 'c':
          put (&s, va_arg (ap, int));
          break;
        case 'd':
        case 'i':
          value = wide ? va_arg (ap, long) : va_arg (ap, int);
          put_number (&s, value < 0 ? -(unsigned long) value : (unsigned long) value, 10, value < 0,
                      width, pad, 0);
          break;
        case 'u':
        case 'x':
        case 'o':
          value = wide ? va_arg (ap, long) : (long) va_arg (ap, unsigned int);
          base = *format == 'o' ? 8 : 10;
          if (*format == 'x')
            base = 16;
          put_number (&s, value, base, 0, width, pad,
                      prefix && value != 0);
          break;
        default:
          put (&s, *format);
          break;
        }
    }
  if (size > 0)
    out[s.used < size ? s.used : size - 1] = '\0';
  return s.used;
}

int
snprintf (char *restrict out, size_t size, const char *restrict format, ...)
{
  va_list ap;
  int n;

  va_start (ap, format);
  n = vsnprintf (out, size, format, ap);
  va_end (ap);
  return n;
}

/* ---- memory: a mapping each; the helper allocates a few times in its life - */

struct block
{
  size_t size;
  size_t unused; /* keeps what follows aligned to 16 */
};

/* Small blocks share one static page or two; they are few and never freed. */
static char arena[8192] __attribute__ ((aligned (16)));
static size_t arena_used;

void *
malloc (size_t size)
{
  size_t whole = (size + sizeof (struct block) + 15) & ~(size_t) 15;
  struct block *block;

  if (whole < size)
    {
      errno = ENOMEM;
      return NULL;
    }
  if (whole <= sizeof arena - arena_used)
    {
      block = (void *) (arena + arena_used);
      arena_used += whole;
      block->size = 0;
      return block + 1;
    }
  block = mmap (NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED)
    return NULL;
  block->size = whole;
  return block + 1;
}

/* Both sources are zero when new, and nothing of the arena is used twice. */
void *
calloc (size_t count, size_t size)
{
  size_t whole;

  if (__builtin_mul_overflow (count, size, &whole))
    {
      errno = ENOMEM;
      return NULL;
    }
  return malloc (whole);
}

void
free (void *p)
{
  struct block *block = p;

  if (p != NULL && block[-1].size != 0)
    munmap (block - 1, block[-1].size);
}
