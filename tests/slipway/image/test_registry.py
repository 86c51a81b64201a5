import base64
import json

import httpx
import pytest
from registry_stub import RegistryStub

from slipway.errors import InputRefused, RegistryUnusable
from slipway.image.registry import _RegistryAuth, parse_challenge, repository_at, repository_url
from slipway.image.registry_login import Login

URLS = {
    "127.0.0.1:28500/shop/vit": "http://127.0.0.1:28500/v2/shop/vit/",
    "localhost/vit": "http://localhost/v2/vit/",
    "[::1]:5000/vit": "http://[::1]:5000/v2/vit/",
    "europe-docker.pkg.dev/project/models/vit": "https://europe-docker.pkg.dev/v2/project/models/vit/",
    "registry.example:5000/vit": "https://registry.example:5000/v2/vit/",
    "docker.io/someone/vit": "https://registry-1.docker.io/v2/someone/vit/",
    "index.docker.io/vit": "https://registry-1.docker.io/v2/library/vit/",
    "someone/vit": "https://registry-1.docker.io/v2/someone/vit/",
    "vit": "https://registry-1.docker.io/v2/library/vit/",
}


@pytest.mark.parametrize(("repository", "url"), URLS.items())
def test_url_is_the_one_that_the_engine_uses(repository, url):
    """Plain HTTP only on loopback; Docker Hub if no registry is named."""
    assert repository_url(repository) == url


def test_challenge_names_the_token_server():
    """The header's scheme and parameters, also if a value has commas."""
    header = 'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,delete"'
    assert parse_challenge(header) == (
        "bearer",
        {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,delete"},
    )
    assert parse_challenge("") == ("", {})


@pytest.fixture
def registry():
    """Starts a registry: `registry(**options)`."""
    started = []

    def start(**options):
        started.append(RegistryStub(**options))
        return started[-1]

    yield start
    for stub in started:
        stub.stop()


def tags_at(stub, **options):
    """The tags of the registry's repository with their digests."""
    with repository_at(f"{stub.host}/vit", None) as found:
        return {image.tag: image.digest for image in found.tagged(**options)}


def test_the_digest_is_that_of_the_bytes(registry):
    """A registry need not send a digest: the images to keep are recognised without it."""
    stub = registry()
    live, old = stub.push("live"), stub.push("old")
    assert tags_at(stub) == {"live": live, "old": old}
    assert tags_at(stub, without=frozenset({live})) == {"old": old}


def test_refused_if_the_registry_names_another_digest(registry):
    """If a registry or its proxy sends a wrong digest, nothing is deleted because of it."""
    stub = registry(names=lambda _: f"sha256:{'0' * 64}")
    stub.push("live")
    with pytest.raises(
        RegistryUnusable, match=r"manifests/live: it names .*, but its bytes have the digest sha256:.*Next: "
    ):
        tags_at(stub)


def test_nothing_without_a_digest_is_deleted(registry):
    """With an empty digest, only the tags would be deleted."""
    stub = registry()
    with (
        repository_at(f"{stub.host}/vit", None) as found,
        pytest.raises(RegistryUnusable, match="'' is not a digest"),
    ):
        found.delete("", ("live",))
    assert stub.deleted == []


@pytest.mark.parametrize(
    "next_page",
    [lambda _: "/v2/vit/tags/list?n=1", lambda asked: f"/v2/vit/tags/list?last={len(asked)}{asked[-20:]}"],
    ids=["the same page", "always another page"],
)
def test_an_endless_list_of_tags_is_an_error(registry, monkeypatch, next_page):
    """A list whose next page is the same page, or always another, is an error of the registry."""
    monkeypatch.setattr("slipway.image.registry.MAX_PAGES", 5, raising=False)
    stub = registry(next_page=next_page)
    stub.push("live")
    with pytest.raises(RegistryUnusable, match=r"tags/list.*: its list of tags has no end\. Next: "):
        tags_at(stub)


def test_a_list_is_followed_within_the_registry_only(registry):
    """The login must not go to another host."""
    other = registry()
    stub = registry(next_page=lambda _: f"http://{other.host}/v2/vit/tags/list")
    with pytest.raises(RegistryUnusable, match="leads to another host"):
        tags_at(stub)
    assert other.asked == []


def test_an_endless_answer_is_an_error(mean_server, monkeypatch):
    """An answer of the registry has a largest size and a total time."""
    monkeypatch.setattr("slipway.image.registry.TOTAL_S", 0.3)
    with (
        repository_at(f"{mean_server.url.removeprefix('http://')}/vit", None) as found,
        pytest.raises(RegistryUnusable, match=r"GET tags/list: .*answer.*Next: "),
    ):
        list(found.tagged())
    assert mean_server.sent < 64 * 1024 * 1024


BASIC = f"Basic {base64.b64encode(b'shop:pass-word').decode()}"


@pytest.fixture
def connection(monkeypatch):
    """Makes a Docker connection `mine` for a registry."""

    def make(host, **extra):
        said = {"conn_type": "docker", "host": host, "login": "shop", "password": "pass-word", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(said))

    return make


def labels_at(stub):
    """The labels of the registry's images, read with the connection's login."""
    with repository_at(f"{stub.host}/vit", "mine") as found:
        return [image.labels for image in found.tagged()]


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_the_login_goes_to_the_registry_of_its_connection(registry, connection, scheme):
    """On a Basic challenge itself; on a Bearer challenge to the registry's own token server, whose token then counts."""
    stub = registry()
    stub.challenge = f'{scheme} realm="http://{stub.host}/token",service="s"'
    stub.push("live", a="b")
    connection(stub.host)
    assert labels_at(stub) == [{"a": "b"}]
    assert set(stub.logins) == ({None, BASIC} if scheme == "Basic" else {None, BASIC, "Bearer made"})


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_the_login_of_another_registry_is_not_sent(registry, connection, scheme):
    """A repository elsewhere than at the connection's host is refused before a request is sent, whatever it would answer."""
    stub = registry()
    stub.challenge = f'{scheme} realm="http://{stub.host}/token"'
    connection("r.example:5000")
    with pytest.raises(
        InputRefused, match=rf"^connection mine: its login is for r\.example:5000, not for {stub.host}, .*Next: "
    ):
        labels_at(stub)
    assert stub.asked == []


FOREIGN = {
    "another host": "http://{other}/token",
    "another host, with the registry's as its user": "http://{own}@{other}/token",
    "the registry's host as a prefix": "https://{own}.evil.example/token",
    "the registry's host after a backslash": "https://evil.example\\@{own}/token",
    "another scheme": "ftp://{own}/token",
    "no URL": "token",
    "nothing": "",
    "invalid": "http://[",
}


@pytest.mark.parametrize("named", ["mine", None], ids=["with a login", "without a login"])
@pytest.mark.parametrize("realm", FOREIGN.values(), ids=FOREIGN)
def test_refused_if_the_token_server_is_another_host(registry, connection, realm, named):
    """Whatever the challenge names: only the registry's own host gets the login. The line says how to allow another one."""
    other = registry()
    stub = registry()
    stub.challenge = f'Bearer realm="{realm.format(own=stub.host, other=other.host)}",service="s"'
    connection(stub.host)
    with (
        repository_at(f"{stub.host}/vit", named) as found,
        pytest.raises(
            RegistryUnusable, match=rf"^registry {stub.host}: its token server .*Next: .*login_hosts"
        ) as refusal,
    ):
        list(found.tagged())
    assert "\n" not in str(refusal.value)
    assert other.asked == []
    assert set(stub.logins) == {None}


def test_a_token_server_elsewhere_gets_the_login_if_the_connection_names_it(registry, connection):
    """`login_hosts` in the connection's extra is for a private registry with a token server of its own."""
    other = registry()
    stub = registry(challenge=f'Bearer realm="http://{other.host}/token"')
    stub.push("live", a="b")
    connection(stub.host, login_hosts=f"auth.example, {other.host}")
    assert labels_at(stub) == [{"a": "b"}]
    assert (other.logins, set(stub.logins)) == ([BASIC], {None, "Bearer made"})


WELL_KNOWN = [
    ("docker.io", "https://auth.docker.io/token", True),
    ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
    ("ghcr.io", "https://ghcr.io/token", True),
    ("quay.io", "https://quay.io:443/v2/auth", True),
    ("r.example", "https://gitlab.com/jwt/auth", False),
    ("registry.gitlab.com", "https://auth.docker.io/token", False),
    ("r.example", "http://r.example/token", False),
    ("r.example:5000", "https://r.example/token", False),
]


@pytest.mark.parametrize(("host", "realm", "known"), WELL_KNOWN)
def test_token_servers_of_well_known_registries_are_known(host, realm, known):
    """Docker Hub and GitLab have theirs at another host. No other registry may name these, and none may be asked without TLS."""
    login = Login(conn_id="mine", hosts=(host,), user="shop", password="pass-word")
    flow = _RegistryAuth(host, login).auth_flow(httpx.Request("GET", f"https://{host}/v2/vit/tags/list"))
    challenged = httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'}, request=next(flow))
    if known:
        sent = flow.send(challenged)
        assert (str(sent.url), sent.headers["Authorization"]) == (str(httpx.URL(realm)), BASIC)
    else:
        with pytest.raises(RegistryUnusable, match="token server"):
            flow.send(challenged)


@pytest.mark.parametrize("challenge", [None, 'Basic realm="s"', 'Bearer realm="http://{own}/token"'])
def test_a_blobs_storage_gets_no_login(registry, connection, challenge):
    """A blob may be redirected to a storage at another host. It gets no login, and its challenge is not answered."""
    storage = registry()
    stub = registry(challenge='Basic realm="s"', storage=storage)
    stub.push("live", a="b")
    storage.blobs = stub.blobs
    storage.challenge = challenge and challenge.format(own=stub.host)
    connection(stub.host)
    if challenge is None:
        assert labels_at(stub) == [{"a": "b"}]
    else:
        with pytest.raises(RegistryUnusable, match="HTTP 401"):
            labels_at(stub)
    assert storage.logins == [None]
    assert [path for path in stub.asked if path.startswith("/token")] == []


@pytest.mark.parametrize("answer", ['{"token": "a\\nb"}', '{"token": 1}', "[]", "no"])
def test_an_unusable_token_is_a_refusal(registry, connection, http_server, answer):
    """A token server that answers nonsense gives no token, and nothing is sent to the registry as one."""
    server = http_server((200, answer))
    stub = registry(challenge=f'Bearer realm="{server.url}/token"')
    connection(stub.host, login_hosts=server.url)
    with pytest.raises(
        RegistryUnusable, match=rf"^registry {stub.host}: its token server's answer has no token\. Next: "
    ):
        labels_at(stub)
    assert stub.logins == [None]
