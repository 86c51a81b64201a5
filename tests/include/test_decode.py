"""What reading a file costs before it is decoded."""

import pytest

pytestmark = pytest.mark.model

SAYS = {"PNG": "is broken or cut short", "WebP": ""}  # TensorFlow's WebP decoder takes zeros for pixels


def test_large_file_takes_a_few_times_its_size(memory_trial):
    """A file beyond the limit takes its own size of memory, and one within it a few times that, whatever its header."""
    assert len(memory_trial) == 4
    for kind, why in SAYS.items():
        large, allowed = memory_trial[f"{kind} of 40 MiB"], memory_trial[f"{kind} of 16 MiB"]
        assert large["why"] == "has 41943040 bytes, 16777216 are allowed"
        assert large["times"] < 2
        assert allowed["why"] == why
        assert allowed["times"] < 8
