"""Loads a checkpoint's weights into TensorFlow's classes, whichever library saved them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from errors import ExportRefused
from sources import read_shards


class PyTorchWeights:
    """Safetensors files that PyTorch saved, as one mapping for 🤗's conversion to iterate over.

    transformers 4.57 passes a `safe_open` instead, which current safetensors does not allow to iterate over.
    """

    def __init__(self, files: list[Path]) -> None:
        """Open the files; each weight is read when it is needed."""
        from safetensors import safe_open

        self._homes = {key: opened for file in files for opened in [safe_open(file, "tf")] for key in opened.keys()}  # noqa: SIM118

    def __iter__(self) -> Iterator[str]:
        """Iterate over the weights' names."""
        return iter(self._homes)

    def get_tensor(self, name: str) -> Any:
        """One weight, as a TensorFlow tensor."""
        return self._homes[name].get_tensor(name)


def load_model(folder: Path, config: Any) -> tuple[Any, dict[str, Any]]:
    """The TensorFlow model with the folder's weights, and 🤗's list of keys that are missing or do not fit."""
    from transformers import TFAutoModelForImageClassification

    files = safetensors_files(folder)
    if not files or saved_by(files[0]) != "pt":
        for file in () if files else sorted(folder.glob("*.h5")):
            refuse_other_files(file)
        only = {"local_files_only": True, "use_safetensors": True if files else None}
        return TFAutoModelForImageClassification.from_pretrained(
            folder, config=config, output_loading_info=True, **only
        )
    from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

    model = TFAutoModelForImageClassification.from_config(config)
    model.build_in_name_scope()
    return load_pytorch_state_dict_in_tf2_model(
        model,
        PyTorchWeights(files),
        tf_inputs=False,  # built above
        allow_missing_keys=True,  # the caller refuses them by name
        output_loading_info=True,
        tf_to_pt_weight_rename=getattr(model, "tf_to_pt_weight_rename", None),
    )


def safetensors_files(folder: Path) -> list[Path]:
    """The folder's safetensors files: one file, or all shards in the index; [] if there are none."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return []
    return [folder / name for name in read_shards(index)]


def refuse_other_files(file: Path) -> None:
    """Refuse an HDF5 file that takes data from another file: the revision's hash does not cover that one. Raises ExportRefused."""
    import h5py

    def check(group: Any, name: str) -> None:
        found = group.get(name, getlink=True)
        if isinstance(found, h5py.ExternalLink):
            raise ExportRefused(
                f"{file}: its {name!r} is a link to another file. Next: find out who made the checkpoint."
            )
        if not isinstance(found, h5py.HardLink):
            return  # a soft link leads to something in this file, which is checked by its own name
        item = group[name]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            raise ExportRefused(
                f"{file}: its {name!r} is stored in another file. Next: find out who made the checkpoint."
            )
        if isinstance(item, h5py.Group) and place(item) not in seen:
            seen.add(place(item))
            for below in item:
                check(item, below)

    def place(group: Any) -> tuple[int, int]:
        found = h5py.h5o.get_info(group.id)
        return found.fileno, found.addr  # the same for each name of a group

    with h5py.File(file, "r") as opened:
        seen = {place(opened)}
        for name in opened:
            check(opened, name)


def weights_hash(folder: Path) -> str:
    """sha256:… of the weights' files, in the order of their names."""
    files = safetensors_files(folder) or sorted(folder.glob("*.h5"))
    together = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            together.update(hashlib.file_digest(opened, "sha256").digest())
    return f"sha256:{together.hexdigest()}"


def saved_by(file: Path) -> str | None:
    """Which library saved a safetensors file: "pt", "tf", …, or None if the file does not say."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return (opened.metadata() or {}).get("format")
