# SPDX-License-Identifier: Apache-2.0
"""
How to get what a host refuses, in words for its administrator.
"""

from __future__ import annotations

import errno

from containerlib.shim import CError, Stage

BLOCKED = {
    "apparmor": "this version does not apply AppArmor profiles",
    "selinux": "this version does not apply SELinux labels",
    "bridge_network": "this version makes no networks",
    "user_network": "this version makes no networks",
}
"""
What no host has, because this version of containerlib does not do it.
"""

_KERNEL = "use Linux 5.12 or later"
_OUTER = "in a container let its seccomp profile allow it, as Docker's default profile does since 20.10.10"

REMEDIES = {
    "namespaces": f"{_KERNEL}, built with CONFIG_NAMESPACES and all below it",
    "clone3": f"{_KERNEL}; {_OUTER}",
    "mount_api": f"{_KERNEL}; {_OUTER}",
    "mount_setattr": f"{_KERNEL}; {_OUTER}",
    "openat2": f"{_KERNEL}; {_OUTER}",
    "pidfd": f"{_KERNEL}; {_OUTER}",
    "overlay": "load the kernel's module (modprobe overlay), or put the engine's root on ext4, xfs, btrfs or "
    "tmpfs, with Engine(root) or CONTAINERLIB_ROOT; in a container: on a volume",
    "proc": "start the container around this process with all of /proc (docker run --security-opt "
    "systempaths=unconfined, or --privileged); until then containers see this one's processes",
    "terminal": "use a kernel with CONFIG_UNIX98_PTYS; containers without tty=True need none",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER; security_opt=['seccomp=unconfined'] does without",
    "net_sysctls": "use a kernel with network namespaces and /proc/sys; in a container with a writable one",
    "raise_ulimits": "start Python with CAP_SYS_RESOURCE, or with higher hard limits (limits.conf(5)); "
    "limits up to the present hard ones need nothing",
    "clone_into_cgroup": "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1); without it a "
    "container enters its groups by itself",
    "cgroup_kill": "use Linux 5.14 or later with cgroup v2; without it processes are ended one by one",
    "cgroups": "let this user write to the group (run as root, or delegate a group: "
    "'systemd-run --user --scope -p Delegate=yes'); see docs/how-to",
    "apparmor": "leave security_opt='apparmor=…' out, and confine the Python process instead",
    "selinux": "leave security_opt='label=…' out, and confine the Python process instead",
    "bridge_network": "use network='none', 'host' or 'container:<name>'",
    "user_network": "use network='none', 'host' or 'container:<name>'",
}


def base_remedy(error: CError) -> str:
    """
    What may help where no container at all can be set up.
    """
    if error.code in (errno.ENOSPC, errno.EUSERS):
        return "raise the sysctl user.max_user_namespaces (sysctl -w user.max_user_namespaces=15000)"
    if error.code == errno.ENOSYS:
        return f"{_KERNEL}; {_OUTER}"
    if error.stage in (Stage.IDMAP, Stage.NAMESPACE, Stage.SPAWN) or error.code == errno.EPERM:
        return (
            "run as root, or allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in a container start it with "
            "CAP_SYS_ADMIN or a seccomp profile that allows clone3, unshare, setns and mount"
        )
    return "see that the engine's root and run root can be written, and are not mounted noexec or read-only"
