"""The CPU that pods use, from the cluster's metrics API (metrics.k8s.io), read again and again while a block runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway.facts import JsonObject
from slipway.kubernetes.api import FORBIDDEN, NOT_FOUND
from slipway.kubernetes.client import cluster_client
from slipway.serving.sweep import Usage
from slipway.target import REQUEST_TIMEOUT_S, Target

POLL_S = 5  # metrics-server measures every 15 s, unless it is told otherwise
PARTS_S = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3}  # of Go's durations


@dataclass(slots=True)
class Watch:
    """What has been read so far."""

    found: list[Usage] = field(default_factory=list)  # each measurement once
    why_not: str | None = None  # why nothing could be read, the last time

    def add(self, usage: Usage | None) -> None:
        """Keep a measurement, unless it is the last one again."""
        if usage is not None and (not self.found or usage.ended_s > self.found[-1].ended_s):
            self.found.append(usage)


def usage_of_pods(pods: list[JsonObject]) -> Usage | None:
    """All CPUs that these pods use, from their PodMetrics; None without any. The times are those of all pods together."""
    from kubernetes.utils.quantity import parse_quantity

    if not pods:
        return None
    ends_s = [datetime.fromisoformat(pod["timestamp"]).timestamp() for pod in pods]
    begins_s = [end_s - seconds_of(pod["window"]) for end_s, pod in zip(ends_s, pods, strict=True)]
    cpus = sum(parse_quantity(container["usage"]["cpu"]) for pod in pods for container in pod["containers"])
    return Usage(began_s=min(begins_s), ended_s=max(ends_s), cpus=float(cpus))


def seconds_of(duration: str) -> float:
    """A duration as Go writes it: 1m10.5s."""
    return sum(float(number) * PARTS_S[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|m|s)", duration))


@contextmanager
def watched_usage(target: Target, labels: dict[str, str]) -> Iterator[Watch]:
    """What the pods with these labels use of CPU while the block runs. It raises nothing: `why_not` says what is missing."""
    watch, over = Watch(), threading.Event()

    def run() -> None:
        while not over.is_set():
            _read(target, labels, watch)
            over.wait(POLL_S)

    thread = threading.Thread(target=run, name="slipway-usage", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _read(target: Target, labels: dict[str, str], watch: Watch) -> None:
    from kubernetes.client.exceptions import ApiException

    try:
        watch.add(usage_of_pods(_pod_metrics(target, labels)))
        watch.why_not = None
    except ApiException as error:
        watch.why_not = {
            NOT_FOUND: "the cluster has no metrics-server",
            FORBIDDEN: f"connection {target.conn_id} may not list pods of metrics.k8s.io",
        }.get(error.status, f"metrics.k8s.io: HTTP {error.status}")
    except Exception as error:  # a figure that is missing ends no sweep
        watch.why_not = f"metrics.k8s.io: {type(error).__name__}"


def _pod_metrics(target: Target, labels: dict[str, str]) -> list[JsonObject]:
    from kubernetes.client import CustomObjectsApi

    with cluster_client(target) as client:
        found: Any = CustomObjectsApi(client).list_namespaced_custom_object(
            "metrics.k8s.io", "v1beta1", target.namespace, "pods",
            label_selector=",".join(f"{name}={value}" for name, value in labels.items()),
            _request_timeout=REQUEST_TIMEOUT_S,
        )  # fmt: skip
    return list(found["items"])
