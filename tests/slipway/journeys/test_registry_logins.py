"""Registries that require a login: the real engine, and real Distribution registries of this test."""

import io
import json
import re
import socket
import subprocess
import tarfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import docker
import httpx
import pytest
import yaml

from local.gke.identity import make_identity
from local.gke.registry import TokenServer, serve_tokens
from local.gke.tokens import issuer_of
from local.parts.google import render_auth
from slipway.errors import ImagePushRefused, InputRefused, RegistryLoginRefused, RegistryUnreachable
from slipway.facts import Export, to_dict
from slipway.google import google_access_token
from slipway.image.build import build_image
from slipway.image.engine import engine
from slipway.image.push import push_image
from slipway.image.registry import repository_at
from slipway.model.content import write_model_layer
from slipway.paths import INCLUDE
from slipway.records.record import new_record, utc_now
from slipway.steps.resolve import resolve
from slipway.steps.settings import RefreshParams, read_settings

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

USER, PASSWORD = "shop", "only-this-test-knows"
HTPASSWD = f"{USER}:$2b$05$slipwaytestsaltslipwauZnDNj4/DrHbEVQNRpwpfcjvv9VGtnhu"  # bcrypt of the password
READY_S = 300  # far more than it takes, also on a busy machine


def free_port():
    """A free port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def tar_of(name, data):
    """A tar with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


@contextmanager
def registry(folder, **config_changes):
    """A Distribution registry that runs for the length of the block. Yields its host and port."""
    host = f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(folder / "blobs")}, **config_changes.pop("storage", {})}
    config = {"version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}}, "storage": storage}
    (folder / "registry.json").write_text(json.dumps({**config, "http": {"addr": host}, **config_changes}))
    with subprocess.Popen(["docker-registry", "serve", folder / "registry.json"], stderr=subprocess.DEVNULL) as process:
        try:
            end_s = time.monotonic() + READY_S
            while not answers(f"http://{host}/v2/"):
                assert time.monotonic() < end_s, f"no registry at {host} after {READY_S} s"
                time.sleep(0.05)
            yield host
        finally:
            process.terminate()


def answers(url):
    """Whether a server responds, with any status."""
    try:
        return bool(httpx.get(url).status_code)
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A registry that requires the login."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "htpasswd").write_text(f"{HTPASSWD}\n")
    with registry(folder, auth={"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as host:
        yield host


@pytest.fixture(scope="module")
def artifact_registry(tmp_path_factory):
    """A registry that requires a token of Google's, like Artifact Registry, and the state of its token server."""
    folder = tmp_path_factory.mktemp("artifact-registry")
    identity = make_identity(folder, "slipway.localhost:1", "")
    account = issuer_of(identity, "gke:tests")
    state = SimpleNamespace(identity=identity, account=account, issuer=account, writer=True)
    key, certificate = identity.server()
    server = TokenServer(
        service="stand-docker.pkg.dev",
        key=key.decode(),
        certificate=certificate,
        issuers=lambda: [state.issuer],
        writers=lambda _: state.writer,
    )
    serving = serve_tokens(server, 0)
    state.token_host = f"127.0.0.1:{serving.server_port}"
    auth = render_auth(service=server.service, token_port=serving.server_port, authority=folder / "ca.pem")
    with registry(folder, auth=auth, storage={"delete": {"enabled": True}}) as state.host:
        yield state
    serving.shutdown()
    serving.server_close()


@pytest.fixture
def google(artifact_registry, connection, monkeypatch):
    """The same registry, with everything allowed. The connection `google` has an account that it accepts."""
    artifact_registry.issuer, artifact_registry.writer = artifact_registry.account, True
    extra = {
        "key_path": str(artifact_registry.identity.key_file),
        "login_hosts": [artifact_registry.host, artifact_registry.token_host],
    }
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    return artifact_registry


@pytest.fixture(scope="module")
def docker_engine(stand):
    """The stand's engine."""
    client = docker.APIClient(base_url=stand["docker_host"], timeout=120)
    yield client
    client.close()


@pytest.fixture
def remove_images(docker_engine):
    """After the test, removes the images of these registries from the engine: `remove_images(host)`."""
    hosts = []
    yield hosts.append
    for found in docker_engine.images():
        for name in [*(found["RepoTags"] or ()), *(found["RepoDigests"] or ())]:
            if name.startswith(tuple(hosts)):
                with suppress(docker.errors.ImageNotFound):  # removing the last name removed the others
                    docker_engine.remove_image(name, force=True)


@pytest.fixture
def connection(stand, monkeypatch, tmp_path):
    """Sets Airflow's Variables and connections. `connection(host)` makes `mine`, with the login for this registry."""
    monkeypatch.setenv("HOME", str(tmp_path))  # ignore the Docker logins of the person who runs the tests
    kubeconfig = {"kube_config_path": stand["airflow"]["kubeconfig"], "namespace": stand["namespace"]}
    for name, said in {
        "DOCKER_DEFAULT": {"conn_type": "docker", "host": stand["docker_host"]},
        "KUBERNETES_DEFAULT": {"conn_type": "kubernetes", "extra": kubeconfig},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(said))
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "here")
    monkeypatch.delenv("AIRFLOW_VAR_SLIPWAY_REGISTRY", raising=False)

    def make(registry, **changes):
        said = {"conn_type": "docker", "host": registry, "login": USER, "password": PASSWORD, **changes}
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps({key: value for key, value in said.items() if value}))

    return make


@pytest.fixture
def resolved(stand, connection, tmp_path):
    """Resolves a model file with these image settings: `resolved(repository=…)` returns the Release."""

    def run(**image):
        said = {
            "source": {"folder": "digits-vit/checkpoint"},
            "gate": {"golden": [{"name": "three", "image": "three.png", "label": "3"}]},
            "image": {"base": stand["serving_image"], **image},
            "target": {"deployment": "tfs-login"},
        }
        (tmp_path / "three.png").write_bytes((INCLUDE / "served" / "digits-vit/golden/three.png").read_bytes())
        (tmp_path / "login.yaml").write_text(yaml.safe_dump(said))
        return resolve(tmp_path / "login.yaml", RefreshParams(), read_settings(), run_id="r1")

    return run


@pytest.fixture
def based(guarded, docker_engine, remove_images):
    """A base image that only the guarded registry has, not the engine."""
    remove_images(guarded)
    return put_base(docker_engine, guarded, {"username": USER, "password": PASSWORD})


def put_base(docker_engine, host, login):
    """Put a base image into a registry, remove it from the engine, and return its reference."""
    repository = f"{host}/base/tiny"
    serve = ['ENTRYPOINT ["/base"]']  # an engine creates no container of an image without a command
    docker_engine.import_image_from_data(tar_of("base", b"base"), repository=repository, tag="1", changes=serve)
    for event in docker_engine.push(repository, tag="1", stream=True, decode=True, auth_config=login):
        assert "error" not in event, event
    docker_engine.remove_image(f"{repository}:1", force=True)
    return f"{repository}:1"


@pytest.fixture
def tiny(tmp_path):
    """An export of a few bytes."""
    (tmp_path / "savedmodel").mkdir()
    (tmp_path / "savedmodel" / "saved_model.pb").write_bytes(b"graph")
    write_model_layer(tmp_path / "savedmodel", "/models/login/1", tmp_path / "model.tar")
    uris = dict.fromkeys(("golden_uri", "descriptors_uri", "report_uri"), "file:///none")
    return Export(version=1, content_hash=f"sha256:{'c' * 64}", model_uri=f"file://{tmp_path}/model.tar", **uris)


def pushed_by(release, export):
    """Build the image on the engine and push it, as the tasks do."""
    with engine(release) as client:
        image = build_image(client, release, export)
        return push_image(client, release, export, image)


def refused(kind, pattern, act, *args, **options):
    """Check that the act is refused in one line with what to do next and without the password. Return the line."""
    with pytest.raises(kind, match=rf"^{pattern}.*\. Next: ") as refusal:
        act(*args, **options)
    assert "\n" not in str(refusal.value)
    assert PASSWORD not in str(refusal.value)
    return str(refusal.value)


def test_pushed_with_the_connections_login(guarded, based, connection, resolved, tiny, caplog):  # noqa: PLR0917 - fixtures
    """Base image and model image use the guarded registry. The password is in no record, XCom or log."""
    caplog.set_level("DEBUG")
    connection(guarded)
    release = resolved(base=based, repository=f"{guarded}/shop/vit", registry_conn_id="mine")
    pushed = pushed_by(release, tiny)
    manifest = f"http://{guarded}/v2/shop/vit/manifests/{pushed.digest}"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    assert httpx.get(manifest, headers=accept).status_code == 401
    assert httpx.get(manifest, headers=accept, auth=(USER, PASSWORD)).headers["Docker-Content-Digest"] == pushed.digest
    with repository_at(release.repository, release.registry_conn_id) as repository:
        assert [tagged.digest for tagged in repository.tagged()] == [pushed.digest]
    record = new_record(release, now=utc_now())
    assert PASSWORD not in json.dumps([to_dict(release), to_dict(pushed), record])
    assert PASSWORD not in caplog.text


def test_no_layer_is_sent_twice(guarded, based, connection, resolved, tiny, caplog):  # noqa: PLR0917 - fixtures
    """For a second build of the same export, the guarded registry has both layers already."""
    caplog.set_level("INFO")
    connection(guarded)
    release = resolved(base=based, repository=f"{guarded}/twice/vit", registry_conn_id="mine")
    pushed_by(release, tiny)
    caplog.clear()
    pushed_by(release, tiny)
    assert "push: 0 layers sent, 2 were there" in caplog.text


def test_refused_before_a_build_if_the_password_is_wrong(guarded, connection, resolved):
    """Resolve refuses a login that the registry does not accept, and names the connection."""
    connection(guarded, password="wrong")
    said = refused(
        RegistryLoginRefused, f"registry {guarded}: the registry does not accept the login of connection mine: ",
        resolved, repository=f"{guarded}/shop/vit", registry_conn_id="mine",
    )  # fmt: skip
    assert "401" in said


def test_refused_before_a_build_if_no_login_is_named(guarded, based, connection, resolved):
    """Resolve finds out that a registry requires a login, for the base image and for the model's image."""
    then = "the registry requires a login: "
    refused(RegistryLoginRefused, f"registry of {guarded}/shop/vit: {then}", resolved, repository=f"{guarded}/shop/vit")
    refused(
        RegistryLoginRefused, f"base image {based}: {then}", resolved, base=based, repository="127.0.0.1:1/shop/vit"
    )


def test_refused_by_the_push_if_the_login_is_for_another_registry(guarded, connection, resolved, tiny, stand):
    """The push is refused in one line, and the registry has no image."""
    host = stand["registry"].split("/")[0]
    connection(host)  # the stand's registry requires no login
    release = resolved(repository=f"{stand['registry']}/login", registry_conn_id="mine")
    with engine(release) as client:
        base = client.inspect_image(release.base_reference)["Id"]
        elsewhere = SimpleNamespace(image_id=base, reference=f"{guarded}/other/vit:v1", version=1)
        refused(
            InputRefused, f"connection mine: its login is for {host}, not for {guarded}, where {guarded}/other/vit is",
            push_image, client, release, tiny, elsewhere,
        )  # fmt: skip
    assert (
        httpx.get(f"http://{guarded}/v2/_catalog", auth=(USER, PASSWORD)).json()["repositories"].count("other/vit") == 0
    )


@pytest.mark.parametrize("named", [None, "mine"], ids=["without login", "with login"])
def test_unreachable_if_there_is_no_registry(connection, resolved, named):
    """A registry that does not exist can be retried, with and without a login."""
    host = f"127.0.0.1:{free_port()}"
    connection(host)
    said = refused(
        RegistryUnreachable, f"registry .*{host}.*: the registry does not respond", resolved,
        repository=f"{host}/shop/vit", registry_conn_id=named,
    )  # fmt: skip
    assert "connection refused" in said


def test_unreachable_if_the_registry_has_an_error(tmp_path, connection, resolved):
    """A registry that responds with 503, like Distribution when its health check fails, can be retried."""
    (tmp_path / "unwell").touch()
    health = {"file": [{"file": str(tmp_path / "unwell"), "interval": "100ms"}]}
    with registry(tmp_path, health=health) as host:
        while httpx.get(f"http://{host}/v2/").status_code == 200:
            time.sleep(0.05)
        refused(RegistryUnreachable, ".*server error: .*503", resolved, repository=f"{host}/shop/vit")


def test_refused_if_the_registry_accepts_no_push(tmp_path, connection, resolved, tiny, remove_images):
    """Only the push finds out that a registry is read-only. Its message quotes the registry and has the next command."""
    with registry(tmp_path, storage={"maintenance": {"readonly": {"enabled": True}}}) as host:
        remove_images(host)
        release = resolved(repository=f"{host}/shop/vit")
        said = refused(ImagePushRefused, f"push {host}/shop/vit:.*405", pushed_by, release, tiny)
        assert f"Next: docker push {host}/shop/vit:" in said


def test_refused_if_the_connection_is_missing_or_incomplete(guarded, connection, resolved):
    """A missing connection, or one without a part of the login, is refused; the message names it."""
    where = {"repository": f"{guarded}/shop/vit", "registry_conn_id": "mine"}
    refused(InputRefused, "connection mine: no such connection", resolved, **where)
    for field in ("host", "login", "password"):
        connection(guarded, **{field: None})
        refused(InputRefused, f"connection mine: it has no {field}", resolved, **where)


JWT = re.compile(r"eyJ[\w-]+\.eyJ")  # how all tokens of Google and of the token server begin here


@pytest.fixture
def token_based(google, docker_engine, remove_images):
    """A base image that only the registry with tokens has."""
    remove_images(google.host)
    return put_base(
        docker_engine, google.host, {"username": "oauth2accesstoken", "password": google_access_token("google")}
    )


def test_pushed_with_a_token_of_the_google_connection(google, token_based, resolved, tiny, caplog, tmp_path):  # noqa: PLR0917 - fixtures
    """Pull, push, digest and pruning work with a token. The token is in no record, image, file or log."""
    caplog.set_level("DEBUG")
    release = resolved(base=token_based, repository=f"{google.host}/shop/vit", registry_conn_id="google")
    pushed = pushed_by(release, tiny)
    manifest = f"http://{google.host}/v2/shop/vit/manifests/{pushed.digest}"
    assert httpx.get(manifest).status_code == 401
    with repository_at(release.repository, release.registry_conn_id) as repository:
        assert [tagged.digest for tagged in repository.tagged()] == [pushed.digest]
        assert repository.delete(pushed.digest)
        assert list(repository.tagged()) == []
    with engine(release) as client:
        image = client.inspect_image(pushed.reference)
    left = [to_dict(release), to_dict(pushed), new_record(release, now=utc_now()), image]
    assert not JWT.search(json.dumps(left))
    assert not JWT.search(caplog.text)
    assert not list(Path(tmp_path).glob(".docker*"))


def test_push_gets_a_new_token(google, token_based, resolved, tiny):
    """The push does not use a token that expired during the build."""
    release = resolved(base=token_based, repository=f"{google.host}/later/vit", registry_conn_id="google")
    with engine(release) as client:
        image = build_image(client, release, tiny)
        time.sleep(1)  # tokens have a resolution of one second
        google.issuer = replace(google.account, expired_before=int(time.time()))
        assert push_image(client, release, tiny, image).digest


def test_refused_in_one_line_if_the_token_has_expired(google, resolved):
    """Resolve's message names the connection, the role and what to do."""
    google.issuer = replace(google.account, refuse=True)
    said = refused(
        RegistryLoginRefused, f"registry {google.host}: the registry does not accept the login of connection google: ",
        resolved, repository=f"{google.host}/shop/vit", registry_conn_id="google",
    )  # fmt: skip
    assert not JWT.search(said)
    assert said.endswith(
        "Next: give its account roles/artifactregistry.writer on the repository; clear the task, which gets a new token"
    )


def test_refused_in_one_line_if_the_account_may_not_write(google, token_based, resolved, tiny):
    """The message names the missing permission and the role that includes it."""
    google.writer = False
    release = resolved(base=token_based, repository=f"{google.host}/locked/vit", registry_conn_id="google")
    said = refused(ImagePushRefused, f"push {google.host}/locked/vit:", pushed_by, release, tiny)
    assert 'Permission "artifactregistry.repositories.uploadArtifacts" denied' in said
    assert "Next: give its account roles/artifactregistry.writer" in said
