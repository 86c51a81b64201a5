from dataclasses import replace

import grpc
import pytest
from grpc_serving import DESCRIPTORS, request_of

from slipway.errors import SmokeTestFailed, SmokeTestUnfinished
from slipway.image.smoke_test import ask_over_grpc, check_verdicts, server_ports

PORTS = {"8500/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}], "8501/tcp": [{"HostPort": "49154"}]}


def container(ports, **state):
    """What an engine says of a container."""
    return {"State": {"Running": True, "ExitCode": 0, **state}, "NetworkSettings": {"Ports": ports}}


@pytest.fixture
def ask(grpc_server, case, tmp_path):
    """The verdicts on one golden case over gRPC, from a real server with these answers."""
    (tmp_path / "descriptors.bin").write_bytes(DESCRIPTORS)
    sent = replace(case, grpc_request=request_of("digits-vit"))
    return lambda *answers: ask_over_grpc(grpc_server(*answers).address, [sent, sent], DESCRIPTORS, version=7)


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_no_answer_over_grpc_does_not_blame_the_release(ask, code):
    """On a busy engine an answer may be late, which says nothing about the release."""
    verdicts = ask((grpc.StatusCode[code], "too busy"), ("3", 0.95, 7))
    assert [verdict.outcome for verdict in verdicts] == ["wait", "pass"]
    with pytest.raises(SmokeTestUnfinished, match=f"over gRPC: {code}: too busy") as unfinished:
        check_verdicts(verdicts)
    assert not unfinished.value.blames_release


@pytest.mark.parametrize(
    "answer", [("4", 0.95, 7), ("3", 0.1, 7), ("3", 0.95, 6), (grpc.StatusCode.INVALID_ARGUMENT, "no")], ids=str
)
def test_a_wrong_answer_over_grpc_blames_the_release(ask, answer):
    """A wrong label, too low a confidence, another version and a refusal are the release's fault, also after a missing answer."""
    with pytest.raises(SmokeTestFailed, match="over gRPC") as failed:
        check_verdicts(ask((grpc.StatusCode.UNAVAILABLE, "not yet"), answer))
    assert failed.value.blames_release


def test_ports_are_the_engines():
    """The engine publishes REST and gRPC on ports of its choice."""
    assert server_ports(container(PORTS), version=7) == ("49154", "49153")


@pytest.mark.parametrize("ports", [{}, None, {"8500/tcp": None, "8501/tcp": None}], ids=str)
@pytest.mark.parametrize("status", [1, 134, 139])
def test_a_server_that_ended_by_itself_blames_the_release(ports, status):
    """A container that ended has no ports."""
    with pytest.raises(
        SmokeTestFailed, match=f"the server ended with status {status} before version 7 was AVAILABLE"
    ) as failed:
        server_ports(container(ports, Running=False, ExitCode=status), version=7)
    assert failed.value.blames_release


@pytest.mark.parametrize("status", [137, 143])
def test_a_server_that_was_killed_does_not_blame_the_release(status):
    """Only the machine, the engine or a person sends SIGKILL or SIGTERM."""
    with pytest.raises(SmokeTestUnfinished, match=f"ended from outside, with status {status}"):
        server_ports(container({}, Running=False, ExitCode=status), version=7)


def test_a_running_server_without_ports_does_not_blame_the_release():
    """The engine did not publish them."""
    with pytest.raises(SmokeTestUnfinished, match="published no ports"):
        server_ports(container({}), version=7)
