import re
import traceback
from dataclasses import replace

import pytest

from slipway.errors import InputRefused
from slipway.kubernetes.policy import Allowed
from slipway.model.target_settings import TargetSettings
from slipway.steps.settings import (
    Settings,
    allowed_in_overlays,
    ensure_installation,
    find_installation,
    read_settings,
    resolve_target,
)
from slipway.target import GkeCluster, Target

SETTINGS = Settings(store="file:///store", registry="r")
CLUSTER = GkeCluster(project="shop", location="europe-west4", name="big")

NAMESPACES = {
    "model file": ({"namespace": "shop"}, "attic", "shop"),
    "Variable": ({}, "attic", "attic"),
    "none": ({}, None, "default"),
}


@pytest.mark.parametrize(("fields", "variable", "namespace"), NAMESPACES.values(), ids=NAMESPACES)
def test_gke_namespace_is_from_the_model_file_the_variable_or_default(fields, variable, namespace):
    """A Google connection names no namespace, so it is from the model file, the Variable or `default`, in this order."""
    asked = {"gke": {"project": "shop", "location": "europe-west4", "cluster": "big"}, **fields}
    settings = replace(SETTINGS, namespace=variable)
    target = resolve_target(TargetSettings.model_validate(asked), settings)
    assert target == Target(kind="gke", conn_id="google_cloud_default", namespace=namespace, gke=CLUSTER)


def test_refused_if_the_google_connection_is_missing():
    """If the model file names no project, the connection must name it; the error names a missing connection."""
    with pytest.raises(InputRefused, match=r"^connection nobody: no such connection\. Next: create it"):
        resolve_target(TargetSettings.model_validate({"gke": {"conn_id": "nobody"}}), SETTINGS)


@pytest.fixture
def variables(monkeypatch):
    """Sets Airflow Variables by environment, as a deployment may."""
    for name in (
        "STORE",
        "REGISTRY",
        "SERVING_IMAGE",
        "ONNX_SERVING_IMAGE",
        "EXPORTER_IMAGE",
        "ONNX_EXPORTER_IMAGE",
        "OVERLAY_KINDS",
        "OVERLAY_SERVICE_ACCOUNTS",
    ):
        monkeypatch.delenv(f"AIRFLOW_VAR_SLIPWAY_{name}", raising=False)

    def set_(**values):
        for name, value in values.items():
            monkeypatch.setenv(f"AIRFLOW_VAR_SLIPWAY_{name.upper()}", value)

    return set_


def test_settings_are_read_from_variables(variables):
    """Each setting is the Variable of its name."""
    given = {
        "store": "gs://bucket/slipway",
        "registry": "r/x",
        "overlay_kinds": "Job.batch",
        "overlay_service_accounts": "reader",
    }
    variables(**given)
    assert Settings(**given) == read_settings()
    variables(serving_image="mirror/serving:1", onnx_serving_image="mirror/onnx:1")
    images = {"tensorflow": "mirror/serving:1", "onnxruntime": "mirror/onnx:1"}
    assert Settings(**given, serving_images=images) == read_settings()
    variables(exporter_image="mirror/exporter:1", onnx_exporter_image="mirror/onnx-exporter:1")
    exporters = {"tensorflow": "mirror/exporter:1", "onnxruntime": "mirror/onnx-exporter:1"}
    assert Settings(**given, serving_images=images, exporter_images=exporters) == read_settings()


def test_variables_add_to_what_an_overlay_may_contain():
    """Both are lists with commas; an empty one adds nothing."""
    settings = replace(SETTINGS, overlay_kinds=" Job.batch, Pod,,", overlay_service_accounts="reader,a.b-c")
    kinds, accounts = frozenset({"Job.batch", "Pod"}), frozenset({"reader", "a.b-c"})
    assert allowed_in_overlays(settings) == Allowed(kinds=kinds, service_accounts=accounts)
    assert allowed_in_overlays(replace(SETTINGS, overlay_kinds="")) == allowed_in_overlays(SETTINGS) == Allowed()


@pytest.mark.parametrize(("name", "value"), [("kinds", "job.batch"), ("kinds", "*"), ("service_accounts", "a b")])
def test_refused_if_what_is_added_to_overlays_is_no_name(name, value):
    """The error names the Variable. Only `resolve` raises it: a mistake here does not stop a rollback."""
    with pytest.raises(InputRefused, match=rf"^Variable slipway_overlay_{name}: '.*' is not valid\. Next: write "):
        allowed_in_overlays(replace(SETTINGS, **{f"overlay_{name}": value}))


SECRETS = {
    "store": ("store", "s3://key:pass-word@bucket/slipway"),
    "store, without a scheme": ("store", "key:pass-word@bucket"),
    "store with a query": ("store", "gs://bucket/slipway?pass-word"),
    "serving image": ("serving_image", "me:pass-word@mirror/serving:1"),
    "serving image by URL": ("serving_image", "https://me:pass-word@mirror/serving:1"),
    "exporter's image": ("exporter_image", "me:pass-word@mirror/exporter:1"),
    "serving image of ONNX Runtime": ("onnx_serving_image", "me:pass-word@mirror/onnx:1"),
}


@pytest.mark.parametrize(("name", "value"), SECRETS.values(), ids=SECRETS)
def test_refused_without_the_login_in_a_variable(variables, name, value):
    """The store's URI and the serving image are in every record. The error names the Variable without its value."""
    variables(**{"store": "file:///store", name: value})
    with pytest.raises(InputRefused, match=rf"^Variable slipway_{name}: .*Next: ") as refusal:
        read_settings()
    assert "pass-word" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("store", ["", "/var/slipway", "bucket"])
def test_refused_if_the_store_is_not_a_uri(variables, store):
    """The error names the Variable; a folder without a scheme is refused too."""
    variables(store=store, registry="r", serving_image="s")
    with pytest.raises(InputRefused, match=r"^Variable slipway_store: .*Next: "):
        read_settings()


@pytest.fixture
def database(monkeypatch):
    """The Variables of Airflow's database; the tests' process has no database."""
    import airflow.sdk

    kept = {}
    monkeypatch.delenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", raising=False)
    monkeypatch.setattr(airflow.sdk.Variable, "get", lambda key, default=None: kept.get(key, default))
    monkeypatch.setattr(airflow.sdk.Variable, "set", lambda key, value, **_: kept.update({key: value}))
    return kept


def test_airflow_gets_a_name_once(database):
    """Later calls read the name that the first one set; a person may set another."""
    name = ensure_installation()
    assert re.fullmatch("[0-9a-f]{12}", name)
    assert (ensure_installation(), database) == (name, {"slipway_installation": name})
    database["slipway_installation"] = "prod-eu.1"
    assert ensure_installation() == "prod-eu.1"


def test_finding_the_airflows_name_sets_no_variable(database):
    """A run that only plans finds the name, if there is one."""
    assert (find_installation(), database) == (None, {})
    name = ensure_installation()
    assert find_installation() == name


@pytest.mark.parametrize("name", ["a/b", "two words", "x" * 64])
def test_refused_if_the_airflows_name_is_invalid(database, name):
    """A slash separates the parts of a Lease's holder, so that a name must not have one."""
    database["slipway_installation"] = name
    with pytest.raises(InputRefused, match=r"^Variable slipway_installation: .*Next: "):
        ensure_installation()
