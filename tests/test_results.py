# SPDX-License-Identifier: Apache-2.0
"""
The values that calls give back.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import attrs
import pytest

import containerlib.types
from containerlib.types import Completed, Feature, HostInfo, LogLine, Mount, ProcessInfo, Stats

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOST = HostInfo(
    version="1",
    root="/var/lib/<x>",
    run_root="/run/x",
    rootless=True,
    id_mapping="single",
    cgroup_layout="hybrid",
    storage_driver="overlay",
    network_modes=("none", "host"),
    seccomp=True,
    kernel="6.1",
    features=[
        Feature(
            name="limits", available=False, reason="no cgroup is delegated", remedy="use systemd-run --user"
        ),
        Feature(name="overlay", available=True),
    ],
)


def test_completed() -> None:
    """
    A long output is shortened in the repr, not in the value.
    """
    completed = Completed(args=("x",), exit_code=0, stdout="a" * 10_000, stderr="")

    assert len(repr(completed)) < 1000
    assert 10_000 == len(completed.stdout)


def test_log_line() -> None:
    """
    A line is bytes, and text where it is shown.
    """
    line = LogLine(stream="stdout", time=NOW, data=b"caf\xc3\xa9 \xff")

    assert "café �" == line.text == str(line)


def test_process() -> None:
    """
    A process prints as a line of ps.
    """
    process = ProcessInfo(
        pid=7, ppid=1, uid=0, user="root", command="sh", args=("sh", "-c", "x"), cpu_time=3725.9
    )

    assert "root           7       1 01:02:05 sh -c x" == str(process)
    assert str(attrs.evolve(process, args=())).endswith("[sh]")


def test_stats() -> None:
    """
    The share of the processors is counted between two samples.
    """
    first = Stats(time=NOW, cpu_total=1.0, memory=100, memory_cache=40, memory_limit=600)
    second = Stats(time=NOW + timedelta(seconds=2), cpu_total=4.0)

    assert (None, 150.0) == (first.cpu_percent, second.since(first).cpu_percent)
    assert None is second.since(second).cpu_percent
    assert (60, 10.0) == (first.memory_used, first.memory_percent)
    assert (None, None) == (second.memory_used, second.memory_percent)


def test_host() -> None:
    """
    What the host lacks is shown with the reason and the remedy.
    """
    assert "  limits   no   (no cgroup is delegated)\n" in str(HOST)
    assert "use systemd-run --user" in str(HOST)
    assert "runs as:" in str(HOST)
    assert HOST.feature("overlay")
    assert not HOST.feature("limits")
    with pytest.raises(KeyError):
        HOST.feature("flight")


def test_host_in_a_notebook() -> None:
    """
    The table escapes what it shows.
    """
    assert "/var/lib/&lt;x&gt;" in HOST._repr_html_()
    assert HOST._repr_html_().count("<tr>") == 12


@pytest.mark.parametrize(
    "value", [HOST, Mount(source="/a", target="/b"), Stats(time=NOW)], ids=lambda value: type(value).__name__
)
def test_values_are_frozen_and_travel(value: object) -> None:
    """
    A value cannot be changed; it can be hashed, copied and pickled.
    """
    assert value == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
    assert hash(value) == hash(copy.copy(value))
    name = attrs.fields(type(value))[0].name  # type: ignore[arg-type]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize("name", containerlib.types.__all__)
def test_lazy_names(name: str) -> None:
    """
    Each name that the package lists can be had from it.
    """
    assert getattr(containerlib.types, name)
    assert name in dir(containerlib.types)


def test_unknown_names() -> None:
    """
    A name that the package does not have is an AttributeError.
    """
    with pytest.raises(AttributeError, match="Nothing"):
        containerlib.types.Nothing  # noqa: B018


def test_importing_the_package_loads_nothing() -> None:
    """
    No module is loaded before one of its names is used.
    """
    program = """
import sys
import containerlib.types
print([name for name in sys.modules if name.startswith("containerlib.types.") or name == "attr"])
"""

    assert (
        "[]\n"
        == subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    )
