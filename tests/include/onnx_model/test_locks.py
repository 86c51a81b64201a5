"""The exporter judges with what the server serves with."""

import re
from pathlib import Path

import pytest

INCLUDE = Path(__file__).parents[3] / "include"


def locked(folder):
    """The versions of a lock file."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (INCLUDE / folder / "requirements.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("package", ["numpy", "onnxruntime", "pillow", "protobuf", "grpcio"])
def test_both_locks_have_the_same_version(package):
    """Decoder, resize, arithmetic and messages of the exporter's comparison are the server's to the version."""
    assert locked("onnx_server")[package] == locked("onnx_model")[package]
