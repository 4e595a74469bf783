"""Memory that is left, by the host and by control groups."""

from __future__ import annotations

import pytest

from cloudchamber.core.machine import available_bytes

MIB = 2**20


def host(root, groups, available_mib=8000):
    """A machine's files: memory left, and the process's control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 16000000 kB\nMemFree: 100 kB\nMemAvailable:    {available_mib << 10} kB\n")
    (root / "proc/self/cgroup").write_text(groups)


def group(root, place, version, limit, used, reclaimable=0):
    folder = root / "sys/fs/cgroup" / place
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'inactive_file' if version == 2 else 'total_inactive_file'} {reclaimable}\n")


def test_without_groups_the_host_says_it(tmp_path):
    host(tmp_path, "0::/\n")
    assert available_bytes(tmp_path) == 8000 * MIB
    assert 0 < available_bytes() < 2**50
    assert available_bytes(tmp_path / "nothing") > 0


@pytest.mark.parametrize(("version", "line"), [(2, "0::/pod/app\n"), (1, "5:cpu,cpuacct:/x\n4:hugetlb,memory:/pod/app\n0::/\n")])
def test_a_group_that_allows_less_is_the_limit(tmp_path, version, line):
    host(tmp_path, line)
    top = "" if version == 2 else "memory/"
    group(tmp_path, f"{top}pod/app", version, 1000 * MIB, 700 * MIB, 100 * MIB)
    assert available_bytes(tmp_path) == 400 * MIB
    group(tmp_path, f"{top}pod", version, 900 * MIB, 800 * MIB)  # one above allows less still
    assert available_bytes(tmp_path) == 100 * MIB
    group(tmp_path, f"{top}pod", version, 900 * MIB, 950 * MIB)
    assert available_bytes(tmp_path) == 0


@pytest.mark.parametrize(("version", "line", "limit"), [(2, "0::/app\n", "max"), (1, "4:memory:/app\n", 9223372036854771712)])
def test_a_group_without_limit_is_none(tmp_path, version, line, limit):
    host(tmp_path, line)
    group(tmp_path, "app" if version == 2 else "memory/app", version, limit, 700 * MIB)
    assert available_bytes(tmp_path) == 8000 * MIB


def test_a_container_sees_its_own_group_at_the_top(tmp_path):
    host(tmp_path, "4:memory:/docker/0123\n")
    group(tmp_path, "memory", 1, 512 * MIB, 12 * MIB)
    assert available_bytes(tmp_path) == 500 * MIB
