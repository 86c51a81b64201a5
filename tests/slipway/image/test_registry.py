import pytest

from slipway.image.registry import parse_challenge, repository_url

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
