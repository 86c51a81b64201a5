"""Triggers that look at something until a judge decides. They only read: a trigger may run more than once."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from slipway.facts import Baseline, JsonObject, Teardown, from_dict, to_dict
from slipway.gke.cluster import judge_cluster, judge_deletable, judge_deleted, judge_gone
from slipway.kubernetes.api import list_pods_async, read_async
from slipway.kubernetes.client import server_version
from slipway.kubernetes.diagnosis import read_evidence
from slipway.kubernetes.proxy import ask_at, way_in
from slipway.kubernetes.rollout import grpc_at, judge_address, judge_pods, judge_rollout
from slipway.kubernetes.stuck import APART_S, Looks, judge_doom
from slipway.records.store import read_bytes, read_json
from slipway.release import Release
from slipway.serving.accuracy import judge_quality
from slipway.serving.client import ask_grpc
from slipway.serving.evaluation import AT_ONCE, Exam, gather_few
from slipway.serving.gate import Round, Standing, judge_all, judge_gate, percentile
from slipway.serving.golden import (
    GARBAGE_BODY,
    Answer,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_spoken,
)
from slipway.serving.labelled_set import read_images
from slipway.steps.teardown import judge_removed
from slipway.verdict import Verdict


class LookingTrigger(BaseTrigger):
    """Looks every `poll_s` seconds; a verdict of pass or fail, or the end of time, is the event.

    `deadline` is a Unix time, so that a trigger that starts again elsewhere has no more time than it had.
    What cannot be read (an API server restarting, say) means look again, with the words in the log.
    """

    unanswered = False  # whether it failed for want of answers

    def __init__(self, *, deadline: float, poll_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow left it untyped
        self.deadline = deadline
        self.poll_s = poll_s

    @abstractmethod
    async def judge(self) -> Verdict:
        """One look."""

    def found(self) -> Any:
        """What a pass has found besides its reason."""
        return None

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is decided."""
        said = ""
        while True:
            # Before the first look too: an event that comes before the scheduler has read the deferral is taken for a failure.
            await asyncio.sleep(self.poll_s)
            verdict = await self._look()
            late = verdict.outcome == "wait" and time.time() >= self.deadline
            if late:
                verdict = Verdict.failed(f"time is up: {verdict.reason}")
            if verdict.reason != said:
                said = verdict.reason
                self.log.info("%s", verdict)
            if verdict.outcome != "wait":
                own = {"unanswered": True} if self.unanswered else {}
                yield TriggerEvent({**verdict.to_dict(), "found": self.found(), "late": late, **own})
                return

    async def _look(self) -> Verdict:
        try:
            return await self.judge()
        except Exception as error:
            return Verdict.wait(f"could not look: {_words(error)}")

    def _arguments(self) -> JsonObject:
        return {"deadline": self.deadline, "poll_s": self.poll_s}


class JudgeTrigger(LookingTrigger):
    """Looks at what has become of a release."""

    def __init__(self, *, release: JsonObject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release

    @abstractmethod
    async def look(self, release: Release) -> Verdict:
        """One look."""

    async def judge(self) -> Verdict:
        """One look at the release."""
        return await self.look(from_dict(Release, self.release))

    def _arguments(self) -> JsonObject:
        return {"release": self.release, **super()._arguments()}


class TeardownTrigger(LookingTrigger):
    """Looks at what is being torn down."""

    def __init__(self, *, teardown: JsonObject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teardown = teardown

    @property
    def _teardown(self) -> Teardown:
        return from_dict(Teardown, self.teardown)

    def _arguments(self) -> JsonObject:
        return {"teardown": self.teardown, **super()._arguments()}


class RemovalTrigger(TeardownTrigger):
    """Waits until the recorded Services are gone: one whose load balancer is being taken away stays until that is."""

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database."""
        return "slipway.triggers.RemovalTrigger", self._arguments()

    async def judge(self) -> Verdict:
        """Judge the Services as they are now."""
        target = self._teardown.target
        return judge_removed([await read_async(target, "Service", name) for name in self._teardown.services], target)


class DeletionTrigger(TeardownTrigger):
    """Waits until a GKE cluster is gone; or, with `asked` false, until Google would take a call to delete it."""

    def __init__(self, *, asked: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked = asked

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database."""
        return "slipway.triggers.DeletionTrigger", {**self._arguments(), "asked": self.asked}

    async def judge(self) -> Verdict:
        """Judge cluster and operation as they are now."""
        from slipway.gke.lookup import look_at

        cluster = self._teardown.cluster
        found, operation = await look_at(self._teardown.target.conn_id, cluster, "DELETE_CLUSTER")
        return judge_deleted(cluster, found, operation) if self.asked else judge_deletable(cluster, found)

    def found(self) -> Any:
        """Whether it was asked to go, and so is gone."""
        return self.asked


def _words(error: Exception) -> str:
    words = getattr(error, "reason", None) or str(error)  # an API server's reason, not its headers
    return f"{type(error).__name__}: {' '.join(str(words).split())}"


class ClusterTrigger(JudgeTrigger):
    """Waits until a GKE cluster is RUNNING and its API server answers; or, with `gone`, until one that is being deleted is."""

    def __init__(self, *, gone: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gone = gone
        self._found: JsonObject | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database."""
        return "slipway.triggers.ClusterTrigger", {**self._arguments(), "gone": self.gone}

    async def look(self, release: Release) -> Verdict:
        """Judge cluster and operation as they are now, then ask the API server who it is."""
        from slipway.gke.lookup import look_at

        target = release.target
        assert target.gke is not None  # noqa: S101 - only a GKE target has this trigger
        found, operation = await look_at(target.conn_id, target.gke, "CREATE_CLUSTER")
        if self.gone:
            return judge_gone(target.gke, found)
        verdict = judge_cluster(target.gke, found, operation)
        if verdict.outcome != "pass":
            return verdict
        version = await server_version(target)
        self._found = {"version": version, "endpoint": (found or {}).get("endpoint")}
        return Verdict.passed(f"{verdict.reason}, Kubernetes {version} answers")

    def found(self) -> Any:
        """The API server's version and the cluster's endpoint."""
        return self._found


class RolloutTrigger(JudgeTrigger):
    """Waits until the Deployment is what the apply that was answered with this uid and generation said.

    And until every pod behind it is of this release: a release that changed only manifests has no version of its own to
    be told by. One that will not come fails as soon as two looks have seen so; they begin anew with the trigger.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, *, release_id: str, uid: str, generation: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release_id = release_id
        self.uid = uid
        self.generation = generation
        self._looks = Looks()

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database."""
        own = {"release_id": self.release_id, "uid": self.uid, "generation": self.generation}
        return "slipway.triggers.RolloutTrigger", {**self._arguments(), **own}

    async def look(self, release: Release) -> Verdict:
        """Judge the Deployment as it is now, then its pods."""
        deployment = await read_async(release.target, "Deployment", release.deployment)
        namespace = release.target.namespace
        verdict = judge_rollout(deployment, uid=self.uid, generation=self.generation, namespace=namespace)
        if verdict.outcome == "fail" or deployment is None:
            return verdict
        if verdict.outcome == "wait":
            return await self._look_for_doom(release, deployment, verdict)
        pods = await list_pods_async(release.target, deployment["spec"]["selector"]["matchLabels"])
        return judge_pods(pods, release_id=self.release_id, namespace=namespace)

    async def _look_for_doom(self, release: Release, deployment: JsonObject, waiting: Verdict) -> Verdict:
        try:
            evidence = await read_evidence(release.target, deployment, self.release_id)
        except Exception as error:  # what cannot be read (a right may be missing) must not hide the rollout's own state
            return Verdict.wait(f"{waiting.reason}; its pods could not be read: {_words(error)}")
        self._looks, verdict = judge_doom(
            self._looks, evidence, waiting, now_s=self.clock(), grace_s=release.unschedulable_grace_s
        )
        return verdict

    def found(self) -> Any:
        """Whether it is the release's own fault that it does not come."""
        return bool(self._looks.doom and self._looks.doom.blames_release)


class AddressTrigger(JudgeTrigger):
    """Waits until the Service has an address."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._found: JsonObject | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database."""
        return "slipway.triggers.AddressTrigger", self._arguments()

    async def look(self, release: Release) -> Verdict:
        """Judge the Service as it is now."""
        service = await read_async(release.target, "Service", release.service)
        verdict, url = judge_address(service, name=release.service, namespace=release.target.namespace)
        if service is not None and url is not None:
            self._found = {"url": url, "grpc": grpc_at(service)}
        return verdict

    def found(self) -> Any:
        """The URL of the REST port, and host:port of gRPC's."""
        return self._found


class PredictionTrigger(JudgeTrigger):
    """Asks one version its golden questions, over REST and gRPC, and garbage, until the gate's rules have decided.

    Then, where the model file says so, its labelled set. `grpc` is host:port; where it is None, `no_grpc` says why. An API
    server that does not pass questions on for want of a right or a login is waited for as long as doom is: it may be starting.
    """

    clock = staticmethod(time.monotonic)

    def __init__(
        self,
        *,
        url: str,
        version: int,
        golden_uri: str,
        grpc: str | None = None,
        no_grpc: str = "no address is known for it",
        descriptors_uri: str | None = None,
        baseline: JsonObject | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.version = version
        self.golden_uri = golden_uri
        self.grpc = grpc
        self.no_grpc = no_grpc
        self.descriptors_uri = descriptors_uri
        self.baseline = baseline
        self._standing = Standing()
        self._passed: Verdict | None = None  # what the rounds came to
        self._exam: Exam | None = None
        self._cases: tuple[GoldenCase, ...] = ()
        self._descriptors = b""
        self._denial: Answer | None = None  # of the look at hand
        self._denied_since_s: float | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For the database; what was seen so far starts anew with the trigger."""
        own = {
            "url": self.url,
            "version": self.version,
            "golden_uri": self.golden_uri,
            "grpc": self.grpc,
            "no_grpc": self.no_grpc,
            "descriptors_uri": self.descriptors_uri,
            "baseline": self.baseline,
        }
        return "slipway.triggers.PredictionTrigger", {**self._arguments(), **own}

    async def look(self, release: Release) -> Verdict:
        """One round; once enough have passed, some images of the labelled set."""
        self._denial = None
        return self._judge_denial(release, await self._look_on(release))

    def _judge_denial(self, release: Release, verdict: Verdict) -> Verdict:
        """What a look comes to; a no that says what is missing where the API server has denied all looks for a while."""
        if self._denial is None or verdict.outcome != "wait":
            self._denied_since_s = None
            return verdict
        now_s = self.clock()
        if self._denied_since_s is None:
            self._denied_since_s = now_s
        self.unanswered = now_s - self._denied_since_s >= APART_S
        if not self.unanswered:
            return verdict
        then = way_in(release.target, self._denial.denied)
        return Verdict.failed(f"{verdict.reason}, for {now_s - self._denied_since_s:.0f} s. Next: {then}")

    async def _look_on(self, release: Release) -> Verdict:
        if self._passed is None:
            await self._read()
            latest = await self._round(release)
            self._standing, verdict = judge_gate(self._standing, latest, release.gate, passes=release.gate_passes)
            self.unanswered = verdict.outcome == "fail" and not latest.failures
            if verdict.outcome in {"wait", "fail"} or release.gate.quality is None:
                return verdict
            self._passed = verdict
        return await self._examine(release, self._passed)

    def found(self) -> Any:
        """What was measured, for the record."""
        times_ms = self._standing.times_ms
        return {
            "latency_ms": round(percentile(times_ms)) if times_ms else None,
            "quality": to_dict(self._exam.measured) if self._exam and self._exam.told else None,
        }

    async def _read(self) -> None:
        if not self._cases:
            self._cases = cases_from(await asyncio.to_thread(read_json, self.golden_uri))
        if self.grpc and self.descriptors_uri and not self._descriptors:
            self._descriptors = await asyncio.to_thread(read_bytes, self.descriptors_uri)

    async def _round(self, release: Release) -> Round:
        """Every golden case over REST and gRPC, each on a connection of its own, and garbage.

        One after another where it matters how long they take: a server that is asked much at once answers each later.
        """
        at_once = AT_ONCE if release.gate.latency_ms is None else 1
        times_ms: list[float] = []
        timed = [
            *(_timed(partial(self._ask_rest, release, case), times_ms) for case in self._cases),
            *(_timed(partial(self._ask_grpc, case), times_ms) for case in self._cases if self.grpc),
        ]
        verdicts = await gather_few(timed, at_once=at_once)
        return Round(
            rest=tuple(verdicts[: len(self._cases)]),
            grpc=tuple(verdicts[len(self._cases) :]),
            others=(*(() if self.grpc else (Verdict.passed(f"gRPC was not asked: {self.no_grpc}"),)),
                    *([await self._ask_garbage(release)] if release.gate.garbage else ())),
            times_ms=tuple(times_ms),
        )  # fmt: skip

    async def _ask(self, release: Release, body: str) -> Answer:
        answer = await ask_at(release.target, self.url, f"{release.version_path(self.version)}:predict", body)
        self._denial = answer if answer.denied else self._denial
        return answer

    async def _ask_rest(self, release: Release, case: GoldenCase) -> Verdict:
        return judge_answer(case, await self._ask(release, case.rest_body))

    async def _ask_grpc(self, case: GoldenCase) -> Verdict:
        assert self.grpc is not None  # noqa: S101 - who calls has looked
        said = await asyncio.to_thread(ask_grpc, self.grpc, self._descriptors, case, self.version)
        return judge_spoken(case, self.version, said)

    async def _ask_garbage(self, release: Release) -> Verdict:
        return judge_garbage(await self._ask(release, GARBAGE_BODY), marks=release.marks_garbage, live=True)

    async def _examine(self, release: Release, passed: Verdict) -> Verdict:
        floor = release.gate.quality
        assert floor is not None  # noqa: S101 - who calls has looked
        if self._exam is None:
            self._exam = Exam(floor, await asyncio.to_thread(read_images, floor))
        asked = await self._exam.go_on(partial(self._ask, release))
        if asked.outcome == "wait":
            return asked
        live = from_dict(Baseline, self.baseline) if self.baseline else None
        return judge_all([passed, *judge_quality(floor, self._exam.measured, live)])


def _timed(call: Callable[[], Awaitable[Verdict]], times_ms: list[float]) -> Callable[[], Awaitable[Verdict]]:
    """The call, its time put down in milliseconds."""

    async def timed() -> Verdict:
        began = time.monotonic()
        verdict = await call()
        times_ms.append((time.monotonic() - began) * 1000)
        return verdict

    return timed
