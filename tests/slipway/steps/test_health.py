import json
from dataclasses import replace

import pytest

from slipway.kubernetes.address import find_service_url
from slipway.steps.health import check_live_release
from slipway.verdict import Verdict

METADATA = {"name": "tfs-server", "uid": "u", "generation": 1}
DEPLOYMENTS = {
    "gone": ((404, "{}"), "deployment/tfs-server is gone"),
    "another release's": (
        (200, json.dumps({"metadata": {**METADATA, "labels": {"slipway/release": "another"}}})),
        "deployment/tfs-server is labelled another, the record says abcdefabcdef",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_not_healthy_if_another_release_runs(release, record_of, connected, http_server, answer, reason):  # noqa: PLR0917
    """The Deployment has to exist and to have the label of the recorded release."""
    connected(http_server(answer))
    assert check_live_release(release, record_of("good")) == Verdict.failed(reason)


def test_url_is_the_model_files_if_it_fixes_one(release):
    """The cluster is not read; the URL has no slash at its end."""
    fixed = replace(release, address="https://models.example.com/")
    assert find_service_url(fixed) == (Verdict.passed("https://models.example.com/"), "https://models.example.com")


def test_no_url_if_the_service_is_missing(release, connected, http_server):
    """The verdict says why."""
    connected(http_server((404, "{}")))
    verdict, url = find_service_url(release)
    assert (verdict.outcome, url) == ("fail", None)
    assert verdict.reason.startswith("service/tfs-server in shop: ")
