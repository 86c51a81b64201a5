from dataclasses import replace

import pytest

from slipway.errors import InputRefused
from slipway.model.target_settings import TargetSettings
from slipway.steps.settings import Settings, find_target
from slipway.target import GkeCluster, Target

SETTINGS = Settings(store="file:///store", registry="r", serving_image=None)
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
    target = find_target(TargetSettings.model_validate(asked), settings)
    assert target == Target(kind="gke", conn_id="google_cloud_default", namespace=namespace, gke=CLUSTER)


def test_refused_if_the_google_connection_is_missing():
    """If the model file names no project, the connection must name it; the error names a missing connection."""
    with pytest.raises(InputRefused, match=r"^connection nobody: there is none\. Next: create it"):
        find_target(TargetSettings.model_validate({"gke": {"conn_id": "nobody"}}), SETTINGS)
