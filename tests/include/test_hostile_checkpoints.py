"""Hostile settings and labels of a checkpoint: accepted, or refused in one line of printable characters."""

import json
import math

import pytest
from errors import ExportRefused
from hostile import NASTY, assert_plain, bounded, json_values, mutated, scalars, texts
from hypothesis import given
from hypothesis import strategies as st
from process import exit_status
from processor import plan_preprocess
from sources import read_shards
from toolchain import read_labels

PROCESSOR = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "crop_pct": 0.875,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_flip_channel_order": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CONVNEXT = {**PROCESSOR, "do_center_crop": False, "size": {"shortest_edge": 224}}
KINDS = {
    "ViTImageProcessor": PROCESSOR,
    "DeiTImageProcessor": PROCESSOR,
    "ConvNextImageProcessor": CONVNEXT,
    "MobileViTImageProcessor": PROCESSOR | {"size": {"shortest_edge": 256}},
    "LevitImageProcessor": PROCESSOR | {"size": {"shortest_edge": 224}},
    "PoolFormerImageProcessor": PROCESSOR | {"size": {"shortest_edge": 224}},
    "EfficientNetImageProcessor": PROCESSOR | {"rescale_offset": True, "include_top": True},
}


@pytest.fixture
def accepted(capsys):
    """What a call returns; None if it refuses, and then the exporter's own line on stderr is checked."""

    def attempt(call, *words, **named):
        with bounded():
            try:
                return call(*words, **named)
            except ExportRefused as refused:
                capsys.readouterr()
                exit_status(refused)
        [line] = capsys.readouterr().err.splitlines()
        assert_plain(line)
        assert "Next: " in line
        return None

    return attempt


@pytest.mark.parametrize("kind", KINDS)
def test_valid_settings_are_accepted(accepted, kind):
    """The settings that the next test changes are good ones."""
    assert accepted(plan_preprocess, kind, KINDS[kind])


@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_any_processor_settings(accepted, kind, data):
    """A plan of finite numbers and sides of at least one pixel, or a refusal."""
    steps = accepted(
        plan_preprocess, kind, data.draw(mutated(KINDS[kind]).filter(lambda value: isinstance(value, dict)))
    )
    for step in steps or ():
        values = [getattr(step, name) for name in step.__dataclass_fields__]
        flat = [one for value in values for one in (value if isinstance(value, tuple) else [value])]
        numbers = [value for value in flat if not isinstance(value, str)]
        assert all(math.isfinite(number) for number in numbers)
        assert all(1 <= number <= 8192 for number in numbers if isinstance(number, int))


@given(st.dictionaries(st.integers(-1, 4), scalars | texts, max_size=5))
def test_any_labels(accepted, id2label):
    """Labels that the graph can hold, one for each output, or a refusal."""
    labels = accepted(read_labels, id2label, where="config.json")
    if labels is not None:
        assert len(labels) == len(id2label)
        "".join(labels).encode()  # raises if a label is no Unicode text


@pytest.mark.parametrize("label", [text for text in NASTY if text != "\ud800"], ids=ascii)
def test_a_label_is_kept_as_it_is(label):
    """Labels are data of the model: none is changed, none is run."""
    assert read_labels({0: label, 1: "7"}, where="config.json") == (label, "7")


@given(value=mutated({"metadata": {"total_size": 9}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))  # fmt: skip
def test_any_index_of_shards(accepted, tmp_path, value):
    """Names of files next to the index, or a refusal."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(value))
    for name in accepted(read_shards, index) or ():
        assert (tmp_path / name).parent == tmp_path
        assert name not in {".", ".."}


@given(json_values)
def test_any_json_in_place_of_an_index(accepted, tmp_path, value):
    """Any JSON text, and any bytes."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(value))
    accepted(read_shards, index)
    index.write_bytes(repr(value).encode(errors="surrogatepass"))
    accepted(read_shards, index)
