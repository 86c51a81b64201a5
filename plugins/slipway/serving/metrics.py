"""What a TF Serving server has counted, from the page that Prometheus reads. Pure.

The server counts from its start: two looks at it give what happened in between. It counts each request by its status, also the
status requests of the kubelet's probes, and takes the time of those that it answered, in buckets that grow by the factor 1.8.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

Key = TypeVar("Key", str, float)

PAGE = "/monitoring/prometheus/metrics"  # include/manifests/base/monitoring.txt has the same path
REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
PREDICT = "predict"  # the API's label, `predict` over REST and `Predict` over gRPC; a status request has none
PERCENTILE = 0.95
ANSWERED = "OK"
# The caller's fault, as the codes of HTTP 400, 401, 403, 404, 409, 499 and 501: anybody can send such requests.
REFUSED = frozenset({
    "INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND",
    "ALREADY_EXISTS", "CANCELLED", "UNIMPLEMENTED",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What servers have counted, or the difference between two looks at them."""

    statuses: Mapping[str, int] = field(
        default_factory=dict
    )  # requests that got no answer, by the name of their status
    answered: int = 0  # predictions
    total_ms: float = 0.0  # the time of these, together
    within: Mapping[float, int] = field(default_factory=dict)  # how many of them took at most so many milliseconds

    @property
    def errors(self) -> int:
        """Requests that the server failed to answer."""
        return sum(count for status, count in self.statuses.items() if status not in REFUSED)

    @property
    def refused(self) -> int:
        """Requests that the server refused because they were bad."""
        return sum(count for status, count in self.statuses.items() if status in REFUSED)

    @property
    def mean_ms(self) -> float | None:
        """The mean time of an answered prediction; None if there was none."""
        return self.total_ms / self.answered if self.answered else None

    @property
    def p95_within_ms(self) -> float | None:
        """The upper end of the bucket that the 95th percentile is in; None without an answer, or if that bucket has no end."""
        enough = (limit for limit, count in self.within.items() if count >= PERCENTILE * self.answered)
        end = min(enough, default=math.inf)
        return end if self.answered and end < math.inf else None

    def slower_than(self, limit_ms: float) -> tuple[int, float]:
        """How many answers were certainly slower than the limit, and the bucket's end from which on they count as slower."""
        end = min((one for one in self.within if one >= limit_ms), default=math.inf)
        return (self.answered - self.within.get(end, self.answered)), end

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return self._with(other, 1)

    def minus(self, earlier: Counts) -> Counts:
        """What was counted since an earlier look at the same server."""
        return self._with(earlier, -1)

    def _with(self, other: Counts, sign: int) -> Counts:
        return Counts(
            statuses=_added(self.statuses, other.statuses, sign),
            answered=self.answered + sign * other.answered,
            total_ms=self.total_ms + sign * other.total_ms,
            within=_added(self.within, other.within, sign),
        )


NOTHING = Counts()


def _added(one: Mapping[Key, int], other: Mapping[Key, int], sign: int) -> dict[Key, int]:
    return {key: one.get(key, 0) + sign * other.get(key, 0) for key in {**one, **other}}


def read_page(page: str, model: str) -> Counts:
    """What a server has counted for a model, from its page. Raises ValueError if the page is not Prometheus' text."""
    from prometheus_client.parser import text_string_to_metric_families

    statuses: dict[str, int] = {}
    within: dict[float, int] = {}
    answered, total_us = 0, 0.0
    for family in text_string_to_metric_families(page):
        for name, labels, value, *_ in family.samples:
            if family.name not in {REQUESTS, LATENCY} or labels.get("model_name") != model:
                continue
            if family.name == REQUESTS and labels["status"] != ANSWERED:
                statuses[labels["status"]] = int(value)
            elif labels.get("API", "").lower() != PREDICT:
                continue
            elif name.endswith("_bucket"):
                limit_ms = float(labels["le"]) / 1000  # the page has microseconds
                within[limit_ms] = within.get(limit_ms, 0) + int(value)
            elif name.endswith("_count"):
                answered += int(value)
            elif name.endswith("_sum"):
                total_us += value
    return Counts(statuses=statuses, answered=answered, total_ms=total_us / 1000, within=within)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLook:
    """One look at a pod."""

    uid: str
    restarts: int  # of its server
    counts: Counts | None  # None if it is not ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the pods of a release have counted since the first look."""

    looks: int = 0
    total: Counts = NOTHING
    restarts: int = 0  # of servers
    pods: Mapping[str, PodLook] = field(default_factory=dict)  # the last look at each, by uid

    def add(self, pods: Iterable[PodLook]) -> Tally:
        """The tally after one more look. A pod that is new, or whose server has started again, counts from zero."""
        total, restarts, seen = self.total, self.restarts, dict(self.pods)
        for pod in pods:
            last = self.pods.get(pod.uid) or (
                pod if not self.looks else PodLook(uid=pod.uid, restarts=0, counts=NOTHING)
            )
            restarts += pod.restarts - last.restarts
            before = last.counts or NOTHING if pod.restarts == last.restarts else NOTHING
            if pod.counts is not None:
                total = total.plus(pod.counts.minus(before))
            seen[pod.uid] = replace(pod, counts=before if pod.counts is None else pod.counts)
        return Tally(looks=self.looks + 1, total=total, restarts=restarts, pods=seen)


UNCOUNTED = Tally()
