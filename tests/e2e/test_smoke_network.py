"""The smoke test's network: the worker reaches the server through the engine, and the server reaches nothing beyond the engine's host."""

import json
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from dag_run import until

from slipway.image.engine import closed_network, throwaway_container
from slipway.image.smoke_test import NOWHERE

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

HERE, THERE = "198.51.100.1", "198.51.100.2"  # addresses for documentation (RFC 5737)
PORT = 8099
OWN = Path("/proc/self/ns/net")
SERVE = f"import http.server as h; h.ThreadingHTTPServer(('', {PORT}), h.SimpleHTTPRequestHandler).serve_forever()"
TRY = f"""
import http.server, json, socket

def tried(*where):
    try:
        socket.create_connection(where, timeout=2).close()
        return "reached"
    except OSError as error:
        return type(error).__name__

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = {{"outside": tried("{THERE}", {PORT}), "by name": tried("example.com", 80)}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

http.server.ThreadingHTTPServer(("", {PORT}), Handler).serve_forever()
"""


def run(*words):
    """Run a command."""
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def outside(tmp_path):
    """A host with a server, beyond this one: a network namespace that only knows its own link, and ends with the server.

    `ip netns` would mount /run/netns once more, and containerd could not remove the pods that run by then.
    """
    words = ["unshare", "--net", "python3", "-c", SERVE]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        other = Path(f"/proc/{server.pid}/ns/net")
        there = ["nsenter", f"--net={other}", "ip"]
        try:
            until(lambda: other.readlink() != OWN.readlink(), "it has a network of its own")
            run(
                "ip",
                "link",
                "add",
                "slipway-here",
                "type",
                "veth",
                "peer",
                "name",
                "slipway-there",
                "netns",
                str(server.pid),
            )
            run("ip", "addr", "add", f"{HERE}/30", "dev", "slipway-here")
            run("ip", "link", "set", "slipway-here", "up")
            run(*there, "addr", "add", f"{THERE}/30", "dev", "slipway-there")
            run(*there, "link", "set", "slipway-there", "up")
            yield
        finally:
            subprocess.run(["ip", "link", "del", "slipway-here"], check=False, capture_output=True)  # both ends
            server.kill()


@contextmanager
def container(engine, image, network, **options):
    """A container that reports what it reaches; asking it gives the report."""
    host = engine.create_host_config(port_bindings={PORT: ("127.0.0.1",)}, network_mode=network, **options)
    words = {"image": image, "entrypoint": ["python3", "-c", TRY], "ports": [PORT], "host_config": host}
    with throwaway_container(engine, "slipway-test-smoke-network", **words) as made:
        engine.start(made)
        port = engine.inspect_container(made)["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"]

        def ask():
            for _ in range(100):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=60) as answer:
                        return json.load(answer)
                except OSError:  # it does not listen yet
                    time.sleep(0.2)
            raise AssertionError(engine.logs(made))

        yield ask


@pytest.mark.usefixtures("outside")
def test_the_smoke_tests_server_has_no_way_out(engine, stand):
    """On the engine's own network a container reaches another host; on the smoke test's it does not, and still answers the worker."""
    image = stand["serving_image"]
    with container(engine, image, "bridge") as ask:
        assert ask()["outside"] == "reached"
    with closed_network(engine, "slipway-test-smoke-network") as network:
        with container(engine, image, network, dns=[NOWHERE]) as ask:
            found = ask()
        assert "reached" not in found.values()
    assert "slipway-test-smoke-network" not in {found["Name"] for found in engine.networks()}
