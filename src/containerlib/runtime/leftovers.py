# SPDX-License-Identifier: Apache-2.0
"""
Processes that outlived their monitor in another's process namespace.

They are known by their mount namespace's number, which the kernel never uses
twice, unlike pids and the inode numbers of namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import struct

# NS_GET_MNTNS_ID, linux/nsfs.h, Linux 6.10: _IOR(0xb7, 5, uint64_t)
_GET_MNTNS_ID = 2 << 30 | 8 << 16 | 0xB7 << 8 | 5


def mounts_id(pid: int | str) -> int:
    """
    The number of a process's mount namespace; 0 when it cannot be told.
    """
    try:
        fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        number: int = struct.unpack("=Q", fcntl.ioctl(fd, _GET_MNTNS_ID, b"\0" * 8))[0]
        return number
    except OSError:
        return 0
    finally:
        os.close(fd)


@functools.cache
def can_find() -> bool:
    """
    Whether this kernel numbers mount namespaces.
    """
    return mounts_id("self") != 0


def kill(number: int) -> None:
    """
    SIGKILL to every process in the mount namespace with that *number*.
    """
    if not number:
        return
    found = True
    while found:
        found = False
        for name in os.listdir("/proc"):
            if not name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(int(name))
                try:
                    # After the pidfd is held, so that the pid cannot have become another's.
                    if mounts_id(name) == number:
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        found = True
                finally:
                    os.close(pidfd)
