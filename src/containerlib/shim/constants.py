# SPDX-License-Identifier: Apache-2.0
"""
The header's enumerations; every value is read from the compiled module.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from containerlib.shim._shim import lib


class Stage(IntEnum):
    """
    Where something failed.
    """

    NONE = lib.CL_STAGE_NONE
    PLAN = lib.CL_STAGE_PLAN
    SPAWN = lib.CL_STAGE_SPAWN
    CGROUP = lib.CL_STAGE_CGROUP
    NAMESPACE = lib.CL_STAGE_NAMESPACE
    IDMAP = lib.CL_STAGE_IDMAP
    ROOTFS = lib.CL_STAGE_ROOTFS
    MOUNT = lib.CL_STAGE_MOUNT
    DEVICE = lib.CL_STAGE_DEVICE
    PIVOT = lib.CL_STAGE_PIVOT
    MASK = lib.CL_STAGE_MASK
    SYSCTL = lib.CL_STAGE_SYSCTL
    HOSTNAME = lib.CL_STAGE_HOSTNAME
    CONSOLE = lib.CL_STAGE_CONSOLE
    RLIMIT = lib.CL_STAGE_RLIMIT
    USER = lib.CL_STAGE_USER
    CAPS = lib.CL_STAGE_CAPS
    SECCOMP = lib.CL_STAGE_SECCOMP
    WORKDIR = lib.CL_STAGE_WORKDIR
    EXEC = lib.CL_STAGE_EXEC
    MONITOR = lib.CL_STAGE_MONITOR
    LOG = lib.CL_STAGE_LOG
    UNPACK = lib.CL_STAGE_UNPACK
    REMOVE = lib.CL_STAGE_REMOVE
    SYSCALL = lib.CL_STAGE_SYSCALL


class Op(IntEnum):
    """
    What a record of a plan asks for; the header says with which operands.
    """

    CONTAINER = lib.CL_OP_CONTAINER
    FDS = lib.CL_OP_FDS
    USERNS = lib.CL_OP_USERNS
    LOG = lib.CL_OP_LOG
    CGROUP_DIR = lib.CL_OP_CGROUP_DIR
    CGROUP_WRITE = lib.CL_OP_CGROUP_WRITE
    CGROUP_BPF = lib.CL_OP_CGROUP_BPF
    RESTART = lib.CL_OP_RESTART
    HEALTH = lib.CL_OP_HEALTH
    NAMESPACES = lib.CL_OP_NAMESPACES
    JOIN = lib.CL_OP_JOIN
    TARGET = lib.CL_OP_TARGET
    RLIMIT = lib.CL_OP_RLIMIT
    OOM_SCORE_ADJ = lib.CL_OP_OOM_SCORE_ADJ
    ROOT_OVERLAY = lib.CL_OP_ROOT_OVERLAY
    ROOT_TMPFS = lib.CL_OP_ROOT_TMPFS
    OVERLAY = lib.CL_OP_OVERLAY
    MOUNT = lib.CL_OP_MOUNT
    BIND = lib.CL_OP_BIND
    DEVICE = lib.CL_OP_DEVICE
    MKDIR = lib.CL_OP_MKDIR
    SYMLINK = lib.CL_OP_SYMLINK
    CONSOLE = lib.CL_OP_CONSOLE
    LOOPBACK = lib.CL_OP_LOOPBACK
    SYSCTL = lib.CL_OP_SYSCTL
    HOSTNAME = lib.CL_OP_HOSTNAME
    DOMAINNAME = lib.CL_OP_DOMAINNAME
    READONLY_PATH = lib.CL_OP_READONLY_PATH
    MASK_PATH = lib.CL_OP_MASK_PATH
    ROOT_READONLY = lib.CL_OP_ROOT_READONLY
    PIVOT = lib.CL_OP_PIVOT
    KEYRING = lib.CL_OP_KEYRING
    USER = lib.CL_OP_USER
    CAPS = lib.CL_OP_CAPS
    NO_NEW_PRIVS = lib.CL_OP_NO_NEW_PRIVS
    SECCOMP = lib.CL_OP_SECCOMP
    LSM = lib.CL_OP_LSM
    WORKDIR = lib.CL_OP_WORKDIR
    ENVIRON = lib.CL_OP_ENVIRON
    EXEC = lib.CL_OP_EXEC


class ContainerFlag(IntFlag):
    """
    How a container's monitor treats it.
    """

    TTY = lib.CL_TTY
    STDIN_OPEN = lib.CL_STDIN_OPEN
    OWNED = lib.CL_OWNED
    AUTO_REMOVE = lib.CL_AUTO_REMOVE
    INIT = lib.CL_INIT
    CAPTURE = lib.CL_CAPTURE
    ATTACHED = lib.CL_ATTACHED
    KILL_ALL = lib.CL_KILL_ALL
    DAEMONIZE = lib.CL_DAEMONIZE
    STDIN_ONCE = lib.CL_STDIN_ONCE


class UsernsKind(IntEnum):
    """
    Which user namespace the helper works in.
    """

    NONE = lib.CL_USERNS_NONE
    JOIN = lib.CL_USERNS_JOIN
    SINGLE = lib.CL_USERNS_SINGLE


class CgroupFlag(IntFlag):
    """
    How a write to a control group is treated.
    """

    OPTIONAL = lib.CL_CGROUP_OPTIONAL


class CgroupKind(IntEnum):
    """
    What a control group's directory is used for.
    """

    OTHER = lib.CL_CGROUP_OTHER
    MEMORY = lib.CL_CGROUP_MEMORY
    FREEZER = lib.CL_CGROUP_FREEZER
    UNIFIED = lib.CL_CGROUP_UNIFIED
    LATE = lib.CL_CGROUP_LATE


class MountFlag(IntFlag):
    """
    How a mount is made.
    """

    RECURSIVE = lib.CL_MOUNT_RECURSIVE
    CREATE_DIR = lib.CL_MOUNT_CREATE_DIR
    CREATE_FILE = lib.CL_MOUNT_CREATE_FILE
    OPTIONAL = lib.CL_MOUNT_OPTIONAL
    ATTR_RECURSIVE = lib.CL_MOUNT_ATTR_RECURSIVE
    VOLATILE = lib.CL_MOUNT_VOLATILE
    USERXATTR = lib.CL_MOUNT_USERXATTR
    NOFOLLOW = lib.CL_MOUNT_NOFOLLOW
    EXACT = lib.CL_MOUNT_EXACT
    SUBPATH = lib.CL_MOUNT_SUBPATH
    CREATE_AUTO = lib.CL_MOUNT_CREATE_AUTO
    FALLBACK_BIND = lib.CL_MOUNT_FALLBACK_BIND
    INHERIT_MODE = lib.CL_MOUNT_INHERIT_MODE


class WorkdirFlag(IntFlag):
    """
    How the working directory is entered.
    """

    CREATE = lib.CL_WORKDIR_CREATE


class Status(IntEnum):
    """
    What the monitor last recorded.
    """

    CREATED = lib.CL_CREATED
    STARTING = lib.CL_STARTING
    RUNNING = lib.CL_RUNNING
    RESTARTING = lib.CL_RESTARTING
    EXITED = lib.CL_EXITED
    REMOVING = lib.CL_REMOVING


class Health(IntEnum):
    """
    What the health checks say.
    """

    NONE = lib.CL_HEALTH_NONE
    STARTING = lib.CL_HEALTH_STARTING
    HEALTHY = lib.CL_HEALTH_HEALTHY
    UNHEALTHY = lib.CL_HEALTH_UNHEALTHY


class Msg(IntEnum):
    """
    What a datagram between a monitor and its client means.
    """

    ATTACH = lib.CL_MSG_ATTACH
    STDIN = lib.CL_MSG_STDIN
    STDIN_EOF = lib.CL_MSG_STDIN_EOF
    RESIZE = lib.CL_MSG_RESIZE
    STOP = lib.CL_MSG_STOP
    KILL = lib.CL_MSG_KILL
    RESTART = lib.CL_MSG_RESTART
    POLICY = lib.CL_MSG_POLICY
    DETACH = lib.CL_MSG_DETACH
    WATCH = lib.CL_MSG_WATCH
    STDOUT = lib.CL_MSG_STDOUT
    STDERR = lib.CL_MSG_STDERR
    STARTED = lib.CL_MSG_STARTED
    ERROR = lib.CL_MSG_ERROR
    EXITED = lib.CL_MSG_EXITED
    ENDED = lib.CL_MSG_ENDED
    ACK = lib.CL_MSG_ACK
    GREW = lib.CL_MSG_GREW
    TERMINAL = lib.CL_MSG_TERMINAL


class Attach(IntFlag):
    """
    Which streams a client is attached to.
    """

    STDIN = lib.CL_ATTACH_STDIN
    STDOUT = lib.CL_ATTACH_STDOUT
    STDERR = lib.CL_ATTACH_STDERR


class Restart(IntEnum):
    """
    When the monitor starts the container again.
    """

    NO = lib.CL_RESTART_NO
    ON_FAILURE = lib.CL_RESTART_ON_FAILURE
    ALWAYS = lib.CL_RESTART_ALWAYS
    UNLESS_STOPPED = lib.CL_RESTART_UNLESS_STOPPED
