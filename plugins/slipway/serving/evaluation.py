"""Asks a labelled set, some images at a time: of a release at its gate, and of the live one before it is replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from slipway.errors import SlipwayError
from slipway.facts import Baseline, Measured
from slipway.records.record import Record
from slipway.release import QualityBounds, Release
from slipway.serving.accuracy import is_correct, measured_in
from slipway.serving.client import ask_async
from slipway.serving.golden import Answer, is_not_yet
from slipway.serving.labelled_set import LabelledImage, read_images
from slipway.verdict import Verdict

AT_ONCE = 4  # a release at its gate may have one replica, and users
IMAGES_A_LOOK = 64
LIVE_LIMIT_S = 300
PAUSE_S = 1.0

T = TypeVar("T")
Ask = Callable[[str], Awaitable[Answer]]

log = logging.getLogger(__name__)


class Evaluation:
    """One release and one set: which images it has told, and how."""

    def __init__(self, floor: QualityBounds, images: Sequence[LabelledImage]) -> None:
        self.floor = floor
        self.images = images
        self.told: dict[str, bool] = {}  # right or not, by the image's name

    async def go_on(self, ask: Ask) -> Verdict:
        """Ask some of the images that have no answer yet; a pass when all have one."""
        left = [image for image in self.images if image.name not in self.told][:IMAGES_A_LOOK]
        answers = await gather_few([partial(ask, image.rest_body) for image in left], at_once=AT_ONCE)
        for image, answer in zip(left, answers, strict=True):
            if not is_not_yet(answer):
                self.told[image.name] = is_correct(image, answer)
        missing = [answer for answer in answers if is_not_yet(answer)]
        said = f"quality: {len(self.told)} of {len(self.images)} images have an answer"
        if len(self.told) == len(self.images):
            return Verdict.passed(said)
        return Verdict.wait(f"{said}; HTTP {missing[0].status}: {missing[0].body[:100]}" if missing else said)

    @property
    def measured(self) -> Measured:
        """What came of it."""
        wrong = tuple(sorted(name for name, right in self.told.items() if not right))
        return Measured(digest=self.floor.digest, images=len(self.images), wrong=wrong)


async def gather_few(calls: Sequence[Callable[[], Awaitable[T]]], *, at_once: int) -> list[T]:
    """What all calls give, in their order, with so many under way at once."""
    turns = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await call()

    return list(await asyncio.gather(*map(one, calls)))


def evaluate_live(release: Release, good: Record | None, health: Verdict, url: str | None) -> Baseline | None:
    """How the live release tells the set: as its record says, else as it answers now at `url`. None where nobody compares."""
    floor = release.gate.quality
    if floor is None or floor.max_drop is None or good is None:
        return None
    if measured := measured_in(good, floor.digest):
        return Baseline(measured=measured, source=f"as run {good['run_id']} measured it")
    if health.outcome != "pass" or url is None:
        return Baseline(measured=None, source=f"it is not well: {health.reason}")
    try:
        measured = asyncio.run(_evaluate(release, floor, int(good["version"]), url))
    except (SlipwayError, TimeoutError) as error:
        return Baseline(measured=None, source=str(error), unknown=True)
    log.info("plan: the live release at %s: %s", url, measured)
    return Baseline(measured=measured, source=f"asked at {url} before the run")


async def _evaluate(release: Release, floor: QualityBounds, version: int, url: str) -> Measured:
    exam, deadline = Evaluation(floor, read_images(floor)), time.monotonic() + LIVE_LIMIT_S
    ask = partial(ask_async, url, f"{release.version_path(version)}:predict")
    while (verdict := await exam.go_on(ask)).outcome != "pass":
        if time.monotonic() > deadline:
            raise TimeoutError(f"in {LIVE_LIMIT_S} s: {verdict.reason}")
        await asyncio.sleep(PAUSE_S)
    return exam.measured
