/* SPDX-License-Identifier: Apache-2.0
 *
 * Trees on disk: what remove.c and unpack.c share with each other and with
 * the monitor, and the stream that unpack reads. */
#ifndef CONTAINERLIB_TREES_H
#define CONTAINERLIB_TREES_H

#include "syscalls.h"

/* Descriptors that Python passes to the modes unpack and remove. */
enum
{
  FD_STREAM = 3, /* unpack only */
  FD_TREE = 4,   /* the directory to work in */
  FD_ERROR = 5,  /* a struct cl_error is written here on failure */
  FD_USERNS = 6, /* with --userns */
};

/* Delete name, a single component below dirfd, and all that is in it.  Never
 * follows a symbolic link and never enters another mount; goes on after a
 * failure and reports the first.  A missing name is no error.  Needs about
 * 300 KiB of stack, whatever the depth of the tree. */
int cl_remove_tree (int dirfd, const char *name, struct cl_error *err);

/* Become root of the user namespace behind fd. */
int cl_join_userns (int fd, int stage, struct cl_error *err);

/* ---- the stream that unpack reads ---------------------------------------
 *
 * Records in the machine's byte order, each: this header; path and link,
 * with their NULs; the extended attributes, each a struct cl_entry_xattr, the
 * name with its NUL, the value; then a file's content.  Content is size bytes,
 * or with nsegments > 0 that many times a struct cl_entry_segment and its
 * bytes.  The last record has type CL_ENTRY_END: a stream that ends without
 * it was cut off.  Python's side is images/unpack.py. */

#define CL_ENTRY_MAGIC 0x7972746e
#define CL_ENTRY_BODY_MAX 1048576

enum cl_entry_type
{
  CL_ENTRY_END = 0,
  CL_ENTRY_FILE,
  CL_ENTRY_DIRECTORY,
  CL_ENTRY_SYMLINK,
  CL_ENTRY_HARDLINK,
  CL_ENTRY_FIFO,
  CL_ENTRY_CHAR,
  CL_ENTRY_BLOCK,
  CL_ENTRY_FINISH, /* a directory's mode and time, now that it is filled */
};

struct cl_entry
{
  uint32_t magic;
  uint16_t type;
  uint16_t nxattrs;
  uint32_t mode;
  uint32_t uid;
  uint32_t gid;
  uint32_t major;
  uint32_t minor;
  uint32_t mtime_nsec;
  int64_t mtime_sec;
  uint64_t size;
  uint32_t path_size;
  uint32_t link_size;
  uint32_t xattr_size;
  uint32_t nsegments;
};

struct cl_entry_xattr
{
  uint32_t name_size;
  uint32_t value_size;
};

struct cl_entry_segment
{
  uint64_t offset;
  uint64_t size;
};

/* ---- stream.c ---- */

#define CL_STREAM_BUFFER 1048576

struct cl_stream
{
  unsigned char *buf;
  size_t at, end; /* what of buf is unread */
};

/* Read exactly size bytes; the end of the stream is an error. */
int cl_stream_take (struct cl_stream *in, void *out, size_t size, struct cl_error *err);
/* Copy size bytes of the stream to fd at offset; path is for the message. */
int cl_stream_copy (struct cl_stream *in, int fd, uint64_t offset, uint64_t size,
                    const char *path, struct cl_error *err);

#endif
