"""Makes TensorFlow importable without its public API, which `tensorflow/__init__.py` would import with Keras.

That file costs 8 s of a pod's start, where the few modules that a session and a loader need cost under 2 s.
"""

import importlib.util
import os
import sys
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


def _leave_out_the_public_api() -> None:
    """Put the package in place without running its `__init__.py`; modules below it are then found as ever."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("stand-in for tensorflow/serving: TensorFlow is not installed. Next: rebuild this image.")
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["tensorflow"] = package


_leave_out_the_public_api()
