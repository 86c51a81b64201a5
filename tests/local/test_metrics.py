"""metrics-server on the stand."""

import json

import pytest
from stand_commands import answering_pod, eventually, kubectl

from local.parts.metrics import API_SERVICE

pytestmark = [pytest.mark.stand, pytest.mark.slow]


def test_a_pods_use_is_measured(stand, metrics_server):
    """The metrics API has processor time and memory of a pod, and `kubectl top` shows them."""
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{stand['namespace']}/pods/measured"
    with answering_pod(stand, "measured"):
        [container] = json.loads(eventually(lambda: kubectl(stand, "get", "--raw", path)))["containers"]
        assert container["name"] == "answer"
        assert container["usage"].keys() == {"cpu", "memory"}
        assert container["usage"]["memory"].endswith("Ki")
        assert kubectl(stand, "top", "pod", "measured", "--no-headers").split()[0] == "measured"


def test_the_api_server_verifies_it(stand, metrics_server):
    """The API server reaches it by its own name, with a certificate of the cluster's authority."""
    service = json.loads(kubectl(stand, "get", "apiservice", API_SERVICE, "-o", "json"))
    assert service["spec"]["caBundle"]
    assert "insecureSkipTLSVerify" not in service["spec"]
    assert [one["status"] for one in service["status"]["conditions"] if one["type"] == "Available"] == ["True"]
