"""What this machine has left for a process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = {  # controllers as /proc names them: where the group lies, its limit, its usage, and what of that the kernel takes back first
    "": (".", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that may still be taken: what the host has left, or less where a control group (version 1 or 2) allows less."""
    host = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration):  # an old or foreign kernel
        lines = (root / "proc/meminfo").read_text().splitlines()
        host = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    return max(0, min([host, *_rooms(root)]))


def _rooms(root: Path) -> Iterator[int]:
    """What each control group around this process has left; one below another is bound by both."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, place = line.split(":", 2)
        for name in GROUPS.keys() & names.split(","):
            where, limit, usage, reclaimable = GROUPS[name]
            top = root / "sys/fs/cgroup" / where
            folder = top / place.lstrip("/")
            for group in (folder, *folder.parents):
                if not group.is_relative_to(top):
                    break
                with contextlib.suppress(OSError, ValueError):  # the top has no limit, a container sees no group above its own; "max"
                    left = int((group / limit).read_text()) - int((group / usage).read_text())
                    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    yield left + int(stat.get(reclaimable, 0))
