"""Free memory: that of the machine, and within the limits of a container or a job."""

import pytest
import torch

from src.free_memory import free_memory

CPU = torch.device("cpu")
GB = 10**9
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
V2 = ("memory.max", "memory.current", "")


def write_machine(root, available, cgroup=None):
    """The files of a machine with `available` bytes; cgroup: lines of /proc/self/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    text = f"MemTotal: 99 kB\nMemAvailable: {available // 1024} kB\n"
    (root / "proc/meminfo").write_text(text)
    if cgroup is not None:
        (root / "proc/self/cgroup").write_text(cgroup)


def write_cgroup(folder, limit, used, droppable, names=V2):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    lines = (
        "anon 5",
        *(f"{names[2]}{kind}_file {droppable // 2}" for kind in ("inactive", "active")),
    )
    (folder / "memory.stat").write_text("\n".join(lines))


@pytest.mark.parametrize("cgroup", [None, "", "0::/\n", "3:cpuset:/a\n0::/user.slice\n"])
def test_without_a_limit_it_is_what_the_machine_has(tmp_path, cgroup):
    write_machine(tmp_path, 1024 * 10**6, cgroup)
    assert free_memory(CPU, tmp_path) == 1024 * 10**6


def test_a_job_has_what_its_limits_leave(tmp_path):
    """Files that were read count as used, but the kernel drops them where memory is needed."""
    write_machine(tmp_path, 60 * GB, "0::/job/step\n")
    write_cgroup(tmp_path / "sys/fs/cgroup/job", 4 * GB, 3 * GB, GB // 2)
    write_cgroup(tmp_path / "sys/fs/cgroup/job/step", "max", 2 * GB, 0)
    assert free_memory(CPU, tmp_path) == 4 * GB - 3 * GB + GB // 2


def test_a_container_sees_its_own_folder_alone(tmp_path):
    write_machine(tmp_path, 60 * GB, "0::/system.slice/docker-abc.scope\n")
    write_cgroup(tmp_path / "sys/fs/cgroup", 2 * GB, GB, 0)
    assert free_memory(CPU, tmp_path) == GB


def test_version_one_has_other_names_and_a_number_for_no_limit(tmp_path):
    write_machine(tmp_path, 8 * GB, "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n")
    top = tmp_path / "sys/fs/cgroup/memory"
    write_cgroup(top, 9223372036854771712, 3 * GB, 0, V1)
    assert free_memory(CPU, tmp_path) == 8 * GB // 1024 * 1024
    write_cgroup(top / "docker/abc", 3 * GB, 3 * GB, GB, V1)
    assert free_memory(CPU, tmp_path) == GB
    write_cgroup(top / "docker/abc", 3 * GB, 4 * GB, 0, V1)  # more than it may
    assert free_memory(CPU, tmp_path) == 0


def test_other_systems_do_not_say(tmp_path):
    assert free_memory(CPU, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\n")
    assert free_memory(CPU, tmp_path) is None
