"""The memory that reading a file takes."""

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

REASONS = {"PNG": "is broken or cut short", "WebP": ""}  # TensorFlow's WebP decoder reads zeros as pixels


def test_large_file_takes_a_few_times_its_size(memory_trial):
    """A file above the limit takes less than twice its size of memory, one within it less than 8 times its size."""
    assert len(memory_trial) == 4
    for kind, why in REASONS.items():
        large, allowed = memory_trial[f"{kind} of 40 MiB"], memory_trial[f"{kind} of 16 MiB"]
        assert large["why"] == "has 41943040 bytes, 16777216 are allowed"
        assert large["times"] < 2
        assert allowed["why"] == why
        assert allowed["times"] < 8
