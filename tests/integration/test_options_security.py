# SPDX-License-Identifier: Apache-2.0
"""
Options about privilege and sharing: capabilities, seccomp, ulimits, sysctls,
namespaces of the host and of other containers.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
from pathlib import Path

import pytest

import containerlib as cl
from containerlib import Conflict, Container, NotSupported


def status(run, **options) -> dict[str, str]:
    out = run(["cat", "/proc/self/status"], **options).stdout
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in out.splitlines()}


# ---- privilege --------------------------------------------------------------


def test_capabilities(run):
    """Docker's fourteen capabilities, with those added and without those dropped."""
    assert "00000000a80425fb" == status(run)["CapEff"]
    assert "00000000a80425fb" == status(run)["CapBnd"]
    assert "0000000000000000" == status(run, cap_drop=["ALL"])["CapEff"]
    net = 1 << 12
    assert 0xA80425FB | net == int(status(run, cap_add=["NET_ADMIN"])["CapEff"], 16)
    assert 1 == int(status(run, cap_drop=["ALL"], cap_add=["CAP_CHOWN"])["CapEff"], 16)
    assert "0000000000000000" == status(run)["CapAmb"]


@pytest.mark.subids
def test_a_user_has_no_capabilities(run):
    """Who is not root has none, and root's are within reach of set-user-ID programs only."""
    found = status(run, user="user")
    assert ("0000000000000000", "00000000a80425fb") == (found["CapEff"], found["CapBnd"])


def test_no_new_privileges(run):
    """no-new-privileges is set when it was asked for."""
    assert "0" == status(run)["NoNewPrivs"]
    assert "1" == status(run, security_opt=["no-new-privileges"])["NoNewPrivs"]
    assert "0" == status(run, security_opt=["no-new-privileges:false"])["NoNewPrivs"]


def test_seccomp(run, tmp_path):
    """A filter is in force unless it was switched off; a profile of one's own replaces it."""
    assert "2" == status(run)["Seccomp"]
    assert "0" == status(run, security_opt=["seccomp=unconfined"])["Seccomp"]
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    done = run(["mkdir", "/x"], security_opt=[f"seccomp={profile}"], check=False)
    assert 1 == done.exit_code
    assert "Not supported" in done.stderr or "not supported" in done.stderr


def test_exec_has_the_same_limits(start):
    """A process run inside has the container's capabilities, filter and no-new-privileges."""
    container = start(cap_drop=["ALL"], security_opt=["no-new-privileges"])
    out = container.exec(["grep", "-E", "^(CapEff|Seccomp|NoNewPrivs):", "/proc/self/status"]).stdout
    assert ["CapEff:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"] == out.split()


@pytest.mark.root
def test_privileged(run):
    """A privileged container has all that its caller has: devices, a writable /sys, no filter."""
    found = status(run, privileged=True)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    own = next(line.split()[1] for line in lines if line.startswith("CapBnd:"))
    assert (own, "0") == (found["CapEff"], found["Seccomp"])
    out = run(["sh", "-c", "ls /dev | wc -l; grep ' /sys ' /proc/self/mountinfo"], privileged=True).stdout
    assert int(out.split()[0]) > 20
    assert out.split()[6].startswith("rw")


def test_masked_and_read_only_paths(run):
    """What Docker hides is hidden, and what it makes read-only is."""
    script = "cat /proc/kcore | wc -c; echo x > /proc/sys/kernel/hostname"
    done = run(["sh", "-c", script], check=False)
    assert "0" == done.stdout.split()[0]
    assert "Read-only file system" in done.stderr


def test_ulimits(run):
    """Limits of resources are set, soft and hard."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    script = "ulimit -Sn; ulimit -Hn; ulimit -c"
    out = run(["sh", "-c", script], ulimits={"nofile": (100, min(hard, 200)), "core": 0}).stdout
    assert ["100", str(min(hard, 200)), "0"] == out.split()
    assert "64" == run(["sh", "-c", "ulimit -n"], ulimits=["nofile=64"]).stdout.strip()


def test_sysctls(run):
    """Settings of the container's own namespaces are set before it starts."""
    out = run(
        ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmni"],
        sysctls={"net.ipv4.ip_forward": 1, "kernel.shmmni": "1234"},
    ).stdout
    assert ["1", "1234"] == out.split()
    assert "0\n" == run(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).stdout


def test_oom_score(run):
    """The score for the kernel's choice under lack of memory is set."""
    assert "500\n" == run(["cat", "/proc/self/oom_score_adj"], oom_score_adj=500).stdout


# ---- namespaces -------------------------------------------------------------


def spaces(container: Container) -> dict[str, str]:
    names = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {name: os.readlink(f"/proc/{container.pid}/ns/{name}") for name in names}


OWN = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def mine() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in (*OWN, "user")}


def test_own_namespaces(start):
    """By default every namespace is the container's own; root's user namespace is the host's."""
    found = spaces(start())
    assert [] == [name for name in OWN if found[name] == mine()[name]]
    assert (found["user"] == mine()["user"]) is (os.geteuid() == 0)


@pytest.mark.parametrize(
    ("option", "space"), [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")]
)
def test_the_hosts_namespaces(start, option, space):
    """Asked for by name, the host's namespace is shared, and only that one."""
    found = spaces(start(**{option: "host"}))
    assert [space] == [name for name in OWN if found[name] == mine()[name]]


def test_the_hosts_network(run):
    """In the host's network a container reaches what listens on the host's loopback."""
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            heard.append(connection.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        run(["nc", "127.0.0.1", str(server.getsockname()[1])], network="host", input="hello")
        thread.join(20)
    assert [b"hello"] == heard


@pytest.mark.cgroups
def test_the_hosts_processes(start, ended):
    """With pid=host the container sees the host's processes, and still ends as a whole."""
    container = start(["sh", "-c", "sleep 1007 & echo ready; wait"], pid="host", init=False)
    container.wait_until(log="ready")
    assert spaces(container)["pid"] == mine()["pid"]
    assert "yes\n" == container.exec(["sh", "-c", f"test -d /proc/{os.getpid()} && echo yes"]).stdout
    pidfds = [os.pidfd_open(process.pid) for process in container.top()]
    assert 2 == len(pidfds)
    container.kill()
    for fd in pidfds:
        assert ended(fd, pid=False)
        os.close(fd)


def test_a_shared_network(start, create):
    """A container in another's network has its interfaces and reaches its loopback."""
    server = start(["sh", "-c", "while :; do echo hello | nc -l -p 7000; done"], name="server")
    server.wait_until(port=7000, timeout=20)
    client = create(["nc", "127.0.0.1", "7000"], network="container:server")
    client.start()
    assert 0 == client.wait(timeout=20)
    assert "hello\n" == client.logs()
    other = start(network=f"container:{server.short_id}")
    assert spaces(server)["net"] == spaces(other)["net"]
    assert [] == [
        name for name in ("pid", "ipc", "mnt", "uts") if spaces(server)[name] == spaces(other)[name]
    ]


def test_shared_processes(start):
    """A container in another's process namespace sees its processes, and dies with its first one."""
    first = start(["sleep", "1008"], name="first", init=False)
    second = start(["sleep", "1009"], pid="container:first", init=False)
    assert spaces(first)["pid"] == spaces(second)["pid"]
    assert "1008" in second.exec(["cat", "/proc/1/cmdline"]).stdout
    first.kill()
    assert 137 == second.wait(timeout=20)


def test_shared_memory_of_another(start):
    """A container in another's ipc has its message queues, and its /dev/shm."""
    first = start(name="first", ipc="shareable")
    second = start(ipc="container:first")
    assert spaces(first)["ipc"] == spaces(second)["ipc"]
    first.exec(["sh", "-c", "echo shared > /dev/shm/x"])
    assert "shared\n" == second.exec(["cat", "/dev/shm/x"]).stdout


def test_ipc_none(run):
    """With ipc=none there is no /dev/shm to write to."""
    assert 0 != run(["sh", "-c", "mount | grep /dev/shm"], ipc="none", check=False).exit_code


def test_a_peer_that_does_not_run(create):
    """The namespaces of a container that does not run cannot be joined; once it runs they can."""
    peer = create(name="peer")
    container = create(["true"], network="container:peer")
    with pytest.raises(Conflict, match=f"{peer.short_id}.*start it first"):
        container.start()
    peer.start()
    container.start()
    assert 0 == container.wait(timeout=20)


def test_exec_joins_shared_namespaces(start):
    """A process run in a container that shares another's network is in that network."""
    server = start(["sh", "-c", "while :; do echo hello | nc -l -p 7001; done"], name="server")
    server.wait_until(port=7001, timeout=20)
    client = start(network="container:server")
    assert "hello\n" == client.exec(["nc", "127.0.0.1", "7001"]).stdout


def test_what_the_host_cannot_give(create):
    """What cannot be enforced here is refused with the reason, never left out."""
    if not os.path.isdir("/sys/kernel/security/apparmor"):
        with pytest.raises(NotSupported, match="AppArmor"):
            create(security_opt=["apparmor=docker-default"])
    if not os.path.isdir("/sys/fs/selinux"):
        with pytest.raises(NotSupported, match="SELinux"):
            create(security_opt=["label=type:x"])
    assert [] == cl.Container.list(all=True)
