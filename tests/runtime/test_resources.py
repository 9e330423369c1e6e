"""What a process may use: its control group's limits where there are some."""

import os

import pytest

from services.runtime.resources import cpu_cores, memory_limit

CORES = len(os.sched_getaffinity(0))
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(None, CORES), ("max 100000", CORES), ("50000 100000", 0.5), ("900000000 100000", CORES), ("nonsense", CORES)],
)
def test_cores_are_those_of_the_affinity_or_of_the_quota(tmp_path, quota, cores):
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cpu_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("file", "limit", "expected"),
    [
        (None, "", MACHINE),
        ("memory.max", "max", MACHINE),
        ("memory.max", "1048576", 1048576),
        ("memory/memory.limit_in_bytes", "2097152", 2097152),
        ("memory/memory.limit_in_bytes", "9223372036854771712", MACHINE),
    ],
)
def test_memory_is_that_of_the_control_group_or_of_the_machine(tmp_path, file, limit, expected):
    if file is not None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(limit + "\n")
    assert memory_limit(tmp_path) == expected
