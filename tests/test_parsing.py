# SPDX-License-Identifier: Apache-2.0
"""
Options as users write them: what each parser takes, and how it refuses.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidOption
from containerlib.types import (
    BlkioConfig,
    Device,
    Healthcheck,
    LogConfig,
    Mount,
    Resources,
    RestartPolicy,
    Ulimit,
)
from containerlib.types import parsing as p
from containerlib.types.mounts import TMPFS_FLAGS
from containerlib.types.security import sysctl_path

#: 15 and "15" are two cases.
cases = functools.partial(pytest.mark.parametrize, ids=repr)


def _refuses(parse: Callable[[Any], object], option: str, value: object) -> str:
    """
    The message of the InvalidOption, which names the option and is a ValueError.
    """
    with pytest.raises(InvalidOption) as caught:
        parse(value)
    assert isinstance(caught.value, ValueError)
    assert option in str(caught.value)
    assert "expected" in str(caught.value)
    return str(caught.value)


# ---- quantities -----------------------------------------------------------


@cases(
    ("value", "expected"),
    [
        (0, 0),
        (512, 512),
        ("32", 32),
        ("32b", 32),
        ("32B", 32),
        ("32k", 32 << 10),
        ("32K", 32 << 10),
        ("32kb", 32 << 10),
        ("32KiB", 32 << 10),
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("1.5 g", 3 << 29),
        ("2t", 2 << 40),
        ("3P", 3 << 50),
        ("1.", 1),
    ],
)
def test_bytes(value: int | str, expected: int) -> None:
    """
    Sizes are read as docker's go-units reads them: powers of 1024.
    """
    assert expected == p.parse_bytes(value)


@cases(
    "value", ["", "hello", "-32", " 32", "32 ", "32  k", "1e3", "32e", "32ib", "٣m", -1, "9999999p", 2**63]
)
def test_bytes_refused(value: int | str) -> None:
    """
    What is no size is refused with the value in the message.
    """
    assert repr(value) in _refuses(lambda item: p.parse_bytes(item, option="mem_limit"), "mem_limit", value)


@cases("value", [1.5, True, None, b"1m", [1]])
def test_bytes_of_another_type(value: Any) -> None:
    """
    A size of a type that cannot mean one is a TypeError.
    """
    with pytest.raises(TypeError, match="mem_limit"):
        p.parse_bytes(value, option="mem_limit")


def test_unlimited_bytes() -> None:
    """
    -1 is a size only where it means no limit.
    """
    assert -1 == p.parse_bytes("-1", unlimited=True) == p.parse_bytes(-1, unlimited=True)


@given(st.integers(0, 2**63 - 1))
def test_bytes_round_trip(number: int) -> None:
    """
    Every number of bytes is read back from its text exactly.
    """
    assert number == p.parse_bytes(str(number)) == p.parse_bytes(f"{number}b") == p.parse_bytes(number)


@cases(
    ("value", "expected"),
    [
        (0, 0),
        (1.5, 1.5),
        ("10", 10),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("1h", 3600),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("100us", 1e-4),
        ("100µs", 1e-4),
        ("2h45m", 9900),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations(value: Any, expected: float) -> None:
    """
    Durations are seconds, timedeltas or Go's form.
    """
    assert pytest.approx(expected) == p.parse_duration(value)


@cases(
    "value",
    ["", "s", "1x", "1 s", "-1s", "1s ", "1s2", -1, float("nan"), float("inf"), 10**400, timedelta(-1)],
)
def test_durations_refused(value: Any) -> None:
    """
    What is no duration is refused by name.
    """
    _refuses(lambda item: p.parse_duration(item, option="stop_grace_period"), "stop_grace_period", value)


@cases(
    ("value", "expected"),
    [
        (15, 15),
        ("15", 15),
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        (signal.SIGHUP, 1),
        ("64", 64),
    ],
)
def test_signals(value: int | str, expected: int) -> None:
    """
    A signal is a number or a name with or without SIG.
    """
    assert expected == p.parse_signal(value)


@cases("value", [0, 65, -1, "0", "", "SIG", "SIGFOO", "RTMIN+31", "RTMAX-99", "RTMIN+", "-9", "９"])
def test_signals_refused(value: int | str) -> None:
    """
    What this kernel has no signal for is refused by name.
    """
    _refuses(lambda item: p.parse_signal(item, option="stop_signal"), "stop_signal", value)


@cases("number", range(1, 65))
def test_signal_names_round_trip(number: int) -> None:
    """
    Each signal's name is read as the same signal, and is Python's name for it.
    """
    name = p.signal_name(number)

    assert number == p.parse_signal(name)
    if number in iter(signal.Signals) and number not in (32, 33, 34, 64):
        assert number == getattr(signal, name)


# ---- users ----------------------------------------------------------------


@cases(
    ("value", "expected"),
    [
        ("", ""),
        ("1", "1"),
        (1, "1"),
        (0, "0"),
        ("1:", "1"),
        ("1:2", "1:2"),
        (":2", "0:2"),
        ("name", "name"),
        ("name:grp", "name:grp"),
        ("name:7", "name:7"),
        ("007", "7"),
        ("0", "0"),
        ("000", "0"),
        ("1000x", "1000x"),
        ("systemd-network", "systemd-network"),
        ("machine$", "machine$"),
        ("4294967294", "4294967294"),
    ],
)
def test_users(value: str | int, expected: str) -> None:
    """
    Each user string has one meaning, and digits are never a name.
    """
    assert expected == p.parse_user(value)


@cases(
    "value",
    [
        "4294967295",
        "4294967296",
        "1:4294967296",
        "99999999999999999999",
        "-1",
        "+1",
        "1:-1",
        "-u",
        ":",
        "a:b:c",
        "a b",
        "a/b",
        "a\x00",
        "a\n0:0",
        "a,b",
        " 1",
        "1 ",
        4294967295,
        -1,
        "0" * 20 + "4294967296",
    ],
)
def test_users_refused(value: str | int) -> None:
    """
    Numbers that would wrap around to another user, and what no passwd file can
    hold, are refused.
    """
    _refuses(p.parse_user, "user", value)


@cases("value", [True, 1.0, None, b"root", ("1", "2")])
def test_users_of_another_type(value: Any) -> None:
    """
    A user is text or an integer.
    """
    with pytest.raises(TypeError, match="user"):
        p.parse_user(value)


@given(st.text(max_size=30))
def test_users_are_settled(text: str) -> None:
    """
    What the parser gives back it reads as the same, and numbers are in range.
    """
    try:
        user = p.parse_user(text)
    except InvalidOption:
        return
    assert user == p.parse_user(user)
    for part in filter(None, user.split(":")):
        assert not part.isascii() or not part.isdigit() or (int(part) < 2**32 - 1 and str(int(part)) == part)


def test_groups() -> None:
    """
    Additional groups are names and numbers, each once.
    """
    assert ("audio", "44", "7") == p.parse_groups(["audio", 44, "007", "audio"])
    _refuses(p.parse_groups, "group_add", ["a:b"])
    _refuses(p.parse_groups, "group_add", [2**32])


# ---- mounts ---------------------------------------------------------------


@cases(
    ("value", "expected"),
    [
        ("/a:/b", Mount(source="/a", target="/b")),
        ("/a:/b:ro", Mount(source="/a", target="/b", read_only=True)),
        ("/a:/b:rw,z", Mount(source="/a", target="/b", options=("z",))),
        (
            "/a:/b:ro,rslave,Z",
            Mount(source="/a", target="/b", read_only=True, propagation="rslave", options=("Z",)),
        ),
        ("/a:/b:noexec,nodev", Mount(source="/a", target="/b", options=("noexec", "nodev"))),
        ("/a:/b:cached", Mount(source="/a", target="/b")),
        ("/a:/b:bind-recursive=disabled", Mount(source="/a", target="/b", recursive=False)),
        ("/a:/b/../c//d/.", Mount(source="/a", target="/c/d")),
        ("data:/b", Mount(type="volume", source="data", target="/b")),
        ("data:/b:nocopy", Mount(type="volume", source="data", target="/b", nocopy=True)),
        ("/b", Mount(type="volume", target="/b")),
        ("/lxcfs:/proc/meminfo", Mount(source="/lxcfs", target="/proc/meminfo")),
    ],
)
def test_volume_strings(value: str, expected: Mount) -> None:
    """
    Docker's -v strings give the mounts that docker makes of them.
    """
    assert expected == p.parse_volume(value)


def test_relative_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A source that starts with a dot, and every path object, is a host path.
    """
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "x") == p.parse_volume("./x:/b").source
    assert str(tmp_path / "x") == p.parse_volumes({Path("x"): "/b"})[0].source


@cases(
    "value",
    [
        "",
        ":",
        "a",
        "a:b",
        "/a:b",
        "/a:/b:",
        "/a:/b:ro:x",
        "/a:/b:ro,rw",
        "/a:/b:shared,private",
        "/a:/b:nocopy",
        "data:/b:rshared",
        "/a:/b:exec",
        "/a:/",
        "/a:/x/..",
        "/a:/proc",
        "/a:/proc/1",
        "/a:/x/../proc",
        "a b:/x",
        "x:/y",
        "a\x00b:/x",
        "/a\x00:/x",
        "/a:/x\x00",
    ],
)
def test_volume_strings_refused(value: str) -> None:
    """
    What names no mount, or one that would cover /proc or the root, is refused.
    """
    _refuses(lambda item: p.parse_volumes([item]), "volumes", value)


def test_volume_forms() -> None:
    """
    Dictionaries, Compose's long form and values give the same mounts.
    """
    expected = (Mount(source="/a", target="/in", read_only=True),)

    assert expected == p.parse_volumes({"/a": ("/in", "ro")})
    assert expected == p.parse_volumes({Path("/a"): (Path("/in"), "ro")})  # type: ignore[dict-item]
    assert expected == p.parse_volumes({"/a": {"bind": "/in", "mode": "ro"}})
    assert expected == p.parse_volumes([{"type": "bind", "source": "/a", "target": "/in", "read_only": True}])
    assert expected == p.parse_volumes(expected)


def test_long_form() -> None:
    """
    Compose's long form carries what strings cannot say.
    """
    mounts = p.parse_volumes(
        [
            {
                "type": "volume",
                "source": "data",
                "target": "/d",
                "volume": {"nocopy": True, "subpath": "a/b"},
            },
            {
                "type": "bind",
                "source": "/s",
                "target": "/b",
                "bind": {"propagation": "shared", "create_host_path": True},
            },
            {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": 0o700}},
        ]
    )

    assert (
        Mount(type="volume", source="data", target="/d", nocopy=True, subpath="a/b"),
        Mount(source="/s", target="/b", propagation="shared", create_source=True),
        Mount(type="tmpfs", target="/t", options=TMPFS_FLAGS, tmpfs_size=1 << 20, tmpfs_mode=0o700),
    ) == mounts


@cases(
    "value",
    [
        {"type": "bind", "source": "data", "target": "/b"},
        {"type": "bind", "target": "/b"},
        {"type": "volume", "source": "/a", "target": "/b"},
        {"type": "npipe", "target": "/b"},
        {"type": "bind", "source": "/a"},
        {"type": "bind", "source": "/a", "target": "/b", "bind": {"propagation": "loud"}},
        {"type": "bind", "source": "/a", "target": "/b", "volume": {"nocopy": True}},
        {"type": "volume", "source": "aa", "target": "/b", "volume": {"subpath": "../x"}},
        {"type": "tmpfs", "target": "/b", "tmpfs": {"mode": 0o10000}},
        {"type": "bind", "source": "/a", "target": "/b", "colour": "red"},
    ],
)
def test_long_form_refused(value: dict[str, Any]) -> None:
    """
    A long form that does not fit together is refused.
    """
    _refuses(lambda item: p.parse_volumes([item]), "volumes", value)


def test_tmpfs() -> None:
    """
    A tmpfs has Docker's flags unless its options take them away.
    """
    plain = Mount(type="tmpfs", target="/run", options=TMPFS_FLAGS)
    sized = Mount(
        type="tmpfs",
        target="/run",
        options=("nosuid", "nodev", "uid=5", "exec"),
        tmpfs_size=64 << 20,
        tmpfs_mode=0o1777,
        read_only=True,
    )

    assert (plain,) == p.parse_tmpfs("/run") == p.parse_tmpfs(["/run"]) == p.parse_tmpfs({"/run": ""})
    assert (sized,) == p.parse_tmpfs("/run:size=64m,mode=1777,uid=5,exec,ro")
    assert (sized,) == p.parse_tmpfs({"/run": "size=64m,mode=1777,uid=5,exec,ro"})
    assert "size=50%" in p.parse_tmpfs("/run:size=50%")[0].options


@cases(
    "value",
    [
        "run",
        "/run:size=x",
        "/run:mode=9",
        "/run:size=101%",
        "/run:suid=1",
        "/",
        "/proc",
        "/run:x=1",
        "/r:uid=-1",
    ],
)
def test_tmpfs_refused(value: str) -> None:
    """
    Options that a tmpfs does not have are refused, whatever their form.
    """
    _refuses(p.parse_tmpfs, "tmpfs", value)
    target, _, options = value.partition(":")
    _refuses(p.parse_tmpfs, "tmpfs", {target: options})


def test_mount_values_are_checked() -> None:
    """
    A Mount that exists can be used.
    """
    for bad in (
        {"source": "relative", "target": "/a"},
        {"source": "/a", "target": "b"},
        {"type": "tmpfs", "source": "/a", "target": "/b"},
        {"type": "volume", "target": "/b", "propagation": "shared"},
        {"type": "cake", "target": "/b"},
        {"source": "/a", "target": "/b", "options": ("exec",)},
        {"type": "volume", "source": "a", "target": "/b", "subpath": "/abs"},
    ):
        with pytest.raises(InvalidOption):
            Mount(**bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Mount(source=3, target="/b")  # type: ignore[arg-type]


# ---- devices, limits ------------------------------------------------------


@cases(
    ("value", "expected"),
    [
        ("/dev/fuse", Device(source="/dev/fuse")),
        ("/dev/x:/dev/y", Device(source="/dev/x", target="/dev/y")),
        ("/dev/x:rw", Device(source="/dev/x", permissions="rw")),
        ("/dev/x:/dev/y:r", Device(source="/dev/x", target="/dev/y", permissions="r")),
        (Path("/dev/fuse"), Device(source="/dev/fuse", target="/dev/fuse")),
    ],
)
def test_devices(value: Any, expected: Device) -> None:
    """
    Devices are written as docker's --device takes them.
    """
    assert (expected,) == p.parse_devices([value])


@cases("value", ["", "fuse", "/dev/x:", "/dev/x:/dev/y:", "/dev/x:/dev/y:z", "/dev/x:/y:r:w", "/dev/x:rx"])
def test_devices_refused(value: str) -> None:
    """
    What names no device is refused.
    """
    _refuses(p.parse_devices, "devices", [value])


def test_ulimits() -> None:
    """
    Limits come as strings, dictionaries and values; the last of a name wins.
    """
    nofile = Ulimit(name="nofile", soft=1024, hard=2048)

    for value in (
        ["nofile=1024:2048"],
        ["nofile=5", "nofile=1024:2048"],
        {"nofile": {"soft": 1024, "hard": 2048}},
        {"nofile": (1024, 2048)},
        {"nofile": "1024:2048"},
        [nofile],
    ):
        assert (nofile,) == p.parse_ulimits(value)  # type: ignore[arg-type]
    assert (Ulimit(name="core", soft=-1, hard=-1),) == p.parse_ulimits(["core=unlimited"])
    assert (Ulimit(name="core", soft=0, hard=0),) == p.parse_ulimits({"core": 0})


@cases(
    "value",
    [
        "nofile",
        "nofile=",
        "nofile=1:",
        "nofile=2:1",
        "nofile=-1:5",
        "nofile=-2",
        "files=1",
        "nofile=a",
        "core=1:2:3",
    ],
)
def test_ulimits_refused(value: str) -> None:
    """
    Unknown limits, and soft ones above the hard one, are refused.
    """
    _refuses(p.parse_ulimits, "ulimits", [value])


def test_resources() -> None:
    """
    Limits are read from their options, 0 takes one away, None leaves it.
    """
    resources = p.parse_resources(
        {
            "mem_limit": "512m",
            "memswap_limit": "1g",
            "cpus": "1.5",
            "cpuset": [0, 1],
            "pids_limit": 100,
            "tty": True,
        }
    )

    assert (
        Resources(mem_limit=512 << 20, memswap_limit=1 << 30, cpus=1.5, cpuset="0,1", pids_limit=100)
        == resources
    )
    changed = p.parse_resources({"cpus": 0, "pids_limit": -1, "cpuset": "", "mem_limit": None}, resources)
    assert Resources(mem_limit=512 << 20, memswap_limit=1 << 30) == changed


@cases(
    ("option", "options"),
    [
        ("mem_limit", {"mem_limit": "1m"}),
        ("mem_limit", {"mem_limit": "lots"}),
        ("memswap_limit", {"memswap_limit": "1g"}),
        ("memswap_limit", {"mem_limit": "1g", "memswap_limit": "512m"}),
        ("mem_reservation", {"mem_limit": "512m", "mem_reservation": "1g"}),
        ("cpus", {"cpus": -1}),
        ("cpus", {"cpus": 0.001}),
        ("cpus", {"cpus": "many"}),
        ("cpus", {"cpus": float("nan")}),
        ("cpus", {"cpus": 10**400}),
        ("cpu_shares", {"cpu_shares": 1}),
        ("cpu_shares", {"cpu_shares": 2**20}),
        ("cpuset", {"cpuset": "3-1"}),
        ("cpuset", {"cpuset": "0,"}),
        ("cpuset", {"cpuset": "99999"}),
        ("pids_limit", {"pids_limit": -2}),
        ("oom_kill_disable", {"oom_kill_disable": True}),
        ("blkio_config", {"blkio_config": {"weight": 5}}),
    ],
)
def test_resources_refused(option: str, options: dict[str, Any]) -> None:
    """
    Each limit that cannot be is refused under its own name.
    """
    _refuses(p.parse_resources, option, options)


def test_blkio() -> None:
    """
    Block I/O limits are read from Compose's form.
    """
    config = p.parse_blkio(
        {
            "weight": 300,
            "weight_device": [{"path": "/dev/sda", "weight": 400}],
            "device_read_bps": [{"path": "/dev/sda", "rate": "12mb"}],
            "device_write_iops": [{"path": "/dev/sda", "rate": 30}],
        }
    )

    assert (
        BlkioConfig(
            weight=300,
            weight_device=(("/dev/sda", 400),),
            device_read_bps=(("/dev/sda", 12 << 20),),
            device_write_iops=(("/dev/sda", 30),),
        )
        == config
    )
    for bad in (
        {"rate": 1},
        {"device_read_bps": [{"path": "/dev/a"}]},
        {"device_read_bps": [{"path": "a", "rate": 1}]},
    ):
        _refuses(p.parse_blkio, "blkio_config", bad)


# ---- policies -------------------------------------------------------------


@cases(
    ("value", "expected"),
    [
        ("no", RestartPolicy()),
        ("", RestartPolicy()),
        ("always", RestartPolicy(name="always")),
        ("on-failure", RestartPolicy(name="on-failure")),
        ("on-failure:3", RestartPolicy(name="on-failure", maximum=3)),
        ("unless-stopped", RestartPolicy(name="unless-stopped")),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, RestartPolicy(name="on-failure", maximum=3)),
    ],
)
def test_restart(value: Any, expected: RestartPolicy) -> None:
    """
    Restart policies are Docker's, and print as they are written.
    """
    assert expected == p.parse_restart(value)
    assert expected == RestartPolicy.parse(str(expected))


@cases("value", ["never", "always:3", "on-failure:", "on-failure:x", "on-failure:-1", {"Name": "often"}])
def test_restart_refused(value: Any) -> None:
    """
    Other policies are refused.
    """
    _refuses(p.parse_restart, "restart", value)


def test_healthcheck() -> None:
    """
    A check is merged with the image's; a line runs in the image's shell.
    """
    image = {"Test": ["CMD", "probe"], "Interval": 5_000_000_000, "Timeout": 0, "Retries": 2}

    assert Healthcheck(test=("CMD", "probe"), interval=5, retries=2) == p.parse_healthcheck(None, image)
    assert Healthcheck(test=("CMD", "probe"), interval=5, retries=7) == p.parse_healthcheck(
        {"retries": 7}, image
    )
    assert Healthcheck(test=("CMD-SHELL", "x y"), timeout=90) == p.parse_healthcheck(
        {"test": "x y", "timeout": "1m30s"}
    )
    shell = p.parse_healthcheck({"test": "x y"}, shell=("/bin/ash", "-ec"))
    assert ("CMD", "/bin/ash", "-ec", "x y") == (shell and shell.test)
    assert ("/bin/ash", "-ec", "x y") == (shell and shell.argv)
    for off in ({"disable": True}, {"test": ["NONE"]}):
        assert None is p.parse_healthcheck(off, image)
    assert None is p.parse_healthcheck(None, None)


@cases(
    "value",
    [
        {},
        {"interval": "1s"},
        {"test": []},
        {"test": ["RUN", "x"]},
        {"test": ["CMD"]},
        {"test": "x", "interval": "never"},
        {"test": "x", "retries": 0},
        {"test": "x", "interval": 0},
        {"test": "x", "period": 1},
        {"test": ["NONE", "x"]},
    ],
)
def test_healthcheck_refused(value: Any) -> None:
    """
    A check without a test, or with a bad time, is refused.
    """
    _refuses(p.parse_healthcheck, "healthcheck", value)


def test_logging() -> None:
    """
    Log rotation is Compose's logging section.
    """
    value = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}

    assert LogConfig(max_size=10 << 20, max_files=3) == p.parse_logging(value)
    for bad in ({"driver": "syslog"}, {"options": {"tag": "x"}}, {"options": {"max-file": 0}}):
        _refuses(p.parse_logging, "logging", bad)


# ---- names and texts ------------------------------------------------------


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    None, and a name alone, take the caller's value; where it has none, the
    image's is to go.
    """
    monkeypatch.setenv("CALLER", "1")
    monkeypatch.delenv("MISSING", raising=False)

    assert {"A": "1", "B": "2", "C": "/x", "CALLER": "1", "MISSING": None} == p.parse_environment(
        {"A": "1", "B": 2, "C": Path("/x"), "CALLER": None, "MISSING": None}
    )
    assert {"A": "b=c", "E": "", "CALLER": "1", "MISSING": None} == p.parse_environment(
        ["A=b=c", "E=", "CALLER", "MISSING"]
    )


@cases("value", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0"}, ["=x"], ["A=x\0"]])
def test_environment_refused(value: Any) -> None:
    """
    Names that no environment can hold are refused.
    """
    _refuses(p.parse_environment, "environment", value)


@cases("value", ["A=1", b"A=1", 3, [1], {1: "x"}, {"A": True}, {"A": ["x"]}])
def test_environment_of_another_type(value: Any) -> None:
    """
    A lone string is no list, and True is no text.
    """
    with pytest.raises(TypeError, match="environment"):
        p.parse_environment(value)


@cases(
    "value",
    [{"A": "s3cr3t\0"}, ["=s3cr3t"], ["A=s3cr3t\0"], "A=s3cr3t", {"A": ["s3cr3t"]}, [("A", "s3cr3t")]],
)
def test_errors_about_variables_keep_their_values(value: Any) -> None:
    """
    An error about the environment never shows a value, which may be a secret.
    """
    with pytest.raises((InvalidOption, TypeError)) as caught:
        p.parse_environment(value)

    assert "s3cr3t" not in str(caught.value)


def test_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Files are read as docker reads them: nothing is unquoted or trimmed.
    """
    monkeypatch.setenv("CALLER", "1")
    monkeypatch.delenv("MISSING", raising=False)
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b'\xef\xbb\xbf# comment\n\n  A=1 # kept \nB="x"\r\nCALLER\nMISSING\nC=\n')
    second.write_text("A=2")

    assert {"A": "1 # kept ", "B": '"x"', "CALLER": "1", "C": ""} == p.parse_env_file(first)
    assert "2" == p.parse_env_file([first, str(second)])["A"]


@cases("data", [b"A B=1", b"=1", b"A=\xff", b"A=\0"])
def test_env_file_refused(tmp_path: Path, data: bytes) -> None:
    """
    A bad line is refused with its file, and so is a file that is not there.
    """
    (tmp_path / "env").write_bytes(data)

    assert str(tmp_path / "env") in _refuses(p.parse_env_file, "env_file", tmp_path / "env")
    _refuses(p.parse_env_file, "env_file", tmp_path / "missing")


def test_labels() -> None:
    """
    Labels are a dictionary or a list, values may be left out.
    """
    expected = {"a": "b", "c": "", "d": "1"}

    assert expected == p.parse_labels({"a": "b", "c": None, "d": 1}) == p.parse_labels(["a=b", "c", "d=1"])
    _refuses(p.parse_labels, "labels", ["=x"])


def test_extra_hosts() -> None:
    """
    Hosts are names with IPv4 or IPv6 addresses.
    """
    assert (("a", "10.0.0.1"), ("b", "::1")) == p.parse_extra_hosts({"a": "10.0.0.1", "b": ["::1"]})
    assert (("a", "10.0.0.1"), ("b", "::1")) == p.parse_extra_hosts(["a:10.0.0.1", "b:[::1]"])
    assert (("a", "::1"), ("g", "host-gateway")) == p.parse_extra_hosts(["a=::1", "g:host-gateway"])
    for bad in ("a", "a:", ":10.0.0.1", "a:10.0.0", "a b:10.0.0.1", "a:10.0.0.1\n127.0.0.1 b"):
        _refuses(p.parse_extra_hosts, "extra_hosts", [bad])


def test_dns() -> None:
    """
    Name servers are addresses, search domains names, options words; none can
    add a line to resolv.conf.
    """
    assert ("10.0.0.1", "::1") == p.parse_dns(["10.0.0.1", "::1"])
    assert ("example.org",) == p.parse_dns_search("example.org")
    assert ("ndots:2", "rotate") == p.parse_dns_opt(["ndots:2", "rotate"])
    _refuses(p.parse_dns, "dns", "ns.example.org")
    _refuses(p.parse_dns_search, "dns_search", "a\nnameserver 1.2.3.4")
    _refuses(p.parse_dns_opt, "dns_opt", "ndots 2")


@cases("value", ["web", "web-1", "a.b_c", "/web", "A1", "x" * 128])
def test_names(value: str) -> None:
    """
    Names are Docker's; its leading slash is dropped.
    """
    assert value.removeprefix("/") == p.parse_name(value)


@cases("value", ["", "a", "-a", ".hidden", "a/b", "a b", "web\n", "wéb", "x" * 129, "//ab", "../x"])
def test_names_refused(value: str) -> None:
    """
    A name is safe as the name of a file.
    """
    _refuses(p.parse_name, "name", value)


@cases("value", ["", "-a", "a-", "a b", "x" * 65, "a\n", "a/b", "é"])
def test_hostnames_refused(value: str) -> None:
    """
    Host names are what the kernel and /etc/hosts can hold.
    """
    _refuses(p.parse_hostname, "hostname", value)


def test_commands() -> None:
    """
    A list stays as it is, a line is split as a shell would, without expansion.
    """
    assert ("a", "b c") == p.parse_command(["a", "b c"]) == p.parse_command("a 'b c'")
    assert (
        ("/bin/x", "$HOME")
        == p.parse_command([Path("/bin/x"), "$HOME"])
        == p.parse_command(" /bin/x\t$HOME\n")
    )
    assert () == p.parse_command("") == p.parse_command([])
    _refuses(p.parse_command, "command", "it's")
    _refuses(p.parse_command, "command", ["a\0"])
    for bad in (b"ls", 3, ["a", 1], [b"a"]):
        with pytest.raises(TypeError, match="command"):
            p.parse_command(bad)  # type: ignore[arg-type]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
def test_commands_round_trip(words: list[str]) -> None:
    """
    A quoted line is split into the words that it was made of.
    """
    import shlex

    assert tuple(words) == p.parse_command(shlex.join(words)) == p.parse_command(words)


def test_platforms_and_policies() -> None:
    """
    Platforms and pull policies have their few forms.
    """
    assert "linux/arm64/v8" == p.parse_platform("linux/arm64/v8")
    assert "missing" == p.parse_pull_policy("if_not_present")
    _refuses(p.parse_platform, "platform", "linux/")
    _refuses(p.parse_pull_policy, "pull_policy", "sometimes")


@cases(
    ("value", "expected"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
        ("DEL", b"\x7f"),
        ("", b""),
        ("ctrl-a,b,c", b"\x01bc"),
    ],
)
def test_detach_keys(value: str, expected: bytes) -> None:
    """
    Detach keys are docker's grammar.
    """
    assert expected == p.parse_detach_keys(value)


@cases("value", ["ctrl-", "ctrl-A", "ctrl-1", "ab", ",", "a,", "é", "ctrl-pq"])
def test_detach_keys_refused(value: str) -> None:
    """
    Other keys are refused.
    """
    _refuses(p.parse_detach_keys, "detach_keys", value)


# ---- isolation ------------------------------------------------------------


def test_modes() -> None:
    """
    Each namespace has its own modes, and the empty one.
    """
    assert "host" == p.parse_mode("uts", "host")
    assert "" == p.parse_mode("ipc", "")
    assert "container:web" == p.parse_mode("ipc", "container:web") == p.parse_mode("pid", "container:web")
    for option, bad in [
        ("uts", "container:web"),
        ("pid", "shareable"),
        ("ipc", "container:"),
        ("ipc", "container:<name>"),
    ]:
        _refuses(lambda value, option=option: p.parse_mode(option, value), option, bad)  # type: ignore[misc]
    _refuses(lambda value: p.parse_mode("network", value), "network", "container:../x")


def test_capabilities() -> None:
    """
    Case and prefix do not matter.
    """
    assert ("CAP_NET_ADMIN", "ALL") == p.parse_capabilities("cap_add", ["net_admin", "CAP_NET_ADMIN", "all"])
    with pytest.raises(TypeError, match="cap_add"):
        p.parse_capabilities("cap_add", "ALL")
    _refuses(lambda value: p.parse_capabilities("cap_add", value), "cap_add", ["net admin"])


def test_sysctls() -> None:
    """
    Settings of the container's own namespaces are taken, in either spelling.
    """
    value = {
        "net.core.somaxconn": 1024,
        "kernel.shmmax": "1",
        "fs.mqueue.msg_max": "5",
        "net/ipv4/conf/a.b/x": "0",
    }

    assert {key: str(text) for key, text in value.items()} == p.parse_sysctls(value)
    assert {"kernel.msgmax": "1 2"} == p.parse_sysctls(["kernel.msgmax = 1 2"])


@cases(
    "key",
    [
        "kernel.core_pattern",
        "vm.swappiness",
        "kernel",
        "",
        "kernel.sem.x",
        "net",
        "net..x",
        "net/../kernel/core_pattern",
        "net./../x",
        "kernel.shmmax/../../core_pattern",
        "fs.mqueue",
        "net.a b",
        "../net",
        "/net/x",
        "kernel/sem/../core_pattern",
    ],
)
def test_sysctls_refused(key: str) -> None:
    """
    The host's own settings are refused, however they are written.
    """
    _refuses(p.parse_sysctls, "sysctls", {key: "1"})


def test_sysctl_paths() -> None:
    """
    The first separator decides what the other one means.
    """
    assert "net/ipv4/conf/a.b/forwarding" == sysctl_path("net.ipv4.conf.a/b.forwarding")
    assert "net/ipv4/conf/a.b/forwarding" == sysctl_path("net/ipv4/conf/a.b/forwarding")


def test_security_options(tmp_path: Path) -> None:
    """
    Docker's security options, with a seccomp profile from a file or as text.
    """
    profile = '{"defaultAction": "SCMP_ACT_ALLOW"}'
    (tmp_path / "p.json").write_text(profile)

    options = p.parse_security_opt(
        ["no-new-privileges", f"seccomp={tmp_path}/p.json", "apparmor=unconfined", "label=disable"]
    )
    assert options.no_new_privileges
    assert (profile, "unconfined", ("disable",)) == (options.seccomp, options.apparmor, options.label)
    assert profile == p.parse_security_opt([f"seccomp={profile}"]).seccomp
    assert options == p.parse_security_opt(options.words)
    assert not p.parse_security_opt(["no-new-privileges:false"]).no_new_privileges
    assert p.parse_security_opt(["systempaths=unconfined"]).unmask


@cases(
    "value",
    [
        "",
        "seccomp",
        "seccomp=",
        "seccomp=/no/such/file",
        'seccomp={"x":',
        "seccomp={}",
        "no-new-privileges:maybe",
        "colour=red",
        "label",
        "systempaths=confined",
        "seccomp=/dev/null",
    ],
)
def test_security_options_refused(value: str) -> None:
    """
    Unknown options and unreadable profiles are refused: isolation is never
    weakened because of a misprint.
    """
    _refuses(p.parse_security_opt, "security_opt", [value])


@cases("value", ["", "a/../b", "..", "/a//b", "a b", "a\n"])
def test_cgroup_parent_refused(value: str) -> None:
    """
    A cgroup's path does not climb.
    """
    _refuses(p.parse_cgroup_parent, "cgroup_parent", value)


# ---- anything at all ------------------------------------------------------

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.binary(max_size=4),
    st.just(object()),
)
_WORDS = st.text(alphabet="/a:b,=ro-1.m%~[]{}\0é \n", max_size=14)
_ANYTHING = st.recursive(
    st.one_of(_SCALARS, _WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(_WORDS, st.sampled_from(["test", "type", "target", "Name", "rate"]), st.integers()),
            inner,
        ),
        st.tuples(inner, inner),
    ),
    max_leaves=5,
)
_PARSERS = [
    *(
        getattr(p, name)
        for name in p.__all__
        if name.startswith("parse_")
        and name not in ("parse_mode", "parse_capabilities")
        and name not in ("parse_resources", "parse_integer", "parse_strings")
    ),
    *(
        lambda value, option=option: p.parse_mode(option, value)
        for option in ("ipc", "pid", "uts", "cgroup", "network")
    ),
    lambda value: p.parse_capabilities("cap_add", value),
    lambda value: p.parse_strings("dns", value),
    lambda value: p.parse_integer("oom_score_adj", value),
    *(
        lambda value, option=option: p.parse_resources({option: value})
        for option in (
            "mem_limit",
            "cpus",
            "cpu_shares",
            "cpuset",
            "pids_limit",
            "blkio_config",
            "oom_kill_disable",
        )
    ),
]


@given(_ANYTHING)
def test_nothing_but_named_errors(value: object) -> None:
    """
    Whatever a parser is given, it answers with a value, an InvalidOption or a
    TypeError that names an option.
    """
    for parse in _PARSERS:
        message = _message(parse, value)
        assert message is None or ": " in message, (parse, value)


def _message(parse: Callable[[Any], object], value: object) -> str | None:
    try:
        parse(value)
    except (InvalidOption, TypeError) as error:
        return str(error)
    return None
