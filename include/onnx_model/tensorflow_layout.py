"""Weights that TensorFlow's classes saved, in the layout of PyTorch's: other names, and kernels with their axes in another order.

Nothing is guessed: what the rules do not cover keeps a name that the model does not have, and loading refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAMES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "embeddings": "weight",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# By the rank of a kernel: a dense layer's [in, out]; a convolution's [width, in, out] and [height, width, in, out].
ORDERS = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}
DEPTHWISE = (2, 3, 0, 1)  # [height, width, channels, 1]


def read_weights(files: Iterable[Path]) -> dict[str, Any]:
    """The files' weights as PyTorch's tensors, by their names there. Raises ValueError for a name that TensorFlow does not give."""
    import numpy as np
    import torch
    from safetensors import safe_open

    found = {}
    for file in files:
        with safe_open(file, "np") as opened:
            for key in opened.keys():  # noqa: SIM118 (it is no mapping)
                if "/" not in key:
                    raise ValueError(
                        f"{file.name} is in TensorFlow's layout, and its {key} has no name of TensorFlow's"
                    )
                value = opened.get_tensor(key)
                order = axes(key, value.ndim)
                turned = np.ascontiguousarray(value.transpose(order)) if order else value
                found[name(key)] = torch.from_numpy(turned)
    return found


def name(key: str) -> str:
    """PyTorch's name of a weight."""
    plain = key.partition(":")[0].replace("_._", "/")
    plain = re.sub(r"(^|/)[^/]*___([^/]*)/", r"\1\2/", plain)
    parts = [part for part in plain.split("/") if part]
    return ".".join([*parts[:-1], NAMES.get(parts[-1], parts[-1])])


def axes(key: str, rank: int) -> tuple[int, ...] | None:
    """The order in which PyTorch has a weight's axes; None if it is the same."""
    last = key.partition(":")[0].rpartition("/")[2]
    if last == "depthwise_kernel":
        return DEPTHWISE
    return ORDERS.get(rank) if last == "kernel" else None
