"""What `status` and `look` print."""

from pathlib import Path

from local.commands.status import render_endpoints, render_look, render_table

SERVICE = {
    "metadata": {"name": "tfs-server", "labels": {"slipway/model": "digits-vit"}},
    "spec": {"ports": [{"name": "tf-serving-grpc", "port": 8510}, {"name": "tf-serving-restapi", "port": 8511}]},
    "status": {"loadBalancer": {"ingress": [{"ip": "127.20.1.1"}]}},
}
ENDPOINTS = {"digits-vit": {"rest": "http://127.20.1.1:8511", "grpc": "127.20.1.1:8510"}}
STATUS = {
    "kubeconfig": "/x/kubeconfig",
    "namespace": "slipway-1",
    "registry": "127.0.0.1:28500/slipway-1",
    "docker_host": "unix:///x/docker.sock",
    "airflow": {"url": "http://127.0.0.1:28081", "user": "admin", "password_file": "/x/password"},
    "endpoints": ENDPOINTS,
    "serving_image": "127.0.0.1:28500/slipway/serving-stand-in:2.20.0",
    "stand_ins": ["tensorflow/serving:2.20.0 cannot be pulled"],
    "store": "file:///x/store",
    "exporter_python": "/x/python",
}


def test_endpoints_of_services_with_an_address():
    """A model is listed with its REST and gRPC addresses; a Service without an address is left out."""
    waiting = {**SERVICE, "metadata": {"labels": {"slipway/model": "other"}}, "status": {"loadBalancer": {}}}
    assert render_endpoints([SERVICE, waiting]) == ENDPOINTS


def test_endpoint_by_host_name():
    """Some load balancers have a host name instead of an IP address."""
    named = {**SERVICE, "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.org"}]}}}
    assert render_endpoints([named])["digits-vit"]["rest"] == "http://lb.example.org:8511"


def test_table_marks_the_stand_in():
    """The table has a line STAND-IN, so that nobody takes it for the real image."""
    assert "STAND-IN         tensorflow/serving:2.20.0 cannot be pulled" in render_table(STATUS).splitlines()


def test_look_names_pages_login_and_a_request():
    """After a run a person sees Airflow's address, the login, and a request to try."""
    text = render_look(STATUS, "digits-vit", Path(__file__).parents[3])
    assert "http://127.0.0.1:28081/dags/refresh_digits_vit" in text
    assert "/x/password" in text
    assert "http://127.20.1.1:8511/v1/models/digits-vit:predict" in text


def test_look_shows_an_image_that_the_model_file_names():
    """Several models may share a folder of images."""
    where = {**STATUS, "endpoints": {"digits-onnx": ENDPOINTS["digits-vit"]}}
    text = render_look(where, "digits-onnx", Path(__file__).parents[3])
    assert "served/digits-vit/golden/three.png" in text
    assert "/v1/models/digits-onnx:predict" in text


def test_look_names_the_next_command_if_nothing_is_served():
    """For a model without an address the text names `make refresh`."""
    assert "Next: make refresh MODEL=other" in render_look(STATUS, "other", Path("/nowhere"))
