"""Where a Service can be reached: its address, and the ports of REST and gRPC."""

from __future__ import annotations

from slipway.facts import JsonObject
from slipway.kubernetes.api import read_object
from slipway.names import REST_PORT
from slipway.release import Release
from slipway.verdict import Verdict


def find_service_url(release: Release) -> tuple[Verdict, str | None]:
    """The live release's URL, the model file's or the Service's, with the verdict on it; None if it has no address yet."""
    if release.address is not None:
        return Verdict.passed(release.address), release.address.rstrip("/")
    service = read_object(release.target, "Service", release.service)
    return judge_address(service, name=release.service, namespace=release.target.namespace)


GRPC_PORT_NAME = "tf-serving-grpc"


def judge_address(service: JsonObject | None, *, name: str, namespace: str) -> tuple[Verdict, str | None]:
    """Whether the Service has an address, and the URL of its REST port: with an IP, or with a hostname as on EKS."""
    where = f"service/{name} in {namespace}"
    if service is None:
        return Verdict.failed(f"{where}: does not exist"), None
    host = _host_of(service)
    if not host:
        return Verdict.wait(f"{where}: no address yet"), None
    url = f"http://{host}:{REST_PORT}"
    return Verdict.passed(f"{where}: {url}"), url


def service_grpc_address(service: JsonObject) -> str | None:
    """A Service's gRPC address as host:port; None if it has no port of that name, or no address."""
    host = _host_of(service)
    port = next((one["port"] for one in service["spec"].get("ports") or [] if one.get("name") == GRPC_PORT_NAME), None)
    return f"{host}:{port}" if host and port else None


def _host_of(service: JsonObject) -> str | None:
    """A Service's address as a URL has it: an IP, or a hostname as on EKS."""
    given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    host = given[0].get("ip") or given[0].get("hostname") if given else None
    return f"[{host}]" if host and ":" in host else host
