# SPDX-License-Identifier: Apache-2.0
"""
Record what a container of Docker's sees, for tests/integration/test_view.py.

    python tests/view/record.py > tests/data/docker_view.txt

As root, with dockerd and the docker command installed (Debian: docker.io).
The daemon is this program's own, in a network namespace of its own, with its
files in a temporary directory, and ends with it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import build_rootfs, dump, parse

VIEWS: dict[str, tuple[str, ...]] = {
    "default": (),
    "terminal": ("--tty",),
    "user": ("--user", "1000"),
    "hardened": ("--read-only", "--cap-drop=ALL", "--cap-add=KILL", "--security-opt=no-new-privileges"),
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="view-") as name:
        top = Path(name)
        build_rootfs(top / "rootfs")
        daemon = subprocess.Popen(
            [
                *("unshare", "--net", "dockerd", f"--host=unix://{top}/socket", f"--data-root={top}/data"),
                *(f"--exec-root={top}/exec", f"--pidfile={top}/pid"),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(300):
                if not subprocess.run(_docker(top, "version"), capture_output=True).returncode:
                    break
                time.sleep(0.1)
            record(top, daemon.pid)
        finally:
            daemon.terminate()
            daemon.wait()


def record(top: Path, daemon: int) -> None:
    version = _output(top, "version", "--format", "{{.Server.Version}}")
    print(f"# What a container of Docker {version} sees on Linux with cgroup v1: see tests/view/record.py,")
    print("# busybox without network, with the options that stand there for each view.")
    archive = subprocess.Popen(["tar", "-C", top / "rootfs", "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(_docker(top, "import", "-", "view"), stdin=archive.stdout, check=True, capture_output=True)
    limits = Path(f"/proc/{daemon}/limits").read_text(encoding="ascii")
    views = {}
    for view, options in VIEWS.items():
        text = _output(top, "run", "--cidfile", f"{top}/{view}", "--network=none", *options, "view", "/view")
        views[view] = parse(text, container_id=(top / view).read_text(), limits=limits)
    for line in dump(views):
        print(line)


def _docker(top: Path, *arguments: str) -> list[str]:
    return ["docker", "--host", f"unix://{top}/socket", *arguments]


def _output(top: Path, *arguments: str) -> str:
    return subprocess.run(
        _docker(top, *arguments), check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
