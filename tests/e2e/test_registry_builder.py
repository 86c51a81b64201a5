"""A model whose image the registry builds: no engine is named anywhere, and the preview is the first that runs the image."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from types import SimpleNamespace
from uuid import uuid4

import pytest
from dag_run import Run
from stand_model import stand_model

from slipway.facts import Export, from_dict
from slipway.image.append import append_image
from slipway.image.build import build_image
from slipway.image.registry import repository_with
from slipway.image.smoke_test import smoke_test
from slipway.release import Release

pytestmark = pytest.mark.stand

MODEL = "appended"


@pytest.fixture(scope="module")
def appended(stand, kubectl, engine, airflow_api):
    """The model; its connection to an engine does not exist."""
    own = {"image__builder": "registry", "image__engine_conn_id": "no_engine_here"}
    with stand_model(MODEL, stand, kubectl, engine, airflow_api, **own) as trial:
        yield trial


@pytest.fixture(scope="module")
def first(appended, airflow_api):
    """Its first run, its record, and what its tasks logged."""
    run = Run(airflow_api, appended.dag)
    assert run.end() == "success", run.states()
    [record] = appended.records()
    return SimpleNamespace(run=run, record=record, states=run.states())


def test_it_is_live_without_an_engine(first):
    """One task in place of three; the run has passed preview and gate, and cleaned up after itself."""
    assert not {"build_image", "smoke_test"} & set(first.states)
    assert {first.states[task] for task in ("push", "preview_gate", "gate", "announce", "prune")} == {"success"}
    assert first.record["outcome"] == "live"


def test_the_preview_was_asked_all_that_a_smoke_test_asks(first):
    """The golden requests over gRPC too, through the API server, and garbage."""
    reason = first.record["verdicts"]["preview_gate"]["reason"]
    assert "3 of 3 over gRPC, by the same version" in reason
    assert "gRPC was not asked" not in reason
    assert "garbage" in reason


def test_forced_again_nothing_is_sent(first, appended, airflow_api):
    """The same export on the same base is the same image, to the byte."""
    run = Run(airflow_api, appended.dag, force=True)
    assert run.end() == "success", run.states()
    record = appended.records()[-1]
    assert (record["pushed"]["sent"], record["digest"]) == (0, first.record["digest"])
    assert record["release_id"] == first.record["release_id"]


@pytest.fixture(scope="module")
def both(first, stand, engine):
    """The same export on the same base, from each builder, on the stand's engine."""
    release = from_dict(Release, first.record["release"])
    release = replace(
        release,
        repository=f"{stand['registry']}/both-{uuid4().hex[:8]}",
        registry_conn_id=None,
        base_image=stand["serving_image"],
        engine_conn_id="docker_default",
    )
    export = from_dict(Export, first.record["export"])
    built = build_image(engine, release, export)
    sent = append_image(release, export)
    engine.pull(sent.reference)
    made = engine.inspect_image(sent.reference)
    yield SimpleNamespace(
        release=release, export=export, built=built, sent=sent, images=(engine.inspect_image(built.image_id), made)
    )
    for image in (built.image_id, made["Id"]):
        engine.remove_image(image, force=True)


def test_what_was_sent_is_the_models_layer(both):
    """The base's layers are mounted; beside the compressed model only a configuration of a few kilobytes is sent."""
    with repository_with(both.release.repository, None) as found:
        layer = found.manifest(both.sent.digest).data["layers"][-1]
    assert layer["size"] <= both.sent.sent <= layer["size"] * 1.01 + 8192


def test_the_images_of_both_builders_are_alike(both, engine):
    """The same configuration, the same layers of the base, the same files on top."""
    one, other = both.images
    assert one["Config"] == other["Config"]
    assert one["RootFS"]["Layers"][:-1] == other["RootFS"]["Layers"][:-1]
    assert (one["Architecture"], one["Os"]) == (other["Architecture"], other["Os"])
    assert files_of(engine, one["Id"]) == files_of(engine, other["Id"])


def test_it_passes_the_first_builders_smoke_test(both, engine, surroundings, monkeypatch):
    """On the engine, as the cluster runs it: the first builder's own test cannot tell it from its own."""
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_DEFAULT", surroundings["AIRFLOW_CONN_DOCKER_DEFAULT"])
    image = replace(both.built, image_id=both.images[1]["Id"], reference=both.sent.reference)
    proof = smoke_test(engine, both.release, both.export, image)
    assert {verdict.outcome for verdict in proof.verdicts} == {"pass"}


def files_of(engine, image):
    """The files of the image's last layer, with their content's hash, modes and times."""
    saved = io.BytesIO(b"".join(engine.get_image(image)))
    with tarfile.open(fileobj=saved) as archive:
        [manifest] = json.load(archive.extractfile("manifest.json"))
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][-1])) as layer:
            return {
                one.name.rstrip("/"): (one.mode & 0o7777, one.uid, one.gid, one.mtime, content_of(layer, one))
                for one in layer
            }


def content_of(layer, member):
    """The hash of a file's content; of anything else, its type."""
    return hashlib.sha256(layer.extractfile(member).read()).hexdigest() if member.isfile() else member.type
