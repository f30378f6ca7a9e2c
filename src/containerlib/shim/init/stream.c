/* SPDX-License-Identifier: Apache-2.0
 *
 * The buffered stream that unpack reads. */
#include "init/trees.h"

static int
fill (struct cl_stream *in, struct cl_error *err)
{
  ssize_t n = TEMP_FAILURE_RETRY_ (read (FD_STREAM, in->buf, CL_STREAM_BUFFER));

  if (n < 0)
    return cl_fail (err, CL_STAGE_UNPACK, errno, "read the stream");
  if (n == 0)
    return cl_fail (err, CL_STAGE_UNPACK, ECONNABORTED, "the stream was cut off");
  in->at = 0;
  in->end = n;
  return 0;
}

int
cl_stream_take (struct cl_stream *in, void *out, size_t size, struct cl_error *err)
{
  while (size > 0)
    {
      size_t n = in->end - in->at;

      if (n == 0)
        {
          if (fill (in, err) < 0)
            return -1;
          continue;
        }
      if (n > size)
        n = size;
      memcpy (out, in->buf + in->at, n);
      in->at += n;
      out = (char *) out + n;
      size -= n;
    }
  return 0;
}

int
cl_stream_copy (struct cl_stream *in, int fd, uint64_t offset, uint64_t size, const char *path,
                struct cl_error *err)
{
  if (offset > INT64_MAX || size > INT64_MAX - offset)
    return cl_fail (err, CL_STAGE_UNPACK, EFBIG, "write %s", path);
  while (size > 0)
    {
      size_t n = in->end - in->at;
      ssize_t done;

      if (n == 0)
        {
          if (fill (in, err) < 0)
            return -1;
          continue;
        }
      if (n > size)
        n = size;
      done = TEMP_FAILURE_RETRY_ (pwrite (fd, in->buf + in->at, n, offset));
      if (done < 0)
        return cl_fail (err, CL_STAGE_UNPACK, errno, "write %s", path);
      in->at += done;
      offset += done;
      size -= done;
    }
  return 0;
}
