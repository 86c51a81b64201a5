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
        "TWO": {
            "conn_type": "docker",
            "host": "r.example",
            "login": "shop",
            "password": "pass-word",
            "extra": {"login_hosts": ["Mirror.example"]},
        },
        "URL": {"conn_type": "docker", "host": "https://r.example/v2/", "login": "shop", "password": "pass-word"},
        "HUB": {"conn_type": "docker", "host": "https://index.docker.io/v1/", "login": "shop", "password": "pass-word"},
        "PROXIED": {
            "conn_type": "google_cloud_platform",
            "extra": {"key_path": str(emulator.identity.key_file), "login_hosts": "127.0.0.1:5000"},
        },
        "GOOGLE": {"conn_type": "google_cloud_platform", "extra": {"key_path": str(emulator.identity.key_file)}},
        "BROKEN": {"conn_type": "google_cloud_platform", "extra": {"key_path": "/nowhere/key.json"}},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(said))


HOSTS = {
    "docker": ("docker", ["r.example:5000/vit"], ("r.example:5000",)),
    "docker, as another spells it": ("docker", ["R.example:5000/vit"], ("R.example:5000",)),
    "docker, base in the same": ("docker", ["r.example:5000/vit", "r.example:5000/base:1"], ("r.example:5000",)),
    "docker, base elsewhere": ("docker", ["r.example:5000/vit", PKG, "tensorflow/serving"], ("r.example:5000",)),
    "docker, with another host": ("two", ["r.example/vit", "mirror.example/base"], ("r.example", "mirror.example")),
    "docker, by URL": ("url", ["r.example/vit"], ("r.example",)),
    "Docker Hub": ("hub", ["shop/vit", "docker.io/library/base", "index.docker.io/x/y"], ("docker.io", "index.docker.io")),
    "google": ("google", [PKG], ("europe-docker.pkg.dev",)),
    "google, base in another": ("google", [PKG, SERVING], ("europe-docker.pkg.dev", "us-docker.pkg.dev")),
    "google, base elsewhere": ("google", [PKG, "tensorflow/serving", "evil.example/x"], ("europe-docker.pkg.dev",)),
    "google, with another host": ("proxied", ["127.0.0.1:5000/vit", SERVING], ("127.0.0.1:5000", "us-docker.pkg.dev")),
}  # fmt: skip


@pytest.mark.parametrize(("conn_id", "images", "hosts"), HOSTS.values(), ids=HOSTS)
def test_login_goes_only_to_its_registries(connections, conn_id, images, hosts):
    """A Docker connection's login goes to its host, a token to Artifact Registries; both to the hosts that the extra names."""
    assert find_login(conn_id, *images).hosts == hosts


ELSEWHERE = {
    "docker": ("docker", "r.example:5000", PKG),
    "docker, another port": ("docker", "r.example:5000", "r.example/vit"),
    "docker, a longer name": ("docker", "r.example:5000", "r.example:5000.evil.example/vit"),
    "docker, Docker Hub": ("docker", "r.example:5000", "shop/vit"),
    "Docker Hub": ("hub", "docker.io", "r.example/vit"),
    "google": ("google", "Artifact Registry", "evil.example/p/vit"),
    "google, Docker Hub": ("google", "Artifact Registry", "europe-docker/pkg.dev/vit"),
    "google, a longer name": ("google", "Artifact Registry", "europe-docker.pkg.dev.evil.example/p/vit"),
    "google, on loopback": ("google", "Artifact Registry", "127.0.0.1:5000/vit"),
}


@pytest.mark.parametrize(("conn_id", "own", "image"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_refused_if_the_repository_is_elsewhere(connections, conn_id, own, image):
    """No login is offered to another registry than the connection's, and no token is requested; one line says what to do."""
    with pytest.raises(
        InputRefused, match=rf"^connection {conn_id}: its login is for {own}, not for .*Next: "
    ) as refusal:
        find_login(conn_id, image, PKG, "r.example:5000/base")
    assert "\n" not in str(refusal.value)
    assert "pass-word" not in str(refusal.value)


def test_refused_if_login_hosts_is_not_a_list(connections, monkeypatch):
    """The line names the field of the connection's extra."""
    said = {
        "conn_type": "docker",
        "host": "r.example",
        "login": "a",
        "password": "b",
        "extra": {"login_hosts": {"a": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(said))
    with pytest.raises(
        InputRefused, match=r"^connection odd: login_hosts in its extra is not a list of hosts\. Next: "
    ):
        find_login("odd", "r.example/vit")


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
