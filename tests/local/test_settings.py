"""Settings as the environment gives them."""

from pathlib import Path

from local.settings import read_settings


def test_own_parts_if_nothing_is_named():
    """Without settings the stand runs its own parts, and its cache is in the user's cache folder."""
    found = read_settings({"HOME": "/home/ann"}, Path("/home/ann/slipway"))
    assert (found.cache, found.docker_host, found.kubeconfig, found.registry) == (
        Path("/home/ann/.cache/slipway"),
        None,
        None,
        None,
    )


def test_users_parts_if_named():
    """Each setting replaces one part of the stand."""
    environment = {
        "SLIPWAY_CACHE": "/srv/cache",
        "SLIPWAY_DOCKER_HOST": "unix:///var/run/docker.sock",
        "SLIPWAY_KUBECONFIG": "/etc/kube.conf",
        "SLIPWAY_REGISTRY": "127.0.0.1:5000",
        "SLIPWAY_SERVING_IMAGE": "example.org/serving:1",
    }
    found = read_settings(environment, Path("/home/ann/slipway"))
    assert found.cache == Path("/srv/cache")
    assert (found.docker_host, found.registry) == ("unix:///var/run/docker.sock", "127.0.0.1:5000")
    assert (found.kubeconfig, found.serving_image) == (Path("/etc/kube.conf"), "example.org/serving:1")


def test_checkouts_differ_by_path():
    """Two checkouts have different namespaces and folders, and share one. A checkout has the same ones each time."""
    one, other = (read_settings({}, Path(path)) for path in ("/srv/one", "/srv/other"))
    assert one.namespace == read_settings({}, Path("/srv/one")).namespace
    assert len({one.namespace, other.namespace, str(one.home.name), str(other.home.name)}) == 4
    assert one.shared == other.shared
