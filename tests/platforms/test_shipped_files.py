"""The files of docs/platforms name what exists: Variables, connections and rights as the other pages have them."""

import re

import yaml
from trial_project import PROJECT

from local.parts.access import CLUSTER_RULES, RULES
from slipway.connections import find_connection

PAGES = PROJECT / "docs" / "platforms"
SIDE = (PROJECT / "docs" / "model-file.md").read_text().partition("## Airflow's side")[2].partition("\n## ")[0]
SETTINGS = dict(line.split("=", 1) for line in (PAGES / "slipway.env").read_text().splitlines())
VALUES = yaml.safe_load((PAGES / "values.yaml").read_text())


def test_the_variables_are_those_of_the_model_files_page():
    """None is misspelt, and the required one is there."""
    known = set(re.findall(r"^\| `(slipway_\w+)` \| Variable", SIDE, re.MULTILINE))
    named = {name.removeprefix("AIRFLOW_VAR_").lower() for name in SETTINGS if name.startswith("AIRFLOW_VAR_")}
    assert {"slipway_store"} <= named <= known


def test_the_connection_is_one_that_slipway_takes(monkeypatch):
    """Of type kubernetes, for the cluster that the worker is in."""
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", SETTINGS["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    found = find_connection("kubernetes_default", "kubernetes", needs="a cluster")
    assert found.extra_dejson["in_cluster"] is True


def test_the_values_name_what_the_page_makes():
    """The ConfigMap and the Secrets of the page, and Slipway's executor and Airflow."""
    page = (PAGES / "helm.md").read_text()
    for source in yaml.safe_load(VALUES["extraEnvFrom"]):
        [kind], [reference] = source.keys(), source.values()
        made = {"configMapRef": "configmap", "secretRef": "secret generic"}[kind]
        assert f"create {made} {reference['name']} " in page
    assert f"create secret generic {VALUES['data']['metadataSecretName']} " in page
    [airflow] = re.findall(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert VALUES["airflowVersion"] == airflow
    assert f"BASE=apache/airflow:{airflow}-" in (PAGES / "Dockerfile").read_text()


def test_the_rights_are_those_of_the_stands_airflow():
    """Which every test on the stand runs with, and no others."""
    objects = list(yaml.safe_load_all((PAGES / "access.yaml").read_text()))
    rules = {one["kind"]: one.get("rules") for one in objects}
    expected = [{"apiGroups": [group], "resources": list(what), "verbs": list(verbs)} for group, what, verbs in RULES]
    assert rules["Role"] == expected
    assert rules["ClusterRole"] == list(CLUSTER_RULES)
