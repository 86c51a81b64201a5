from dataclasses import replace

import pytest

from slipway.errors import ImagePushRefused
from slipway.image import LABEL_BUILD, build_key, judge_push, plan_changes, plan_labels

DIGEST = f"sha256:{'d' * 64}"
AUX = {"progressDetail": {}, "aux": {"Tag": "v7", "Digest": DIGEST, "Size": 1}}
STREAMS = {
    "plain": [{"status": "The push refers to repository"}, {"status": "Pushed", "id": "abc"}, AUX],
    "something after it": [AUX, {"status": "v7: digest: ..."}],
    "aux without digest after it": [AUX, {"aux": {"Tag": "v7"}}],
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_digest_if_the_push_ends_well(stream):
    """The digest is the stream's aux line's."""
    assert judge_push(stream) == DIGEST


ERRORS = {
    "error": ([{"error": "unauthorized"}], "unauthorized"),
    "error and detail": ([{"errorDetail": {"message": "denied"}, "error": "denied: no"}], "denied: no"),
    "detail alone": ([{"errorDetail": {"message": "no space left"}}], "no space left"),
    "empty error": ([{"errorDetail": {"message": "no space left"}, "error": ""}], "no space left"),
    "error after the digest": ([AUX, {"error": "lost"}], "lost"),
    "no digest": ([{"status": "Pushed"}], "the push ended without a digest"),
    "nothing": ([], "the push ended without a digest"),
}


@pytest.mark.parametrize(("stream", "words"), ERRORS.values(), ids=ERRORS)
def test_refused_if_the_stream_says_so(stream, words):
    """The engine's call never raises for a refused push: the stream tells, and so does a missing digest."""
    with pytest.raises(ImagePushRefused) as refusal:
        judge_push(stream)
    assert words == str(refusal.value)


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


def test_changes_set_the_model_and_labels_alone(release, export):
    """Nothing of the base image's configuration changes but MODEL_NAME and labels."""
    changes = plan_changes(release, export)
    assert changes[0] == "ENV MODEL_NAME=digits-vit"
    assert all(change.startswith("LABEL ") for change in changes[1:])
    assert f'LABEL {LABEL_BUILD}="{build_key(release, export)}"' in changes
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
