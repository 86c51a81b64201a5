import json
import re
from importlib.util import find_spec

import pytest

from slipway.errors import InputRefused
from slipway.google import gke_hook, google_access_token, google_errors
from slipway.google_rest import google_rest
from slipway.image.engine import engine_at
from slipway.image.registry_login import find_login
from slipway.kubernetes.client import cluster_client, namespace_of_connection
from slipway.model.hub import hub_token
from slipway.model.served import parse_model_file
from slipway.steps.resolve import resolve_source
from slipway.steps.settings import read_settings
from slipway.target import Target


def opened(context):
    """Enter and leave a context."""
    with context:
        pass


def hooked(conn_id):
    """Make the Google provider's hook, as every request about a cluster does."""
    with google_errors("cluster c", conn_id):
        gke_hook(conn_id, None)


def stored(uri):
    """Read the settings of an Airflow with this store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", uri)
        read_settings()


def folder_at(uri):
    """Resolve the source of a model file with this folder."""
    fields = {"source": {"folder": uri}, "gate": {"golden": [{"name": "a", "image": "a", "label": "a"}]}}
    resolve_source(parse_model_file(fields, where="m.yaml"), None)


FIELDS = {
    "image.engine_conn_id": (lambda conn_id: opened(engine_at(conn_id)), "docker"),
    "image.registry_conn_id": (lambda conn_id: find_login(conn_id, "r.example/vit"), "docker or google_cloud_platform"),
    "target.conn_id": (namespace_of_connection, "kubernetes"),
    "target.conn_id, with a namespace": (
        lambda conn_id: opened(cluster_client(Target(conn_id=conn_id, namespace="shop"))),
        "kubernetes",
    ),
    "target.gke.conn_id": (hooked, "google_cloud_platform"),
    "target.gke.conn_id, for REST": (lambda conn_id: opened(google_rest(conn_id)), "google_cloud_platform"),
    "target.gke.conn_id, for a token": (google_access_token, "google_cloud_platform"),
    "source.folder": (lambda conn_id: folder_at(f"gs://{conn_id}@bucket/f"), "google_cloud_platform"),
    "source.folder, S3": (lambda conn_id: folder_at(f"s3://{conn_id}@bucket/f"), "aws"),
    "source.folder, Azure": (
        lambda conn_id: folder_at(f"abfs://{conn_id}@container/f"),
        "wasb or adls or azure_data_lake",
    ),
    "slipway_store": (lambda conn_id: stored(f"gs://{conn_id}@bucket/slipway"), "google_cloud_platform"),
    "source.token_conn_id": (hub_token, "http or huggingface"),
}


@pytest.mark.parametrize(("use", "wanted"), FIELDS.values(), ids=FIELDS)
def test_refused_if_the_connection_is_of_another_type(monkeypatch, use, wanted):
    """A connection for something else is refused in one line before a client reads it, whatever else it has."""
    said = {"conn_type": "postgres", "host": "r.example", "login": "me", "password": "hf_secret", "extra": {"key_path": "/nowhere"}}  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(said))
    with pytest.raises(
        InputRefused, match=rf"^connection other: is of type postgres, but type {wanted} is needed here\. Next: "
    ) as refusal:
        use("other")
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(("use", "wanted"), FIELDS.values(), ids=FIELDS)
def test_refused_if_there_is_no_connection(use, wanted):
    """A missing connection is named, with the type to create."""
    kind = wanted.partition(" or ")[0]
    with pytest.raises(
        InputRefused, match=rf"^connection nobody: no such connection\. Next: create it in Airflow .*, type {kind}"
    ):
        use("nobody")


@pytest.mark.parametrize(
    ("uri", "library", "package"),
    [("s3://aws_default@b/f", "s3fs", "slipway[s3]"), ("abfss://wasb_default@c/f", "adlfs", "slipway[azure]")],
)
def test_refused_if_the_library_of_an_object_store_is_missing(monkeypatch, uri, library, package):
    """The line says what to install."""
    monkeypatch.setattr("slipway.connections.find_spec", lambda name: None if name == library else find_spec(name))
    for use in (stored, folder_at):
        with pytest.raises(
            InputRefused, match=rf"needs the library {library}\. Next: pip install '{re.escape(package)}'"
        ):
            use(uri)
