import pytest
from registry_stub import RegistryStub

from slipway.errors import RegistryUnusable
from slipway.image.registry import parse_challenge, repository_at, repository_url

URLS = {
    "127.0.0.1:28500/shop/vit": "http://127.0.0.1:28500/v2/shop/vit/",
    "localhost/vit": "http://localhost/v2/vit/",
    "[::1]:5000/vit": "http://[::1]:5000/v2/vit/",
    "europe-docker.pkg.dev/project/models/vit": "https://europe-docker.pkg.dev/v2/project/models/vit/",
    "registry.example:5000/vit": "https://registry.example:5000/v2/vit/",
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
