from dataclasses import replace

import pytest

from slipway.errors import InputRefused
from slipway.facts import Card
from slipway.image.build import (
    IMAGE_LABEL_BUILD,
    Owner,
    build_image,
    ensure_image,
    image_build_key,
    plan_image_changes,
    plan_image_labels,
)
from slipway.image.engine import check_base
from slipway.runtimes import RUNTIMES


def test_labels_name_where_the_image_comes_from(release, export):
    """The OCI's labels and Slipway's own have the values of the release and the export."""
    labels = plan_image_labels(release, export)
    assert labels["org.opencontainers.image.source"] == "digits-vit/checkpoint"
    assert labels["org.opencontainers.image.revision"] == f"sha256:{'1' * 64}"
    assert labels["org.opencontainers.image.version"] == "7"
    assert labels["org.opencontainers.image.base.name"] == "tensorflow/serving:2.20.0"
    assert labels["org.opencontainers.image.base.digest"] == f"sha256:{'2' * 64}"
    assert labels["slipway.content"] == export.content_hash
    assert labels["slipway.exporter"] == release.exporter
    assert (labels["org.opencontainers.image.title"], labels["slipway.store"]) == ("digits-vit", release.store_id)


def test_labels_name_the_model_card(release, export):
    """The labels name the image's card and its parity with 🤗; an image without a card has neither label."""
    card = Card(uri="file:///store/README.md", digest="sha256:0", parity="32 of 32 labels equal", parameters=1, size=2)
    labels = plan_image_labels(release, replace(export, card=card))
    assert (labels["slipway.card"], labels["slipway.parity"]) == ("sha256:0", "32 of 32 labels equal")
    assert not {"slipway.card", "slipway.parity"} & set(plan_image_labels(release, export))


def test_labels_name_the_runtime_of_all_but_the_first(release, export):
    """Images of TensorFlow have the labels that they had before, so that an engine finds them again."""
    assert not any(name in {"slipway.runtime", "slipway.precision"} for name in plan_image_labels(release, export))
    labels = plan_image_labels(replace(release, runtime="onnxruntime", precision="int8"), export)
    assert (labels["slipway.runtime"], labels["slipway.precision"]) == ("onnxruntime", "int8")


BASES = {
    "TensorFlow Serving": (None, "tensorflow", None),
    "ONNX Runtime": ({"slipway.runtime": "onnxruntime"}, "onnxruntime", None),
    "TensorFlow Serving for ONNX Runtime": ({}, "onnxruntime", "onnx_serving_image"),
    "ONNX Runtime for TensorFlow": ({"slipway.runtime": "onnxruntime"}, "tensorflow", "slipway_serving_image"),
}


@pytest.mark.parametrize(("labels", "runtime", "variable"), BASES.values(), ids=BASES)
def test_base_of_another_runtime_is_refused(labels, runtime, variable):
    """The server's image says its runtime, so a model never starts in a server that cannot read it."""
    engine = EngineWith("sha256:a", labels=labels)
    if variable is None:
        check_base(engine, "r/base@sha256:1", RUNTIMES[runtime])
        return
    with pytest.raises(
        InputRefused, match=rf"^base image r/base@sha256:1: its label slipway\.runtime says .*{variable}"
    ):
        check_base(engine, "r/base@sha256:1", RUNTIMES[runtime])


def test_no_image_is_made_on_a_base_of_another_runtime(release, export):
    """The engine that builds may be another than the one that `resolve` asked, which did not have the image."""
    engine = EngineWith("sha256:a", labels={"slipway.runtime": "onnxruntime"})
    with pytest.raises(InputRefused, match=r"^base image tensorflow/serving@sha256:2+: .*Next: "):
        build_image(engine, release, export)


def test_changes_set_only_the_model_and_labels(release, export):
    """Only MODEL_NAME and labels of the base image's configuration change."""
    changes = plan_image_changes(release, export)
    assert changes[0] == "ENV MODEL_NAME=digits-vit"
    assert all(change.startswith("LABEL ") for change in changes[1:])
    assert f'LABEL {IMAGE_LABEL_BUILD}="{image_build_key(release, export)}"' in changes
    assert len(changes) == len(plan_image_labels(release, export)) + 2


def test_changes_are_the_same_if_planned_again(release, export):
    """The same release and export give the same changes, in every run and on every worker."""
    other = replace(release, run_id="scheduled__x", force=True)
    assert plan_image_changes(release, export) == plan_image_changes(other, replace(export))
    assert image_build_key(release, export) == image_build_key(other, replace(export))


def test_label_stays_one_value_if_it_has_quotes(release, export):
    """Quotes and line ends in a value do not start another instruction."""
    odd = replace(release, source=replace(release.source, location='a "b"\nENV X=1'))
    assert all("\n" not in change for change in plan_image_changes(odd, export))


INPUTS = {
    "repository": ({"repository": "elsewhere/x"}, {}),
    "base": ({"base_digest": "sha256:0"}, {}),
    "content": ({}, {"content_hash": "sha256:0"}),
    "version": ({}, {"version": 8}),
    "exporter": ({"exporter": "sha256:0"}, {}),
    "model": ({"model": "other"}, {}),
}


@pytest.mark.parametrize(("of_release", "of_export"), INPUTS.values(), ids=INPUTS)
def test_build_key_changes_with_each_input(release, export, of_release, of_export):
    """An image of another release or export is never found instead."""
    changed = image_build_key(replace(release, **of_release), replace(export, **of_export))
    assert changed != image_build_key(release, export)


OURS, FORMER, THEIRS = "0123456789ab", "ba9876543210", "aaaaaaaaaaaa"
LABELS = {
    "ours": ("digits-vit", OURS, False, True),
    "of another model": ("other", OURS, True, False),
    "of another store": ("digits-vit", THEIRS, True, False),
    "of an earlier Slipway, in a record": ("digits-vit", FORMER, True, True),
    "of an earlier Slipway, in no record": ("digits-vit", FORMER, False, False),
    "without a store": ("digits-vit", None, True, False),
}


@pytest.mark.parametrize(("title", "label", "recorded", "owned"), LABELS.values(), ids=LABELS)
def test_image_is_removed_only_if_it_is_certainly_ours(title, label, recorded, owned):
    """An earlier Slipway made the label from the store's URI, which another machine's store may share."""
    labels = {"org.opencontainers.image.title": title, **({"slipway.store": label} if label else {})}
    owner = Owner(model="digits-vit", store_id=OURS, former_id=FORMER)
    assert owner.owns(labels, recorded=recorded) is owned


class EngineWith:
    """An engine that has one image of every build key."""

    def __init__(self, image_id, *, labels=None):
        self.image_id, self.labels, self.tags = image_id, labels, []

    def images(self, **_):
        """The image, whatever is asked."""
        return [{"Id": self.image_id}]

    def inspect_image(self, _):
        """Its layers and labels."""
        layers = ["sha256:base", "sha256:model"]
        return {"Id": self.image_id, "RootFS": {"Layers": layers}, "Config": {"Labels": self.labels}}

    def tag(self, _, repository, tag, **__):
        """Remember the tag."""
        self.tags.append(f"{repository}:{tag}")


def test_each_image_has_a_tag_of_its_own(release, export):
    """Two builds of one export differ: a tag that moved from one to the other would leave the live image without a tag."""
    here, there = EngineWith(f"sha256:{'a' * 64}"), EngineWith(f"sha256:{'b' * 64}")
    images = [ensure_image(engine, release, export) for engine in (here, there, here)]
    first, second, again = (image.reference for image in images)
    assert first == again != second
    assert here.tags == [first, first]
    assert first.startswith(f"{release.repository}:v7-")
