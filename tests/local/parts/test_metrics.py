"""The configuration of metrics-server."""

import base64
from pathlib import Path

from local.parts.metrics import program, render_api
from local.settings import read_settings

SETTINGS = read_settings({"SLIPWAY_CACHE": "/cache"}, Path(__file__).resolve().parents[3])


def test_it_listens_on_loopback_and_measures_every_15_seconds():
    """Only the API server of this machine asks it."""
    command = program(SETTINGS).command
    assert {"--bind-address=127.0.0.1", "--secure-port=28516", "--metric-resolution=15s"} <= set(command)


def test_the_api_server_reaches_it_on_loopback():
    """The Service is a name for the loopback address, and its certificate is verified."""
    service, api = render_api(b"authority")
    assert service["spec"] == {"type": "ExternalName", "externalName": "127.0.0.1"}
    assert service["metadata"] == {"name": "metrics-server", "namespace": "kube-system"}
    assert api["spec"]["service"] == {**service["metadata"], "port": 28516}
    assert base64.b64decode(api["spec"]["caBundle"]) == b"authority"
