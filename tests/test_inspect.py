# SPDX-License-Identifier: Apache-2.0
"""
A container in the shape of `docker inspect`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.types import ContainerState, HealthResult, build_config, container_document
from containerlib.types.inspect import ZERO_TIME, state_document, timestamp

ID = "0123456789ab" + "c" * 52

#: The keys that a docker of the series 20 to 28 prints, those of Windows and GPUs left out.
TOP_KEYS = """
    Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount
    Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts
    Config NetworkSettings
""".split()
STATE_KEYS = "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt".split()
CONFIG_KEYS = """
    Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd
    Image Volumes WorkingDir Entrypoint OnBuild Labels
""".split()
HOST_KEYS = """
    Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver
    VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd
    IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt
    UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight
    BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps
    BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus
    CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap
    MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps
    IOMaximumBandwidth MaskedPaths ReadonlyPaths
""".split()


def _document(
    state: ContainerState | None = None, *, image: Any = None, facts: Any = None, **options: Any
) -> dict[str, Any]:
    config = build_config(
        id=ID,
        name="web",
        image_reference="app:1",
        image_id="sha256:" + "1" * 64,
        image_config=image or {},
        command=["serve", "--now"],
        created_ns=1_700_000_000_120_000_000,
        options=options,  # type: ignore[arg-type]
    )
    document = container_document(config, state or ContainerState(), **facts or {})
    assert document == json.loads(json.dumps(document))
    return document


def test_all_keys_of_docker() -> None:
    """
    Every key that docker prints is there.
    """
    document = _document()

    assert set(TOP_KEYS) <= set(document)
    assert set(STATE_KEYS) <= set(document["State"])
    assert set(CONFIG_KEYS) <= set(document["Config"])
    assert set(HOST_KEYS) <= set(document["HostConfig"])


def test_identity() -> None:
    """
    Id, name, command and paths are Docker's.
    """
    document = _document(facts={"directory": "/d", "volume_paths": {}})

    assert (ID, "/web", "serve", ["--now"]) == tuple(document[key] for key in ("Id", "Name", "Path", "Args"))
    assert "2023-11-14T22:13:20.12Z" == document["Created"]
    assert ("/d/hosts", "/d/log") == (document["HostsPath"], document["LogPath"])
    assert ["PATH", "HOSTNAME"] == [item.partition("=")[0] for item in document["Config"]["Env"]]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ContainerState(), ("created", False, False, 0, 0)),
        (ContainerState(status="running", pid=7), ("running", True, False, 7, 0)),
        (ContainerState(status="paused", pid=7), ("paused", True, True, 7, 0)),
        (ContainerState(status="exited", pid=7, exit_code=3), ("exited", False, False, 0, 3)),
        (ContainerState(status="exited"), ("exited", False, False, 0, -1)),
        (ContainerState(status="restarting", exit_code=1), ("restarting", True, False, 0, 1)),
    ],
    ids=repr,
)
def test_states(state: ContainerState, expected: tuple[object, ...]) -> None:
    """
    A state has Docker's words; an exit code that nobody saw is never 0.
    """
    document = state_document(state)

    assert expected == tuple(document[key] for key in ("Status", "Running", "Paused", "Pid", "ExitCode"))
    assert ZERO_TIME == document["StartedAt"]
    assert "Health" not in document


def test_health() -> None:
    """
    A health check's runs are listed with their output.
    """
    result = HealthResult(started_ns=1, finished_ns=2_000_000_000, exit_code=1, output="no")
    document = state_document(ContainerState(health="unhealthy", health_streak=3, health_log=(result,)))

    assert {
        "Status": "unhealthy",
        "FailingStreak": 3,
        "Log": [
            {
                "Start": "1970-01-01T00:00:00.000000001Z",
                "End": "1970-01-01T00:00:02Z",
                "ExitCode": 1,
                "Output": "no",
            }
        ],
    } == document["Health"]


def test_limits_and_mounts() -> None:
    """
    Options come back in Docker's units.
    """
    document = _document(
        image={"Volumes": {"/v": {}}, "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["CMD", "x"]}},
        facts={"volume_paths": {"/v": "/store/v"}},
        volumes=["/a:/b:ro,z,rslave", "data:/d"],
        tmpfs="/t:size=1m,mode=700",
        mem_limit="512m",
        cpus=1.5,
        restart="on-failure:3",
        ulimits=["nofile=1:2"],
        devices=["/dev/fuse"],
        privileged=True,
        stop_grace_period=3,
        security_opt=["no-new-privileges"],
        blkio_config={"weight": 20, "device_read_bps": [{"path": "/dev/sda", "rate": 5}]},
    )
    host = document["HostConfig"]

    assert (512 << 20, 1 << 30, 1_500_000_000) == (host["Memory"], host["MemorySwap"], host["NanoCpus"])
    assert {"Name": "on-failure", "MaximumRetryCount": 3} == host["RestartPolicy"]
    assert [{"Name": "nofile", "Hard": 2, "Soft": 1}] == host["Ulimits"]
    assert ["/a:/b:ro,z,rslave", "data:/d"] == host["Binds"]
    assert {"/t": "nosuid,nodev,noexec,size=1048576,mode=700"} == host["Tmpfs"]
    assert "/dev/fuse" == host["Devices"][0]["PathOnHost"] == host["Devices"][0]["PathInContainer"]
    assert (20, [{"Path": "/dev/sda", "Rate": 5}]) == (host["BlkioWeight"], host["BlkioDeviceReadBps"])
    assert (["no-new-privileges"], None) == (host["SecurityOpt"], host["MaskedPaths"])
    mounts = {mount["Destination"]: mount for mount in document["Mounts"]}
    assert {
        "Type": "bind",
        "Source": "/a",
        "Mode": "ro,z",
        "RW": False,
        "Propagation": "rslave",
    }.items() <= mounts["/b"].items()
    assert {"Type": "volume", "Source": "/store/v", "Driver": "local", "RW": True}.items() <= mounts[
        "/v"
    ].items()
    assert ({"80/tcp": {}}, {"/v": {}}) == (document["Config"]["ExposedPorts"], document["Config"]["Volumes"])
    assert (30_000_000_000, 3) == (
        document["Config"]["Healthcheck"]["Interval"],
        document["Config"]["StopTimeout"],
    )


@given(st.integers(1, 2**62))
def test_timestamps_round_trip(nanoseconds: int) -> None:
    """
    A timestamp keeps every nanosecond.
    """
    text = timestamp(nanoseconds)
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(seconds).replace(tzinfo=UTC)

    assert nanoseconds == int(whole.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def test_moments() -> None:
    """
    A state's times are aware, or None before they come.
    """
    state = ContainerState(started_ns=1_500_000_000)

    assert datetime(1970, 1, 1, 0, 0, 1, 500000, UTC) == state.started
    assert None is state.finished
