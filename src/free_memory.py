"""How much memory is free for training."""

from pathlib import Path

import torch

# Of cgroups, which limit containers and the jobs of a cluster: {controllers of a line of
# /proc/self/cgroup: (folder, file of the limit, file of what is used, beginning of the lines of
# memory.stat with files that the kernel can drop)}. "" is version 2.
CGROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_",
    ),
}


def free_memory(device: torch.device, root: str | Path = "/") -> int | None:
    """Bytes of memory that are free on the device; None where the system does not say.

    On Linux no more than the limits of a container or a cluster's job leave. root: the folder that
    holds proc/ and sys/.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path(root, "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    numbers = dict(line.split(":") for line in lines)
    if "MemAvailable" not in numbers:
        return None
    available = 1024 * int(numbers["MemAvailable"].split()[0])
    return min([available, *free_in_cgroups(Path(root))])


def free_in_cgroups(root: Path) -> list[int]:
    """Bytes that each limited cgroup of this process may still take."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    free = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers not in CGROUPS:
            continue
        top, *names = CGROUPS[controllers]
        folder = root / top
        folders = [folder := folder / part for part in Path(own.strip("/")).parts]
        # Within a container only the first of them may be there.
        for each in [root / top, *folders]:
            try:
                free += free_in_cgroup(each, *names)
            except (OSError, ValueError):  # not there, or not to be read
                continue
    return free


def free_in_cgroup(folder: Path, limit_file: str, used_file: str, prefix: str) -> list[int]:
    """The one number of bytes that a limited cgroup may still take; [] without a limit."""
    limit = (folder / limit_file).read_text(encoding="ascii").strip()
    if limit == "max":
        return []
    used = int((folder / used_file).read_text(encoding="ascii"))
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    droppable = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return [max(int(limit) - used + droppable, 0)]
