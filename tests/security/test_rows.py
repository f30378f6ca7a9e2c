# SPDX-License-Identifier: Apache-2.0
"""
Which test keeps which known hole closed: the public advisories about container
runtimes of 2014 to 2026, and the tests that fail if one is opened here.

Not here yet, for what they are about is not: copying into and out of
containers (CVE-2018-15664, GHSA-vp62-88p7-qqf5), registries (CVE-2024-3727,
CVE-2020-15157, CVE-2021-41190, CVE-2025-6032), builds (CVE-2024-9407,
CVE-2024-1753, CVE-2024-9675, CVE-2024-11218, CVE-2026-44517, CVE-2024-23651,
CVE-2024-23653, CVE-2024-24557), exported volumes (CVE-2025-9566,
CVE-2023-0778).  Archives are in test_unpack.py, the store in test_store.py.

Labels of security modules (the other half of CVE-2025-52881) are refused where
no module is active, and none is written yet.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROWS = {
    "CVE-2016-9962": (
        "test_runtime_processes.test_no_directory_of_the_host_is_open_beside_a_watcher",
        "test_runtime_processes.test_the_first_process_is_unreadable_in_a_joined_namespace",
    ),
    "CVE-2019-5736": (
        "test_runtime_processes.test_programs_inside_cannot_write_the_helper",
        "test_runtime_processes.test_an_entrypoint_that_names_the_helper",
        "test_runtime_processes.test_the_helper_is_sealed",
    ),
    "CVE-2019-19921, 2023-27561, 2023-28642": (
        "test_runtime_mounts.test_system_directories_that_are_links",
        "test_runtime_mounts.test_fake_files_below_proc",
        "test_racers.test_the_directories_of_the_kernel",
    ),
    "CVE-2019-16884": (
        "test_runtime_mounts.test_volumes_over_proc",
        "test_runtime_mounts.test_tmpfs_over_proc",
        "test_runtime_mounts.test_an_image_s_volume_over_proc",
    ),
    "CVE-2021-30465": (
        "test_racers.test_parents_of_a_mount_target",
        "test_racers.test_tmpfs_targets",
        "test_racers.test_sub_paths_of_a_volume",
        "test_runtime_mounts.test_sub_paths_stay_in_their_volume",
    ),
    "CVE-2021-43784": ("test_fuzz_plan.test_any_bytes_are_refused_or_readable",),
    "CVE-2022-29162, 2022-27649, 2022-27650, 2022-27651": (
        "test_runtime_processes.test_nothing_is_inheritable",
        "test_runtime_processes.test_an_ordinary_user_holds_no_capability",
    ),
    "CVE-2022-0847 and its like": ("test_runtime_processes.test_no_page_of_an_installed_file_is_shared",),
    "CVE-2023-25809": (
        "test_runtime_mounts.test_control_groups_are_read_only",
        "test_runtime_mounts.test_control_groups_cannot_be_written",
    ),
    "CVE-2024-21626": (
        "test_runtime_processes.test_a_working_directory_in_proc",
        "test_runtime_processes.test_a_working_directory_that_the_image_sets",
        "test_runtime_processes.test_a_working_directory_beside_the_host_s_processes",
        "test_runtime_processes.test_no_descriptor_of_the_caller_is_inherited",
        "test_racers.test_working_directories",
        "test_racers.test_working_directories_of_exec",
    ),
    "CVE-2024-45310": (
        "test_racers.test_targets_that_are_files",
        "test_runtime_mounts.test_targets_made_in_a_volume",
    ),
    "CVE-2025-31133": (
        "test_runtime_mounts.test_a_false_null_device",
        "test_racers.test_the_null_device",
    ),
    "CVE-2025-52565": (
        "test_runtime_mounts.test_a_false_console",
        "test_runtime_mounts.test_a_false_terminal",
        "test_racers.test_names_below_a_hostile_dev",
        "test_racers.test_terminals_of_exec_in_a_hostile_dev",
    ),
    "CVE-2025-52881": (
        "test_runtime_mounts.test_fake_files_below_proc",
        "test_runtime_mounts.test_settings_of_the_host",
        "test_runtime_mounts.test_the_helper_keeps_settings_below_proc_sys",
    ),
    "CVE-2026-41579, 2026-47766": (
        "test_runtime_mounts.test_system_directories_that_are_links",
        "test_runtime_mounts.test_links_below_the_system_directories",
        "test_racers.test_the_directory_of_devices",
    ),
    "CVE-2026-30892": (
        "test_runtime_identity.test_user_strings",
        "test_runtime_identity.test_the_helper_parses_as_strictly",
    ),
    "CVE-2026-46680, 2024-40635": (
        "test_runtime_identity.test_a_name_that_looks_like_a_number",
        "test_runtime_identity.test_entries_that_wrap_around",
        "test_runtime_identity.test_a_line_that_never_ends",
    ),
    "CVE-2022-36109, 2023-25173, 2022-2989": (
        "test_runtime_identity.test_the_primary_group_is_a_supplementary_one",
    ),
    "CVE-2019-14271": (
        "test_runtime_identity.test_no_program_of_the_image_runs_unasked",
        "test_runtime_identity.test_no_library_of_the_image_is_loaded",
    ),
    "CVE-2026-39822": (
        "test_runtime_mounts.test_targets_through_links",
        "test_runtime_mounts.test_targets_through_links_that_lead_somewhere",
    ),
    "GHSA-vp62-88p7-qqf5, the links that must work": (
        "test_runtime_mounts.test_absolute_links_inside_the_root_work",
    ),
    "CVE-2024-23652": ("test_racers.test_removal",),
    "CVE-2022-1227": (
        "test_runtime_identity.test_no_program_of_the_image_runs_unasked",
        "test_racers.test_passwd_of_a_running_container",
    ),
    "CVE-2024-9341, 2024-9676": (
        "test_runtime_identity.test_passwd_as_a_trap",
        "test_runtime_identity.test_a_huge_passwd",
        "test_runtime_identity.test_passwd_made_a_trap_while_it_runs",
    ),
    "CVE-2022-23648": ("test_runtime_mounts.test_an_image_s_volume_that_leads_out",),
    "CVE-2020-15257, 2021-41091, 2024-25621": (
        "test_runtime_interfaces.test_no_abstract_socket",
        "test_runtime_interfaces.test_the_monitor_s_socket_is_private",
        "test_runtime_interfaces.test_another_user_cannot_command_a_monitor",
        "test_store.test_private_even_under_umask_zero",
    ),
    "CVE-2017-5226": (
        "test_runtime_interfaces.test_no_input_for_the_caller_s_terminal",
        "test_runtime_interfaces.test_no_controlling_terminal_without_a_terminal",
    ),
    "CVE-2020-5291, 2022-47952": ("test_runtime_interfaces.test_no_file_with_privilege_is_shipped",),
    "GHSA-6fw5-f8r9-fgfm, GHSA-jq35-85cj-fj4p": (
        "test_runtime_mounts.test_hidden_paths",
        "test_runtime_mounts.test_hidden_paths_on_this_host",
        "test_runtime_mounts.test_hidden_paths_cannot_be_uncovered",
        "test_runtime_mounts.test_read_only_paths",
    ),
    "AF_ALG and AF_VSOCK": (
        "test_runtime_interfaces.test_calls_that_are_closed",
        "test_runtime_interfaces.test_no_namespace_and_no_mount_inside",
        "test_runtime_interfaces.test_devices_of_the_host",
        "test_seccomp.test_the_kernel_answers_as_docker_s_profile",
    ),
    "CVE-2026-53488, 2026-53492": (
        "test_runtime_interfaces.test_labels_are_only_data",
        "test_runtime_interfaces.test_the_image_s_environment_is_only_for_inside",
    ),
    "The host seen from inside": (
        "test_runtime_mounts.test_no_mount_of_the_host_is_left",
        "test_runtime_mounts.test_the_engine_is_hidden_from_the_host_image",
        "test_runtime_mounts.test_the_host_s_sockets_are_hidden",
        "test_runtime_mounts.test_the_host_s_processes_are_hidden",
        "test_runtime_processes.test_the_caller_s_environment_stays_outside",
        "test_runtime_processes.test_the_caller_s_keys_stay_outside",
    ),
    "Clients of a monitor": (
        "test_runtime_interfaces.test_malformed_messages",
        "test_runtime_interfaces.test_a_flood_of_messages_and_connections",
        "test_runtime_interfaces.test_descriptors_that_are_sent",
        "test_runtime_interfaces.test_a_client_that_never_reads",
        "test_runtime_interfaces.test_the_first_process_is_signalled_not_its_number",
        "test_racers.test_ends_while_something_is_executed",
    ),
    "Read-only volumes": (
        "test_runtime_mounts.test_a_read_only_volume",
        "test_runtime_mounts.test_a_read_only_volume_with_mounts_below",
        "test_runtime_mounts.test_flags_of_the_standard_mounts",
    ),
}


def _tests() -> set[str]:
    here = Path(__file__).parent
    found = set()
    for path in [*here.glob("test_*.py"), *here.parent.glob("fuzz/test_*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {f"{path.stem}.{node.name}" for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("row", ROWS)
def test_each_hole_has_its_tests(row: str) -> None:
    """
    No test of the table above was renamed or lost.
    """
    assert set() == set(ROWS[row]) - _tests()


def test_each_test_closes_a_hole() -> None:
    """
    No test of the runtime's security is missing from the table.
    """
    mine = {
        name for name in _tests() if name.startswith(("test_runtime_", "test_racers.")) and ".test_" in name
    }
    listed = {name for names in ROWS.values() for name in names}

    assert {"test_runtime_mounts.test_links_where_network_files_go"} == mine - listed
