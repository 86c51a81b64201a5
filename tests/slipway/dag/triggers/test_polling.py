import base64
import json
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import yaml
from airflow.sdk.module_loading import import_string
from grpc_serving import DESCRIPTORS, request_of

from slipway.dag.triggers.gate import PredictionTrigger
from slipway.dag.triggers.polling import ReleaseTrigger
from slipway.dag.triggers.rollout import AddressTrigger, RolloutTrigger
from slipway.facts import Accuracy, Baseline, to_dict
from slipway.release import Gate, QualityBounds
from slipway.serving.labelled_set import LabelledImage
from slipway.verdict import Verdict

FAR = 4_000_000_000.0


class Looking(ReleaseTrigger):
    """Says its verdicts in turn; an exception among them is raised."""

    def __init__(self, *, says, **kwargs):
        super().__init__(**kwargs)
        self.says = list(says)
        self.looks = 0
        self.last = None  # the poll at which time is up, whatever the clock says

    def serialize(self):
        """Never goes to a database."""
        raise NotImplementedError

    async def look(self, release):  # noqa: ARG002 - what it sees is given
        """The next verdict, the last for ever."""
        self.looks += 1
        self.deadline = 0 if self.looks == self.last else self.deadline
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if isinstance(said, Exception):
            raise said
        return said


async def events_of(trigger):
    """All that a trigger says."""
    return [event.payload async for event in trigger.run()]


def looking(release, *says, deadline=FAR):
    """A trigger that says these."""
    return Looking(release=to_dict(release), deadline=deadline, poll_s=0.001, says=says)


WAIT, PASS, FAIL = Verdict.wait("not yet"), Verdict.passed("there"), Verdict.failed("broken")
DECIDED = {
    "pass at once": ([PASS], PASS, 1),
    "pass after waiting": ([WAIT, WAIT, PASS], PASS, 3),
    "fail at once": ([FAIL, PASS], FAIL, 1),
    "fail after waiting": ([WAIT, FAIL], FAIL, 2),
    "an exception is a wait": ([ConnectionResetError("gone"), PASS], PASS, 2),
}


@pytest.mark.parametrize(("says", "verdict", "looks"), DECIDED.values(), ids=DECIDED)
async def test_one_event_if_it_is_decided(release, says, verdict, looks):
    """A trigger looks until a judge has decided, and says that once."""
    trigger = looking(release, *says)
    assert [{**verdict.to_dict(), "found": None, "late": False}] == await events_of(trigger)
    assert looks == trigger.looks


LATE = {
    "waiting": (WAIT, "time is up: not yet"),
    "not able to look": (OSError("no\nroute"), "time is up: could not look: OSError: no route"),
}


@pytest.mark.parametrize(("says", "reason"), LATE.values(), ids=LATE)
async def test_fail_if_time_is_up(release, says, reason):
    """After the deadline a wait is a failure that says what was waited for."""
    assert [{"outcome": "fail", "reason": reason, "found": None, "late": True}] == await events_of(
        looking(release, says, deadline=0)
    )


async def test_pass_if_it_came_with_the_deadline(release):
    """The last look counts: what is there at the deadline is there."""
    assert [{**PASS.to_dict(), "found": None, "late": False}] == await events_of(looking(release, PASS, deadline=0))


async def test_looks_again_until_the_deadline(release):
    """It polls as long as there is time, however long a poll takes."""
    trigger = looking(release, WAIT)
    trigger.last = 3
    (event,) = await events_of(trigger)
    assert (event["outcome"], trigger.looks) == ("fail", 3)


TRIGGERS = {
    RolloutTrigger: {"release_id": "abcdefabcdef", "uid": "u-1", "generation": 4},
    AddressTrigger: {},
    PredictionTrigger: {
        "url": "http://x:8501",
        "version": 7,
        "golden_uri": "file:///store/golden.json",
        "grpc": "x:8500",
        "no_grpc": "",
        "descriptors_uri": "file:///store/descriptors.bin",
        "baseline": None,
    },
}


@pytest.mark.parametrize(("kind", "own"), TRIGGERS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_same_trigger_if_it_starts_elsewhere(release, kind, own):
    """Airflow can make the trigger again from what the database keeps of it: a class to import and plain values."""
    arguments = {"release": to_dict(release), "deadline": FAR, "poll_s": 2.0, **own}
    path, kept = kind(**arguments).serialize()
    assert import_string(path) is kind
    assert arguments == kept
    assert kind(**json.loads(json.dumps(kept))).serialize() == (path, json.loads(json.dumps(kept)))


def predictions(label="3", confidence=0.95):
    """TF Serving's answer."""
    return 200, json.dumps({"predictions": [{"label": label, "confidence": confidence}]})


@pytest.fixture
def gate(release, store, case):
    """Makes the gate's trigger for a URL, with one golden case in the store; asks no garbage unless told to."""
    uri = store.put_json({"cases": [to_dict(case)]}, "golden.json")

    def make(url, deadline=FAR, *, baseline=None, **rules):
        judged = replace(release, gate=Gate(**{"garbage": False, **rules}))
        return PredictionTrigger(
            release=to_dict(judged),
            deadline=deadline,
            poll_s=0.001,
            url=url,
            version=7,
            golden_uri=uri,
            baseline=baseline,
        )

    return make


async def test_gate_passes_after_three_rounds(gate, http_server, case):
    """Three right answers in a row pass, each asked with the golden bytes of exactly this version on a new connection."""
    server = http_server(predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("pass", 3)
    assert event["reason"].startswith("3 of 3 rounds in a row passed; ")
    assert {(seen.path, seen.body) for seen in server.seen} == {
        ("/v1/models/digits-vit/versions/7:predict", case.rest_body)
    }
    assert len({seen.client for seen in server.seen}) == 3


@pytest.mark.parametrize("broken", [(503, "soon"), (404, "no such version"), (429, "slow down")], ids=str)
async def test_gate_counts_anew_if_a_round_broke(gate, http_server, broken):
    """Passes before an interruption do not count: they have to be in a row."""
    server = http_server(predictions(), predictions(), broken, predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("pass", 6)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(predictions("8"), "got '8' at 0.9500: wrong label"), (predictions("3", 0.5), "confidence too low"), ((400, "no"), "HTTP 400: no")],
    ids=["wrong label", "little confidence", "400"],
)  # fmt: skip
async def test_gate_fails_at_once(gate, http_server, answer, words):
    """A wrong answer is not asked again, however many were right before."""
    server = http_server(predictions(), predictions(), answer, predictions())
    (event,) = await events_of(gate(server.url))
    assert (event["outcome"], len(server.seen)) == ("fail", 3)
    assert words in event["reason"]


async def test_gate_of_a_preview_asks_through_the_api_server(gate, release, http_server, connected):
    """What an API server says itself is a wait that ends a streak; what it passes on is judged as at an address."""
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


async def test_gate_of_a_preview_ends_if_it_is_not_let_through(gate, release, http_server, connected):
    """An API server that passes no question on for want of a right is not asked until time is up: the line says which, and what to do."""
    connected(http_server(DENIED))
    trigger, looks = gate(release.preview.proxy_path), iter([0.0, 4.0, 8.0, 12.0])
    trigger.clock = lambda: next(looks)
    (event,) = await events_of(trigger)
    assert (event["outcome"], event["late"], event["unanswered"]) == ("fail", False, True)
    assert (
        f"the API server: HTTP 403: {FORBIDDEN}, for 12 s. Next: give connection kubernetes_default " in event["reason"]
    )


async def test_gate_of_a_preview_bears_a_denial_that_passes(gate, release, http_server, connected):
    """An API server that starts may refuse for a moment what it allows: the time counts anew with each look that was let through."""
    connected(http_server(DENIED, DENIED, predictions(), DENIED, DENIED, predictions()))
    trigger, looks = gate(release.preview.proxy_path), iter([0.0, 8.0, 100.0, 108.0])
    trigger.clock = lambda: next(looks)
    (event,) = await events_of(trigger)
    assert (event["outcome"], "unanswered" in event) == ("pass", False)


async def test_gate_waits_if_nobody_listens(gate, closed_url):
    """A refused connection is a wait until time is up, and then says so."""
    (event,) = await events_of(gate(closed_url, deadline=time.time() + 0.05))
    assert event["outcome"] == "fail"
    assert event["reason"].startswith("time is up: golden case 'three': no answer yet: ")


async def test_gate_waits_if_the_store_does_not_answer(release, http_server, store):
    """Golden cases that cannot be read right now are a wait that names them."""
    trigger = PredictionTrigger(
        release=to_dict(release), deadline=0, poll_s=0.001, url=http_server(predictions()).url, version=7,
        golden_uri=store.uri_of("gone.json"),
    )  # fmt: skip
    (event,) = await events_of(trigger)
    assert event["outcome"] == "fail"
    assert event["reason"].startswith(f"time is up: could not look: StoreError: {store.uri}/gone.json: ")


async def test_gate_says_that_grpc_was_not_asked(gate, http_server):
    """An address that nobody knows is never passed over in silence."""
    (event,) = await events_of(gate(http_server(predictions()).url))
    assert event["reason"].endswith("gRPC was not asked: no address is known for it")


@pytest.fixture
def both(gate, store, case, http_server, grpc_server):
    """Makes the gate's trigger for a server over REST that is right, and one over gRPC that answers so; the latter beside it."""

    def make(*answers):
        (Path(store.uri.removeprefix("file://")) / "descriptors.bin").write_bytes(DESCRIPTORS)
        uri = store.put_json({"cases": [to_dict(replace(case, grpc_request=request_of("digits-vit")))]}, "golden.json")
        server = grpc_server(*answers)
        trigger = gate(http_server(predictions()).url)
        trigger.golden_uri, trigger.grpc, trigger.descriptors_uri = uri, server.address, store.uri_of("descriptors.bin")
        return trigger, server

    return make


async def test_gate_asks_every_round_over_grpc_too(both):
    """Each round asks exactly the version over gRPC, on a new connection, and says how many answered."""
    trigger, server = both(("3", 0.95, 7))
    (event,) = await events_of(trigger)
    assert event["outcome"] == "pass"
    assert event["reason"].endswith("; 1 of 1 over gRPC, by the same version")
    assert [seen.version for seen in server.seen] == [7, 7, 7]
    assert len({seen.client for seen in server.seen}) == 3


async def test_old_pods_over_grpc_are_waited_for(both):
    """A pod that does not have the version breaks the row; rounds count from where all answers are the new one's."""
    old = (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(digits-vit, 7)")
    trigger, server = both(("3", 0.95, 7), ("3", 0.95, 7), old, old, ("3", 0.95, 7))
    (event,) = await events_of(trigger)
    assert (event["outcome"], len(server.seen)) == ("pass", 7)


async def test_another_versions_answer_over_grpc_fails(both):
    """A server that answers for another version than it was asked proves nothing, however right it is."""
    (event,) = await events_of(both(("3", 0.95, 6))[0])
    assert (event["outcome"], event["reason"]) == ("fail", "over gRPC: version 7 was requested, version 6 answered")


@pytest.mark.parametrize(
    ("garbage", "outcome", "asked"),
    [((400, "no image"), "pass", 6), (predictions(), "fail", 2)],
    ids=["refused", "answered"],
)
async def test_garbage_is_asked_in_every_round(gate, http_server, garbage, outcome, asked):
    """Something that is no image has to be refused at the public address too."""
    server = http_server(*([predictions(), garbage] * 3))
    (event,) = await events_of(gate(server.url, garbage=True))
    assert (event["outcome"], len(server.seen)) == (outcome, asked)


async def test_wrong_answers_are_borne_up_to_the_budget(gate, http_server):
    """With a failure budget a wrong answer breaks the row, and one more than that is the end."""
    server = http_server(predictions(), predictions("8"), predictions("8"), predictions())
    (event,) = await events_of(gate(server.url, failures=1))
    assert (event["outcome"], len(server.seen)) == ("fail", 3)
    assert event["reason"].startswith("2 wrong answers, 1 allowed: ")
    (event,) = await events_of(gate(http_server(predictions("8"), predictions()).url, failures=1))
    assert event["outcome"] == "pass"


async def test_flapping_is_given_up_by_the_error_budget(gate, http_server):
    """A server that answers and does not in turn is given up before its time is."""
    server = http_server(*([predictions(), (503, "soon")] * 3), predictions())
    (event,) = await events_of(gate(server.url, errors=2))
    assert (event["outcome"], len(server.seen), event["unanswered"]) == ("fail", 6, True)
    assert event["reason"].startswith("3 rounds with missing answers after the first pass, 2 allowed: ")


async def test_times_are_measured_for_the_record(gate, http_server):
    """What the answers took is in the event, judged or not."""
    (event,) = await events_of(gate(http_server(predictions()).url))
    assert event["found"]["latency_ms"] < 5000
    assert event["found"]["quality"] is None


@pytest.fixture
def floor(store):
    """Makes the bounds for a labelled set of so many threes in the store."""

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
async def test_labelled_set_is_asked_once_the_rounds_have_passed(gate, floor, http_server, kind):
    """Each image is asked once, of exactly this version; an image without an answer is asked again."""
    wrong, bounds, outcome, words = QUALITY[kind]
    server = http_server(*[predictions()] * 3, (503, "soon"), *[predictions("8")] * wrong, predictions())
    live = Baseline(measured=Accuracy(digest="sha256:5", images=80, wrong=("3/079.png",)), source="its record")
    (event,) = await events_of(gate(server.url, quality=floor(80, **bounds), baseline=to_dict(live)))
    assert event["outcome"] == outcome
    assert words in event["reason"]
    assert len(server.seen) == 3 + 80 + 1
    assert len(event["found"]["quality"]["wrong"]) == wrong
    assert {seen.path for seen in server.seen} == {"/v1/models/digits-vit/versions/7:predict"}


SEEN = yaml.safe_load((Path(__file__).parents[2] / "kubernetes" / "stuck.yaml").read_text())["crash loop"]
DEPLOYMENT = {
    "metadata": {"name": "tfs-server", "uid": SEEN["replica_set"]["metadata"]["ownerReferences"][0]["uid"], "generation": 4},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "tfs-server"}}, "template": {}},
    "status": {"observedGeneration": 4, "replicas": 1, "updatedReplicas": 1},
}  # fmt: skip
REPLICA_SET = {**SEEN["replica_set"], "spec": {"selector": {}}}
ROLLING = "deployment/tfs-server in shop: 0 of 1 updated replicas are available"
CRASHING = f"{ROLLING}; pod/{SEEN['pod']['metadata']['name']}: CrashLoopBackOff: Error: exit code 2, 3 restarts"


def answers(*lists):
    """What an API server answers to one look: the Deployment, then these lists."""
    return [(200, json.dumps(DEPLOYMENT)), *((200, json.dumps({"items": [found]})) for found in lists)]


def rollout(release, *times_s):
    """A rollout's trigger that looks at these times."""
    own = {"release_id": "r", "uid": DEPLOYMENT["metadata"]["uid"], "generation": 4}
    trigger = RolloutTrigger(release=to_dict(release), deadline=FAR, poll_s=0.001, **own)
    trigger.clock = iter(times_s).__next__
    return trigger


async def test_stuck_rollout_fails_at_the_poll_that_makes_it_sure(release, connected, http_server):
    """A crash loop seen at 0, 4, 8 and 12 s is the end at 12 s, in the pod's own words, with three requests a look."""
    server = http_server(*answers(REPLICA_SET, SEEN["pod"]) * 4)
    connected(server)
    (event,) = await events_of(rollout(release, 0, 4, 8, 12))
    assert event == {"outcome": "fail", "reason": f"{CRASHING}, for 12 s", "found": True, "late": False}
    assert len(server.seen) == 12
    assert {seen.method for seen in server.seen} == {"GET"}


async def test_a_restarted_trigger_must_find_it_stuck_twice_again(release, connected, http_server):
    """What an earlier triggerer has seen does not count: the second one's first look only waits."""
    connected(http_server(*answers(REPLICA_SET, SEEN["pod"]) * 2))
    for time_s in (0, 40):
        verdict = await rollout(release, time_s).look(release)
        assert verdict == Verdict.wait(f"{CRASHING} (counts after 10 s)")


async def test_rollout_waits_in_its_own_words_if_pods_may_not_be_read(release, connected, http_server):
    """An account without the right to list ReplicaSets waits as before, and says what it could not see."""
    connected(http_server((200, json.dumps(DEPLOYMENT)), (403, "{}")))
    verdict = await rollout(release).look(release)
    assert verdict == Verdict.wait(f"{ROLLING}; its pods could not be read: ApiException: Forbidden")
