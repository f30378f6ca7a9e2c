# SPDX-License-Identifier: Apache-2.0
"""
The kernel, typed: system calls, the static helper, the records shared with C.

Nothing above this package sees cffi, an errno without its operation, or a
raw structure.
"""

from __future__ import annotations

from containerlib.shim.calls import (
    check_plan,
    close_range,
    fsconfig_flag,
    fsconfig_string,
    fsmount,
    fsopen,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pidfd_getfd,
    pivot_root,
    setns,
    umount,
    unshare,
)
from containerlib.shim.constants import (
    Attach,
    CgroupFlag,
    CgroupKind,
    ContainerFlag,
    Health,
    MountFlag,
    Msg,
    Op,
    Restart,
    Stage,
    Status,
    UsernsKind,
    WorkdirFlag,
)
from containerlib.shim.helper import UNKNOWN, Child, helper_fd, run_helper, spawn
from containerlib.shim.records import (
    MSG_MAX,
    PLAN_MAGIC,
    PLAN_VERSION,
    STATE_SIZE,
    CError,
    HealthResult,
    State,
    decode_error,
    decode_health,
    decode_state,
    encode_state,
)

__all__ = [
    "MSG_MAX",
    "PLAN_MAGIC",
    "PLAN_VERSION",
    "STATE_SIZE",
    "UNKNOWN",
    "Attach",
    "CError",
    "CgroupFlag",
    "CgroupKind",
    "Child",
    "ContainerFlag",
    "Health",
    "HealthResult",
    "MountFlag",
    "Msg",
    "Op",
    "Restart",
    "Stage",
    "State",
    "Status",
    "UsernsKind",
    "WorkdirFlag",
    "check_plan",
    "close_range",
    "decode_error",
    "decode_health",
    "decode_state",
    "encode_state",
    "fsconfig_flag",
    "fsconfig_string",
    "fsmount",
    "fsopen",
    "helper_fd",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pidfd_getfd",
    "pivot_root",
    "run_helper",
    "setns",
    "spawn",
    "umount",
    "unshare",
]
