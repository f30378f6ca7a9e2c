# SPDX-License-Identifier: Apache-2.0
"""
Run the suite against an installed wheel: as root, and as users made for it.

    python tests/lanes.py --wheel dist/containerlib-….whl [--lane root] [pytest's arguments]

Three lanes, each told to the tests by ``CONTAINERLIB_TEST_LANE``:

``root``
    As root, with the interpreter that runs this file.
``user``
    As a user with ranges in /etc/subuid and /etc/subgid, and with control
    groups that it may divide.
``single-id``
    As a user with neither; containers have one user, one group, no limits.

As root all three run; the two users are made when they are missing and
deleted afterwards.  Root's interpreter may stand where nobody else may
look, so the users get an environment of their own from one that they can
run, in a temporary directory with a copy of the tests.  Started by an
ordinary user, the one lane that fits this user runs, as it is.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
USERS = {"user": "containerlib-test", "single-id": "containerlib-single"}
SUBIDS = 65536
DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "tasks")
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="the wheel that the users' environment gets")
    parser.add_argument("--lane", action="append", choices=["single-id", "user", "root"])
    options, arguments = parser.parse_known_args()
    # So that what was made is removed when a time limit ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    if os.geteuid() != 0:
        lane = "user" if _has_ranges(pwd.getpwuid(os.getuid()).pw_name) else "single-id"
        return _run([sys.executable, *PYTEST, *arguments], lane=lane)

    # The whole suite's lane comes last: its closing line is the one that is read.
    results: dict[str, int] = {}
    lanes = options.lane or ["single-id", "user", "root"]
    with _workspace() as workspace:
        python = ""
        for lane in lanes:
            print(f"\n==== lane {lane} ====", flush=True)
            if lane == "root":
                base = f"--basetemp={workspace / 'root'}"
                results[lane] = _run([sys.executable, *PYTEST, base, *arguments], lane=lane)
                continue
            if not python:
                python = _environment(workspace, options.wheel)
            results[lane] = _run_as_user(lane, workspace, python, arguments)
    failed = [lane for lane, code in results.items() if code]
    if failed:
        print(f"lanes that failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(command: Sequence[str], *, lane: str) -> int:
    return subprocess.run(
        command, cwd=TREE, env=os.environ | {"CONTAINERLIB_TEST_LANE": lane}, check=False
    ).returncode


# ---- the users ------------------------------------------------------------


def _run_as_user(lane: str, workspace: Path, python: str, arguments: Sequence[str]) -> int:
    # With limits of its own in one lane, without any in the other.
    with _alone(), _user(lane) as user, _delegated(user) if lane == "user" else nullcontext():
        home = workspace / lane
        home.mkdir(mode=0o700)
        for name in ("run", "tmp"):
            (home / name).mkdir(mode=0o700)
        for name in ("pyproject.toml", "README.md", "tests", "docs", "src", "benchmarks"):
            source = TREE / name
            if source.is_dir():
                shutil.copytree(
                    source, home / "tree" / name, ignore=shutil.ignore_patterns("__pycache__", "_build")
                )
            elif source.exists():
                (home / "tree").mkdir(exist_ok=True)
                shutil.copy(source, home / "tree" / name)
        _own(home, user)
        environment = {
            "CI": os.environ.get("CI", ""),
            "CONTAINERLIB_TEST_LANE": lane,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "LOGNAME": user.pw_name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "TMPDIR": str(home / "tmp"),
            "USER": user.pw_name,
            "XDG_RUNTIME_DIR": str(home / "run"),
        }
        environment.update({k: v for k, v in os.environ.items() if k.startswith("CONTAINERLIB_FUZZ")})
        if debian := os.environ.get("CONTAINERLIB_TEST_DEBIAN"):
            environment["CONTAINERLIB_TEST_DEBIAN"] = _share(Path(debian), workspace)
        try:
            code = subprocess.run(
                [python, *PYTEST, f"--basetemp={home / 't'}", *arguments],
                cwd=home / "tree",
                env=environment,
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                umask=0o022,
                check=False,
            ).returncode
        finally:
            left = _end_processes_of(user)
        if left:
            print(f"still running after lane {lane}: {'; '.join(left)}", file=sys.stderr)
        return code or bool(left)


@contextmanager
def _delegated(user: pwd.struct_passwd) -> Iterator[None]:
    """
    Run what is started here in control groups that *user* may divide, removed afterwards.
    """
    made: list[Path] = []
    try:
        for own in _own_groups():
            group = own / "containerlib-lane"
            try:
                group.mkdir(exist_ok=True)
            except OSError as error:
                print(f"without {own}: {error.strerror}", flush=True)
                continue
            made.append(group)
            # A group of cpuset's takes nobody before it has these.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists() and (group / "tasks").exists():
                    (group / name).write_bytes((own / name).read_bytes())
            for path in (group, *(group / name for name in DELEGATED)):
                if path.exists():
                    os.chown(path, user.pw_uid, user.pw_gid)
            (group / "cgroup.procs").write_text("0", encoding="utf-8")
        yield
    finally:
        for group in made:
            (group.parent / "cgroup.procs").write_text("0", encoding="utf-8")
            for directory, _, _ in os.walk(group, topdown=False):
                _remove_group(directory)


def _remove_group(directory: str) -> None:
    """
    Remove a control group; one whose last process was just killed is busy for a moment.
    """
    deadline = time.monotonic() + 5
    while True:
        try:
            return os.rmdir(directory)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _own_groups() -> list[Path]:
    """
    The control group of this process in each hierarchy.
    """
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    inside = dict(line.split(":", 2)[1:] for line in lines)
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, kind = line.partition(" - ")
        root, target = fields.split()[3:5]
        name, options = kind.split()[0], set(kind.split()[-1].split(","))
        for controllers, path in inside.items():
            if (name == "cgroup" and controllers and set(controllers.split(",")) <= options) or (
                name == "cgroup2" and not controllers
            ):
                found.append(Path(target) / os.path.relpath(path, root))
    return found


def _share(directory: Path, workspace: Path) -> str:
    """
    A copy of *directory* that the users can read.
    """
    copy = workspace / directory.name
    if not copy.exists():
        shutil.copytree(directory, copy)
    return str(copy)


@contextmanager
def _alone() -> Iterator[None]:
    """
    Wait until no other run on this machine has the users.
    """
    with open("/run/lock/containerlib-lanes", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another run has the users; waiting for its end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _user(lane: str) -> Iterator[pwd.struct_passwd]:
    """
    The lane's user; deleted afterwards unless it was there before.
    """
    name = USERS[lane]
    made = not _exists(name)
    if made:
        subprocess.run(
            [
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
                "--shell",
                "/bin/sh",
                name,
            ],
            check=True,
        )
        if lane == "user":
            first = _free_range()
            for option in ("--add-subuids", "--add-subgids"):
                subprocess.run(["usermod", option, f"{first}-{first + SUBIDS - 1}", name], check=True)
    try:
        yield pwd.getpwnam(name)
    finally:
        if made:
            subprocess.run(["userdel", name], check=True, stderr=subprocess.DEVNULL)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _ranges() -> list[tuple[str, int, int]]:
    """
    Name, first id and count of every range in /etc/subuid and /etc/subgid.
    """
    found = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if first.isdigit() and count.isdigit():
                found.append((name, int(first), int(count)))
    return found


def _has_ranges(name: str) -> bool:
    return any(name == holder for holder, _, _ in _ranges()) and shutil.which("newuidmap") is not None


def _free_range() -> int:
    return max([100_000, *(first + count for _, first, count in _ranges())])


def _end_processes_of(user: pwd.struct_passwd) -> list[str]:
    """
    Kill what still runs as *user*, who was made for the lane alone, after five seconds, and name it.
    """
    own = [range(first, first + count) for name, first, count in _ranges() if name == user.pw_name]
    own.append(range(user.pw_uid, user.pw_uid + 1))
    deadline = time.monotonic() + 5
    while (left := _processes_of(own)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"{pid} {command.strip()}" for pid, command in left.items()]


def _processes_of(own: Sequence[range]) -> dict[int, str]:
    """
    The command lines of the processes of those users, by pid.
    """
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines())
            if status["State"].startswith("Z") or not any(
                int(status["Uid"].split()[0]) in ids for ids in own
            ):
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(entry.name)] = command
    return found


# ---- what the users run ---------------------------------------------------


@contextmanager
def _workspace() -> Iterator[Path]:
    """
    A directory that everybody may enter, removed with all that is in it.

    Its name is short: a test may bind a socket, whose path has 107 bytes.
    What runs that were killed have left is removed first.
    """
    for stale in Path("/var/tmp").glob("lanes-*"):
        status = stale.lstat()
        if status.st_uid == os.geteuid() and time.time() - status.st_mtime > 3600 and (fd := _lock(stale)):
            shutil.rmtree(stale)
            os.close(fd)
    path = Path(tempfile.mkdtemp(prefix="lanes-", dir="/var/tmp"))
    path.chmod(0o755)
    held = _lock(path)
    try:
        yield path
    finally:
        shutil.rmtree(path)
        if held:
            os.close(held)


def _lock(directory: Path) -> int | None:
    """
    A descriptor that holds a lock on *directory*; None when another run holds it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _environment(workspace: Path, wheel: Path | None) -> str:
    """
    Make a virtual environment that any user can run; return its interpreter.
    """
    if wheel is None:
        sys.exit("lanes.py: the users' lanes need --wheel")
    base = next(
        (python for python in (sys.executable, "/usr/bin/python3") if _open_to_all(Path(python).resolve())),
        None,
    )
    if base is None:
        sys.exit("lanes.py: no Python that an ordinary user can run; apt-get install python3")
    environment = workspace / "environment"
    subprocess.run(
        [sys.executable, "-m", "virtualenv", "--quiet", "--python", os.path.realpath(base), environment],
        check=True,
    )
    python = str(environment / "bin" / "python")
    local = shutil.copy(wheel, workspace)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--group", f"{TREE / 'pyproject.toml'}:tests", local],
        check=True,
    )
    return python


def _open_to_all(path: Path) -> bool:
    """
    Whether everybody may execute *path* and enter the directories above it.
    """
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def _own(top: Path, user: pwd.struct_passwd) -> None:
    os.chown(top, user.pw_uid, user.pw_gid)
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            os.chown(os.path.join(directory, name), user.pw_uid, user.pw_gid, follow_symlinks=False)


if __name__ == "__main__":
    sys.exit(main())
