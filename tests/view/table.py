# SPDX-License-Identifier: Apache-2.0
"""
What view.sh printed in a container, as a table of names and values that two
containers, runtimes and days have in common.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).parent
BUSYBOX = "/bin/busybox"

# What view.sh looks at, in its words: what Docker 20.10 hides, and what only newer ones do.
HIDDEN = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi "
    "/proc/timer_list /proc/timer_stats /sys/firmware"
).split()
HIDDEN_LATER = "/sys/devices/virtual/powercap /sys/devices/system/cpu/cpu0/thermal_throttle".split()

READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger".split()

# Options of a mount that are the kernel's or the build's, not the runtime's.
_INCIDENTAL = re.compile(
    r"inode64|seclabel|nsdelegate|memory_recursiveprot|favordynmods|(lower|upper|work)dir=.*|nr_inodes=\d+|xino=\w+|index=\w+|nfs_export=\w+"
)
_STATUS = (
    "Uid Gid Groups NoNewPrivs Seccomp Seccomp_filters SigBlk SigIgn CapInh CapPrm CapEff CapBnd CapAmb Umask"
).split()


def build_rootfs(top: Path) -> None:
    """
    A root file system with busybox, view.sh and the compiled verdicts.c.
    """
    for name in ("bin", "etc", "root", "tmp", "usr/bin"):
        (top / name).mkdir(parents=True)
    # Whatever the umask: the modes are part of the view.
    for directory in (top, *(path for path in top.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    (top / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (top / "bin" / applet).symlink_to("busybox")
    (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (top / "etc/group").write_text("root:x:0:\naudio:x:29:user\nuser:x:1000:\n")
    shutil.copy(HERE / "view.sh", top / "view")
    (top / "view").chmod(0o755)
    source, program = str(HERE / "verdicts.c"), str(top / "verdicts")
    subprocess.run(["cc", "-O1", "-static", "-pthread", "-o", program, source], check=True)
    for name in ("etc/passwd", "etc/group"):
        (top / name).chmod(0o644)


def parse(text: str, *, container_id: str, limits: str) -> dict[str, str]:
    """
    The table of one container's *text*; *limits* are those of the process
    that started the container, in the kernel's words.
    """
    text = text.replace("\r\n", "\n").replace(container_id, "<id>").replace(container_id[:12], "<short id>")
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("=== "):
            lines = sections.setdefault(line[4:], [])
        elif line:
            lines.append(line)
    table: dict[str, str] = {}
    for name, lines in sections.items():
        reader = _READERS.get(name)
        if reader is not None:
            table |= reader(lines)
        else:
            table |= {f"{name} {key}": value for key, value in map(_pair, lines)}
    own, given = _limits(sections["limits"]), _limits(limits.splitlines())
    table |= {f"limit {k}": "as the starter's" if v == given[k] else v for k, v in own.items()}
    return table


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" ")
    return key, value.strip() or "-"


def _status(lines: list[str]) -> dict[str, str]:
    fields = dict(line.partition(":")[::2] for line in lines)
    return {f"status {name}": " ".join(fields[name].split()) or "-" for name in _STATUS if name in fields}


def _stat(lines: list[str]) -> dict[str, str]:
    fields = lines[0].rpartition(")")[2].split()
    names = ("parent", "group", "session", "terminal")
    return {f"first process {name}": value for name, value in zip(names, fields[1:5], strict=True)}


def _limits(lines: list[str]) -> dict[str, str]:
    table = {}
    for line in lines[1:]:
        name, soft, hard = line[:26].strip(), line[26:47].strip(), line[47:68].strip()
        table[name.removeprefix("Max ")] = f"{soft} {hard}"
    return table


def _cgroup(lines: list[str]) -> dict[str, str]:
    # A hierarchy that nothing but a name holds is the init system's.
    found = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        found[f"cgroup {controllers or 'unified'}"] = path
    return found


def _mounts(lines: list[str]) -> dict[str, str]:
    """
    Each mount by its target, several on one target in the order of their making.
    """
    table: dict[str, str] = {}
    for line in lines:
        fields, _, kind = line.partition(" - ")
        _, _, _, root, target, options, *optional = fields.split()
        type_, _, super_options = kind.split(" ", 2)
        if root.endswith(("/hosts", "/hostname", "/resolv.conf")):
            root, type_, super_options = "<file>", "<host's>", "rw"
        shared = [word.partition(":")[0] for word in optional]
        words = [
            type_,
            root,
            options,
            ",".join(word for word in super_options.split(",") if not _INCIDENTAL.fullmatch(word)),
            "shared" if "shared" in shared else "slave" if "master" in shared else "private",
        ]
        # The device of a terminal is the host's first free one.
        value = re.sub(r"/pts/\d+|^devpts /\d+", "devpts /<n>", " ".join(words))
        key = f"mount {target}"
        table[key] = f"{table[key]} then {value}" if key in table else value
    return table


def _dev(lines: list[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    directory = "/dev"
    for line in lines:
        if line.endswith(":") and line.startswith("/"):
            directory = line[:-1]
            continue
        if line.startswith("total "):
            continue
        mode, _, owner, group, rest = line.split(maxsplit=4)
        numbers, rest = re.fullmatch(r"(\d+, +\d+|\d+) +(.*)", rest).groups()
        name = rest.split(maxsplit=3)[3]
        name, _, link = name.partition(" -> ")
        value = f"{mode} {owner}:{group}"
        if mode[0] in "cb":
            value += " " + numbers.replace(" ", "")
        if directory == "/dev/pts" and name.isdigit():
            value = re.sub(r",\d+$", ",<n>", value)
        table[f"dev {directory}/{name}"] = value + (f" -> {link}" if link else "")
    return table


def _descriptors(lines: list[str]) -> dict[str, str]:
    return {
        f"descriptor {fd}": re.sub(r"\[\d+\]", "", re.sub(r"^/dev/pts/\d+$", "/dev/pts/<n>", target))
        for fd, target in map(_pair, lines)
    }


def _environment(lines: list[str]) -> dict[str, str]:
    found = dict(line.partition("=")[::2] for line in lines)
    # The shell's own.
    return {
        f"environment {key}": value for key, value in found.items() if key not in ("PWD", "SHLVL", "OLDPWD")
    }


def _network(lines: list[str]) -> dict[str, str]:
    return {"network": "; ".join(" ".join(line.split()) for line in lines)}


def _text(name: str) -> object:
    def read(lines: list[str]) -> dict[str, str]:
        return {f"{name} {n}": " ".join(line.split()) for n, line in enumerate(lines, 1)}

    return read


def _nothing(lines: list[str]) -> dict[str, str]:
    """
    Compared apart: the host's own resolv.conf; verdicts, by the profile; limits, by the starter's.
    """
    del lines
    return {}


_READERS = {
    "status": _status,
    "stat": _stat,
    "limits": _nothing,
    "cgroup": _cgroup,
    "mounts": _mounts,
    "dev": _dev,
    "fds": _descriptors,
    "environment": _environment,
    "network": _network,
    "hosts": _text("hosts"),
    "resolv.conf": _nothing,
    "verdicts": _nothing,
}


def section(text: str, name: str) -> list[str]:
    """
    The lines of one section of what view.sh printed.
    """
    found = text.replace("\r\n", "\n").partition(f"=== {name}\n")[2].partition("\n=== ")[0]
    return found.splitlines()


def dump(views: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """
    Views as lines, sorted.
    """
    for view, table in views.items():
        yield f"[{view}]"
        for key, value in sorted(table.items()):
            yield f"{key} = {value}"


def load(path: Path) -> dict[str, dict[str, str]]:
    """
    What :func:`dump` wrote.
    """
    views: dict[str, dict[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            table = views.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition(" = ")
            table[key] = value
    return views
