import base64
import json
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from forwarding_pods import ForwardingCluster, described, labels_of
from grpc_serving import DESCRIPTORS, request_of
from trigger_events import FAR, events_of

from slipway.dag.triggers.gate import PredictionTrigger
from slipway.facts import Accuracy, Baseline, to_dict
from slipway.release import Gate, QualityBounds
from slipway.serving.labelled_set import LabelledImage


def predictions(label="3", confidence=0.95):
    """A response of TF Serving."""
    return 200, json.dumps({"predictions": [{"label": label, "confidence": confidence}]})


@pytest.fixture
def gate(release, store, case):
    """Makes the gate's trigger for a URL, with one golden case in the store; it sends no garbage by default."""
    uri = store.put_json({"cases": [to_dict(case)]}, "golden.json")

    def make(url, deadline=FAR, *, baseline=None, int8_uri=None, **rules):
        judged = replace(release, gate=Gate(**{"garbage": False, **rules}))
        return PredictionTrigger(
            release=to_dict(judged),
            deadline=deadline,
            poll_s=0.001,
            url=url,
            version=7,
            golden_uri=uri,
            baseline=baseline,
            int8_uri=int8_uri,
        )

    return make


async def test_gate_passes_after_three_rounds(gate, http_server, case):
    """Three correct answers in a row pass; each request has the golden bytes, this version and a new connection."""
    server = http_server(predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("pass", 3)
    assert event["reason"].startswith("3 of 3 rounds in a row passed; ")
    assert {(seen.path, seen.body) for seen in server.seen} == {
        ("/v1/models/digits-vit/versions/7:predict", case.rest_body)
    }
    assert len({seen.client for seen in server.seen}) == 3


async def test_an_endless_answer_does_not_outlast_the_deadline(gate, mean_server, monkeypatch):
    """A poll with slow answers ends soon after the gate's deadline, although each answer has a limit of a minute."""
    monkeypatch.setattr("slipway.dag.triggers.golden.OVERTIME_S", 0.1)
    (event,) = await events_of(gate(mean_server.url, deadline=time.time() + 0.3))
    assert (event["outcome"], event["late"]) == ("fail", True)
    assert event["reason"].startswith("time is up: ")


@pytest.mark.parametrize("broken", [(503, "soon"), (404, "no such version"), (429, "slow down")], ids=str)
async def test_gate_counts_again_if_a_round_is_interrupted(gate, http_server, broken):
    """Rounds have to pass in a row."""
    server = http_server(predictions(), predictions(), broken, predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("pass", 6)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(predictions("8"), "got '8' at 0.9500: wrong label"), (predictions("3", 0.5), "confidence too low"), ((400, "no"), "HTTP 400: no")],
    ids=["wrong label", "low confidence", "400"],
)  # fmt: skip
async def test_gate_fails_at_once_if_an_answer_is_wrong(gate, http_server, answer, words):
    """The request is not repeated, even after correct answers."""
    server = http_server(predictions(), predictions(), answer, predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("fail", 3)
    assert words in event["reason"]


async def test_preview_gate_sends_requests_through_the_api_server(gate, release, http_server, connected):
    """The API server's own error is a wait and ends the row; an answer that it forwards is judged like any other."""
    absent = (503, json.dumps({"kind": "Status", "apiVersion": "v1", "message": "no endpoints available"}))
    server = http_server(predictions(), absent, predictions(), predictions(), predictions(label="8"))
    connected(server)
    (event,) = await events_of(gate(release.preview.proxy_path))
    assert (event["outcome"], len(server.seen)) == ("fail", 5)
    assert "got '8' at 0.9500: wrong label" in event["reason"]


FORBIDDEN = (
    'services "tfs-server-preview:8501" is forbidden: User "u" cannot create resource "services/proxy" in API group ""'
)
DENIED = (403, json.dumps({"kind": "Status", "apiVersion": "v1", "message": FORBIDDEN}))


async def test_preview_gate_fails_if_the_right_is_missing(gate, release, http_server, connected):
    """The gate does not wait for its deadline; the line names the missing right and what to do."""
    connected(http_server(DENIED))
    trigger, times_s = gate(release.preview.proxy_path), iter([0.0, 4.0, 8.0, 12.0])
    trigger.clock = lambda: next(times_s)
    (event,) = await events_of(trigger)
    assert (event["outcome"], event["late"], event["unanswered"]) == ("fail", False, True)
    assert (
        f"the API server: HTTP 403: {FORBIDDEN}, for 12 s. Next: give connection kubernetes_default " in event["reason"]
    )


async def test_preview_gate_waits_if_the_denial_is_short(gate, release, http_server, connected):
    """An API server that starts may deny what it allows later: each poll that gets through resets the time."""
    connected(http_server(DENIED, DENIED, predictions(), DENIED, DENIED, predictions()))
    trigger, times_s = gate(release.preview.proxy_path), iter([0.0, 8.0, 100.0, 108.0])
    trigger.clock = lambda: next(times_s)
    (event,) = await events_of(trigger)
    assert (event["outcome"], "unanswered" in event) == ("pass", False)


async def test_gate_waits_if_the_connection_is_refused(gate, closed_url):
    """It waits until time is up; the failure says so."""
    (event,) = await events_of(gate(closed_url, deadline=time.time() + 0.05))
    assert event["outcome"] == "fail"
    assert event["reason"].startswith("time is up: golden case 'three': no answer yet: ")


async def test_gate_waits_if_the_store_cannot_be_read(release, http_server, store):
    """The failure after the deadline names the file of the golden cases."""
    trigger = PredictionTrigger(
        release=to_dict(release), deadline=0, poll_s=0.001, url=http_server(predictions()).url, version=7,
        golden_uri=store.uri_of("gone.json"),
    )  # fmt: skip
    (event,) = await events_of(trigger)
    assert event["outcome"] == "fail"
    assert event["reason"].startswith(f"time is up: polling failed: StoreError: {store.uri}/gone.json: ")


async def test_gate_says_if_grpc_was_not_tested(gate, http_server):
    """A missing address for gRPC is part of the reason."""
    (event,) = await events_of(gate(http_server(predictions()).url))
    assert event["reason"].endswith("gRPC was not asked: no address is known for it")


@pytest.fixture
def both(gate, store, case, http_server, grpc_server):
    """Makes the gate's trigger for a correct REST server and a gRPC server with these answers; returns trigger and gRPC server."""

    def make(*answers):
        (Path(store.uri.removeprefix("file://")) / "descriptors.bin").write_bytes(DESCRIPTORS)
        uri = store.put_json({"cases": [to_dict(replace(case, grpc_request=request_of("digits-vit")))]}, "golden.json")
        server = grpc_server(*answers)
        trigger = gate(http_server(predictions()).url)
        trigger.golden_uri, trigger.grpc, trigger.descriptors_uri = uri, server.address, store.uri_of("descriptors.bin")
        return trigger, server

    return make


async def test_every_round_includes_grpc(both):
    """Each round requests the version over gRPC, on a new connection, and reports how many answered."""
    trigger, server = both(("3", 0.95, 7))
    (event,) = await events_of(trigger)
    assert event["outcome"] == "pass"
    assert event["reason"].endswith("; 1 of 1 over gRPC, by the same version")
    assert [seen.version for seen in server.seen] == [7, 7, 7]
    assert len({seen.client for seen in server.seen}) == 3


async def test_gate_waits_for_old_pods_over_grpc(both):
    """A pod without the version interrupts the row; rounds count once all answers are of the new version."""
    old = (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(digits-vit, 7)")
    trigger, server = both(("3", 0.95, 7), ("3", 0.95, 7), old, old, ("3", 0.95, 7))
    (event,) = await events_of(trigger)
    assert (event["outcome"], len(server.seen)) == ("pass", 7)


async def test_gate_fails_if_another_version_answers_over_grpc(both):
    """Even a correct answer of another version proves nothing."""
    (event,) = await events_of(both(("3", 0.95, 6))[0])
    assert (event["outcome"], event["reason"]) == ("fail", "over gRPC: version 7 was requested, version 6 answered")


@pytest.mark.parametrize(
    ("garbage", "outcome", "requests"),
    [((400, "no image"), "pass", 6), (predictions(), "fail", 2)],
    ids=["refused", "answered"],
)
async def test_every_round_includes_garbage(gate, http_server, garbage, outcome, requests):
    """The server has to refuse data that is not an image at the public address too."""
    server = http_server(*([predictions(), garbage] * 3))
    (event,) = await events_of(gate(server.url, garbage=True))
    assert (event["outcome"], len(server.seen)) == (outcome, requests)


async def test_gate_tolerates_wrong_answers_within_its_budget(gate, http_server):
    """A wrong answer within the budget interrupts the row; one beyond it fails the gate."""
    server = http_server(predictions(), predictions("8"), predictions("8"), predictions())
    (event,) = await events_of(gate(server.url, failures=1))
    assert (event["outcome"], len(server.seen)) == ("fail", 3)
    assert event["reason"].startswith("2 wrong answers, 1 allowed: ")
    (event,) = await events_of(gate(http_server(predictions("8"), predictions()).url, failures=1))
    assert event["outcome"] == "pass"


async def test_gate_fails_if_missing_answers_exceed_the_budget(gate, http_server):
    """A server that answers only sometimes fails the gate before its deadline."""
    server = http_server(*([predictions(), (503, "soon")] * 3), predictions())
    (event,) = await events_of(gate(server.url, errors=2))
    assert (event["outcome"], len(server.seen), event["unanswered"]) == ("fail", 6, True)
    assert event["reason"].startswith("3 rounds with missing answers after the first pass, 2 allowed: ")


async def test_event_has_the_measured_times(gate, http_server):
    """The event has the response time even if the gate does not judge it."""
    (event,) = await events_of(gate(http_server(predictions()).url))
    assert event["found"]["latency_ms"] < 5000
    assert event["found"]["quality"] is None


@pytest.fixture
def bounds_of(store):
    """Makes the bounds for a labelled set with this number of threes in the store."""

    def make(images, **bounds):
        data = base64.urlsafe_b64encode(b"picture").decode()
        found = [LabelledImage(name=f"3/{n:03}.png", label="3", data=data) for n in range(images)]
        uri = store.put_json({"images": [to_dict(image) for image in found]}, "quality.json")
        return QualityBounds(uri=uri, digest="sha256:5", **{"min_top1": None, "max_drop": None, **bounds})

    return make


QUALITY = {
    "enough": (0, {"min_top1": 0.9}, "pass", "quality: 80 of 80 images classified correctly (1.0000), at least 0.9 required"),
    "far too few": (40, {"min_top1": 0.9}, "fail", "quality: 40 of 80 images classified correctly (0.5000), at least 0.9 required"),
    "within chance": (9, {"min_top1": 0.9}, "inconclusive", "quality: 71 of 80 images classified correctly (0.8875), at least 0.9 required"),
    "worse than live": (30, {"max_drop": 0.02}, "fail", "quality: 50 of 80 correct, the live release 79 (its record), a drop of at most 0.02 allowed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", QUALITY)
async def test_labelled_set_is_sent_after_the_rounds_passed(gate, bounds_of, http_server, kind):
    """Each image is sent once, to this version; an image without an answer is sent again."""
    wrong, bounds, outcome, words = QUALITY[kind]
    server = http_server(*[predictions()] * 3, (503, "soon"), *[predictions("8")] * wrong, predictions())
    live = Baseline(measured=Accuracy(digest="sha256:5", images=80, wrong=("3/079.png",)), source="its record")
    (event,) = await events_of(gate(server.url, quality=bounds_of(80, **bounds), baseline=to_dict(live)))
    assert event["outcome"] == outcome
    assert words in event["reason"]
    assert len(server.seen) == 3 + 80 + 1
    assert len(event["found"]["quality"]["wrong"]) == wrong
    assert {seen.path for seen in server.seen} == {"/v1/models/digits-vit/versions/7:predict"}


INT8 = {"as in float32": (0, "pass"), "within chance": (3, "inconclusive"), "another model": (30, "fail")}


@pytest.mark.parametrize("kind", INT8)
async def test_int8_is_compared_with_the_exports_labels_in_float32(gate, store, bounds_of, http_server, kind):
    """The served labels count, on the CPU that serves, and not those that the exporter found in int8; the event has what changed."""
    changed, outcome = INT8[kind]
    names = [f"3/{n:03}.png" for n in range(80)]
    uri = store.put_json({"float32": dict.fromkeys(names, "3"), "int8": dict.fromkeys(names, "8")}, "int8.json")
    server = http_server(*[predictions()] * 3, *[predictions("8")] * changed, predictions())
    (event,) = await events_of(gate(server.url, quality=bounds_of(80, min_top1=0), int8_uri=uri))
    assert event["outcome"] == outcome
    assert f"int8: {changed} of 80 labels changed against float32" in event["reason"]
    assert (event["found"]["int8"]["images"], len(event["found"]["int8"]["lost"])) == (80, changed)


async def test_restarted_trigger_still_compares_int8(gate, store):
    """What Airflow's database keeps of the trigger includes where the labels are."""
    _, arguments = gate("http://x", int8_uri="file:///int8.json").serialize()
    assert PredictionTrigger(**arguments).int8_uri == "file:///int8.json"


@pytest.fixture
def forwarding(connected, both):
    """A preview with one pod, reached through an API server: its trigger, the server for REST and the one for gRPC."""
    trigger, over_grpc = both(("3", 0.95, 7))
    trigger.grpc, trigger.pods = None, labels_of("r2-preview")
    cluster = ForwardingCluster(described("pod", int(over_grpc.address.rpartition(":")[2])))
    connected(cluster)
    yield trigger, over_grpc, cluster
    cluster.stop()


async def test_a_preview_without_a_smoke_test_is_asked_over_grpc_too(forwarding):
    """Through port-forwards to its pods; their way through the API server is not in the measured times."""
    trigger, over_grpc, cluster = forwarding
    (event,) = await events_of(trigger)
    assert event["outcome"] == "pass", event
    assert event["reason"].endswith("; 1 of 1 over gRPC, by the same version")
    assert len(over_grpc.seen) == 3
    assert set(cluster.forwarded) == {"pod"}


async def test_a_wrong_answer_over_grpc_fails_the_preview(forwarding):
    """REST alone would pass."""
    trigger, over_grpc, _ = forwarding
    over_grpc.answers[:] = [("8", 0.95, 7)]
    (event,) = await events_of(trigger)
    assert (event["outcome"], "wrong label" in event["reason"]) == ("fail", True)


async def test_garbage_is_always_sent_if_there_was_no_smoke_test(gate, http_server, release):
    """The model file may leave it out of the gate, but not out of the first test of the image."""
    server = http_server(predictions())
    trigger = gate(server.url)
    trigger.release = to_dict(replace(release, builder="registry", gate=Gate(garbage=False)))
    (event,) = await events_of(trigger)
    assert event["outcome"] == "fail"
    assert "garbage" in event["reason"]
