# SPDX-License-Identifier: Apache-2.0
"""
A container as ``docker inspect`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from .config import ContainerConfig
from .quantities import signal_name
from .values import Healthcheck, Mount

#: What Docker prints for a time that has not come.
ZERO_TIME: Final = "0001-01-01T00:00:00Z"

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@attrs.frozen(kw_only=True)
class HealthResult:
    """
    One run of a health check; *exit_code* is -1 when it took too long.
    """

    started_ns: int
    finished_ns: int
    exit_code: int
    output: str = ""


@attrs.frozen(kw_only=True)
class ContainerState:
    """
    Where a container stands: what its monitor last wrote, made sure by a look
    at the process.

    *status* is Docker's word: created, running, paused, restarting, removing,
    exited or dead.  *exit_code* is None while none is known.  Times are
    nanoseconds since 1970, 0 when they have not come.
    """

    status: str = "created"
    pid: int = 0
    exit_code: int | None = None
    signal: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    core_dumped: bool = False
    error: str = ""
    restart_count: int = 0
    stopped_by_user: bool = False
    health: str | None = None
    health_streak: int = 0
    health_log: tuple[HealthResult, ...] = ()
    monitor_pid: int = 0
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    maximum_rss: int = 0

    @property
    def running(self) -> bool:
        """
        Whether the first process lives, paused or not.
        """
        return self.status in ("running", "paused")

    @property
    def started(self) -> datetime | None:
        """
        When the first process was last started.
        """
        return _moment(self.started_ns)

    @property
    def finished(self) -> datetime | None:
        """
        When the first process last ended.
        """
        return _moment(self.finished_ns)


def _moment(nanoseconds: int) -> datetime | None:
    if not nanoseconds:
        return None
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def timestamp(nanoseconds: int) -> str:
    """
    A time in RFC 3339 with nanoseconds as Go prints it: no trailing zeros.
    """
    if nanoseconds <= 0:
        return ZERO_TIME
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{moment}{fraction}Z"


def container_document(
    config: ContainerConfig,
    state: ContainerState,
    *,
    directory: str = "",
    log_path: str = "",
    driver: str = "overlay",
    volume_paths: Mapping[str, str] | None = None,
    upper: str | None = None,
    lower: Sequence[str] = (),
    platform: str = "linux",
    exec_ids: Sequence[str] = (),
    apparmor_profile: str = "",
) -> dict[str, Any]:
    """
    The document that ``docker inspect`` prints for a container.

    *directory* is the container's own, for the paths of what is mounted to
    /etc; *volume_paths* gives the host path of each volume by its target.
    """
    return {
        "Id": config.id,
        "Created": timestamp(config.created_ns),
        "Path": config.args[0],
        "Args": list(config.args[1:]),
        "State": state_document(state),
        "Image": config.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf" if directory else "",
        "HostnamePath": f"{directory}/hostname" if directory else "",
        "HostsPath": f"{directory}/hosts" if directory else "",
        "LogPath": log_path or (f"{directory}/log" if directory else ""),
        "Name": f"/{config.name}",
        "RestartCount": state.restart_count,
        "Driver": driver,
        "Platform": platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": apparmor_profile,
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": _host_config(config),
        "GraphDriver": _graph_driver(driver, upper, lower),
        "Mounts": [
            _mount_point(mount, volume_paths or {}) for mount in config.mounts if mount.type != "tmpfs"
        ],
        "Config": _config(config),
        "NetworkSettings": _network_settings(config),
    }


def state_document(state: ContainerState) -> dict[str, Any]:
    """
    The part ``State``.
    """
    document: dict[str, Any] = {
        "Status": state.status,
        "Running": state.status in ("running", "paused", "restarting"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid if state.running else 0,
        "ExitCode": 0 if state.exit_code is None and state.status != "exited" else _exit_code(state),
        "Error": state.error,
        "StartedAt": timestamp(state.started_ns),
        "FinishedAt": timestamp(state.finished_ns),
    }
    if state.health is not None:
        document["Health"] = {
            "Status": state.health,
            "FailingStreak": state.health_streak,
            "Log": [
                {
                    "Start": timestamp(result.started_ns),
                    "End": timestamp(result.finished_ns),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                }
                for result in state.health_log
            ],
        }
    return document


def _exit_code(state: ContainerState) -> int:
    """
    A code that nobody saw is -1: never 0, which would say that all went well.
    """
    return -1 if state.exit_code is None else state.exit_code


def _graph_driver(driver: str, upper: str | None, lower: Sequence[str]) -> dict[str, Any]:
    data: dict[str, str] | None = None
    if upper is not None:
        data = {"LowerDir": ":".join(lower), "UpperDir": upper}
    return {"Name": driver, "Data": data}


def _config(config: ContainerConfig) -> dict[str, Any]:
    document: dict[str, Any] = {
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": config.tty,
        "OpenStdin": config.stdin_open,
        "StdinOnce": False,
        "Env": [f"{name}={value}" for name, value in config.environment.items()],
        "Cmd": list(config.command) or None,
        "Image": config.image,
        "Volumes": {path: {} for path in config.image_volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": None,
        "Labels": dict(config.labels),
        "StopSignal": signal_name(config.stop_signal),
        "StopTimeout": int(config.stop_grace_period),
    }
    if config.exposed_ports:
        document["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    if config.healthcheck is not None:
        document["Healthcheck"] = _healthcheck(config.healthcheck)
    if config.shell:
        document["Shell"] = list(config.shell)
    return document


def _healthcheck(check: Healthcheck) -> dict[str, Any]:
    return {
        "Test": list(check.test),
        "Interval": round(check.interval * 1e9),
        "Timeout": round(check.timeout * 1e9),
        "StartPeriod": round(check.start_period * 1e9),
        "StartInterval": round(check.start_interval * 1e9),
        "Retries": check.retries,
    }


def _mount_point(mount: Mount, volume_paths: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {"Type": mount.type}
    if mount.type == "volume":
        document["Name"] = mount.source or ""
        document["Source"] = volume_paths.get(mount.target, "")
    else:
        document["Source"] = mount.source
    document["Destination"] = mount.target
    if mount.type == "volume":
        document["Driver"] = "local"
    document["Mode"] = _mode(mount)
    document["RW"] = not mount.read_only
    document["Propagation"] = (mount.propagation or "rprivate") if mount.type == "bind" else ""
    return document


def _mode(mount: Mount) -> str:
    words = ["ro"] if mount.read_only else []
    return ",".join([*words, *mount.options])


def _bind(mount: Mount) -> str:
    words = [_mode(mount)] if _mode(mount) else []
    words += [mount.propagation] if mount.propagation else []
    words += [] if mount.recursive else ["bind"]
    words += ["nocopy"] if mount.nocopy else []
    return ":".join(filter(None, (mount.source, mount.target, ",".join(words))))


def _tmpfs_options(mount: Mount) -> str:
    words = [*mount.options]
    words += ["ro"] if mount.read_only else []
    words += [f"size={mount.tmpfs_size}"] if mount.tmpfs_size else []
    words += [f"mode={mount.tmpfs_mode:o}"] if mount.tmpfs_mode is not None else []
    return ",".join(words)


def _host_config(config: ContainerConfig) -> dict[str, Any]:
    resources = config.resources
    blkio = resources.blkio
    security = config.security
    unmasked = security.unmask or config.privileged
    return {
        "Binds": [_bind(mount) for mount in config.mounts if mount.source is not None] or None,
        "ContainerIDFile": "",
        "LogConfig": _log_config(config),
        "NetworkMode": config.network,
        "PortBindings": {},
        "RestartPolicy": {"Name": config.restart.name, "MaximumRetryCount": config.restart.maximum},
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": list(config.volumes_from) or None,
        "ConsoleSize": [0, 0],
        "CapAdd": list(config.cap_add) or None,
        "CapDrop": list(config.cap_drop) or None,
        "CgroupnsMode": config.cgroup,
        "Dns": list(config.dns),
        "DnsOptions": list(config.dns_opt),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": [f"{name}:{address}" for name, address in config.extra_hosts] or None,
        "GroupAdd": list(config.group_add) or None,
        "IpcMode": config.ipc,
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": config.oom_score_adj,
        "PidMode": "" if config.pid == "private" else config.pid,
        "Privileged": config.privileged,
        "PublishAllPorts": False,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": list(security.words) or None,
        "Tmpfs": {mount.target: _tmpfs_options(mount) for mount in config.mounts if mount.type == "tmpfs"}
        or None,
        "UTSMode": "" if config.uts == "private" else config.uts,
        "UsernsMode": "" if config.userns_mode == "private" else config.userns_mode,
        "ShmSize": config.shm_size,
        "Sysctls": dict(config.sysctls) or None,
        "Runtime": "containerlib",
        "Isolation": "",
        "CpuShares": resources.cpu_shares or 0,
        "Memory": resources.mem_limit or 0,
        "NanoCpus": round((resources.cpus or 0) * 1e9),
        "CgroupParent": config.cgroup_parent or "",
        "BlkioWeight": (blkio and blkio.weight) or 0,
        "BlkioWeightDevice": [
            {"Path": path, "Weight": weight} for path, weight in (blkio.weight_device if blkio else ())
        ],
        "BlkioDeviceReadBps": _rates(blkio.device_read_bps if blkio else ()),
        "BlkioDeviceWriteBps": _rates(blkio.device_write_bps if blkio else ()),
        "BlkioDeviceReadIOps": _rates(blkio.device_read_iops if blkio else ()),
        "BlkioDeviceWriteIOps": _rates(blkio.device_write_iops if blkio else ()),
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": resources.cpuset or "",
        "CpusetMems": resources.cpuset_mems or "",
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "MemoryReservation": resources.mem_reservation or 0,
        "MemorySwap": _memory_swap(config),
        "MemorySwappiness": None,
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": resources.pids_limit,
        "Ulimits": [{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in config.ulimits],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "MaskedPaths": None if unmasked else list(MASKED_PATHS),
        "ReadonlyPaths": None if unmasked else list(READONLY_PATHS),
        "Init": config.init or None,
    }


def _memory_swap(config: ContainerConfig) -> int:
    """
    Memory and swap together: twice the memory when only that is limited.
    """
    resources = config.resources
    if resources.memswap_limit is not None:
        return resources.memswap_limit
    return 2 * (resources.mem_limit or 0)


def _log_config(config: ContainerConfig) -> dict[str, Any]:
    options: dict[str, str] = {}
    if config.logging.max_size:
        options = {"max-size": str(config.logging.max_size), "max-file": str(config.logging.max_files)}
    return {"Type": "k8s-file", "Config": options}


def _rates(rates: Sequence[tuple[str, int]]) -> list[dict[str, Any]] | None:
    return [{"Path": path, "Rate": rate} for path, rate in rates] or None


def _network_settings(config: ContainerConfig) -> dict[str, Any]:
    """
    Without bridge networks: no address but the loopback's, or the host's.
    """
    networks: dict[str, Any] = {}
    if config.network in ("none", "host"):
        networks[config.network] = {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": networks,
    }
