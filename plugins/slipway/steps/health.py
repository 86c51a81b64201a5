"""Whether the live release is healthy."""

from __future__ import annotations

from slipway.kubernetes.address import find_service_url
from slipway.kubernetes.api import read_object
from slipway.kubernetes.rollout import judge_rollout
from slipway.names import LABEL_RELEASE
from slipway.records.record import Record
from slipway.records.store import read_json
from slipway.release import Release
from slipway.serving.client import send_request
from slipway.serving.golden import cases_from, judge_answer, judge_round
from slipway.verdict import Verdict


def check_live_release(release: Release, good: Record) -> Verdict:
    """Whether the recorded release is the one that runs, is rolled out, and answers its golden cases correctly now."""
    deployment = read_object(release.target, "Deployment", release.deployment)
    if deployment is None:
        return Verdict.failed(f"deployment/{release.deployment} is gone")
    metadata = deployment["metadata"]
    labelled = metadata.get("labels", {}).get(LABEL_RELEASE)
    if labelled != good["release_id"]:
        return Verdict.failed(
            f"deployment/{release.deployment} is labelled {labelled}, the record says {good['release_id']}"
        )
    rolled_out = judge_rollout(
        deployment, uid=metadata["uid"], generation=metadata["generation"], namespace=release.target.namespace
    )
    if rolled_out.outcome != "pass":
        return rolled_out
    return _check_answers(release, good)


def _check_answers(release: Release, good: Record) -> Verdict:
    verdict, url = find_service_url(release)
    if url is None:
        return verdict
    path = f"{release.version_path(good['version'])}:predict"
    cases = cases_from(read_json(good["export"]["golden_uri"]))
    return judge_round([judge_answer(case, send_request(url, path, case.rest_body)) for case in cases])
