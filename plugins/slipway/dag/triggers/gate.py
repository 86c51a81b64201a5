"""The trigger that sends the golden requests until the gate has decided."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from slipway.dag.triggers.polling import ReleaseTrigger
from slipway.facts import Baseline, JsonObject, from_dict, to_dict
from slipway.kubernetes.proxy import how_to_allow_proxy, send_to_service
from slipway.kubernetes.stuck import APART_S
from slipway.records.store import read_bytes, read_json
from slipway.release import Release
from slipway.serving.accuracy import judge_accuracy
from slipway.serving.client import send_grpc_request
from slipway.serving.evaluation import AT_ONCE, Evaluation, gather_few
from slipway.serving.gate import GateState, RoundResult, judge_all, judge_gate, percentile
from slipway.serving.golden import (
    GARBAGE_BODY,
    Answer,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
)
from slipway.serving.labelled_set import read_images
from slipway.verdict import Verdict

OVERTIME_S = 10  # how long the last poll, which began before the gate's deadline, may last after it


class PredictionTrigger(ReleaseTrigger):
    """Sends one version the golden requests over REST and gRPC, and garbage, until the gate's rules have decided.

    Then it sends the labelled set, if the model file has one. `grpc` is host:port; if it is None, `no_grpc` says why. If an
    API server denies the requests for want of a right or a login, it is polled for `APART_S` seconds: it may be starting.
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
        self._state = GateState()
        self._passed: Verdict | None = None  # the result of the rounds
        self._evaluation: Evaluation | None = None
        self._cases: tuple[GoldenCase, ...] = ()
        self._descriptors = b""
        self._denial: Answer | None = None  # of this poll
        self._denied_since_s: float | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database. The rounds so far are not kept: a restarted trigger begins again."""
        own = {
            "url": self.url,
            "version": self.version,
            "golden_uri": self.golden_uri,
            "grpc": self.grpc,
            "no_grpc": self.no_grpc,
            "descriptors_uri": self.descriptors_uri,
            "baseline": self.baseline,
        }
        return "slipway.dag.triggers.gate.PredictionTrigger", {**self._arguments(), **own}

    async def poll_release(self, release: Release) -> Verdict:
        """One round of requests; once enough rounds have passed, some images of the labelled set."""
        self._denial = None
        left_s = max(self.deadline - time.time(), 0) + OVERTIME_S
        try:
            async with asyncio.timeout(left_s):
                verdict = await self._send_requests(release)
        except TimeoutError:
            return Verdict.wait("the answers of this poll are not complete")
        return self._judge_denial(release, verdict)

    def _judge_denial(self, release: Release, verdict: Verdict) -> Verdict:
        """The poll's verdict; a failure that says what is missing if the API server denied all polls for `APART_S` seconds."""
        if self._denial is None or verdict.outcome != "wait":
            self._denied_since_s = None
            return verdict
        now_s = self.clock()
        if self._denied_since_s is None:
            self._denied_since_s = now_s
        self.unanswered = now_s - self._denied_since_s >= APART_S
        if not self.unanswered:
            return verdict
        then = how_to_allow_proxy(release.target, self._denial.denied)
        return Verdict.failed(f"{verdict.reason}, for {now_s - self._denied_since_s:.0f} s. Next: {then}")

    async def _send_requests(self, release: Release) -> Verdict:
        if self._passed is None:
            await self._read()
            latest = await self._round(release)
            self._state, verdict = judge_gate(self._state, latest, release.gate, passes=release.gate_passes)
            self.unanswered = verdict.outcome == "fail" and not latest.failures
            if verdict.outcome in {"wait", "fail"} or release.gate.quality is None:
                return verdict
            self._passed = verdict
        return await self._evaluate(release, self._passed)

    def found(self) -> Any:
        """What was measured, for the record."""
        times_ms = self._state.times_ms
        return {
            "latency_ms": round(percentile(times_ms)) if times_ms else None,
            "quality": to_dict(self._evaluation.accuracy) if self._evaluation and self._evaluation.results else None,
        }

    async def _read(self) -> None:
        if not self._cases:
            self._cases = cases_from(await asyncio.to_thread(read_json, self.golden_uri))
        if self.grpc and self.descriptors_uri and not self._descriptors:
            self._descriptors = await asyncio.to_thread(read_bytes, self.descriptors_uri)

    async def _round(self, release: Release) -> RoundResult:
        """Every golden case over REST and gRPC, each on its own connection, and garbage.

        They are sent one after another if their time is judged: simultaneous requests slow each other down.
        """
        at_once = AT_ONCE if release.gate.latency_ms is None else 1
        times_ms: list[float] = []
        timed = [
            *(_timed(partial(self._ask_rest, release, case), times_ms) for case in self._cases),
            *(_timed(partial(self._ask_grpc, case), times_ms) for case in self._cases if self.grpc),
        ]
        verdicts = await gather_few(timed, at_once=at_once)
        return RoundResult(
            rest=tuple(verdicts[: len(self._cases)]),
            grpc=tuple(verdicts[len(self._cases) :]),
            others=(*(() if self.grpc else (Verdict.passed(f"gRPC was not asked: {self.no_grpc}"),)),
                    *([await self._ask_garbage(release)] if release.gate.garbage else ())),
            times_ms=tuple(times_ms),
        )  # fmt: skip

    async def _ask(self, release: Release, body: str) -> Answer:
        answer = await send_to_service(release.target, self.url, f"{release.version_path(self.version)}:predict", body)
        self._denial = answer if answer.denied else self._denial
        return answer

    async def _ask_rest(self, release: Release, case: GoldenCase) -> Verdict:
        return judge_answer(case, await self._ask(release, case.rest_body))

    async def _ask_grpc(self, case: GoldenCase) -> Verdict:
        assert self.grpc is not None  # noqa: S101 - the caller has checked
        answer = await asyncio.to_thread(send_grpc_request, self.grpc, self._descriptors, case, self.version)
        return judge_grpc_answer(case, self.version, answer)

    async def _ask_garbage(self, release: Release) -> Verdict:
        return judge_garbage(await self._ask(release, GARBAGE_BODY), marks=release.marks_garbage, live=True)

    async def _evaluate(self, release: Release, passed: Verdict) -> Verdict:
        bounds = release.gate.quality
        assert bounds is not None  # noqa: S101 - the caller has checked
        if self._evaluation is None:
            self._evaluation = Evaluation(bounds, await asyncio.to_thread(read_images, bounds))
        verdict = await self._evaluation.send_next(partial(self._ask, release))
        if verdict.outcome == "wait":
            return verdict
        live = from_dict(Baseline, self.baseline) if self.baseline else None
        return judge_all([passed, *judge_accuracy(bounds, self._evaluation.accuracy, live)])


def _timed(call: Callable[[], Awaitable[Verdict]], times_ms: list[float]) -> Callable[[], Awaitable[Verdict]]:
    """The call, which adds its time in milliseconds to `times_ms`."""

    async def timed() -> Verdict:
        began = time.monotonic()
        verdict = await call()
        times_ms.append((time.monotonic() - began) * 1000)
        return verdict

    return timed
