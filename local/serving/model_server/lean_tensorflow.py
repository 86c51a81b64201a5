"""Makes TensorFlow importable without its public API, which `tensorflow/__init__.py` would import together with Keras.

Importing that file takes 8 s of a pod's start. The few modules that a session and a loader need take less than 2 s.
"""

import importlib.util
import os
import sys
import types


def skip_public_api() -> None:
    """Register TensorFlow's package without running its `__init__.py`. Call it before any module imports TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("stand-in for tensorflow/serving: TensorFlow is not installed. Next: rebuild this image.")
    package = types.ModuleType("tensorflow")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["tensorflow"] = package
