"""Loads a checkpoint with 🤗's PyTorch class, and nothing but its own weights.

transformers fills weights that a checkpoint lacks with random numbers, and only reports it. Such a model would pass every
comparison with itself, so each difference between the checkpoint and the class is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from errors import ExportRefused
from reference_pixels import prepare
from sources import is_old, is_timm
from tensorflow_layout import read_weights
from toolchain import Checkpoint, NoReference, read_labels
from weights import safetensors_files, saved_by, weights_hash

ONLY = {"local_files_only": True, "trust_remote_code": False}  # no network, no code from the checkpoint
PROCESSOR = "preprocessor_config.json"
OLD_NAME = "FeatureExtractor"  # what image processors were called
ONE_NAME = 5  # the transformers that saves a processor under one name, whichever library it computes with
KINDS = ("missing_keys", "mismatched_keys", "unexpected_keys")
# Families of 🤗's that classify images, but not from pixels alone.
OTHER_INPUTS = {
    "imagegpt": "takes the numbers of colours instead of pixels",
    "shieldgemma2": "takes text beside the image",
    "siglip2": "takes a varying number of patches of an image",
}
SHOWN = 3  # names of weights in a message


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load the model and processor of a checkpoint folder. Raises ExportRefused if it cannot be served."""
    from transformers import AutoConfig, AutoModelForImageClassification

    if is_old(folder):
        raise ExportRefused(
            f"source: {folder}: its weights are in HDF5, which only TensorFlow's classes read. Next: save it with safetensors."
        )
    try:
        config = AutoConfig.from_pretrained(folder, **ONLY)
        processor = load_processor(folder)
    except Exception as error:  # 🤗 raises a dozen types of errors for invalid files
        raise ExportRefused(
            f"{folder}: {_first_line(error)} Next: use a 🤗 image-classification checkpoint."
        ) from error
    found = AutoModelForImageClassification._model_mapping.get(type(config), None)
    if found is None:
        raise ExportRefused(
            f"{folder}/config.json: model type {config.model_type!r} has no class for image classification in this transformers. "
            "Next: use e.g. a ViT, Swin, ConvNeXt, BEiT or DINOv2 checkpoint."
        )
    if isinstance(found, tuple) and not config.architectures:
        names = " or ".join(kind.__name__ for kind in found)
        raise ExportRefused(f"{folder}/config.json: it has no architectures. Next: let it name {names}.")
    refuse_other_inputs(config.model_type, where=f"{folder}/config.json")
    model = load_model(folder, config)
    return Checkpoint(
        model=model,
        processor=processor,
        labels=read_labels(config.id2label, where=f"{folder}/config.json"),
        weights_hash=weights_hash(folder),
        parameters=sum(weight.numel() for weight in model.parameters()),
        prepare=lambda pixels: prepared(processor, pixels),
        logits=lambda prepared: _logits(model, prepared),
    )


def refuse_other_inputs(model_type: str, *, where: str) -> None:
    """Refuse a model type that needs anything but pixels. Raises ExportRefused."""
    if model_type in OTHER_INPUTS:
        raise ExportRefused(
            f"{where}: model type {model_type!r} {OTHER_INPUTS[model_type]}. Next: use e.g. a ViT, Swin, ConvNeXt, BEiT or DINOv2 checkpoint."
        )


def prepared(processor: Any, pixels: Any) -> Any:
    """The output of a processor for uint8 pixels (height, width, 3), float32 (1, 3, height, width). Raises NoReference."""
    from PIL import Image

    try:
        if type(processor).__name__ == "TimmWrapperImageProcessor":  # takes neither arrays nor words about them
            return processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"].numpy()
        return prepare(processor, pixels.copy())  # PyTorch wants pixels that it could write to
    except (
        Exception
    ) as error:  # whatever a processor raises, e.g. Perceiver's for an image of which its crop leaves nothing
        raise NoReference(_first_line(error)) from error


def load_processor(folder: Path) -> Any:
    """The processor that the checkpoint names, on the library that `library_of` says."""
    import transformers
    from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

    if is_timm(folder):
        return TimmWrapperImageProcessor.from_pretrained(folder, **ONLY)
    settings, config = (json.loads((folder / file).read_text(encoding="utf-8")) for file in (PROCESSOR, "config.json"))
    named = str(settings.get("image_processor_type", ""))
    if named.endswith(OLD_NAME):  # transformers 5 knows such a name only under feature_extractor_type
        kind = getattr(transformers, f"{named.removesuffix(OLD_NAME)}ImageProcessorPil", None)
        if kind is not None:
            return kind.from_pretrained(folder, **ONLY)
    library = library_of(named, str(settings.get("transformers_version") or config.get("transformers_version") or ""))
    return transformers.AutoImageProcessor.from_pretrained(folder, backend=library, **ONLY)


def library_of(processor: str, saved_by_version: str) -> str:
    """What a processor computes with: pil or torchvision, by its name and the version of transformers that saved it.

    Up to transformers 4, the plain name is the class on PIL, and that on torchvision ends in Fast. Transformers 5 saves both
    under the plain name, and loads that one on torchvision. It saves no version with a processor, so the model's counts.
    """
    if processor.endswith("Fast"):
        return "torchvision"
    major = saved_by_version.partition(".")[0]
    by_name = processor.endswith(("Pil", OLD_NAME))
    return "torchvision" if not by_name and major.isdecimal() and int(major) >= ONE_NAME else "pil"


def load_model(folder: Path, config: Any) -> Any:
    """The model in float32 with the folder's weights. Raises ExportRefused if one is missing, does not fit or is left over."""
    import torch
    from transformers import AutoModelForImageClassification

    try:
        files = safetensors_files(folder)
        turned = saved_by(files[0]) == "tf"
        given = {"state_dict": read_weights(files)} if turned else {"use_safetensors": True}
        with torch.device("meta"):  # makes no weights
            kind = type(AutoModelForImageClassification.from_config(config))
        model, info = kind.from_pretrained(
            None if turned else folder, config=config, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused by name below
            **given, **ONLY,
        )  # fmt: skip
    except Exception as error:  # the same, and SafetensorError has no base class but Exception
        raise ExportRefused(f"{folder}: {_first_line(error)} Next: check its weights.") from error
    refuse_other_weights(folder, info, type(model).__name__)
    return model.eval()


def refuse_other_weights(folder: Path, info: dict[str, Any], model: str) -> None:
    """Refuse a checkpoint whose weights are not exactly the model's. Raises ExportRefused with their names."""
    for kind in KINDS:
        keys = sorted(key if isinstance(key, str) else str(key[0]) for key in info.get(kind) or ())
        if keys:
            shown = ", ".join(keys[:SHOWN]) + (", …" if len(keys) > SHOWN else "")
            what = {
                "missing_keys": "missing",
                "mismatched_keys": "of another shape",
                "unexpected_keys": f"none of {model}'s",
            }
            raise ExportRefused(
                f"{folder}: {len(keys)} weights are {what[kind]} ({shown}). "
                "Next: use a checkpoint that was trained for image classification."
            )
    for error in info.get("error_msgs") or ():
        raise ExportRefused(f"{folder}: {error} Next: check its weights.")


def _logits(model: Any, prepared: Any) -> Any:
    import torch

    with torch.inference_mode():
        return logits_of(model(pixel_values=torch.from_numpy(prepared)))[0].numpy()


def logits_of(output: Any) -> Any:
    """The logits in a model's output; PP-LCNet's class calls them its last hidden state."""
    return output.logits if "logits" in output else output.last_hidden_state


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
