"""Exports small untrained checkpoints of every supported kind and runs them; conftest.py runs this in the exporter's environment.

Its argument is a folder for its output, which includes `other-signature`, a SavedModel without labels.
Prints one JSON object: for each checkpoint the answers of the exported graph and of 🤗's own model, or the refusal;
under `bad-images` the answers to bad images with each setting of `on_bad_image`.
"""

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
import transformers
from errors import ExportRefused, PromiseBroken
from export import TensorFlow
from exporting import export_checkpoint, prove_parity
from golden import reference_answer, reference_probabilities
from PIL import Image
from request import Folder, GoldenImage, Request, Settings
from safetensors.numpy import load_file, save_file
from sample_images import cmyk, encoded, scene
from savedmodel import ExportedGraph
from served_graph import load_checkpoint
from sklearn.datasets import load_sample_image
from transformers import (
    CLIPImageProcessor,
    ConvNextConfig,
    ConvNextImageProcessor,
    DeiTConfig,
    DeiTImageProcessor,
    DonutImageProcessor,
    LevitConfig,
    MobileViTConfig,
    MobileViTImageProcessor,
    SwinConfig,
    ViTConfig,
    ViTImageProcessor,
)
from transformers.modeling_tf_pytorch_utils import convert_tf_weight_name_to_pt_weight_name
from xla_trial import refuse_xla_in_tensorflow

NAMES = {0: "Ägyptische Katze", 1: "dog", 2: "bird", 3: "fish"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
ELSEWHERE = ("vit-h5", "vit-pytorch")  # the same weights in other files
SETTINGS = Settings(top_k=1000, max_file_bytes=200_000, max_side=2000)
SIZE_64 = {"height": 64, "width": 64}


def save(folder: Path, class_name: str, config: object, processor: object, *, h5: bool) -> object:
    """Save a model with random weights, scaled so that its answers differ between images."""
    config.id2label, config.label2id = NAMES, {name: number for number, name in NAMES.items()}
    tf.keras.utils.set_random_seed(5)
    model = getattr(transformers, class_name)(config)
    model(pixel_values=np.zeros((1, 3, config.image_size, config.image_size), np.float32))
    for weight in model.weights:
        if "classifier" in weight.name and "kernel" in weight.name:
            weight.assign(weight * 40)
    model.save_pretrained(folder, safe_serialization=not h5)
    processor.save_pretrained(folder)
    return model


def as_pytorch(folder: Path, model: object) -> None:
    """Rewrite the weights as PyTorch saves them: its names, its axis order, its format field."""
    arrays = {}
    for weight in model.weights:
        name, turn = convert_tf_weight_name_to_pt_weight_name(
            weight.name, start_prefix_to_remove="", tf_weight_shape=weight.shape, name_scope=None
        )
        order = {"simple": (1, 0), "conv2d": (3, 2, 0, 1)}.get(turn.value)
        array = weight.numpy()
        arrays[name] = np.ascontiguousarray(array.transpose(order) if order else array)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})


def without_head(folder: Path) -> None:
    """Remove the classifier's weights, as in a checkpoint that was not trained to classify."""
    weights = {key: value for key, value in load_file(folder / "model.safetensors").items() if "classifier" not in key}
    save_file(weights, folder / "model.safetensors", metadata={"format": "tf"})


def make(root: Path) -> dict[str, Path]:
    """Make every checkpoint. Returns their folders by name."""
    vit = ViTConfig(image_size=32, patch_size=8, **SMALL)
    deit = DeiTConfig(image_size=32, patch_size=8, **SMALL)
    swin = SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
    convnext = ConvNextConfig(image_size=64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
    mobilevit = MobileViTConfig(
        image_size=64,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 12, 16, 20, 24, 28, 32],
        num_attention_heads=2,
    )
    small = ViTImageProcessor(size={"height": 32, "width": 32}, resample=3)
    kinds = {
        "vit": ("TFViTForImageClassification", vit, small),
        "vit-h5": ("TFViTForImageClassification", vit, small),
        "vit-pytorch": ("TFViTForImageClassification", vit, small),
        "deit": (
            "TFDeiTForImageClassification",
            deit,
            DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}),
        ),
        "swin": ("TFSwinForImageClassification", swin, ViTImageProcessor(size=SIZE_64, resample=3)),
        "convnext": (
            "TFConvNextForImageClassification",
            convnext,
            ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
        ),
        "mobilevit": (
            "TFMobileViTForImageClassification",
            mobilevit,
            MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=SIZE_64),
        ),
        "without-head": ("TFViTForImageClassification", vit, small),
        "clip-processor": (
            "TFViTForImageClassification",
            vit,
            CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        ),
        "other-processor": ("TFViTForImageClassification", vit, DonutImageProcessor(size={"height": 32, "width": 32})),
    }
    folders = {}
    for name, (class_name, config, processor) in kinds.items():
        folders[name] = root / name
        model = save(folders[name], class_name, config, processor, h5=name == "vit-h5")
        if name == "vit-pytorch":
            as_pytorch(folders[name], model)
        if name == "without-head":
            without_head(folders[name])
    folders["other-model"] = root / "other-model"
    LevitConfig().save_pretrained(folders["other-model"])
    small.save_pretrained(folders["other-model"])
    return folders


def photos(root: Path) -> list[Path]:
    """Two photographs and a crop of each."""
    paths = []
    for name in ("china.jpg", "flower.jpg"):
        image = Image.fromarray(load_sample_image(name))
        for part, cut in {"whole": image, "part": image.crop((120, 40, 420, 400))}.items():
            paths.append(root / f"{part}-{name}")
            cut.save(paths[-1], quality=92)
    return paths


def exported(folder: Path) -> Path:
    """Where a checkpoint's SavedModel is."""
    return folder.with_name(folder.name + "-savedmodel")


def trial(folder: Path, files: list[bytes]) -> dict[str, object]:
    """The answers of every signature and of 🤗 to all images at once, or the refusal."""
    try:
        checkpoint = export_checkpoint(folder, exported(folder), SETTINGS, TensorFlow())
    except ExportRefused as refused:
        return {"refused": str(refused)}
    graph = ExportedGraph(exported(folder))
    return {
        "labels": list(checkpoint.labels),
        "reference": [reference_probabilities(checkpoint, data).tolist() for data in files],
        "serving_default": shown(graph.call("serving_default", [base64.urlsafe_b64encode(data) for data in files])),
        "raw_bytes": shown(graph.call("raw_bytes", files)),
        "top_k": shown(graph.call("top_k", files)),
    }


def without_xla(names: list[str], root: Path, data: bytes) -> dict[str, object]:
    """The answers of exported graphs where TensorFlow refuses to compile with XLA, as TensorFlow Serving does by default.

    One image alone is a size that nothing has been compiled for.
    """
    refuse_xla_in_tensorflow()
    answers: dict[str, object] = {}
    for name in names:
        try:
            answers[name] = shown(ExportedGraph(exported(root / name)).call("top_k", [data]))
        except tf.errors.InternalError as error:
            answers[name] = error.message
    return answers


def references(folder: Path, files: list[bytes]) -> list[object]:
    """🤗's probabilities for each image with the weights in that folder."""
    checkpoint = load_checkpoint(folder)
    return [reference_probabilities(checkpoint, data).tolist() for data in files]


def shown(outputs: dict[str, np.ndarray]) -> dict[str, object]:
    """Outputs as JSON values."""
    return {
        name: np.char.decode(values.astype(bytes), "utf-8").tolist() if values.dtype == object else values.tolist()
        for name, values in outputs.items()
    }


def bad_images() -> dict[str, bytes]:
    """Bad image files, by what is wrong with them."""
    photo = scene(90, 60)
    jpeg, png, gif, bmp, webp = (encoded(photo, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"))
    corner = gif[:6] + (100).to_bytes(2, "little") * 2 + gif[10:]  # its header declares more than its frame has
    bomb = bytearray(png)
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2  # its header declares 50000 x 50000 pixels
    return {
        "empty": b"",
        "text": b"hello",
        "html": b"<!DOCTYPE html><html></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "cut jpeg": jpeg[:-200],
        "cut jpeg header": jpeg[:30],
        "cut png": png[: len(png) // 2],
        "cut gif": gif[:-400],
        "cut bmp": bmp[:-1],
        "cut webp": webp[: len(webp) // 2],
        "png signature alone": png[:8],
        "bomb": bytes(bomb),
        "large file": png + bytes(200_000),
        "long side": encoded(scene(2001, 1), "PNG"),
        "gif without frame": gif[:13] + b"\x3b",
        "part of a gif": corner,
        "cmyk jpeg without adobe": without_segment(encoded(cmyk(photo), "JPEG"), b"\xff\xee"),
        "animated webp": encoded(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)]),
        "bmp of 16 bits": bmp[:28] + b"\x10" + bmp[29:],
    }


def without_segment(jpeg: bytes, marker: bytes) -> bytes:
    """A JPEG without the first segment that has this marker."""
    before, _, after = jpeg.partition(marker)
    return before + after[int.from_bytes(after[:2], "big") :]


def answer_bad_images(folder: Path) -> dict[str, object]:
    """For each `on_bad_image`: the answers to each bad image between two good ones, and to broken base64."""
    good, answers = encoded(scene(90, 60), "JPEG"), {}
    marking = folder.with_name("marking")
    export_checkpoint(folder, marking, replace(SETTINGS, on_bad_image="mark"), TensorFlow())
    for way, savedmodel in {"refuse": exported(folder), "mark": marking}.items():
        graph = ExportedGraph(savedmodel)

        def ask(signature: str, files: list[bytes], graph: ExportedGraph = graph) -> object:
            try:
                return shown(graph.call(signature, files))
            except tf.errors.InvalidArgumentError as error:
                return {"INVALID_ARGUMENT": error.message}

        answers[way] = {
            "good": {signature: ask(signature, [good, good]) for signature in ("raw_bytes", "top_k")},
            "bad": {name: ask("raw_bytes", [good, data, good]) for name, data in bad_images().items()},
            "top_k": ask("top_k", [good, b"hello", good]),
            "base64": ask("serving_default", [b"***", base64.urlsafe_b64encode(good)]),
        }
    return answers


def break_parity(folder: Path) -> list[str]:
    """The exporter's messages if the graph resizes with another filter than the processor, or the model returns NaNs."""
    other, none = load_checkpoint(folder), load_checkpoint(folder)
    other.processor.resample = 0
    none.model.weights[-1].assign(none.model.weights[-1] * np.nan)
    return [judged(checkpoint, folder) for checkpoint in (other, none)]


def judged(checkpoint: object, folder: Path) -> str:
    """The message of an export of this checkpoint that has written another's graph."""
    request = Request(model="vit", source=Folder(path=folder), golden=(), settings=SETTINGS)
    try:
        prove_parity(request, checkpoint, ExportedGraph(exported(folder)), TensorFlow())
    except PromiseBroken as broken:
        return str(broken)
    return "nothing is wrong"


def tolerances(folder: Path) -> list[float]:
    """How far the served confidence may be from 🤗's own on a golden image in RGB, and on one in CMYK."""
    checkpoint, image, graph = load_checkpoint(folder), folder / "golden.jpg", ExportedGraph(exported(folder))
    case = GoldenImage(name="scene", image=image, label="dog", min_confidence=0)
    found = []
    for picture in (scene(90, 60), cmyk(scene(90, 60))):
        picture.save(image)
        found.append(reference_answer(checkpoint, case, image.read_bytes(), graph).tolerance)
    return found


def main() -> None:
    """Try every checkpoint; the exporter's progress lines go to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    root = Path(sys.argv[1])
    files = [photo.read_bytes() for photo in photos(root)]
    folders = make(root)
    results: dict[str, object] = {name: {"reference": references(folders.pop(name), files)} for name in ELSEWHERE}
    results |= {name: trial(folder, files) for name, folder in folders.items()}
    results["parity"] = break_parity(folders["vit"])
    results["tolerances"] = tolerances(folders["vit"])
    results["bad-images"] = answer_bad_images(folders["vit"])
    double = tf.Module()
    double.run = tf.function(lambda x: {"y": x * 2}, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(double, str(root / "other-signature"), signatures=double.run)
    results["without-xla"] = without_xla(["vit", "deit", "swin", "convnext", "mobilevit"], root, files[0])
    print(json.dumps(results), file=out)


if __name__ == "__main__":
    main()
