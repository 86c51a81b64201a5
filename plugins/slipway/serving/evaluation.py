"""Sends a labelled set to a model server, some images at a time: to a release at its gate, and to the live release."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from slipway.errors import SlipwayError
from slipway.facts import Accuracy, Baseline
from slipway.records.record import Record
from slipway.release import QualityBounds, Release
from slipway.serving.accuracy import answered_label
from slipway.serving.client import send_request_async
from slipway.serving.golden import Answer, is_unavailable
from slipway.serving.labelled_set import LabelledImage, read_images
from slipway.verdict import Verdict

AT_ONCE = 4  # requests: a release at its gate may have one replica, and users
IMAGES_PER_POLL = 64
LIVE_LIMIT_S = 300  # to evaluate the live release
PAUSE_S = 1.0

T = TypeVar("T")
Send = Callable[[str], Awaitable[Answer]]

log = logging.getLogger(__name__)


class Evaluation:
    """One release on one labelled set: the images answered so far."""

    def __init__(self, bounds: QualityBounds, images: Sequence[LabelledImage]) -> None:
        self.bounds = bounds
        self.images = images
        self.labels: dict[str, str | None] = {}  # the answer's, by the image's name; None: it was refused

    async def send_next(self, send: Send) -> Verdict:
        """Send some of the images that have no answer yet; pass once all have one."""
        left = [image for image in self.images if image.name not in self.labels][:IMAGES_PER_POLL]
        answers = await gather_few([partial(send, image.rest_body) for image in left], at_once=AT_ONCE)
        for image, answer in zip(left, answers, strict=True):
            if not is_unavailable(answer):
                self.labels[image.name] = answered_label(answer)
        missing = [answer for answer in answers if is_unavailable(answer)]
        said = f"quality: {len(self.labels)} of {len(self.images)} images have an answer"
        if len(self.labels) == len(self.images):
            return Verdict.passed(said)
        return Verdict.wait(f"{said}; HTTP {missing[0].status}: {missing[0].body[:100]}" if missing else said)

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy over all images of the set."""
        labels = self.labels
        wrong = tuple(sorted(one.name for one in self.images if one.name in labels and labels[one.name] != one.label))
        return Accuracy(digest=self.bounds.digest, images=len(self.images), wrong=wrong)


async def gather_few(calls: Sequence[Callable[[], Awaitable[T]]], *, at_once: int) -> list[T]:
    """The results of all calls in their order, with at most `at_once` running at a time."""
    turns = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with turns:
            return await call()

    return list(await asyncio.gather(*map(one, calls)))


def evaluate_live(release: Release, good: Record, health: Verdict, url: str | None) -> Baseline:
    """The last good release's accuracy on the gate's set, measured now at `url`; or why it could not be measured.

    A release that is not ready on all pods, because it is being scaled, say, can still be measured: it answers for its version.
    """
    bounds = release.gate.quality
    assert bounds is not None  # noqa: S101 - the caller has checked
    if health.outcome == "fail" or url is None:
        return Baseline(measured=None, source=f"it could not be measured: {health.reason}")
    try:
        accuracy = asyncio.run(_evaluate(release, bounds, int(good["version"]), url))
    except (SlipwayError, TimeoutError) as error:
        return Baseline(measured=None, source=str(error))
    log.info("plan: the live release at %s: %s", url, accuracy)
    return Baseline(measured=accuracy, source=f"measured at {url} before the run")


async def _evaluate(release: Release, bounds: QualityBounds, version: int, url: str) -> Accuracy:
    evaluation, verdict = Evaluation(bounds, read_images(bounds)), Verdict.wait("no answer yet")
    send = partial(send_request_async, url, f"{release.version_path(version)}:predict")
    try:
        async with asyncio.timeout(LIVE_LIMIT_S):
            while (verdict := await evaluation.send_next(send)).outcome != "pass":  # noqa: ASYNC110 - the server sets no Event
                await asyncio.sleep(PAUSE_S)
    except TimeoutError as error:
        raise TimeoutError(f"not finished within {LIVE_LIMIT_S} s: {verdict.reason}") from error
    return evaluation.accuracy
