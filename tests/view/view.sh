#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows what a container sees: a section for each kind of thing, in the words of busybox.
section () { echo "=== $1"; }

# First, before this script has opened anything.
section fds
for fd in 0 1 2 3 4 5 6 7 8 9; do
  # 10 and above are the shell's own.  No $(...): the shell may not have closed its end yet.
  [ -L /proc/$$/fd/$fd ] && printf '%s ' $fd && readlink /proc/$$/fd/$fd
done

section status
cat /proc/self/status
section stat
cat /proc/1/stat
section limits
cat /proc/self/limits
section cgroup
cat /proc/self/cgroup
section ids
for name in uid_map gid_map setgroups oom_score_adj timerslack_ns; do
  echo "$name" $(cat /proc/self/$name 2>&1)
done
section mounts
cat /proc/self/mountinfo
section dev
ls -lnR /dev
section names
echo "hostname $(hostname)"
echo "nodename $(uname -n)"
echo "domainname $(cat /proc/sys/kernel/domainname)"
echo "directory $(pwd)"
echo "umask $(umask)"
section environment
env
section sysctls
for name in \
    fs/mqueue/msg_max fs/mqueue/msgsize_max fs/mqueue/queues_max \
    kernel/msgmax kernel/msgmnb kernel/msgmni kernel/sem kernel/shm_rmid_forced kernel/shmmni \
    net/ipv4/conf/all/forwarding net/ipv4/conf/default/rp_filter net/ipv4/conf/lo/forwarding \
    net/ipv4/icmp_echo_ignore_broadcasts net/ipv4/ip_default_ttl net/ipv4/ip_forward \
    net/ipv4/ip_local_port_range net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range \
    net/ipv4/tcp_syncookies net/ipv6/conf/all/disable_ipv6 net/ipv6/conf/lo/disable_ipv6 \
    net/ipv6/conf/all/forwarding; do
  [ -e "/proc/sys/$name" ] && echo "$name" $(cat "/proc/sys/$name")
done
section network
ls /sys/class/net
echo "flags $(cat /sys/class/net/lo/flags)"
ip -o addr show | sed 's/^[0-9]*: *//; s/ *valid_lft.*//; s/\\.*//'
ip route show table all | grep -v ' table local '
section hidden
for path in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
    /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats \
    /sys/devices/virtual/powercap /sys/firmware \
    /sys/devices/system/cpu/cpu0/thermal_throttle; do
  if [ -d "$path" ]; then
    echo "$path directory $(ls -A "$path" | wc -l | sed 's/^[1-9].*/shown/; s/^0$/empty/')"
  elif [ -e "$path" ]; then
    echo "$path file $(head -c 1 "$path" 2>/dev/null | wc -c | sed 's/^1$/shown/; s/^0$/empty/')"
  fi
done
section writable
for path in / /etc /tmp /dev /dev/shm /dev/mqueue /dev/pts /proc /proc/bus /proc/fs /proc/irq /proc/sys \
    /proc/sys/kernel /proc/sys/net/ipv4 /sys /sys/fs/cgroup /sys/kernel; do
  [ -d "$path" ] || continue
  # touch asks for more than a capability: a read-only mount says so first.
  message=$(touch "$path/containerlib-view" 2>&1) && { message=writable; rm "$path/containerlib-view"; }
  echo "$path ${message##*: }"
done
section modes
for path in / /dev /dev/mqueue /dev/pts /dev/shm /etc/hostname /etc/hosts /etc/mtab /etc/resolv.conf /proc \
    /sys /sys/fs/cgroup /.dockerenv; do
  [ -e "$path" ] && stat -c '%n %A %u:%g' "$path"
done
section hosts
cat /etc/hosts
section resolv.conf
cat /etc/resolv.conf
section verdicts
/verdicts
