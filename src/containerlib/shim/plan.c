/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

/* A plan comes from Python over a sealed memfd, but the parser trusts none of
 * it: a wrong length must end in an error, never in a wild read
 * (the class of CVE-2021-43784). */

static size_t
round8 (size_t n)
{
  return (n + 7) & ~(size_t) 7;
}

int
cl_plan_open (struct cl_plan *plan, const void *data, size_t size,
              struct cl_error *err)
{
  const struct cl_plan_header *head = data;
  struct cl_record record;
  uint32_t seen = 0;

  if (size < sizeof *head || size > CL_PLAN_MAX)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "plan of %zu bytes", size);
  if (((uintptr_t) data & 7) != 0)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "plan is not aligned");
  if (head->magic != CL_PLAN_MAGIC || head->version != CL_PLAN_VERSION)
    return cl_fail (err, CL_STAGE_PLAN, EPROTO,
                    "plan version %u, this helper speaks %d", head->version,
                    CL_PLAN_VERSION);
  if (head->size != size)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL,
                    "plan says %u bytes, has %zu", head->size, size);
  plan->data = data;
  plan->size = size;

  cl_plan_rewind (plan, &record);
  for (;;)
    {
      int r = cl_plan_next (plan, &record, err);
      if (r < 0)
        return r;
      if (r == 0)
        break;
      seen++;
    }
  if (seen != head->count)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL,
                    "plan says %u records, has %u", head->count, seen);
  return 0;
}

void
cl_plan_rewind (const struct cl_plan *plan, struct cl_record *record)
{
  (void) plan;
  memset (record, 0, sizeof *record);
  record->next = sizeof (struct cl_plan_header);
}

/* Least number of integers and strings of each operation. */
static int
arity (unsigned int op, unsigned int *ints, unsigned int *strs)
{
#define A(o, i, s) \
  case o:          \
    *ints = i;     \
    *strs = s;     \
    return 0
  switch (op)
    {
      A (CL_OP_CONTAINER, 3, 1);
      A (CL_OP_FDS, 8, 0);
      A (CL_OP_USERNS, 4, 0);
      A (CL_OP_LOG, 2, 0);
      A (CL_OP_CGROUP_DIR, 2, 1);
      A (CL_OP_CGROUP_WRITE, 2, 2);
      A (CL_OP_CGROUP_BPF, 1, 1);
      A (CL_OP_RESTART, 2, 0);
      A (CL_OP_HEALTH, 5, 1);
      A (CL_OP_NAMESPACES, 1, 0);
      A (CL_OP_JOIN, 2, 0);
      A (CL_OP_TARGET, 2, 0);
      A (CL_OP_RLIMIT, 3, 0);
      A (CL_OP_OOM_SCORE_ADJ, 1, 0);
      A (CL_OP_ROOT_OVERLAY, 1, 3);
      A (CL_OP_ROOT_TMPFS, 0, 1);
      A (CL_OP_OVERLAY, 1, 4);
      A (CL_OP_MOUNT, 2, 2);
      A (CL_OP_BIND, 5, 3);
      A (CL_OP_DEVICE, 6, 2);
      A (CL_OP_MKDIR, 1, 1);
      A (CL_OP_SYMLINK, 0, 2);
      A (CL_OP_CONSOLE, 2, 0);
      A (CL_OP_LOOPBACK, 0, 0);
      A (CL_OP_SYSCTL, 0, 2);
      A (CL_OP_HOSTNAME, 0, 1);
      A (CL_OP_DOMAINNAME, 0, 1);
      A (CL_OP_READONLY_PATH, 1, 1);
      A (CL_OP_MASK_PATH, 0, 1);
      A (CL_OP_ROOT_READONLY, 0, 0);
      A (CL_OP_PIVOT, 0, 0);
      A (CL_OP_KEYRING, 0, 1);
      A (CL_OP_USER, 0, 1);
      A (CL_OP_CAPS, 4, 0);
      A (CL_OP_NO_NEW_PRIVS, 0, 0);
      A (CL_OP_SECCOMP, 1, 1);
      A (CL_OP_LSM, 0, 2);
      A (CL_OP_WORKDIR, 1, 1);
      A (CL_OP_ENVIRON, 0, 0);
      A (CL_OP_EXEC, 0, 1);
    default:
      return -1;
    }
#undef A
}

int
cl_plan_next (const struct cl_plan *plan, struct cl_record *record,
              struct cl_error *err)
{
  const char *base = plan->data;
  const struct cl_record_header *head;
  size_t at = record->next, end, need;
  unsigned int ints, strs;

  if (at == plan->size)
    return 0;
  if (plan->size - at < sizeof *head)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "record cut at %zu", at);
  head = (const void *) (base + at);
  if (head->size < sizeof *head || (head->size & 7) != 0
      || head->size > plan->size - at)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "record of %u bytes at %zu",
                    head->size, at);
  if (arity (head->op, &ints, &strs) < 0)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "operation %u at %zu",
                    head->op, at);
  if (head->nints < ints || head->nstrs < strs)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL,
                    "operation %u with %u integers and %u strings", head->op,
                    head->nints, head->nstrs);

  end = at + head->size;
  need = (size_t) head->nints * 8;
  if (need > head->size - sizeof *head)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "integers cut at %zu", at);
  record->op = head->op;
  record->nints = head->nints;
  record->nstrs = head->nstrs;
  record->ints = (const void *) (base + at + sizeof *head);
  at += sizeof *head + need;
  record->strs = base + at;

  for (unsigned int i = 0; i < head->nstrs; i++)
    {
      uint32_t length;

      if (end - at < 8)
        return cl_fail (err, CL_STAGE_PLAN, EINVAL, "string cut at %zu", at);
      memcpy (&length, base + at, 4);
      /* Five bytes are the length and the closing NUL. */
      if (length > end - at - 5 || round8 (5 + (size_t) length) > end - at)
        return cl_fail (err, CL_STAGE_PLAN, EINVAL, "string of %u bytes at %zu",
                        length, at);
      if (base[at + 4 + length] != '\0')
        return cl_fail (err, CL_STAGE_PLAN, EINVAL, "string without end at %zu",
                        at);
      at += round8 (5 + (size_t) length);
    }
  if (at != end)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "%zu bytes left at %zu",
                    end - at, at);
  record->next = end;
  return 1;
}

const char *
cl_record_str (const struct cl_record *record, unsigned int index,
               size_t *size)
{
  const char *p = record->strs;
  uint32_t length;

  if (index >= record->nstrs)
    return NULL;
  for (;; index--)
    {
      memcpy (&length, p, 4);
      if (index == 0)
        break;
      p += round8 (5 + (size_t) length);
    }
  if (size != NULL)
    *size = length;
  return p + 4;
}

const char *
cl_record_next_str (const char *str)
{
  uint32_t length;

  memcpy (&length, str - 4, 4);
  return str + round8 (5 + (size_t) length);
}

int64_t
cl_record_int (const struct cl_record *record, unsigned int index)
{
  return index < record->nints ? record->ints[index] : 0;
}

int
cl_plan_check (const void *data, size_t size, struct cl_error *err)
{
  struct cl_plan plan;

  return cl_plan_open (&plan, data, size, err);
}
