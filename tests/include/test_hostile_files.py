"""Damaged weights and images: read, or refused, within a second and 200 MiB each, and no process crashes."""

import pytest
from hostile import LIMIT_KIB, LIMIT_S

pytestmark = pytest.mark.model

KINDS = {"safetensors": 150, "safetensors headers": 6, "HDF5": 150, "images": 250}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(fuzz_trial, kind):
    """Hundreds of them. Some are accepted, as what is damaged does not matter; most are refused."""
    found = fuzz_trial[kind]
    assert found["wrong"] == []
    assert found["accepted"] + found["refused"] == KINDS[kind]
    assert found["refused"] > KINDS[kind] / 10
    assert found["seconds"] < LIMIT_S
    assert found["mib"] < LIMIT_KIB / 1024
