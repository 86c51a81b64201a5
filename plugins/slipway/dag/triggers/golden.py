"""What the triggers that send golden requests have in common."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from slipway.dag.triggers.polling import ReleaseTrigger
from slipway.facts import JsonObject
from slipway.kubernetes.client import async_cluster_client
from slipway.kubernetes.port_forward import PodRoute, serving_pods
from slipway.kubernetes.proxy import send_to_service
from slipway.records.store import read_bytes, read_json
from slipway.release import Release
from slipway.serving.client import send_grpc_request
from slipway.serving.evaluation import gather_few
from slipway.serving.gate import RoundResult
from slipway.serving.golden import (
    GARBAGE_BODY,
    Answer,
    GoldenCase,
    cases_from,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
)
from slipway.verdict import Verdict

OVERTIME_S = 10  # how long the last poll, which began before the deadline, may last after it


class GoldenTrigger(ReleaseTrigger):
    """Sends one version the golden requests over REST and gRPC.

    `grpc` is host:port. If it is None, gRPC goes to the pods with the labels `pods`, through the API server; without these, `no_grpc`
    says why gRPC is not asked.
    """

    def __init__(
        self,
        *,
        url: str,
        version: int,
        golden_uri: str,
        grpc: str | None = None,
        no_grpc: str = "no address is known for it",
        pods: dict[str, str] | None = None,
        descriptors_uri: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.url = url
        self.version = version
        self.golden_uri = golden_uri
        self.grpc = grpc
        self.no_grpc = no_grpc
        self.pods = pods
        self.descriptors_uri = descriptors_uri
        self._cases: tuple[GoldenCase, ...] = ()
        self._descriptors = b""
        self._denial: Answer | None = None  # of this poll

    def _arguments(self) -> JsonObject:
        own = {
            "url": self.url,
            "version": self.version,
            "golden_uri": self.golden_uri,
            "grpc": self.grpc,
            "no_grpc": self.no_grpc,
            "pods": self.pods,
            "descriptors_uri": self.descriptors_uri,
        }
        return {**super()._arguments(), **own}

    async def within_time(self, judged: Awaitable[Verdict]) -> Verdict:
        """A poll's verdict; a wait if it lasts until after the deadline."""
        left_s = max(self.deadline - time.time(), 0) + OVERTIME_S
        try:
            async with asyncio.timeout(left_s):
                return await judged
        except TimeoutError:
            return Verdict.wait("the answers of this poll are not complete")

    async def _read(self) -> None:
        if not self._cases:
            self._cases = cases_from(await asyncio.to_thread(read_json, self.golden_uri))
        if (self.grpc or self.pods) and self.descriptors_uri and not self._descriptors:
            self._descriptors = await asyncio.to_thread(read_bytes, self.descriptors_uri)

    async def _round(self, release: Release, *, at_once: int, garbage: bool) -> RoundResult:
        """Every golden case over REST and gRPC, each on its own connection, and garbage if it is asked for."""
        if self.grpc or not self.pods:
            return await self._round_at(release, self.grpc, at_once=at_once, garbage=garbage)
        async with (
            async_cluster_client(release.target) as client,
            serving_pods(client, release.target, PodRoute(labels=self.pods), Counter()) as address,
        ):
            return await self._round_at(release, address, at_once=at_once, garbage=garbage)

    async def _round_at(self, release: Release, grpc: str | None, *, at_once: int, garbage: bool) -> RoundResult:
        times_ms: list[float] = []
        grpc_ms = times_ms if grpc == self.grpc else []  # the way through the API server takes time of its own
        timed = [
            *(_timed(partial(self._ask_rest, release, case), times_ms) for case in self._cases),
            *(_timed(partial(self._ask_grpc, grpc, case), grpc_ms) for case in self._cases if grpc),
        ]
        verdicts = await gather_few(timed, at_once=at_once)
        return RoundResult(
            rest=tuple(verdicts[: len(self._cases)]),
            grpc=tuple(verdicts[len(self._cases) :]),
            others=(*(() if grpc else (Verdict.passed(f"gRPC was not asked: {self.no_grpc}"),)),
                    *([await self._ask_garbage(release)] if garbage else ())),
            times_ms=tuple(times_ms),
        )  # fmt: skip

    async def _ask(self, release: Release, body: str) -> Answer:
        answer = await send_to_service(release.target, self.url, f"{release.version_path(self.version)}:predict", body)
        self._denial = answer if answer.denied else self._denial
        return answer

    async def _ask_rest(self, release: Release, case: GoldenCase) -> Verdict:
        return judge_answer(case, await self._ask(release, case.rest_body))

    async def _ask_grpc(self, address: str, case: GoldenCase) -> Verdict:
        answer = await asyncio.to_thread(send_grpc_request, address, self._descriptors, case, self.version)
        return judge_grpc_answer(case, self.version, answer)

    async def _ask_garbage(self, release: Release) -> Verdict:
        return judge_garbage(await self._ask(release, GARBAGE_BODY), marks=release.marks_garbage, live=True)


def _timed(call: Callable[[], Awaitable[Verdict]], times_ms: list[float]) -> Callable[[], Awaitable[Verdict]]:
    """The call, which adds its time in milliseconds to `times_ms`."""

    async def timed() -> Verdict:
        began = time.monotonic()
        verdict = await call()
        times_ms.append((time.monotonic() - began) * 1000)
        return verdict

    return timed
