/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTAINERLIB_PLAN_H
#define CONTAINERLIB_PLAN_H

#include "common.h"

struct cl_plan
{
  const void *data;
  size_t size;
};

/* One record, and where the next one starts. */
struct cl_record
{
  unsigned int op;
  unsigned int nints;
  unsigned int nstrs;
  const int64_t *ints;
  const char *strs;
  size_t next;
};

/* Check every record once; afterwards cl_plan_next cannot fail. */
int cl_plan_open (struct cl_plan *plan, const void *data, size_t size,
                  struct cl_error *err);
void cl_plan_rewind (const struct cl_plan *plan, struct cl_record *record);
/* 1 and the next record, 0 at the end, -1 on a malformed one. */
int cl_plan_next (const struct cl_plan *plan, struct cl_record *record,
                  struct cl_error *err);
/* NULL past the last; *size without the closing NUL. */
const char *cl_record_str (const struct cl_record *record, unsigned int index,
                           size_t *size);
/* The one after such a string, when there is one: a command may have a hundred
 * thousand arguments. */
const char *cl_record_next_str (const char *str);
int64_t cl_record_int (const struct cl_record *record, unsigned int index);

#endif
