"""How many processors the server uses without a flag."""

import os

import pytest

from onnx_server.flags import ServerFlags
from onnx_server.processors import processors

OWN = 4


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """The process may run on four processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(OWN)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "80000 100000\n"}, 1),
        ({"cpu.max": "800000 100000\n"}, OWN),
        ({"cpu.max": "max 100000\n"}, OWN),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, OWN),
        ({"cpu.max": "what\n"}, OWN),
        ({}, OWN),
    ],
)
def test_quota_of_the_control_group_counts(tmp_path, files, expected):
    """The smaller of the processors and the quota, rounded up, in both versions of control groups; without a quota, the processors."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors(tmp_path) == expected


def test_flag_counts_before_the_quota():
    """An explicit number is used as it is, even if it is larger."""
    assert ServerFlags(tensorflow_intra_op_parallelism=9).threads == 9
    assert ServerFlags().threads <= OWN
