# SPDX-License-Identifier: Apache-2.0
"""
Everything that checks the project; `nox -l` lists the sessions.

What a session needs from Debian is installed by `.ci/test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.5"
nox.options.error_on_external_run = True
nox.options.default_venv_backend = "virtualenv"
# The suite comes last: its closing lines are those that are read.
nox.options.sessions = ["lint", "typing", "docs", "sanitize", "cgroup2", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
# One module's tests stay in one worker: those that watch the whole machine would see each other's.
PARALLEL = ("-n", "2", "--dist", "loadfile")


def group(name: str) -> tuple[str, ...]:
    """
    The requirements of a dependency group of pyproject.toml.
    """
    return nox.project.dependency_groups(PROJECT, name)


def build_wheel(session: nox.Session) -> str:
    """
    Build the wheel that users would get, and return its path.
    """
    directory = Path(session.create_tmp()) / "wheel"
    shutil.rmtree(directory, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), ".")
    [wheel] = directory.glob("containerlib-*.whl")
    return str(wheel)


def debian(session: nox.Session) -> dict[str, str]:
    """
    Make a Debian for the tests of a real distribution, once for all sessions; return their environment.
    """
    directory = Path(session.cache_dir) / "debian"
    if not list(directory.glob("*.tar")) and shutil.which("mmdebstrap"):
        directory.mkdir(exist_ok=True)
        mode = "root" if os.geteuid() == 0 else "unshare"
        partial = directory / "partial"
        command = ("mmdebstrap", "--quiet", f"--mode={mode}", "--variant=minbase", "--format=tar", "bookworm")
        try:
            # nox's own temporary directory is closed to the other ids that mmdebstrap works with.
            session.run(*command, str(partial), env={"TMPDIR": "/var/tmp"}, external=True)
            partial.rename(directory / "bookworm.tar")
        except CommandFailed:
            session.warn("no Debian can be made here: its tests are skipped")
    return {"CONTAINERLIB_TEST_DEBIAN": str(directory.resolve())} if list(directory.glob("*.tar")) else {}


@nox.session
def tests(session: nox.Session) -> None:
    """
    Run the suite from the built wheel: as root, as a user, as a user with a single id.
    """
    wheel = build_wheel(session)
    session.install(wheel, "virtualenv", *group("tests"))
    session.run(
        "python", "tests/lanes.py", "--wheel", wheel, *PARALLEL, *session.posargs, env=debian(session)
    )


@nox.session
def lint(session: nox.Session) -> None:
    """
    Check the style of Python and C.
    """
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    sources = sorted(str(path) for top in ("src", "tests") for path in Path(top).rglob("*.[ch]"))
    session.run("clang-format", "--dry-run", "-Werror", *sources)


@nox.session
def typing(session: nox.Session) -> None:
    """
    Check the types, and that users' programs get them.
    """
    session.install(*PROJECT["project"]["dependencies"], *group("typing"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """
    Build the documentation with every warning an error; its examples run in the suite.
    """
    session.install(".", *group("docs"))
    session.run("sphinx-build", "-n", "-W", "-T", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def sanitize(session: nox.Session) -> None:
    """
    Run the suite with the C built under ASan and UBSan, and the fuzzer for longer.
    """
    reports = Path(session.create_tmp()).resolve() / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    session.install(
        "-Ccmake.define.CONTAINERLIB_SANITIZE=ON",
        f"-Ccmake.define.CONTAINERLIB_SANITIZE_REPORTS={reports}/helper",
        # Apart from the plain build, whose objects would be taken for current.
        "-Cbuild-dir=build/sanitize",
        # pip would take a plain wheel that it built before for the same thing.
        "--no-cache-dir",
        ".",
        *group("tests"),
    )
    runtime = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    environment = {
        # Python itself is not built with it, so the runtime must be loaded first.
        "LD_PRELOAD": os.path.realpath(runtime),
        # pytest swallows standard error: reports go to files.
        # Leaks: CPython's own at exit are not ours to report.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={reports}/python",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "CONTAINERLIB_TEST_LANE": "root" if os.geteuid() == 0 else "user",
        "CONTAINERLIB_TEST_SANITIZE": "1",
        "CONTAINERLIB_FUZZ_SECONDS": "20",
        **debian(session),
    }
    # A short path: tests bind sockets, and the name of one has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="san-", dir="/var/tmp") as directory:
        environment["TMPDIR"] = directory
        session.run("python", "-m", "pytest", *PARALLEL, *session.posargs, env=environment)
    found = sorted(reports.iterdir())
    for report in found:
        session.log(report.read_text(errors="replace"))
    if found:
        session.error(f"{len(found)} reports of the sanitizers")


@nox.session
def cgroup2(session: nox.Session) -> None:
    """
    Run the tests of limits on a kernel that has cgroup v2 alone.
    """
    session.install(".", *group("tests"))
    session.run("python", "tests/cgroup2/run.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """
    Measure start, exec and import beside the other runtimes that are installed.
    """
    session.install(".", *group("bench"))
    session.run("python", "benchmarks/start.py", *session.posargs)
