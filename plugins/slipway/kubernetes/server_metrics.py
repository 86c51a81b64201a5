"""Reads what the pods of a release have counted, each from its own page, through the API server's pod proxy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from slipway.facts import JsonObject
from slipway.kubernetes.api import list_pods_async
from slipway.kubernetes.manifests import CONTAINER
from slipway.kubernetes.proxy import how_to_allow_pod_proxy, send_to_service
from slipway.names import GRPC_PORT, LABEL_MODEL, LABEL_RELEASE, REST_PORT, pod_proxy_path
from slipway.serving.evaluation import AT_ONCE, gather_few
from slipway.serving.golden import OK
from slipway.serving.metrics import PAGE, PodLook, read_page
from slipway.target import Target


class MetricsUnread(Exception):
    """Why the metrics of a release could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPod:
    """A pod that serves, as the API server describes it."""

    name: str
    uid: str
    restarts: int
    ready: bool
    rest_port: int
    grpc_port: int


async def look_at_servers(target: Target, model: str, release_id: str) -> list[PodLook]:
    """A look at each pod of a release. Raises MetricsUnread if a ready one, or all, could not be read."""
    found = await list_pods_async(target, {LABEL_MODEL: model, LABEL_RELEASE: release_id})
    pods = [pod for pod in map(server_pod, found) if pod]
    if not any(pod.ready for pod in pods):
        raise MetricsUnread(f"no pod of release {release_id} is ready")
    return await gather_few([partial(_look_at, target, model, pod) for pod in pods], at_once=AT_ONCE)


def server_pod(pod: JsonObject) -> ServerPod | None:
    """The pod, if it runs the release's server. A pod that is being deleted is not ready."""
    containers = {one["name"]: one for one in pod["spec"]["containers"]}
    if CONTAINER not in containers:
        return None
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    status: JsonObject = next((one for one in statuses if one["name"] == CONTAINER), {})
    ports = {one.get("name"): one["containerPort"] for one in containers[CONTAINER].get("ports") or ()}
    return ServerPod(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        restarts=status.get("restartCount") or 0,
        ready=bool(status.get("ready")) and not pod["metadata"].get("deletionTimestamp"),
        rest_port=ports.get("restapi", REST_PORT),
        grpc_port=ports.get("grpc", GRPC_PORT),
    )


async def _look_at(target: Target, model: str, pod: ServerPod) -> PodLook:
    counts = None
    if pod.ready:
        answer = await send_to_service(target, pod_proxy_path(target.namespace, pod.name, pod.rest_port), PAGE)
        if answer.denied:
            raise MetricsUnread(f"{answer.body}. Next: {how_to_allow_pod_proxy(target, answer.denied)}")
        if answer.status != OK:
            raise MetricsUnread(f"pod/{pod.name}: {PAGE}: {answer.status or 'no answer'}: {answer.body[:200]}")
        try:
            counts = await asyncio.to_thread(read_page, answer.body, model)
        except ValueError as error:
            raise MetricsUnread(f"pod/{pod.name}: {PAGE}: is not Prometheus' text: {error}") from error
    return PodLook(uid=pod.uid, restarts=pod.restarts, counts=counts)
