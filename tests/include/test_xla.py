"""A SavedModel that only XLA can run is refused at its export: TensorFlow Serving would refuse each request."""

import pytest

pytestmark = pytest.mark.model


@pytest.mark.parametrize("name", ["compiled", "compiled in a function"])
def test_archive_that_needs_xla_is_refused(xla_trial, name):
    """A function that the signature reaches and only XLA may run is named, and TensorFlow itself refuses it."""
    found = xla_trial[name]
    assert "XLA compilation disabled" in found["answer"]
    assert found["refused"].startswith("source: here: ")
    assert "runs only if XLA compiles it, which TensorFlow Serving refuses by default. Next: " in found["refused"]


@pytest.mark.parametrize("name", ["marks left out", "jit_compile=False", "compiled but not called"])
def test_archive_that_runs_without_xla_is_taken(xla_trial, name):
    """A mark that is false, or on a function that nothing calls, does no harm; nor does one that the exporter has removed."""
    assert xla_trial[name] == {"refused": None, "answer": [0.5]}
