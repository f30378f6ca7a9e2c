/* SPDX-License-Identifier: Apache-2.0 */
#include "init/init.h"

#include <sys/mman.h>
#include <sys/stat.h>

#ifdef __SANITIZE_ADDRESS__
#ifndef CONTAINERLIB_SANITIZE_LOG
#define CONTAINERLIB_SANITIZE_LOG ""
#endif

/* Leaks are looked for with ptrace at the end, and a process that may not be
 * traced would wait for that forever.  What one run of the helper allocates
 * ends with it. */
const char *__asan_default_options (void);

const char *
__asan_default_options (void)
{
  return "detect_leaks=0:abort_on_error=1" CONTAINERLIB_SANITIZE_LOG;
}
#endif

static const struct
{
  const char *name;
  int (*main) (int argc, char **argv);
} modes[] = {
  { "run", cl_main_run },
  { "exec", cl_main_exec },
  { "connect", cl_main_connect },
  { "userns", cl_main_userns },
  { "unpack", cl_main_unpack },
  { "remove", cl_main_remove },
};

int
cl_plan_map (struct cl_plan *plan, struct cl_error *err)
{
  struct stat st;
  void *data;

  if (fstat (FD_PLAN, &st) < 0)
    return cl_fail (err, CL_STAGE_PLAN, errno, "stat the plan");
  if (st.st_size < (off_t) sizeof (struct cl_plan_header) || st.st_size > CL_PLAN_MAX)
    return cl_fail (err, CL_STAGE_PLAN, EINVAL, "plan of %lld bytes",
                    (long long) st.st_size);
  /* Shared: the pages stay the memfd's and are not counted as ours. */
  data = mmap (NULL, st.st_size, PROT_READ, MAP_SHARED, FD_PLAN, 0);
  if (data == MAP_FAILED)
    return cl_fail (err, CL_STAGE_PLAN, errno, "map the plan");
  return cl_plan_open (plan, data, st.st_size, err);
}

int
cl_send (int sock, int type, int arg, const void *data, size_t size, int fd,
         int flags)
{
  struct cl_msg head = { .type = type, .arg = arg };
  struct iovec iov[2] = { { &head, sizeof head }, { (void *) data, size } };
  union
  {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control;
  struct msghdr msg = { .msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1 };

  if (fd >= 0)
    {
      struct cmsghdr *cmsg;

      memset (&control, 0, sizeof control);
      msg.msg_control = control.buf;
      msg.msg_controllen = sizeof control.buf;
      cmsg = CMSG_FIRSTHDR (&msg);
      cmsg->cmsg_level = SOL_SOCKET;
      cmsg->cmsg_type = SCM_RIGHTS;
      cmsg->cmsg_len = CMSG_LEN (sizeof (int));
      memcpy (CMSG_DATA (cmsg), &fd, sizeof fd);
    }
  return TEMP_FAILURE_RETRY_ (sendmsg (sock, &msg, flags | MSG_NOSIGNAL)) < 0 ? -1 : 0;
}

int
main (int argc, char **argv)
{
  if (argc >= 2)
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
      if (strcmp (argv[1], modes[i].name) == 0)
        return modes[i].main (argc - 1, argv + 1);
  static const char text[]
      = "containerlib-init: a part of containerlib, not for direct use\n";
  if (write (2, text, sizeof text - 1) < 0)
    return 65;
  return 64;
}
