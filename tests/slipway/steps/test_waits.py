import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from slipway.release import Gate, QualityBounds
from slipway.serving.gate import gate_blames_release, gate_goes_on
from slipway.steps.waits import explain_address, explain_gate, explain_rollout, fixed_address, public_gate, why_no_grpc
from slipway.verdict import Verdict

PASSED, FAILED, INCONCLUSIVE = Verdict.passed("3 of 3"), Verdict.failed("wrong label"), Verdict.inconclusive("slow")
URL = "http://203.0.113.9:8501"
PROXY = "/api/v1/namespaces/shop/services/tfs-server-preview:8501/proxy"


def test_rollout_is_explained_by_its_own_reason_if_no_pod_is_there(release, connected, http_server):
    """A reason that already has the pods' words gets only the next command."""
    connected(http_server((200, json.dumps({"items": []}))))
    reason = "pod/a: CrashLoopBackOff: Error: exit code 255"
    assert explain_rollout(release, "abcdefabcdef", reason) == (
        f"{reason}. Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef"
    )


FORBIDDEN = 403, json.dumps({"kind": "Status", "message": "events is forbidden"})
NO_EVENTS = "connection kubernetes_default may not list events in shop"
BROKEN = {"containerStatuses": [{"state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}}]}
WITHOUT_EVENTS = {
    "with a pod": ([{"metadata": {"name": "a", "namespace": "shop"}, "status": BROKEN}], "pod/a: CreateContainerConfigError: no key"),
    "without pods": ([], NO_EVENTS),
}  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT_EVENTS)
def test_rollout_is_explained_without_the_right_to_list_events(release, connected, http_server, caplog, case):
    """Pods and their logs are read all the same; the log says what is missing."""
    pods, words = WITHOUT_EVENTS[case]
    connected(http_server((200, json.dumps({"items": pods})), FORBIDDEN, (200, "DATA_LOSS: truncated")))
    assert explain_rollout(release, "abcdefabcdef", "time is up").startswith(f"time is up ({words}). Next: ")
    assert f"rollout: {NO_EVENTS}" in caplog.text
    assert ("DATA_LOSS" in caplog.text) is bool(pods)


def test_pods_log_is_read_up_to_a_number_of_bytes(release, connected, http_server):
    """A server that cannot start may print its whole model in one line: the API server limits only the number of lines by itself."""
    pod = {"metadata": {"name": "a", "namespace": "shop"}, "status": {}}
    api = http_server(
        (200, json.dumps({"items": [pod]})), (200, json.dumps({"items": []})), (200, "DATA_LOSS: truncated")
    )
    connected(api)
    explain_rollout(release, "abcdefabcdef", "time is up")
    query = parse_qs(urlsplit(api.seen[-1].path).query)
    assert (query["tailLines"], query["limitBytes"]) == (["10"], ["65536"])


def test_rollout_is_explained_if_the_diagnosis_fails(release):
    """The diagnosis fails because there is no connection: the reason and the next command remain."""
    message = explain_rollout(release, "abcdefabcdef", "time is up")
    assert message.startswith("time is up (no diagnosis: connection kubernetes_default: ")
    assert message.endswith(". Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef")
    assert "\n" not in message


def test_address_is_explained_with_its_service(release):
    """The next command describes the Service."""
    assert explain_address(release, "no address") == "no address. Next: kubectl -n shop describe service tfs-server"


MODEL = "/v1/models/digits-vit/versions/7"
NO_RIGHT = "HTTP 403. Next: give connection c a Role"
GATES = {
    "public": (URL, "wrong label", f"{URL}{MODEL}: wrong label. Next: curl {URL}{MODEL}"),
    "preview": (PROXY, "wrong label", f"{PROXY}{MODEL}: wrong label. Next: kubectl -n shop get --raw {PROXY}{MODEL}"),
    "with a command": (URL, NO_RIGHT, f"{URL}{MODEL}: {NO_RIGHT}"),
}


@pytest.mark.parametrize(("url", "reason", "message"), GATES.values(), ids=GATES)
def test_gate_is_explained_with_where_it_asked(release, url, reason, message):
    """The next command repeats the request, unless the reason names a command itself."""
    assert message == explain_gate(release, url, 7, reason)


@pytest.mark.parametrize(
    ("fixed", "found"),
    [
        ({}, None),
        ({"address": "https://x/"}, {"url": "https://x", "grpc": None}),
        ({"address": "https://x", "grpc_address": "x:8500"}, {"url": "https://x", "grpc": "x:8500"}),
    ],
)
def test_fixed_address_is_the_model_files(release, fixed, found):
    """The URL has no slash at its end; without a URL there is no fixed address."""
    assert found == fixed_address(replace(release, **fixed))


def test_reason_for_no_grpc_is_the_missing_address_or_port(release):
    """A fixed URL gives no address for gRPC; a Service may have no port for it."""
    assert why_no_grpc(release) == "service/tfs-server has no port tf-serving-grpc"
    fixed = replace(release, address="https://models.example.com/")
    assert why_no_grpc(fixed) == "the model file gives target.address without target.grpc_address"


QUALITY = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
RULES = Gate(latency_ms=5, quality=QUALITY, failures=2)
NO_VERDICT = None
FAILED_THERE, PASSED_THERE, UNSURE_THERE = (one.to_dict() for one in (FAILED, PASSED, INCONCLUSIVE))
PUBLIC = {
    "rolling": ("rolling", False, NO_VERDICT, False, RULES),
    "after a preview": ("preview", True, PASSED_THERE, False, Gate(latency_ms=5, failures=2)),
    "after a preview that a person approved": ("preview", True, UNSURE_THERE, False, Gate(latency_ms=5, failures=2)),
    "after a preview whose gate did not run": ("preview", True, NO_VERDICT, False, RULES),
    "after a preview whose gate failed": ("preview", True, FAILED_THERE, False, RULES),
    "applied again without a preview": ("preview", False, NO_VERDICT, False, Gate(failures=2)),
    "restored": ("preview", False, NO_VERDICT, True, Gate(failures=2)),
    "restored by a rolling update": ("rolling", False, NO_VERDICT, True, Gate(failures=2)),
}


@pytest.mark.parametrize(("strategy", "previewed", "verdict", "restored", "rules"), PUBLIC.values(), ids=PUBLIC)
def test_public_gate_repeats_nothing_that_is_proven(release, strategy, previewed, verdict, restored, rules):  # noqa: PLR0917
    """A labelled set that the preview classified is not sent again; a release known to be good has only to keep its promises."""
    release = replace(release, strategy=strategy, gate=RULES)
    found = public_gate(release, previewed=previewed, preview_verdict=verdict, restored=restored)
    assert found == replace(release, gate=rules)


GOES_ON = [
    (PASSED, False, False, True),
    (FAILED, True, True, False),
    (INCONCLUSIVE, False, False, False),
    (INCONCLUSIVE, True, False, True),
    (INCONCLUSIVE, False, True, True),
]


@pytest.mark.parametrize(("verdict", "asks", "approved", "goes_on"), GOES_ON)
def test_run_goes_on_if_a_person_decides(verdict, asks, approved, goes_on):
    """A pass goes on; an inconclusive result goes on only to a person's decision, or after their approval."""
    assert goes_on is gate_goes_on(verdict, asks=asks, approved=approved)


BLAMES = [
    (FAILED, False, False, True),
    (FAILED, True, False, False),
    (FAILED, None, False, False),
    (FAILED, False, True, False),
    (INCONCLUSIVE, None, False, True),
    (INCONCLUSIVE, True, True, True),
]


@pytest.mark.parametrize(("verdict", "late", "unanswered", "blamed"), BLAMES)
def test_release_is_blamed_only_for_an_answer(verdict, late, unanswered, blamed):
    """A wrong or inconclusive answer is the release's fault; a missing one, or one that comes too late, is not."""
    assert blamed is gate_blames_release(verdict, late=late, unanswered=unanswered)
