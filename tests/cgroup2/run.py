# SPDX-License-Identifier: Apache-2.0
"""
Run the tests of limits on a kernel that has cgroup v2 alone.

They run twice, as root and as a user with a delegated group.

Boots Debian's user-mode Linux (package user-mode-linux), an ordinary program,
on the files of this machine: the root is mounted read-only, /tmp and /run are
the guest's own, and one scratch directory carries the result back.  The
interpreter that runs this program runs the tests too.  On a machine with
cgroup v2 alone they run as they are.

Usage: python tests/cgroup2/run.py [pytest's arguments]
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
KERNEL = "linux.uml"
TIMEOUT = 170
"""
Seconds for booting and all tests together.
"""

TESTS = (
    "tests/test_cgroups.py",
    "tests/test_cgroup_devices.py",
    "tests/test_stats.py",
    "tests/integration",
    "-m",
    "cgroups or cgroup2",
)

INIT = """\
#!/bin/sh
# The guest's first process: mount, run the tests, report, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for directory in /tmp /run /var/tmp /root /home /mnt; do
  [ -d $directory ] && mount -t tmpfs -o mode=1777 tmpfs $directory
done
# What the tests need of the directories just hidden.
for directory in {shown}; do
  mkdir -p "$directory"
  mount -t hostfs -o "ro,$directory" hostfs "$directory"
done
mkdir -p {scratch}
mount -t hostfs -o {scratch} hostfs {scratch}
if mount -t tmpfs tmpfs /lib/modules 2>/dev/null; then
  ln -s /usr/lib/uml/modules/* /lib/modules/
  modprobe -a overlay bridge veth 2>/dev/null
else
  # Debian's kmod need not be there.
  module=$(echo /usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko)
  insmod "$module" 2>/dev/null || busybox insmod "$module"
fi
ip link set lo up 2>/dev/null
hostname uml
chmod 755 /root
cd {project}
export HOME=/root TMPDIR=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
export HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis
echo "as root:"
setsid -w {command} </dev/null 2>&1
status=$?
# And as a user with a delegated group, as systemd gives one.
group=/sys/fs/cgroup/delegated
mkdir $group
echo "+cpu +io +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
for file in $(cat /sys/kernel/cgroup/delegate); do
  [ -e $group/$file ] && chown 65534:65534 $group/$file
done
chown 65534:65534 $group
mkdir -m 700 /tmp/user
chown 65534:65534 /tmp/user
export HOME=/tmp/user TMPDIR=/tmp/user HYPOTHESIS_STORAGE_DIRECTORY=/tmp/user/hypothesis
echo "as a user:"
setsid -w sh -c 'echo 0 > $0/cgroup.procs; exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"' \
  $group {command} </dev/null 2>&1
user=$?
[ $status = 0 ] && status=$user
echo $status > {scratch}/status
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


def main(arguments: list[str]) -> int:
    """
    Run pytest with *arguments* under cgroup v2, and return its exit code.
    """
    color = "yes" if sys.stdout.isatty() else "no"
    options = ["-q", "-p", "no:cacheprovider", f"--color={color}"]
    command = [sys.executable, "-m", "pytest", *options, *(arguments or TESTS)]
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return subprocess.run(command, cwd=PROJECT).returncode
    kernel = shutil.which(KERNEL)
    if kernel is None:
        print(f"{KERNEL} is not installed (Debian: user-mode-linux)", file=sys.stderr)
        return 2
    scratch = Path(tempfile.mkdtemp(prefix="containerlib-uml-"))
    try:
        return boot(kernel, scratch, command)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def boot(kernel: str, scratch: Path, command: list[str]) -> int:
    """
    Start the guest, pass on what it prints, and return what it reported.
    """
    init = scratch / "init"
    init.write_text(
        INIT.format(
            shown=" ".join(map(shlex.quote, shown())),
            scratch=shlex.quote(str(scratch)),
            project=shlex.quote(str(PROJECT)),
            command=shlex.join(command),
        ),
        encoding="utf-8",
    )
    init.chmod(0o755)
    disk = scratch / "disk"
    disk.write_bytes(bytes(1 << 20))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(scratch),
        "TMPDIR": memory_directory(),
    }
    preloaded = build_preload(scratch)
    if preloaded:
        environment["LD_PRELOAD"] = preloaded
    guest = subprocess.Popen(
        [
            kernel,
            "mem=1024M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
            f"init={init}",
            f"uml_dir={scratch}",
            f"ubd0={disk}",
            "con0=fd:0,fd:1",
            "con=null",
        ],
        env=environment,
        # A descriptor that never has anything to read: the console watches it.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(guest.pid, signal.SIGKILL))
    signal.alarm(TIMEOUT)
    try:
        assert guest.stdout is not None
        for line in guest.stdout:
            sys.stdout.write(line.decode("utf-8", "replace").replace("\r\n", "\n"))
            sys.stdout.flush()
        guest.wait()
    finally:
        signal.alarm(0)
        stop(guest)
    try:
        return int((scratch / "status").read_text(encoding="ascii"))
    except (OSError, ValueError):
        print(f"the guest did not finish within {TIMEOUT} s, or did not boot", file=sys.stderr)
        return 1


def stop(guest: subprocess.Popen[bytes]) -> None:
    """
    End what is left of the guest: its processes are traced ones of this machine.
    """
    try:
        os.killpg(guest.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    guest.wait()


def shown() -> list[str]:
    """
    The directories that the interpreter and the project live in, if the
    guest's own /tmp, /root and the like would hide them.
    """
    wanted = {str(PROJECT), sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))}
    for path in sys.path:
        if os.path.isdir(path):
            wanted.add(os.path.realpath(path))
    hidden = ("/tmp/", "/run/", "/var/tmp/", "/root/", "/home/", "/mnt/")
    found: list[str] = []
    for path in sorted(wanted):
        if path.startswith(hidden) and not any(path.startswith(f"{above}/") for above in found):
            found.append(path)
    return found


def memory_directory() -> str:
    """
    Where the guest's memory is kept: a file, mapped and executed from.
    """
    path = "/dev/shm"
    if os.access(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_NOEXEC:
        return path
    return tempfile.gettempdir()


def build_preload(scratch: Path) -> str:
    """
    The library that lets the guest run on processors with AMX, see xstate.c.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.machine() != "x86_64":
        return ""
    library = scratch / "xstate.so"
    subprocess.run(
        [
            *shlex.split(compiler),
            "-O2",
            "-shared",
            "-fPIC",
            "-o",
            str(library),
            str(HERE / "xstate.c"),
            "-ldl",
        ],
        check=True,
    )
    return str(library)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
