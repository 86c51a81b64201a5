"""Makes a tiny checkpoint with random weights of every model family that 🤗 classifies images with.

The weights are such that answers differ between images: a mistake in a graph or in the preparation of its images is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference_pixels import upright_pixels
from sample_images import SampleImage, encoded
from torch_checkpoint import logits_of, prepared

LABELS = 7
SEED = 11
IMAGES = 16
SPREAD = 2.0  # the standard deviation of the logits over images

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TWO_TOWERS = {"vision_config": VIT, "text_config": TEXT}
FOUR = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
RESIDUAL = {**FOUR, "embedding_size": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model type: the processor that its checkpoints have, the side of its images, and its smallest settings."""

    processor: str
    side: int
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "beit": Family(processor="Beit", side=32, config={**VIT, "use_relative_position_bias": True}),
    "bit": Family(processor="Bit", side=64, config={**RESIDUAL, "num_groups": 4}),
    "clip": Family(processor="CLIP", side=32, config=TWO_TOWERS),
    "convnext": Family(processor="ConvNext", side=64, config=FOUR),
    "convnextv2": Family(processor="ConvNext", side=64, config=FOUR),
    "cvt": Family(processor="ConvNext", side=64, config={"embed_dim": [8, 16, 24], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}),
    "data2vec-vision": Family(processor="Beit", side=32, config={**VIT, "use_relative_position_bias": True}),
    "deit": Family(processor="DeiT", side=32, config=VIT),
    "dinat": Family(processor="ViT", side=32, config={"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "kernel_size": 3}),
    "dinov2": Family(processor="Bit", side=32, config=VIT),
    "dinov2_with_registers": Family(processor="Bit", side=32, config=VIT),
    "donut-swin": Family(processor="Donut", side=32, config=WINDOWS),
    "efficientnet": Family(
        processor="EfficientNet",
        side=64,
        config={"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    ),
    "focalnet": Family(
        processor="Bit",
        side=32,
        config={"image_size": 32, "patch_size": 2, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1],
                "focal_levels": [2, 2], "focal_windows": [3, 3]},
    ),
    "hgnet_v2": Family(
        processor="ConvNext",
        side=64,
        config={"stem_channels": [3, 8, 8], "stage_in_channels": [8, 16, 16, 16], "stage_mid_channels": [8] * 4,
                "stage_out_channels": [16, 16, 16, 32], "stage_num_blocks": [1] * 4, "stage_numb_of_layers": [2] * 4,
                "hidden_sizes": [16, 16, 16, 32], "depths": [1] * 4},
    ),
    "hiera": Family(
        processor="Bit", side=64, config={"image_size": [64, 64], "embed_dim": 16, "depths": [1] * 4, "num_heads": [1, 1, 2, 2]}
    ),
    "ijepa": Family(processor="ViT", side=32, config=VIT),
    "imagegpt": Family(processor="ImageGPT", side=8, config={"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 17}),
    "levit": Family(
        processor="Levit",
        side=64,
        config={"image_size": 64, "hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1] * 3,
                "key_dim": [8] * 3},
    ),
    "metaclip_2": Family(processor="CLIP", side=32, config=TWO_TOWERS),
    "mobilenet_v1": Family(processor="MobileNetV1", side=64, config={"image_size": 64, "depth_multiplier": 0.25}),
    "mobilenet_v2": Family(processor="MobileNetV2", side=64, config={"image_size": 64, "depth_multiplier": 0.25}),
    "mobilevit": Family(
        processor="MobileViT",
        side=64,
        config={"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48],
                "num_attention_heads": 2},
    ),
    "mobilevitv2": Family(processor="MobileViT", side=64, config={"image_size": 64, "width_multiplier": 0.25}),
    "perceiver": Family(
        processor="Perceiver",
        side=32,
        config={"image_size": 32, "num_latents": 8, "d_latents": 16, "d_model": 512, "num_self_attends_per_block": 2,
                "num_self_attention_heads": 2, "num_cross_attention_heads": 1},
    ),
    "poolformer": Family(processor="PoolFormer", side=64, config=FOUR),
    "pp_lcnet": Family(processor="PPLCNet", side=64, config={"scale": 0.25}),
    "pvt": Family(processor="Pvt", side=64, config={**FOUR, "num_labels": LABELS, "image_size": 64, "num_attention_heads": [1, 2, 2, 4]}),
    "pvt_v2": Family(processor="Pvt", side=64, config={**FOUR, "image_size": 64, "num_attention_heads": [1, 2, 2, 4]}),
    "regnet": Family(processor="ConvNext", side=64, config={**RESIDUAL, "groups_width": 8}),
    "resnet": Family(processor="ConvNext", side=64, config=RESIDUAL),
    "segformer": Family(processor="Segformer", side=64, config={**FOUR, "num_attention_heads": [1, 2, 2, 4]}),
    "shieldgemma2": Family(processor="Gemma3", side=32),
    "siglip": Family(processor="Siglip", side=32, config=TWO_TOWERS),
    "siglip2": Family(processor="Siglip2", side=32, config=TWO_TOWERS),
    "swiftformer": Family(processor="ViT", side=64, config={"image_size": 64, "depths": [1] * 4, "embed_dims": [16, 24, 32, 48]}),
    "swin": Family(processor="ViT", side=32, config=WINDOWS),
    "swinv2": Family(processor="ViT", side=32, config=WINDOWS),
    "textnet": Family(
        processor="TextNet", side=64, config={"stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 16], "image_size": [64, 64]}
    ),
    "timm_wrapper": Family(
        processor="TimmWrapper",
        side=64,
        config={"architecture": "resnet18", "do_pooling": True, "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 0.875,
                "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
    ),
    "vit": Family(processor="ViT", side=32, config=VIT),
    "vit_msn": Family(processor="ViT", side=32, config=VIT),
}  # fmt: skip


def processor_settings(name: str, side: int) -> dict[str, Any]:
    """Settings of a processor that outputs squares of that side, after a crop where its checkpoints have one."""
    square, larger = {"height": side, "width": side}, side * 8 // 7
    shorter = {"size": {"shortest_edge": side}, "crop_size": square}
    cropped = {"size": {"shortest_edge": larger}, "crop_size": square}
    return {
        "ConvNext": {"size": {"shortest_edge": side}, "crop_pct": 0.875},
        "Levit": shorter,
        "PoolFormer": {**shorter, "crop_pct": 0.9},
        **dict.fromkeys(("Bit", "CLIP", "MobileNetV1", "MobileNetV2", "MobileViT"), cropped),
        "DeiT": {"size": {"height": larger, "width": larger}, "crop_size": square},
        "TimmWrapper": {
            "pretrained_cfg": {"input_size": (3, side, side), "crop_pct": 0.875, "interpolation": "bicubic"}
        },
        "Perceiver": {"size": square, "crop_size": {"height": larger, "width": larger}},
        "PPLCNet": {"resize_short": larger, "crop_size": square},
        "TextNet": {"size": {"shortest_edge": side}},
        "EfficientNet": {"size": square, "rescale_factor": 1 / 127.5, "rescale_offset": True},
    }.get(name, {"size": square})


def make_checkpoint(model_type: str, folder: Path) -> None:
    """Write a family's checkpoint. Raises whatever 🤗 raises if it cannot be made here."""
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageClassification

    family = FAMILIES[model_type]
    names = {number: f"label {number}" for number in range(LABELS)}
    label_names = {"id2label": names, "label2id": {name: number for number, name in names.items()}}
    found = AutoModelForImageClassification._model_mapping[CONFIG_MAPPING[model_type]]
    first = found[0] if isinstance(found, tuple) else found
    config = AutoConfig.for_model(model_type, architectures=[first.__name__], **family.config, **label_names)
    model = first(config).eval()
    named = f"{family.processor}ImageProcessor"
    processor = getattr(transformers, named)(**processor_settings(family.processor, family.side))
    randomise(model)
    spread_logits(model, processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def randomise(model: Any) -> None:
    """Give every weight a value of its own: new models have many zeros and ones, which hide mistakes."""
    import torch

    torch.manual_seed(SEED)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) / max(weight[0].numel(), 1) ** 0.5)
            else:
                weight.add_(0.1 * torch.randn_like(weight))


def spread_logits(model: Any, processor: Any) -> None:
    """Measure the statistics of the layers that normalise batches, and scale the last layer so that answers differ between images."""
    import numpy as np
    import torch

    pixels = torch.from_numpy(
        np.concatenate([prepared(processor, upright_pixels(image.data)) for image in colourful()])
    )
    with torch.no_grad():
        for layer in [layer for layer in model.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean of all images
            layer.train()
        model(pixel_values=pixels)
        heads = [layer for layer in model.eval().modules() if getattr(layer, "out_features", None) == LABELS]
        for head in heads:
            if head.bias is not None:
                head.bias.zero_()
        logits = logits_of(model(pixel_values=pixels))
        usual = logits.mean(dim=0)
        scale = SPREAD / float((logits - usual).std())
        for head in heads:
            head.weight.mul_(scale)
            if head.bias is not None:  # otherwise one label would be the most likely for all images
                head.bias.copy_(-scale * usual)


def colourful() -> list[SampleImage]:
    """Images with large areas of different colours, and noise."""
    import numpy as np
    from PIL import Image

    source, found = np.random.default_rng(SEED), []
    for number in range(IMAGES):
        areas = Image.fromarray(source.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize(
            (200, 150), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(areas) + source.integers(-60, 61, (150, 200, 3))
        image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        found.append(SampleImage("PNG", f"colours {number}", encoded(image, "PNG")))
    return found
