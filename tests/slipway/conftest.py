"""The facts that these tests start from: one release, its export, image and records."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fixtures.google_emulator import emulator, google  # noqa: F401 - in place of the stand's

from slipway.facts import Applied, Export, Image, ObjectRef, Proof, Pushed
from slipway.records.record import closed_record, new_record, opened_record
from slipway.records.store import Store
from slipway.release import GoldenRequest, Release, Source
from slipway.serving.golden import GoldenCase, Reference
from slipway.target import Target
from slipway.verdict import Verdict

SERVICE = ObjectRef(api_version="v1", kind="Service", name="tfs-server", namespace="shop")
DEPLOYMENT = ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop")


@pytest.fixture
def store(tmp_path):
    """An artifact store in a folder."""
    store = Store(f"file://{tmp_path}/store")
    store.exists("records")  # Airflow configures logging at its first use: not while a test captures the log
    return store


@pytest.fixture
def release(store):
    """A release of digits-vit."""
    return Release(
        model="digits-vit",
        run_id="manual__2026-11-22T21:00:00+00:00",
        source=Source(kind="folder", location="digits-vit/checkpoint", revision=f"sha256:{'1' * 64}"),
        exporter=f"sha256:{'e' * 64}",
        base_image="tensorflow/serving:2.20.0",
        base_digest=f"sha256:{'2' * 64}",
        repository="127.0.0.1:5000/shop/digits-vit",
        engine_conn_id="docker_default",
        registry_conn_id=None,
        target=Target(conn_id="kubernetes_default", namespace="shop"),
        deployment="tfs-server",
        overlay=None,
        address=None,
        golden=(
            GoldenRequest(
                name="three", image="digits-vit/golden/three.png", sha256=None, label="3", min_confidence=0.8
            ),
        ),
        gate_passes=3,
        gate_timeout_s=300,
        rollout_timeout_s=900,
        address_timeout_s=600,
        manifests_hash=f"sha256:{'a' * 64}",
        store=store.uri,
        force=False,
        keep_first=False,
    )


@pytest.fixture
def export():
    """The export of the release."""
    return Export(
        version=7,
        content_hash=f"sha256:{'c' * 64}",
        model_uri="file:///store/exports/digits-vit/7/model.tar",
        golden_uri="file:///store/exports/digits-vit/7/golden.json",
        descriptors_uri="file:///store/exports/digits-vit/7/descriptors.bin",
        report_uri="file:///store/exports/digits-vit/7/export.json",
    )


@pytest.fixture
def case():
    """A golden case with a reference."""
    return GoldenCase(
        name="three",
        label="3",
        min_confidence=0.8,
        reference=Reference(label="3", confidence=0.95, tolerance=0.01),
        rest_body=json.dumps({"signature_name": "serving_default", "instances": ["aW1hZ2U"]}),
        grpc_request="",
    )


@pytest.fixture
def proof():
    """A smoke test that passed."""
    image = Image(
        image_id=f"sha256:{'9' * 64}",
        layer=f"sha256:{'8' * 64}",
        reference="127.0.0.1:5000/shop/digits-vit:v7-cc",
        version=7,
    )
    return Proof(
        image=image, verdicts=(Verdict.passed("version 7 is AVAILABLE"), Verdict.passed("garbage was refused"))
    )


@pytest.fixture
def applied(pushed):
    """What was applied for the release."""
    return Applied(
        release_id=pushed.release_id,
        reference=pushed.reference,
        version=pushed.version,
        manifests_uri="file:///store/manifests/digits-vit/abcdefabcdef.yaml",
        manifests_hash="sha256:" + "9" * 64,
        objects=(ObjectRef(api_version="apps/v1", kind="Deployment", name="tfs-server", namespace="shop"),),
        uid="u-1",
        generation=4,
    )


@pytest.fixture
def pushed():
    """The pushed image."""
    digest = f"sha256:{'d' * 64}"
    return Pushed(
        reference=f"127.0.0.1:5000/shop/digits-vit@{digest}", digest=digest, release_id="abcdefabcdef", version=7
    )


@pytest.fixture
def record_of(release, export, pushed):
    """Makes a record: `record_of("run", outcome, minutes, release_id=…, objects=…, **release fields)`."""

    def make(run_id, outcome="live", minutes=0, *, release_id=None, objects=(SERVICE, DEPLOYMENT), **changes):
        opened_at = datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(minutes=minutes)
        tried = replace(release, run_id=run_id, **changes)
        record = opened_record(
            new_record(tried, now=opened_at),
            release=tried,
            export=export,
            pushed=replace(pushed, release_id=release_id or pushed.release_id),
            manifests={"uri": "file:///store/m.yaml", "hash": "sha256:a"},
            objects=list(objects),
            now=opened_at,
        )
        ended = closed_record(record, proven=outcome == "live", verdicts={}, tasks={}, now=opened_at)
        return json.loads(json.dumps(record if outcome == "open" else ended))

    return make
