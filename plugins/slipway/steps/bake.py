"""The bake: for how long a release is watched after its gate, what it is compared with, and what a failure says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from slipway.facts import Speed
from slipway.kubernetes.api import read_object_async
from slipway.kubernetes.server_metrics import look_at_servers
from slipway.names import LABEL_RELEASE
from slipway.release import Bake, Release
from slipway.serving.metrics import NOTHING
from slipway.steps.waits import explain_gate

ANSWERS_S = 120  # for the requests of the last look, and for one that is repeated
SHORTEST_WINDOW_S = 60  # that a Prometheus is asked about: it reads the servers only now and then
READ_S = 60  # the metrics of the release before
MEASURED = "compare verdicts.bake.measured in the record with gate.bake in the model file; fix the model, its resources or the limit"

log = logging.getLogger(__name__)


def why_no_bake(release: Release, *, restored: bool) -> str | None:
    """Why a release is not watched; None if it is. A release that comes back was judged when it was new, and is needed now."""
    if restored:
        return "it was proven live before, and is only applied again"
    return None if release.gate.bake else "the model file has no gate.bake"


def closing_s(bake: Bake) -> int:
    """How long the end of a bake may take, after its time is over: for the last look, or a repeated one."""
    return 2 * bake.every_s + ANSWERS_S


def query_values(release: Release, version: int, release_id: str, *, since_s: float) -> Mapping[str, object]:
    """What is filled into the queries of a Prometheus; `window` is the time since the bake began."""
    return {
        "namespace": release.target.namespace,
        "deployment": release.deployment,
        "model": release.model,
        "version": version,
        "release": release_id,
        "window": f"{max(round(since_s), SHORTEST_WINDOW_S)}s",
    }


def measure_before(release: Release, release_id: str) -> Speed | None:
    """What the release that serves now has answered since its servers started; None, and a line in the log, if unknown."""
    try:
        found = asyncio.run(_measure(release, release_id))
    except Exception as error:  # what cannot be compared must not stop a release
        log.warning("bake: the metrics of the release before could not be read: %s", error)
        return None
    log.info("bake: before it: %s", found or "no release that has answered, or the same one")
    return found


async def _measure(release: Release, release_id: str) -> Speed | None:
    async with asyncio.timeout(READ_S):
        deployment = await read_object_async(release.target, "Deployment", release.deployment)
        labels = deployment["spec"]["template"]["metadata"].get("labels") or {} if deployment else {}
        before = labels.get(LABEL_RELEASE)
        if before in {None, release_id}:
            return None
        pods = await look_at_servers(release.target, release.model, str(before))
    total = NOTHING
    for pod in pods:
        total = total.plus(pod.counts or NOTHING)
    if total.mean_ms is None:
        return None
    return Speed(release_id=str(before), answers=total.answered, mean_ms=total.mean_ms, errors=total.errors)


def explain_bake(release: Release, url: str, version: int, reason: str, *, blames_release: bool) -> str:
    """Where the release was watched, why it failed, and the next step."""
    if blames_release and "golden case" not in reason and ". Next: " not in reason:
        reason = f"{reason}. Next: {MEASURED}"
    return explain_gate(release, url, version, reason)
