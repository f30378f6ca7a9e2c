# SPDX-License-Identifier: Apache-2.0
"""
The runtimes that start.py measures: each can run a command to its end and
run one in a container that is there, with no network but a namespace of its own.

A peer that is not installed, or does not work on this host, says why.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Without a C library where that is easy: glibc's start asks for the processor's
# features, which in a virtual machine takes as long as some runtimes do.
TRUE = """\
#if defined __x86_64__
void _start (void) { __asm__ volatile ("syscall" : : "a" (60), "D" (0)); }
#elif defined __aarch64__
void _start (void) { __asm__ volatile ("mov x8, 93\\n\\tmov x0, 0\\n\\tsvc 0"); }
#else
#error
#endif
"""
PLAIN_TRUE = "int main (void) { return 0; }\n"
IDLE = """\
#include <unistd.h>
int main (void) { for (;;) pause (); }
"""


def rootfs(directory: Path) -> Path:
    """
    A root file system of two static programs: /true ends at once, /idle never does.
    """
    top = directory / "rootfs"
    for name in ("dev", "etc", "proc", "sys", "tmp"):
        (top / name).mkdir(parents=True)
    if not _compile(directory, TRUE, top / "true", "-nostdlib"):
        _compile(directory, PLAIN_TRUE, top / "true")
    _compile(directory, IDLE, top / "idle")
    return top


def _compile(directory: Path, text: str, program: Path, *flags: str) -> bool:
    source = directory / f"{program.name}.c"
    source.write_text(text, encoding="utf-8")
    command = ["cc", "-O2", "-static", "-s", *flags, str(source), "-o", str(program)]
    return subprocess.run(command, check=not flags, stderr=subprocess.DEVNULL).returncode == 0


class Peer(ABC):
    """
    One runtime.
    """

    name: str
    note = ""
    is_oci_runtime = False
    is_own = False
    # What ours is held against: a sandbox is not, nor is ours.
    makes_containers = True
    # It gets this much less to do.
    dearness = 1

    def __init__(self, top: Path, directory: Path) -> None:
        self.top = top
        self.directory = directory

    @abstractmethod
    def run(self) -> None:
        """
        Run /true to its end, and remove its container.
        """

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        A container that runs /idle meanwhile.
        """
        raise NotImplementedError(f"{self.name} has no exec")
        yield

    def exec(self) -> None:
        """
        Run /true in it.
        """
        raise NotImplementedError(f"{self.name} has no exec")

    def close(self) -> None:
        """
        Remove what it keeps.
        """


class Containerlib(Peer):
    name = "containerlib"
    note = "containerlib.run: all of Docker's defaults, its output captured"
    is_own = True
    makes_containers = False

    def __init__(self, top: Path, directory: Path) -> None:
        super().__init__(top, directory)
        import containerlib

        self._containerlib = containerlib
        self.engine = containerlib.Engine(directory / "root", directory / "run")
        self.image = containerlib.Image.from_rootfs(top, tag="bench", engine=self.engine)

    def run(self) -> None:
        self._containerlib.run(self.image, ["/true"], network="none", engine=self.engine)

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._containerlib.Container.run(
            self.image, ["/idle"], network="none", stop_signal="SIGKILL", engine=self.engine
        ) as self.container:
            yield

    def exec(self) -> None:
        self.container.exec(["/true"])

    def close(self) -> None:
        self.image.remove(force=True)


class Logged(Containerlib):
    name = "Container.run, wait"
    note = "the same with a log, and removed by the caller"

    def run(self) -> None:
        container = self._containerlib.Container.run(
            self.image, ["/true"], network="none", engine=self.engine
        )
        container.wait()
        container.remove()

    def running(self) -> AbstractContextManager[None]:
        raise NotImplementedError("as above")


class AsUser(Peer):
    """
    containerlib in an interpreter of an ordinary user's, told over a pipe when to run.
    """

    name = "containerlib, a user"
    is_own = True
    makes_containers = False

    def __init__(self, directory: Path, user: str | None, python: str) -> None:
        if os.geteuid() != 0:
            raise RuntimeError("already one")
        names = [line.partition(":")[0] for line in _lines("/etc/subuid")]
        users = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
        found = next((name for name in ([user] if user else names) if name in users), None)
        if found is None:
            raise RuntimeError("there is no user to be found in /etc/subuid; name one with --user")
        account = users[found]
        self.note = f"as {found}"
        place = directory / "user"
        place.mkdir()
        os.chown(place, account.pw_uid, account.pw_gid)
        # What a user cannot read, such as root's checkout, is copied.
        sources = directory / "sources"
        shutil.copytree(Path(__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            self._worker = subprocess.Popen(
                [python, "-B", str(sources / "start.py"), "--serve", str(directory / "rootfs"), str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": account.pw_dir},
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
            )
        except PermissionError:
            raise RuntimeError(f"{found} cannot run {python}; give another with --user-python") from None
        self.run()

    def run(self) -> None:
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        try:
            self._worker.stdin.write(b"\n")
            self._worker.stdin.flush()
            answer = self._worker.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if answer != b"done\n":
            errors = self._worker.communicate()[1].decode(errors="replace")
            raise RuntimeError(errors.strip().rpartition("\n")[2])

    def close(self) -> None:
        self._worker.communicate()


def serve(top: Path, directory: Path) -> None:
    """
    Run once for each line on standard input.
    """
    own = Containerlib(top, directory)
    for _ in sys.stdin:
        own.run()
        print("done", flush=True)
    own.close()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


class _Oci(Peer):
    """
    A runtime of the OCI's command line: runc, crun.
    """

    arguments: tuple[str, ...] = ()
    is_oci_runtime = True

    def __init__(self, top: Path, directory: Path) -> None:
        super().__init__(top, directory)
        self._command = [self.name, "--root", str(directory / "state"), *self.arguments]
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        rootless = () if os.geteuid() == 0 else ("--rootless",)
        subprocess.run([self.name, "spec", *rootless], cwd=self.bundle, check=True)
        self._spec = json.loads((self.bundle / "config.json").read_bytes())
        self._spec["process"]["terminal"] = False
        # The programs never raise it, and the host may not allow it.
        self._spec["process"]["rlimits"] = []
        self._spec["root"] = {"path": str(top), "readonly": True}
        self.run()

    def _write(self, command: str) -> None:
        self._spec["process"]["args"] = [command]
        (self.bundle / "config.json").write_text(json.dumps(self._spec), encoding="utf-8")

    def run(self) -> None:
        if self._spec["process"]["args"] != ["/true"]:
            self._write("/true")
        _quietly([*self._command, "run", "--bundle", str(self.bundle), f"bench-{time.monotonic_ns()}"])

    @contextmanager
    def running(self) -> Iterator[None]:
        self._write("/idle")
        name = "bench-idle"
        _quietly([*self._command, "run", "--detach", "--bundle", str(self.bundle), name])
        try:
            yield
        finally:
            _quietly([*self._command, "delete", "--force", name])

    def exec(self) -> None:
        _quietly([*self._command, "exec", "bench-idle", "/true"])


class Runc(_Oci):
    name = "runc"
    note = "`runc spec` as it is: no seccomp"


class Crun(_Oci):
    name = "crun"
    note = "`crun spec` as it is: no seccomp"
    arguments = ("--cgroup-manager=cgroupfs",)


class Bwrap(Peer):
    name = "bwrap"
    makes_containers = False
    note = "no cgroup, no seccomp, no overlay, no exec"

    def __init__(self, top: Path, directory: Path) -> None:
        super().__init__(top, directory)
        self.run()

    def run(self) -> None:
        _quietly(
            [
                "bwrap",
                "--unshare-all",
                "--ro-bind",
                str(self.top),
                "/",
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                "/true",
            ]
        )


class Podman(Peer):
    name = "podman"
    dearness = 5

    def __init__(self, top: Path, directory: Path) -> None:
        super().__init__(top, directory)
        settings = directory / "containers.conf"
        settings.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n', encoding="utf-8"
        )
        self._environment = os.environ | {"CONTAINERS_CONF": str(settings)}
        self._command = [
            "podman",
            "--root",
            str(directory / "storage"),
            "--runroot",
            str(directory / "runroot"),
        ]
        self._command += ["--tmpdir", str(directory / "t"), "--cgroup-manager", "cgroupfs"]
        self._command += ["--runtime", "runc" if shutil.which("runc") else "crun"]
        self.run()

    def _podman(self, *arguments: str) -> None:
        _quietly([*self._command, *arguments], self._environment)

    def run(self) -> None:
        self._podman("run", "--rm", "--network", "none", "--rootfs", str(self.top), "/true")

    @contextmanager
    def running(self) -> Iterator[None]:
        self._podman("run", "-d", "--name", "idle", "--network", "none", "--rootfs", str(self.top), "/idle")
        try:
            yield
        finally:
            self._podman("rm", "--force", "--time", "0", "idle")

    def exec(self) -> None:
        self._podman("exec", "idle", "/true")

    def close(self) -> None:
        # It mounts its storage on itself.
        subprocess.run(["umount", str(self.directory / "storage/overlay")], check=False, capture_output=True)


class Docker(Peer):
    """
    docker-py and a daemon of its own, in a network namespace of its own: it
    would change the host's firewall.
    """

    name = "docker-py"
    dearness = 5
    note = "the daemon runs before the clock does"

    def __init__(self, top: Path, directory: Path) -> None:
        super().__init__(top, directory)
        import docker

        socket = f"unix://{directory}/docker.sock"
        bare = ("--bridge=none", "--iptables=false", "--ip6tables=false")
        places = (
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
        )
        self._daemon = subprocess.Popen(
            ["unshare", "--net", "dockerd", "-H", socket, *bare, *places],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._client = self._wait(docker, socket)
            archive = directory / "rootfs.tar"
            subprocess.run(["tar", "-C", top, "-cf", archive, "."], check=True)
            self._client.api.import_image_from_file(str(archive), repository="bench")
            self.run()
        except BaseException:
            self.close()
            raise

    def _wait(self, docker, socket):  # noqa: ANN001, ANN202  # docker-py has no types
        deadline = time.monotonic() + 30
        while True:
            try:
                client = docker.DockerClient(base_url=socket)
                client.ping()
            except Exception:
                if time.monotonic() > deadline or self._daemon.poll() is not None:
                    raise
                time.sleep(0.1)
            else:
                return client

    def run(self) -> None:
        self._client.containers.run("bench", "/true", network_mode="none", remove=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._idle = self._client.containers.run("bench", "/idle", network_mode="none", detach=True)
        try:
            yield
        finally:
            self._idle.remove(force=True)

    def exec(self) -> None:
        self._idle.exec_run("/true")

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.wait(30)


PEERS: tuple[type[Peer], ...] = (Containerlib, Logged, Runc, Crun, Bwrap, Podman, Docker)
NEEDS = {"docker-py": "dockerd"}


def find(top: Path, directory: Path, names: set[str] | None) -> tuple[list[Peer], dict[str, str]]:
    """
    The peers that work here, and for each of the others the reason.
    """
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for kind in PEERS:
        if names is not None and kind.name not in names and not kind.is_own:
            continue
        program = NEEDS.get(kind.name, kind.name)
        if not kind.is_own and shutil.which(program) is None:
            missing[kind.name] = f"{program} is not installed"
            continue
        place = directory / kind.name.partition(",")[0].lower()
        place.mkdir()
        try:
            found.append(kind(top, place))
        except Exception as error:
            if kind.is_own:
                raise
            missing[kind.name] = str(error).strip().rpartition("\n")[2]
    return found, missing


def _quietly(command: list[str], environment: dict[str, str] | None = None) -> None:
    # To a file: a container that stays would keep a pipe open.
    with tempfile.TemporaryFile() as errors:
        code = subprocess.call(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
        )
        if code:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip() or f"exit code {code}"
            raise RuntimeError(f"{command[0]}: {message}")
