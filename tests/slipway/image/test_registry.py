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
def test_url_is_where_the_engine_would_go(repository, url):
    """Plain HTTP on loopback alone, Docker Hub where no registry is named."""
    assert repository_url(repository) == url


def test_challenge_names_the_token_server():
    """Scheme and parameters of the header, commas in a value and all."""
    header = 'Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,delete"'
    assert parse_challenge(header) == (
        "bearer",
        {"realm": "https://auth.example/token", "service": "reg", "scope": "repository:a/b:pull,delete"},
    )
    assert parse_challenge("") == ("", {})
