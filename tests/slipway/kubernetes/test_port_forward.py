"""An address on loopback whose connections go to pods through the API server."""

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from forwarding_pods import ForwardingCluster, described, labels_of

from slipway.errors import ApplyRefused, ClusterUnreachable, InputRefused, LoadTestUnfinished
from slipway.kubernetes.forward import forwarded
from slipway.kubernetes.port_forward import PodRoute

ROUTES = (PodRoute(labels=labels_of("r2-preview")),)
IMAGE = bytes(range(256)) * 2000  # half a megabyte: several messages
WAIT_S = 20


class Echo(grpc.GenericRpcHandler):
    """Answers each request with itself, once `together` requests have come."""

    def __init__(self):
        self.together, self.asked = threading.Barrier(1), threading.Semaphore(0)

    def service(self, _):
        """The handler of every method."""
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request, _):
        """The request, as soon as the others are there too."""
        self.asked.release()
        self.together.wait(WAIT_S)
        return request


@pytest.fixture
def echo():
    """A gRPC server that stands for the pods' containers, with its `port`."""
    handler = Echo()
    server = grpc.server(ThreadPoolExecutor(16), handlers=[handler])
    handler.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler
    server.stop(0).wait()


@pytest.fixture
def cluster(connected, echo):
    """Starts an API server with pods: `cluster(a=True, b=False)` says which are ready."""
    started = []

    def start(**ready):
        started.append(ForwardingCluster(*(described(name, echo.port, ready=one) for name, one in ready.items())))
        connected(started[-1])
        return started[-1]

    yield start
    for one in started:
        one.stop()


def ask(address, request=IMAGE):
    """The answer over a connection of its own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return channel.unary_unary("/x/Y")(request, timeout=WAIT_S)


def test_connections_go_to_the_ready_pods_in_turns(release, cluster):
    """Requests and answers pass unchanged. A pod that is not ready gets none."""
    api = cluster(a=True, b=False, c=True)
    with forwarded(release.target, ROUTES) as forwarding:
        del api.forwarded[:]
        assert [ask(forwarding.addresses[0]) == IMAGE for _ in range(4)] == [True] * 4
    assert (api.forwarded, forwarding.lost) == (["a", "c", "a", "c"], {})


def test_many_connections_at_once(release, cluster, echo):
    """Each has a websocket of its own, so that no user waits for another one."""
    cluster(a=True)
    echo.together = threading.Barrier(12)
    with forwarded(release.target, ROUTES) as forwarding, ThreadPoolExecutor(12) as users:
        requests = [IMAGE + bytes([number]) for number in range(12)]
        assert list(users.map(lambda request: ask(forwarding.addresses[0], request), requests)) == requests
    assert not forwarding.lost


def test_a_lost_websocket_is_an_error_of_its_request_and_a_line_of_the_log(release, cluster, echo, caplog):
    """The connection ends at once, the reason is counted and logged once, and the next connection works."""
    api = cluster(a=True)
    echo.together = threading.Barrier(3)  # two users and this test
    with forwarded(release.target, ROUTES) as forwarding, ThreadPoolExecutor(2) as users:
        lost = [users.submit(ask, forwarding.addresses[0]) for _ in range(2)]
        assert all(echo.asked.acquire(timeout=WAIT_S) for _ in lost)
        api.drop()
        assert {one.exception(WAIT_S).code().name for one in lost} == {"UNAVAILABLE"}
        echo.together.abort()
        echo.together = threading.Barrier(1)
        assert ask(forwarding.addresses[0]) == IMAGE
    assert forwarding.lost == {"pod/a: the pod or the API server ended it (code 1000)": 2}
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["port-forward: pod/a: the pod or the API server ended it (code 1000)"]


def test_a_closed_port_is_named(release, cluster):
    """In the words of the node."""
    api = cluster(a=True)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    api.pods[0]["spec"]["containers"][0]["ports"][0]["containerPort"] = port
    with forwarded(release.target, ROUTES) as forwarding, pytest.raises(grpc.RpcError):
        ask(forwarding.addresses[0])
    [reason] = {one.partition(": Connect")[0] for one in forwarding.lost}
    assert reason == f"pod/a: error forwarding port {port}"


def test_a_missing_right_is_refused_before_any_load(release, cluster):
    """The line names the verbs."""
    cluster(a=True).refused = 403
    with (
        pytest.raises(
            ApplyRefused, match=r"^pod/a in shop: HTTP 403: .* get and create on pods/portforward\. Next: .*can-i"
        ),
        forwarded(release.target, ROUTES),
    ):
        pytest.fail("it must not start")


@pytest.mark.parametrize("ready", [{"a": False}, {}], ids=["none is ready", "there is none"])
def test_refused_without_a_ready_pod(release, cluster, ready):
    """The next command shows the pods."""
    cluster(**ready)
    with (
        pytest.raises(LoadTestUnfinished, match=r"is ready\. Next: kubectl .*get pods -l slipway/model=digits-vit,"),
        forwarded(release.target, ROUTES),
    ):
        pytest.fail("it must not start")


def test_an_api_server_that_is_gone_is_an_error(release, cluster):
    """It can be retried."""
    cluster(a=True).stop()
    with pytest.raises(ClusterUnreachable), forwarded(release.target, ROUTES):
        pytest.fail("it must not start")


def test_it_ends_with_its_block(release, cluster):
    """So do the connections that are open."""
    cluster(a=True)
    with forwarded(release.target, ROUTES) as forwarding:
        host, _, port = forwarding.addresses[0].partition(":")
        kept = socket.create_connection((host, int(port)), timeout=WAIT_S)
        assert kept.recv(1024)  # the server begins with its settings
    assert host == "127.0.0.1"
    with kept:
        while kept.recv(1024):  # it has sent more until then
            pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=WAIT_S)


def test_a_kubeconfigs_proxy_is_refused(release, cluster, tmp_path):
    """The client of the websockets would go around it."""
    cluster(a=True)
    file = tmp_path / "kubeconfig-kubernetes_default"
    file.write_text(file.read_text().replace('"server"', '"proxy-url": "http://127.0.0.1:1", "server"'))
    with (
        pytest.raises(InputRefused, match=r"proxy-url .*Next: leave gate\.load\.grpc_share out"),
        forwarded(release.target, ROUTES),
    ):
        pytest.fail("it must not start")
