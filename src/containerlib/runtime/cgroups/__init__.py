# SPDX-License-Identifier: Apache-2.0
"""
Control groups: limits, devices, counting, pausing and ending, on v1, v2 and both.

``layout`` sees what the host has, ``limits`` and ``devices`` say what to
write, ``plan`` joins them to what the monitor makes for one container;
``operate``, ``update`` and ``stats`` work on containers that run.
"""

from __future__ import annotations

from containerlib.runtime.cgroups.devices import DeviceRule as DeviceRule
from containerlib.runtime.cgroups.features import features as features
from containerlib.runtime.cgroups.layout import CgroupLayout as CgroupLayout
from containerlib.runtime.cgroups.layout import Hierarchy as Hierarchy
from containerlib.runtime.cgroups.layout import detect as detect
from containerlib.runtime.cgroups.operate import find as find
from containerlib.runtime.cgroups.operate import freeze as freeze
from containerlib.runtime.cgroups.operate import is_frozen as is_frozen
from containerlib.runtime.cgroups.operate import kill as kill
from containerlib.runtime.cgroups.operate import of_process as of_process
from containerlib.runtime.cgroups.operate import oom_count as oom_count
from containerlib.runtime.cgroups.operate import pids as pids
from containerlib.runtime.cgroups.operate import remove as remove
from containerlib.runtime.cgroups.operate import sweep as sweep
from containerlib.runtime.cgroups.operate import thaw as thaw
from containerlib.runtime.cgroups.plan import CgroupDirectory as CgroupDirectory
from containerlib.runtime.cgroups.plan import CgroupPlan as CgroupPlan
from containerlib.runtime.cgroups.plan import compile as compile
from containerlib.runtime.cgroups.plan import group_name as group_name
from containerlib.runtime.cgroups.plan import parent_of as parent_of
from containerlib.runtime.cgroups.plan import prepare as prepare
from containerlib.runtime.cgroups.stats import read_stats as read_stats
from containerlib.runtime.cgroups.update import update as update
