import json

import pytest

from slipway.errors import InputRefused
from slipway.image.registry_login import find_login, is_artifact_registry

PKG = "europe-docker.pkg.dev/p/models/vit"
SERVING = "us-docker.pkg.dev/p/mirror/serving:2.20.0"
NAMES = {
    PKG: True,
    "us-central1-docker.pkg.dev/p/r/vit": True,
    "gcr.io/p/vit": True,
    "eu.gcr.io/p/vit": True,
    "docker.pkg.dev/p/r/vit": False,
    "europe-docker.pkg.dev.example/p/vit": False,
    "gcr.io:5000/p/vit": False,
    "notgcr.io/p/vit": False,
    "registry.example/gcr.io/vit": False,
    "tensorflow/serving": False,
    "127.0.0.1:5000/vit": False,
}


@pytest.mark.parametrize(("image", "is_one"), NAMES.items())
def test_artifact_registry_is_recognised_by_its_hosts(image, is_one):
    """Only Google's own hosts, also for names that look similar: a token is sent there without being asked for."""
    assert is_artifact_registry(image) is is_one


@pytest.fixture
def connections(emulator, monkeypatch):
    """Connections `docker` and `google`."""
    for name, said in {
        "DOCKER": {"conn_type": "docker", "host": "r.example", "port": 5000, "login": "shop", "password": "pass-word"},
        "GOOGLE": {"conn_type": "google_cloud_platform", "extra": {"key_path": str(emulator.identity.key_file)}},
        "BROKEN": {"conn_type": "google_cloud_platform", "extra": {"key_path": "/nowhere/key.json"}},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(said))


HOSTS = {
    "docker": ("docker", [PKG], ("r.example:5000",)),
    "google": ("google", [PKG], ("europe-docker.pkg.dev",)),
    "google, base in another": ("google", [PKG, SERVING], ("europe-docker.pkg.dev", "us-docker.pkg.dev")),
    "google, base elsewhere": ("google", [PKG, "tensorflow/serving"], ("europe-docker.pkg.dev",)),
    "google, named for another registry": ("google", ["127.0.0.1:5000/vit", SERVING], ("127.0.0.1:5000", "us-docker.pkg.dev")),
}  # fmt: skip


@pytest.mark.parametrize(("conn_id", "images", "hosts"), HOSTS.values(), ids=HOSTS)
def test_login_goes_only_to_its_registries(connections, conn_id, images, hosts):
    """A Docker connection's login goes to its host; a token to the image's registry and to Artifact Registries."""
    assert find_login(conn_id, *images).hosts == hosts


def test_token_is_in_no_repr_and_masked_in_logs(connections, capsys):
    """A token that is logged by accident appears as asterisks."""
    from airflow.sdk.log import redact

    login = find_login("google", PKG)
    assert login.user == "oauth2accesstoken"
    assert login.password.startswith("eyJ")
    assert login.password not in f"{login} {login!r}"
    assert redact(f"sent {login.password}") == "sent ***"


@pytest.mark.parametrize(("conn_id", "words"), [("nobody", "no such connection"), ("broken", ".*/nowhere/key.json")])
def test_refused_if_the_connection_is_missing_or_invalid(connections, conn_id, words):
    """A missing connection, or one with a missing key, is refused in one line that names it."""
    with pytest.raises(InputRefused, match=rf"^connection {conn_id}: {words}.*Next: ") as refusal:
        find_login(conn_id, PKG)
    assert "\n" not in str(refusal.value)


def test_no_connection_is_no_login():
    """Without a connection there is no login, and no request."""
    assert find_login(None, PKG) is None
