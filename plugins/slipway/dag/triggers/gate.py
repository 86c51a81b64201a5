"""The trigger that sends the golden requests until the gate has decided."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from slipway.dag.triggers.golden import GoldenTrigger
from slipway.facts import Baseline, Int8Change, JsonObject, from_dict, to_dict
from slipway.kubernetes.proxy import how_to_allow_proxy
from slipway.kubernetes.stuck import APART_S
from slipway.records.store import read_json
from slipway.release import Release
from slipway.serving.accuracy import find_int8_change, judge_accuracy, judge_int8
from slipway.serving.evaluation import AT_ONCE, Evaluation
from slipway.serving.gate import GateState, judge_all, judge_gate, percentile
from slipway.serving.labelled_set import read_images
from slipway.verdict import Verdict


class PredictionTrigger(GoldenTrigger):
    """Sends one version the golden requests over REST and gRPC, and garbage, until the gate's rules have decided.

    Then it sends the labelled set, if the model file has one. If an API server denies the requests for want of a right or a
    login, it is polled for `APART_S` seconds: it may be starting.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, *, baseline: JsonObject | None = None, int8_uri: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.baseline = baseline
        self.int8_uri = int8_uri  # of the export's labels, if the model is in int8
        self._state = GateState()
        self._passed: Verdict | None = None  # the result of the rounds
        self._evaluation: Evaluation | None = None
        self._float32: JsonObject = {}  # labels of the same model in float32, by image
        self._int8: Int8Change | None = None
        self._denied_since_s: float | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database. The rounds so far are not kept: a restarted trigger begins again."""
        return "slipway.dag.triggers.gate.PredictionTrigger", {
            **self._arguments(),
            "baseline": self.baseline,
            "int8_uri": self.int8_uri,
        }

    async def poll_release(self, release: Release) -> Verdict:
        """One round of requests; once enough rounds have passed, some images of the labelled set."""
        self._denial = None
        return self._judge_denial(release, await self.within_time(self._send_requests(release)))

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
            # Simultaneous requests slow each other down.
            at_once = AT_ONCE if release.gate.latency_ms is None else 1
            garbage = release.gate.garbage or release.preview_is_first_test
            latest = await self._round(release, at_once=at_once, garbage=garbage)
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
            "quality": to_dict(self._evaluation.accuracy) if self._evaluation and self._evaluation.labels else None,
            **({"int8": to_dict(self._int8)} if self._int8 else {}),
        }

    async def _evaluate(self, release: Release, passed: Verdict) -> Verdict:
        bounds = release.gate.quality
        assert bounds is not None  # noqa: S101 - the caller has checked
        if self._evaluation is None:
            self._evaluation = Evaluation(bounds, await asyncio.to_thread(read_images, bounds))
            if self.int8_uri:
                self._float32 = (await asyncio.to_thread(read_json, self.int8_uri))["float32"]
        verdict = await self._evaluation.send_next(partial(self._ask, release))
        if verdict.outcome == "wait":
            return verdict
        live = from_dict(Baseline, self.baseline) if self.baseline else None
        verdicts = [passed, *judge_accuracy(bounds, self._evaluation.accuracy, live)]
        if self.int8_uri:
            self._int8 = find_int8_change(self._evaluation.images, self._float32, self._evaluation.labels)
            verdicts += judge_int8(bounds, self._int8)
        return judge_all(verdicts)
