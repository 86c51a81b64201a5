from dataclasses import replace

import pytest

from slipway.facts import Card
from slipway.image.build import IMAGE_LABEL_BUILD, build_key, plan_changes, plan_labels


def test_labels_tell_where_the_image_is_from(release, export):
    """OCI's labels and ours, each from the fact that knows."""
    labels = plan_labels(release, export)
    assert labels["org.opencontainers.image.source"] == "digits-vit/checkpoint"
    assert labels["org.opencontainers.image.revision"] == f"sha256:{'1' * 64}"
    assert labels["org.opencontainers.image.version"] == "7"
    assert labels["org.opencontainers.image.base.name"] == "tensorflow/serving:2.20.0"
    assert labels["org.opencontainers.image.base.digest"] == f"sha256:{'2' * 64}"
    assert labels["slipway.content"] == export.content_hash
    assert labels["slipway.exporter"] == release.exporter
    assert (labels["org.opencontainers.image.title"], labels["slipway.store"]) == ("digits-vit", release.store_id)


def test_labels_tell_of_the_card(release, export):
    """The image says which card is its own and how near it is to 🤗; one without a card says neither."""
    card = Card(uri="file:///store/README.md", digest="sha256:0", parity="32 of 32 labels equal", parameters=1, size=2)
    labels = plan_labels(release, replace(export, card=card))
    assert (labels["slipway.card"], labels["slipway.parity"]) == ("sha256:0", "32 of 32 labels equal")
    assert not {"slipway.card", "slipway.parity"} & set(plan_labels(release, export))


def test_changes_set_the_model_and_labels_alone(release, export):
    """Nothing of the base image's configuration changes but MODEL_NAME and labels."""
    changes = plan_changes(release, export)
    assert changes[0] == "ENV MODEL_NAME=digits-vit"
    assert all(change.startswith("LABEL ") for change in changes[1:])
    assert f'LABEL {IMAGE_LABEL_BUILD}="{build_key(release, export)}"' in changes
    assert len(changes) == len(plan_labels(release, export)) + 2


def test_changes_are_the_same_if_planned_again(release, export):
    """The same release and export give the same plan, whichever run and worker."""
    other = replace(release, run_id="scheduled__x", force=True)
    assert plan_changes(release, export) == plan_changes(other, replace(export))
    assert build_key(release, export) == build_key(other, replace(export))


def test_label_stays_one_value_if_it_is_quoted(release, export):
    """Quotes and line ends in a value do not become another instruction."""
    odd = replace(release, source=replace(release.source, location='a "b"\nENV X=1'))
    assert all("\n" not in change for change in plan_changes(odd, export))


DECIDES = {
    "repository": ({"repository": "elsewhere/x"}, {}),
    "base": ({"base_digest": "sha256:0"}, {}),
    "content": ({}, {"content_hash": "sha256:0"}),
    "version": ({}, {"version": 8}),
    "exporter": ({"exporter": "sha256:0"}, {}),
    "model": ({"model": "other"}, {}),
}


@pytest.mark.parametrize(("of_release", "of_export"), DECIDES.values(), ids=DECIDES)
def test_build_key_changes_with_what_decides(release, export, of_release, of_export):
    """An image of something else is not found in its place."""
    changed = build_key(replace(release, **of_release), replace(export, **of_export))
    assert changed != build_key(release, export)
