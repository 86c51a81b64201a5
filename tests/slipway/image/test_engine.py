import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import docker
import pytest

from slipway.errors import EngineUnreachable, InputRefused
from slipway.image.engine import engine_at, engine_host, publish_address, remove_container


@pytest.mark.stand
@pytest.mark.alongside
def test_waits_for_a_container_that_is_being_removed(stand):
    """Several simultaneous removals of one container all return when it is gone; the engine itself accepts only one."""
    name = f"slipway-removed-by-many-{stand['namespace']}"

    def remove(_):
        client = docker.APIClient(base_url=stand["docker_host"], timeout=60)
        remove_container(client, name)
        return client.containers(all=True, filters={"name": name})

    client = docker.APIClient(base_url=stand["docker_host"], timeout=60)
    for _ in range(4):
        made = client.create_container(stand["serving_image"], name=name, command=["60"], entrypoint=["sleep"])
        client.start(made)
        with ThreadPoolExecutor(3) as many:
            assert list(many.map(remove, range(3))) == [[], [], []]


class _EngineThatHangsUp(BaseHTTPRequestHandler):
    """An engine that reports its version and drops every other request, like an engine that is being restarted."""

    def do_GET(self):
        if self.path.endswith(("/version", "/_ping")):
            body = b'{"ApiVersion": "1.44", "MinAPIVersion": "1.24"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        """Log nothing."""


def test_retryable_if_the_engine_drops_the_connection(monkeypatch):
    """A connection that the engine drops during a request is reported in one line, and can be retried."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _EngineThatHangsUp)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"tcp://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AIRFLOW_CONN_ENGINE", json.dumps({"conn_type": "docker", "host": host}))
    with (
        pytest.raises(EngineUnreachable, match=rf"engine at {host} .*Next: ") as refused,
        engine_at("engine") as client,
    ):
        client.images()
    server.shutdown()
    server.server_close()
    assert refused.value.worth_retrying


EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is expected
HOSTS = {
    "a socket": ({"host": "unix:///var/run/docker.sock"}, "127.0.0.1", "127.0.0.1"),
    "a remote engine": ({"host": "tcp://engine.example:2375"}, "engine.example", EVERYWHERE),
    "a socket in a pod": ({"host": "unix:///s", "extra": {"ports_host": "$NODE_IP"}}, "198.51.100.7", "198.51.100.7"),
    "a name": ({"host": "unix:///s", "extra": {"ports_host": "node.internal"}}, "node.internal", EVERYWHERE),
}


@pytest.mark.parametrize(("said", "reached", "published"), HOSTS.values(), ids=HOSTS)
def test_ports_are_published_where_the_worker_reaches_them(release, monkeypatch, said, reached, published):
    """A mounted socket's ports are not at the loopback of the worker's pod: its connection says where they are."""
    monkeypatch.setenv("NODE_IP", "198.51.100.7")
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_DEFAULT", json.dumps({"conn_type": "docker", **said}))
    assert (engine_host(release), publish_address(release)) == (reached, published)


@pytest.mark.parametrize("named", ["$NOT_SET", "a b", "", 7, "http://x"])
def test_a_host_that_is_none_is_refused(release, monkeypatch, named):
    """Before a container is started."""
    said = {"conn_type": "docker", "host": "unix:///s", "extra": {"ports_host": named}}
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_DEFAULT", json.dumps(said))
    with pytest.raises(InputRefused, match=r"^connection docker_default: ports_host in its extra, .*Next: "):
        engine_host(release)
