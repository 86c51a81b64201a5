"""One run at a time writes to a target: a Kubernetes Lease next to the Deployment names the run, and until when.

A run acquires the Lease before it writes, renews it for the time limit of each task, and returns it at the end. Until it
expires or its run ends, only its holder changes it; then another run may acquire it. Each change names the resourceVersion
that was read, so that only one of several contenders gets it. All times are the API server's, from the headers of its
responses: the clocks of workers may differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

from slipway.errors import LeaseLost, TargetBusy
from slipway.facts import JsonObject
from slipway.kubernetes.api import CONFLICT, NOT_FOUND, api_errors, parse_object
from slipway.kubernetes.client import cluster_client
from slipway.names import LABEL_MODEL, lease_name
from slipway.target import REQUEST_TIMEOUT_S, Target
from slipway.verdict import Verdict

API_VERSION = "coordination.k8s.io/v1"
BROKE = "slipway/broke"  # the annotation that names who held the Lease before it was broken
MARGIN_S = 30  # API servers of one cluster have clocks of their own, and headers give whole seconds
ATTEMPTS = 20  # more than there are ever runs that want one target at the same time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a Lease protects: a Deployment of a target, and its model."""

    target: Target
    deployment: str
    model: str

    @property
    def name(self) -> str:
        """The Lease's name."""
        return lease_name(self.deployment)

    def __str__(self) -> str:
        """The name in messages."""
        return f"lease/{self.name} in {self.target.namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A run of an Airflow installation; `settings.ensure_installation` names the installation."""

    installation: str
    dag_id: str
    run_id: str

    @property
    def identity(self) -> str:
        """The Lease's holderIdentity, as `kubectl get leases` shows it."""
        return f"{self.installation}/{self.dag_id}/{self.run_id}"

    @classmethod
    def of(cls, identity: str) -> Self | None:
        """The run that an identity names; None if Slipway did not write it."""
        parts = identity.split("/", 2)
        return cls(installation=parts[0], dag_id=parts[1], run_id=parts[2]) if len(parts) == 3 else None  # noqa: PLR2004

    def __str__(self) -> str:
        """The name in messages."""
        return f"run {self.run_id} of {self.dag_id} (installation {self.installation})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A Lease as it was read."""

    holder: str  # an identity; empty if nobody holds it
    acquired: str | None
    renewed: datetime | None
    duration_s: int | None
    transitions: int
    broke: str | None  # who held it before its holder broke it
    uid: str
    version: str  # resourceVersion

    @classmethod
    def of(cls, found: JsonObject) -> Self:
        """The Lease from its JSON: the API server checks the types, and requires no field."""
        metadata, spec = found["metadata"], found.get("spec") or {}
        renewed = spec.get("renewTime")
        return cls(
            holder=spec.get("holderIdentity") or "",
            acquired=spec.get("acquireTime"),
            renewed=datetime.fromisoformat(renewed) if renewed else None,
            duration_s=spec.get("leaseDurationSeconds"),
            transitions=spec.get("leaseTransitions") or 0,
            broke=(metadata.get("annotations") or {}).get(BROKE),
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
        )

    @property
    def ends(self) -> datetime | None:
        """When it expires; None if it does not say."""
        if self.renewed is None or self.duration_s is None:
            return None
        return self.renewed + timedelta(seconds=self.duration_s + MARGIN_S)

    def __str__(self) -> str:
        """The holder, and until when."""
        until = f"until {show_time(self.ends)}" if self.ends else "without an end time"
        return f"{Holder.of(self.holder) or repr(self.holder)}, {until}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the Lease of this run says."""

    until: str  # ISO 8601
    broke: str | None  # who held it before, if this run broke it


def judge_lease(found: Lease | None, me: Holder, *, now: datetime, is_over: Callable[[Holder], bool]) -> Verdict:
    """Whether a run may acquire the Lease; `wait` names its holder.

    `is_over` says whether a run of this installation has ended; runs of other installations keep the Lease until it
    expires. A Lease without an end time is never acquired: a person breaks it.
    """
    if found is None or not found.holder:
        return Verdict.passed("free")
    if found.holder == me.identity:
        return Verdict.passed("ours")
    if found.ends is not None and now > found.ends:
        return Verdict.passed(f"expired: {found}")
    holder = Holder.of(found.holder)
    if holder is not None and holder.installation == me.installation and is_over(holder):
        return Verdict.passed(f"its run has ended: {found}")
    return Verdict.wait(f"held by {found}")


def render_lease(
    place: Place, me: Holder, found: Lease | None, *, now: datetime, limit_s: int, broke: str | None
) -> JsonObject:
    """The Lease with this run as its holder; if one was found, an update of exactly that version."""
    ours = found is not None and found.holder == me.identity
    renewed = now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    metadata: JsonObject = {
        "name": place.name,
        "namespace": place.target.namespace,
        "labels": {LABEL_MODEL: place.model},
        "annotations": {BROKE: broke} if broke else {},
    }
    if found is not None:
        metadata |= {"resourceVersion": found.version, "uid": found.uid}
    spec = {
        "holderIdentity": me.identity,
        "acquireTime": found.acquired if found and ours else renewed,
        "renewTime": renewed,
        "leaseDurationSeconds": limit_s,
        "leaseTransitions": found.transitions + (not ours) if found else 0,
    }
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}


def acquire_lease(
    place: Place,
    me: Holder,
    *,
    limit_s: int,
    is_over: Callable[[Holder], bool],
    may_break: Callable[[Lease], bool] = lambda _: False,
    had: bool = False,
) -> Held:
    """Acquire the Lease or renew it, for `limit_s`.

    `had`: the run held it before, so if it lost it, it may not acquire it again. `may_break` says whether the run may take a
    Lease from its holder. Raises TargetBusy, LeaseLost, ApplyRefused, ClusterUnreachable, and what `may_break` raises.
    """
    with _lease_client(place) as client:
        for _ in range(ATTEMPTS):
            found, now = client.read()
            if had and (found is None or found.holder != me.identity):
                raise LeaseLost(_lost(place, found))
            verdict = judge_lease(found, me, now=now, is_over=is_over)
            broken = verdict.outcome != "pass" and found is not None
            if found and broken and not may_break(found):
                raise TargetBusy(describe_busy_lease(place, me, verdict))
            broke = str(found) if found and broken else found.broke if found and found.holder == me.identity else None
            if client.write(render_lease(place, me, found, now=now, limit_s=limit_s, broke=broke), found):
                if verdict.reason != "ours":
                    log.log(
                        logging.WARNING if broken else logging.INFO, "%s: %s", place, _acquired(verdict, broken=broken)
                    )
                return Held(until=show_time(now + timedelta(seconds=limit_s)), broke=broke)
    raise TargetBusy(f"{place}: other runs were faster in {ATTEMPTS} attempts. Next: clear the task")


def check_lease(place: Place, me: Holder, *, is_over: Callable[[Holder], bool]) -> Verdict:
    """Whether this run could acquire the Lease now. Reads only. Raises ApplyRefused, ClusterUnreachable."""
    with _lease_client(place) as client:
        found, now = client.read()
    return judge_lease(found, me, now=now, is_over=is_over)


def return_lease(place: Place, identity: str) -> bool:
    """Delete the Lease if this holder has it, and say whether it did. Raises ApplyRefused, ClusterUnreachable."""
    with _lease_client(place) as client:
        found, _ = client.read()
        return found is not None and found.holder == identity and client.delete(found)


def describe_busy_lease(place: Place, me: Holder, verdict: Verdict) -> str:
    """The message of a run that may not write now."""
    command = f"airflow dags trigger {me.dag_id} --conf '{{\"break_lease\": true}}'"
    return f"{place}: {verdict.reason}. Next: trigger again when that run has ended; if it never will, break the lease: {command}"


def show_time(moment: datetime) -> str:
    """A time as messages and records show it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _lost(place: Place, found: Lease | None) -> str:
    by = f"now held by {found}" if found and found.holder else "broken, and free now"
    return f"{place}: this run no longer holds the lease: {by}. It writes nothing more and rolls nothing back. Next: check what serves, then trigger again"


def _acquired(verdict: Verdict, *, broken: bool) -> str:
    return f"{'BROKEN' if broken else 'acquired'}: {verdict.reason}"


class _LeaseClient:
    """Reads and writes one Lease at the API server."""

    def __init__(self, place: Place, api: Any) -> None:
        self._api = api
        self._name, self._namespace = place.name, place.target.namespace
        self._options = {"_preload_content": False, "_request_timeout": REQUEST_TIMEOUT_S}

    def read(self) -> tuple[Lease | None, datetime]:
        """The Lease, and the API server's time."""
        from kubernetes.client.exceptions import ApiException

        try:
            answer = self._api.read_namespaced_lease(self._name, self._namespace, **self._options)
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise
            return None, _time_of(error.headers)
        return Lease.of(parse_object(answer.data)), _time_of(answer.headers)

    def write(self, body: JsonObject, found: Lease | None) -> bool:
        """Create it, or update the one that was found; False if somebody else was faster."""
        if found is None:
            return self._was_first(self._api.create_namespaced_lease, self._namespace, body)
        return self._was_first(self._api.replace_namespaced_lease, self._name, self._namespace, body)

    def delete(self, found: Lease) -> bool:
        """Delete the one that was found; False if somebody else was faster."""
        body = {"preconditions": {"uid": found.uid, "resourceVersion": found.version}}
        return self._was_first(self._api.delete_namespaced_lease, self._name, self._namespace, body=body)

    def _was_first(self, call: Callable[..., Any], *args: Any, **named: Any) -> bool:
        from kubernetes.client.exceptions import ApiException

        try:
            call(*args, **named, **self._options)
        except ApiException as error:
            gone = error.status == NOT_FOUND and "namespaces " not in str(error.body)
            if error.status == CONFLICT or gone:
                return False
            raise
        return True


@contextmanager
def _lease_client(place: Place) -> Iterator[_LeaseClient]:
    from kubernetes.client import CoordinationV1Api

    with cluster_client(place.target) as client, api_errors(place.target, f"lease/{place.name}"):
        yield _LeaseClient(place, CoordinationV1Api(client))


def _time_of(headers: Any) -> datetime:
    """The API server's time; the worker's if a proxy dropped the header."""
    date = (headers or {}).get("Date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
