"""Preview, apply and rollback use what `resolve` rendered, even if a worker's disk has changed."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from slipway.errors import ManifestError, StoreError
from slipway.facts import to_dict
from slipway.names import rendered_key
from slipway.records.record import new_record, record_is_about, utc_now
from slipway.records.store import Store, read_bytes
from slipway.steps import resolve as resolve_module
from slipway.steps.deploy import deploy, redeploy
from slipway.steps.preview import start_preview
from slipway.steps.rendering import render_release
from slipway.steps.settings import RefreshParams, Settings

FILE = f"""
source: {{savedmodel: 'https://example.com/m.tar.gz', sha256: {"1" * 63}a}}
gate: {{golden: [{{name: three, image: 'https://example.com/three.png', sha256: {"2" * 63}b, label: '3', min_confidence: 0.8}}]}}
target: {{namespace: shop, overlay: mine}}
"""


def free():
    """A check that finds no other run."""


@pytest.fixture
def resolved(installation, monkeypatch, tmp_path, store):
    """Resolves the release of a model file that names the overlay `mine`; the arguments are Variables."""
    path = tmp_path / "digits-vit.yaml"
    path.write_text(FILE)
    monkeypatch.setattr(resolve_module, "engine_at", lambda _conn_id: nullcontext())
    for function, result in {
        "log_in": None,
        "resolve_base": f"sha256:{'2' * 64}",
        "check_base": None,
        "check_registry": None,
    }.items():
        monkeypatch.setattr(resolve_module, function, lambda *_arguments, result=result: result)
    settings = Settings(store=store.uri, registry="127.0.0.1:5000/shop")
    return lambda run_id="now", **variables: resolve_module.resolve(
        path, RefreshParams(), replace(settings, **variables), run_id=run_id
    )


@pytest.fixture
def changed_overlay(overlay):
    """Writes the overlay `mine`; the function that it returns changes it on the worker's disk."""
    place = overlay(commonAnnotations={"made": "before"})

    def change():
        file = place / "kustomization.yaml"
        file.write_text(file.read_text().replace("made: before", "made: after"))

    return change


def test_applied_as_resolved_if_the_overlay_changes(api_server, changed_overlay, resolved, export, pushed):
    """A worker that applies renders nothing: its disk may have another overlay than the worker that resolved."""
    release = resolved()
    changed_overlay()
    applied = deploy(release, export, pushed, check=free)
    assert api_server.find("Deployment", "tfs-server")["metadata"]["annotations"] == {"made": "before"}
    assert b"made: before" in read_bytes(applied.manifests_uri)


def test_an_overlay_has_what_the_variables_allow(api_server, overlay, resolved, export, pushed):
    """Only `resolve` reads them: a later task applies what it rendered, and may have to render it again."""
    spec = {"template": {"spec": {"serviceAccountName": "reader"}}}
    overlay({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tfs-server"}, "spec": spec})
    with pytest.raises(ManifestError, match="reader is not a ServiceAccount that an overlay may use"):
        resolved()
    release = resolved(overlay_service_accounts="reader")
    Store(release.store).remove(rendered_key(release.model, release.rendered_hash))
    deploy(release, export, pushed, check=free)
    assert api_server.find("Deployment", "tfs-server")["spec"]["template"]["spec"]["serviceAccountName"] == "reader"


def test_previewed_as_resolved_if_the_overlay_changes(api_server, changed_overlay, resolved, export, pushed):
    """The preview has the pods of the release that `resolve` rendered."""
    release = resolved()
    changed_overlay()
    start_preview(release, export, pushed, check=free)
    pods = api_server.find("Deployment", "tfs-server-preview")["spec"]["template"]
    assert pods["metadata"]["annotations"] == {"made": "before"}


def test_rolled_back_to_what_was_applied(api_server, changed_overlay, resolved, export, pushed):
    """A recorded release is applied again with the stored text, and not rendered."""
    release = resolved()
    applied = deploy(release, export, pushed, check=free)
    changed_overlay()
    again = redeploy(release, export, pushed, **stored(applied), check=free)
    assert api_server.find("Deployment", "tfs-server")["metadata"]["annotations"] == {"made": "before"}
    assert (again.manifests_uri, again.manifests_hash) == (applied.manifests_uri, applied.manifests_hash)


def stored(applied):
    """Where the applied manifests are, and their hash."""
    return {"manifests_uri": applied.manifests_uri, "manifests_hash": applied.manifests_hash}


def test_nothing_is_written_if_the_rendered_manifests_changed(api_server, changed_overlay, resolved, export, pushed):
    """An edit in the store changes no cluster: each use first checks the hash in the release."""
    release = resolved()
    store = Store(release.store)
    key = rendered_key(release.model, release.rendered_hash)
    place = Path(store.uri_of(key).removeprefix("file://"))
    place.write_text(place.read_text().replace("before", "edited"))
    for use in (deploy, start_preview):
        with pytest.raises(
            StoreError, match=rf"{key}: is not what resolve rendered: .*Next: clear the run from its first"
        ):
            use(release, export, pushed, check=free)
    assert api_server.writes == []
    assert resolved() == release  # which `resolve` keeps again
    assert deploy(release, export, pushed, check=free).generation == 1


@pytest.mark.parametrize("use", [deploy, start_preview])
def test_rendered_again_if_another_airflow_pruned_them(api_server, changed_overlay, resolved, export, pushed, use):  # noqa: PLR0917
    """Airflows that share a store do not know each other's runs; the same overlay renders the same manifests again."""
    release = resolved()
    Store(release.store).remove(rendered_key(release.model, release.rendered_hash))
    use(release, export, pushed, check=free)
    name = {deploy: "tfs-server", start_preview: "tfs-server-preview"}[use]
    pods = api_server.find("Deployment", name)["spec"]["template"]
    assert pods["metadata"]["annotations"] == {"made": "before"}


@pytest.mark.parametrize("use", [deploy, start_preview])
def test_nothing_is_written_if_other_manifests_are_rendered_again(  # noqa: PLR0917
    api_server, changed_overlay, resolved, export, pushed, use
):
    """What `resolve` rendered is pruned, and the overlay has changed since: what is left is not that release."""
    release = resolved()
    Store(release.store).remove(rendered_key(release.model, release.rendered_hash))
    changed_overlay()
    with pytest.raises(ManifestError, match=r"is not the one that resolve rendered in run .*\. Next: clear the run"):
        use(release, export, pushed, check=free)
    assert api_server.writes == []


def test_nothing_is_written_if_only_the_preview_is_rendered_differently(release, pushed, api_server, export):
    """The hash of the live manifests alone says nothing about the preview."""
    release = render_release(replace(release, strategy="preview"))
    Store(release.store).remove(rendered_key(release.model, release.rendered_hash))
    with pytest.raises(ManifestError, match="is not the one that resolve rendered"):
        start_preview(replace(release, rendered_hash=f"sha256:{'9' * 64}"), export, pushed, check=free)
    assert api_server.writes == []


def test_nothing_is_written_if_stored_manifests_changed(api_server, changed_overlay, resolved, export, pushed):
    """A rollback does not apply what no gate has proven."""
    release = resolved()
    applied = deploy(release, export, pushed, check=free)
    written = list(api_server.writes)
    place = Path(applied.manifests_uri.removeprefix("file://"))
    place.write_text(place.read_text().replace("before", "edited"))
    with pytest.raises(StoreError, match=r"\.yaml: is not what was applied: .*Next: restore the file"):
        redeploy(release, export, pushed, **stored(applied), check=free)
    assert api_server.writes == written


def test_run_of_an_earlier_slipway_is_resolved_again(release, export, pushed):
    """A run that was resolved before an upgrade has stored no manifests, and its overlay now renders others."""
    with pytest.raises(
        ManifestError, match=r"is not the one that resolve rendered in run .*\. Next: clear the run from its first task"
    ):
        deploy(release, export, pushed, check=free)


def test_record_of_an_earlier_slipway_is_about_the_same_release(changed_overlay, resolved):
    """A record without the hash of rendered manifests still says whether the release is bad."""
    release = resolved()
    record = new_record(replace(release, run_id="before"), now=utc_now())
    del record["release"]["rendered_hash"]
    assert record_is_about(record, release)
    assert "rendered_hash" in to_dict(release)
