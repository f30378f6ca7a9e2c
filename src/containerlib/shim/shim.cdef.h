/* SPDX-License-Identifier: Apache-2.0
 *
 * The one header of the shim: C includes it (through shim.h) and cffi parses
 * it, so no constant, record or prototype is written twice.  Only what cffi's
 * parser takes may stand here: no conditionals, no attributes, no pid_t.
 */

/* ---- errors ----------------------------------------------------------- */

/* Where something failed.  Python words the message; see shim/errors. */
enum cl_stage
{
  CL_STAGE_NONE = 0,
  CL_STAGE_PLAN,
  CL_STAGE_SPAWN,
  CL_STAGE_CGROUP,
  CL_STAGE_NAMESPACE,
  CL_STAGE_IDMAP,
  CL_STAGE_ROOTFS,
  CL_STAGE_MOUNT,
  CL_STAGE_DEVICE,
  CL_STAGE_PIVOT,
  CL_STAGE_MASK,
  CL_STAGE_SYSCTL,
  CL_STAGE_HOSTNAME,
  CL_STAGE_CONSOLE,
  CL_STAGE_RLIMIT,
  CL_STAGE_USER,
  CL_STAGE_CAPS,
  CL_STAGE_SECCOMP,
  CL_STAGE_WORKDIR,
  CL_STAGE_EXEC,
  CL_STAGE_MONITOR,
  CL_STAGE_LOG,
  CL_STAGE_UNPACK,
  CL_STAGE_REMOVE,
  CL_STAGE_SYSCALL,
};

/* The same record in a caller's buffer, over the helper's pipe and in the
 * state file: errno, where, and the operation with its operand. */
struct cl_error
{
  int32_t code;
  int32_t stage;
  char msg[248];
};

/* ---- the plan --------------------------------------------------------- */

#define CL_PLAN_MAGIC 0x6e616c50
#define CL_PLAN_VERSION 1
#define CL_PLAN_MAX 67108864

struct cl_plan_header
{
  uint32_t magic;
  uint32_t version;
  uint32_t size;  /* of the whole blob, this header included */
  uint32_t count; /* of records */
};

/* A record: this header, nints signed 64-bit integers, then nstrs strings,
 * each a 32-bit length, the bytes, one NUL, and padding to 8 bytes. */
struct cl_record_header
{
  uint32_t size; /* of the whole record, this header included */
  uint16_t op;
  uint16_t nints;
  uint32_t nstrs;
  uint32_t pad;
};

enum cl_op
{
  /* what the monitor does */
  CL_OP_CONTAINER = 1, /* flags, stop_signal, grace_ms; id */
  CL_OP_FDS,           /* state, container_dir, run_dir, owner, in, out, err, proc */
  CL_OP_USERNS,        /* kind, fd, outer uid, outer gid */
  CL_OP_LOG,           /* max bytes of one file (0: no bound), files */
  CL_OP_CGROUP_DIR,    /* version (1, 2), kind; path */
  CL_OP_CGROUP_WRITE,  /* index of the directory, flags; file, value */
  CL_OP_CGROUP_BPF,    /* index of the directory; instructions */
  CL_OP_RESTART,       /* policy, maximum */
  CL_OP_HEALTH,        /* interval, timeout, start period, start interval (ms), retries; argv */
  CL_OP_NAMESPACES,    /* flags for clone3 */
  CL_OP_JOIN,          /* CLONE_NEW*, descriptor */
  CL_OP_TARGET,        /* exec only: pidfd of the container's first process, CLONE_NEW* mask */

  /* what the container's first process does, in order */
  CL_OP_RLIMIT = 64,   /* resource, soft, hard */
  CL_OP_OOM_SCORE_ADJ, /* value */
  CL_OP_ROOT_OVERLAY,  /* flags; upper, work, lower... */
  CL_OP_ROOT_TMPFS,    /* ; options */
  CL_OP_OVERLAY,       /* flags; target, upper, work, lower... */
  CL_OP_MOUNT,         /* MOUNT_ATTR_*, flags; type, target, key, value, ... */
  CL_OP_BIND,          /* attr set, attr clear, flags, propagation (MS_*), pidfd or -1; source, target, sub-path */
  CL_OP_DEVICE,        /* S_IF* and mode, major, minor, uid, gid, flags; host path, target */
  CL_OP_MKDIR,         /* mode; path */
  CL_OP_SYMLINK,       /* ; text, path */
  CL_OP_CONSOLE,       /* rows, columns */
  CL_OP_LOOPBACK,      /* bring lo up */
  CL_OP_SYSCTL,        /* ; key as a path below /proc/sys, value */
  CL_OP_HOSTNAME,      /* ; name */
  CL_OP_DOMAINNAME,    /* ; name */
  CL_OP_READONLY_PATH, /* 1: a mount of the plan's own; path */
  CL_OP_MASK_PATH,     /* ; path */
  CL_OP_LSM,           /* ; attribute file below /proc/self/attr, label */
  CL_OP_ROOT_READONLY,
  CL_OP_PIVOT,
  CL_OP_KEYRING,       /* ; name */
  CL_OP_USER,          /* ; user, additional group... */
  CL_OP_CAPS,          /* bounding, permitted, effective, ambient */
  CL_OP_NO_NEW_PRIVS,
  CL_OP_SECCOMP,       /* flags; filter */
  CL_OP_WORKDIR,       /* flags; path */
  CL_OP_ENVIRON,       /* ; name=value... */
  CL_OP_EXEC,          /* ; argv... */
};

enum cl_container_flag
{
  CL_TTY = 1 << 0,
  CL_STDIN_OPEN = 1 << 1,
  CL_OWNED = 1 << 2,       /* stop and remove when the owner is gone */
  CL_AUTO_REMOVE = 1 << 3, /* remove at the end */
  CL_INIT = 1 << 4,        /* a reaper as the first process */
  CL_CAPTURE = 1 << 5,     /* standard streams are the caller's descriptors */
  CL_ATTACHED = 1 << 6,    /* the status socket is an attached client from the start */
  CL_KILL_ALL = 1 << 7,    /* the pid namespace is shared: what is left must be looked for */
  CL_DAEMONIZE = 1 << 8,   /* the monitor is not the caller's child */
  CL_STDIN_ONCE = 1 << 9,  /* close stdin when the first attached client leaves */
};

enum cl_userns_kind
{
  CL_USERNS_NONE = 0,
  CL_USERNS_JOIN = 1,   /* the descriptor is the namespace */
  CL_USERNS_SINGLE = 2, /* a new one that maps 0 to the caller */
};

enum cl_cgroup_flag
{
  CL_CGROUP_OPTIONAL = 1 << 0, /* a failing write is not an error */
};

enum cl_cgroup_kind
{
  CL_CGROUP_OTHER = 0,
  CL_CGROUP_MEMORY = 1,  /* v1: out-of-memory events come from here */
  CL_CGROUP_FREEZER = 2, /* v1: what to freeze while killing */
  CL_CGROUP_UNIFIED = 3, /* v2 */
  CL_CGROUP_LATE = 4,    /* may be made later by an update; only removed */
};

enum cl_mount_flag
{
  CL_MOUNT_RECURSIVE = 1 << 0,
  CL_MOUNT_CREATE_DIR = 1 << 1,
  CL_MOUNT_CREATE_FILE = 1 << 2,
  CL_MOUNT_OPTIONAL = 1 << 3,     /* no source: skip */
  CL_MOUNT_ATTR_RECURSIVE = 1 << 4,
  CL_MOUNT_VOLATILE = 1 << 5,
  CL_MOUNT_USERXATTR = 1 << 6,
  CL_MOUNT_NOFOLLOW = 1 << 7,     /* source may not be a symbolic link */
  CL_MOUNT_EXACT = 1 << 8,        /* target must be a real directory: proc, sysfs */
  CL_MOUNT_SUBPATH = 1 << 9,
  CL_MOUNT_CREATE_AUTO = 1 << 10, /* directory or file, as the source is */
  CL_MOUNT_FALLBACK_BIND = 1 << 11, /* refused in this user namespace: bind the host's */
  CL_MOUNT_INHERIT_MODE = 1 << 12, /* tmpfs: mode of the directory below */
};

enum cl_workdir_flag
{
  CL_WORKDIR_CREATE = 1 << 0,
};

/* ---- the state file --------------------------------------------------- */

#define CL_STATE_MAGIC 0x74617453
#define CL_STATE_VERSION 1
#define CL_STATE_SIZE 1024

enum cl_status
{
  CL_CREATED = 0,
  CL_STARTING = 1,
  CL_RUNNING = 2,
  CL_RESTARTING = 3,
  CL_EXITED = 4,
  CL_REMOVING = 5,
};

enum cl_health
{
  CL_HEALTH_NONE = 0,
  CL_HEALTH_STARTING = 1,
  CL_HEALTH_HEALTHY = 2,
  CL_HEALTH_UNHEALTHY = 3,
};

/* Written with one pwrite by the monitor, which holds the file's lock while
 * it lives.  A reader takes it when seq == seq_end. */
struct cl_state
{
  uint32_t magic;
  uint32_t version;
  uint64_t seq;
  int32_t status;
  int32_t pid;            /* of the first process, in the monitor's pid namespace */
  int32_t monitor_pid;
  int32_t exit_code;      /* -1: not known */
  int32_t signal;         /* that ended it, or 0 */
  int32_t core_dumped;
  int32_t oom_killed;
  int32_t restart_count;
  int32_t stopped_by_user;
  int32_t health;
  int32_t health_streak;
  int32_t health_count;   /* of checks done; slot of the last: (count - 1) % 5 */
  uint64_t pid_start;     /* field 22 of /proc/pid/stat */
  int64_t started_ns;     /* CLOCK_REALTIME */
  int64_t finished_ns;
  int64_t user_us;        /* rusage of the first process and what it reaped */
  int64_t system_us;
  int64_t max_rss_kb;
  uint64_t mounts_id;     /* of the mount namespace, never used twice; 0: not known */
  char boot_id[40];
  struct cl_error error;  /* why the last start failed */
  uint64_t seq_end;
};

#define CL_HEALTH_SLOTS 5
#define CL_HEALTH_OUTPUT 4096

/* One slot of the file "health". */
struct cl_health_result
{
  int64_t start_ns;
  int64_t end_ns;
  int32_t exit_code;
  int32_t size;
  char output[4096];
};

/* ---- messages between the monitor and its clients ---------------------- */

#define CL_MSG_MAX 65536

/* One SEQPACKET datagram: this header and the payload. */
struct cl_msg
{
  int32_t type;
  int32_t arg;
};

enum cl_msg_type
{
  /* to the monitor */
  CL_MSG_ATTACH = 1,   /* arg: 1 stdin, 2 stdout, 4 stderr */
  CL_MSG_STDIN,        /* payload: bytes */
  CL_MSG_STDIN_EOF,
  CL_MSG_RESIZE,       /* arg: rows << 16 | columns */
  CL_MSG_STOP,         /* arg: grace in ms, -1 the configured one; payload: int32 signal, 0 the configured one */
  CL_MSG_KILL,         /* arg: signal */
  CL_MSG_RESTART,      /* arg: grace in ms, as CL_MSG_STOP */
  CL_MSG_POLICY,       /* payload: int32 policy, int32 maximum */
  CL_MSG_DETACH,
  CL_MSG_WATCH,        /* arg: 1 send CL_MSG_GREW, 0 no more */
  /* from the monitor */
  CL_MSG_STDOUT = 64,  /* payload: bytes; what a terminal prints comes here too */
  CL_MSG_STDERR,
  CL_MSG_STARTED,      /* arg: pid */
  CL_MSG_ERROR,        /* payload: struct cl_error */
  CL_MSG_EXITED,       /* arg: exit code; payload: struct cl_state */
  CL_MSG_ENDED,        /* the monitor is about to leave: nothing restarts */
  CL_MSG_ACK,          /* arg: 0 or errno */
  CL_MSG_GREW,         /* the log has grown; one may be dropped when the client is slow */
  CL_MSG_TERMINAL,     /* exec: the terminal's descriptor rides along */
};

enum cl_attach
{
  CL_ATTACH_STDIN = 1,
  CL_ATTACH_STDOUT = 2,
  CL_ATTACH_STDERR = 4,
};

enum cl_restart
{
  CL_RESTART_NO = 0,
  CL_RESTART_ON_FAILURE = 1,
  CL_RESTART_ALWAYS = 2,
  CL_RESTART_UNLESS_STOPPED = 3,
};

/* ---- functions of the module -------------------------------------------- */

/* Run the program behind exe_fd with CLONE_VM | CLONE_VFORK.  Descriptor i of
 * the new process is fds[i] (-1: /dev/null for 0..2, else closed); nothing
 * else is open there, signals are at their defaults.  Returns the pid. */
int cl_spawn (int exe_fd, char *const argv[], char *const envp[],
              const int *fds, int nfds, int *pidfd, struct cl_error *err);

/* Check a plan as the helper does before it acts on it. */
int cl_plan_check (const void *plan, size_t size, struct cl_error *err);

int cl_openat2 (int dirfd, const char *path, uint64_t flags, uint64_t mode,
                uint64_t resolve, struct cl_error *err);
int cl_open_tree (int dirfd, const char *path, unsigned int flags,
                  struct cl_error *err);
int cl_move_mount (int from_fd, const char *from, int to_fd, const char *to,
                   unsigned int flags, struct cl_error *err);
int cl_fsopen (const char *type, struct cl_error *err);
int cl_fsconfig_string (int fd, const char *key, const char *value,
                        struct cl_error *err);
int cl_fsconfig_flag (int fd, const char *key, struct cl_error *err);
int cl_fsmount (int fd, unsigned int attrs, struct cl_error *err);
int cl_mount_setattr (int dirfd, const char *path, unsigned int flags,
                      uint64_t set, uint64_t clear, uint64_t propagation,
                      int userns_fd, struct cl_error *err);
int cl_pivot_root (const char *new_root, const char *put_old,
                   struct cl_error *err);
int cl_umount (const char *path, int flags, struct cl_error *err);
int cl_setns (int fd, int nstype, struct cl_error *err);
int cl_unshare (int flags, struct cl_error *err);
int cl_pidfd_getfd (int pidfd, int fd, struct cl_error *err);
int cl_close_range (unsigned int first, unsigned int last,
                    unsigned int flags, struct cl_error *err);
