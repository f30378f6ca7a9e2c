/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes are either refused with an error that names what is wrong, or are
 * a plan whose every integer and string can be read. */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct cl_error err = { 0 };
  struct cl_record record;
  struct cl_plan plan;
  unsigned char sum = 0;
  /* A copy of the exact size: one byte too far is found, and it is aligned as a mapping is. */
  cleanup_free void *copy = malloc (size > 0 ? size : 1);

  if (copy == NULL)
    return 0;
  memcpy (copy, data, size);
  if (cl_plan_open (&plan, copy, size, &err) < 0)
    {
      if (err.code == 0 || err.stage != CL_STAGE_PLAN || err.msg[0] == '\0')
        abort ();
      return 0;
    }

  cl_plan_rewind (&plan, &record);
  for (;;)
    {
      int r = cl_plan_next (&plan, &record, &err);
      size_t length;

      /* What cl_plan_open has passed cannot fail later. */
      if (r < 0)
        abort ();
      if (r == 0)
        break;
      for (unsigned int i = 0; i <= record.nints; i++)
        sum += (unsigned char) cl_record_int (&record, i);
      for (unsigned int i = 0; i < record.nstrs; i++)
        {
          const char *text = cl_record_str (&record, i, &length);

          if (text[length] != '\0')
            abort ();
          for (size_t j = 0; j < length; j++)
            sum += (unsigned char) text[j];
        }
      if (cl_record_str (&record, record.nstrs, NULL) != NULL)
        abort ();
    }
  /* The reads must happen. */
  __asm__ volatile ("" : : "r"(sum));
  return 0;
}
