import json
from dataclasses import replace

import pytest

from slipway.facts import to_dict
from slipway.kubernetes.apply import Trial
from slipway.records.history import History, find_bad
from slipway.steps.plan import Observation, differences, plan_refresh
from slipway.verdict import Verdict

WELL = Verdict.passed("it answers")
CHANGED = Trial(
    name="deployment/tfs-server",
    before={"metadata": {"name": "tfs-server"}, "spec": {"paused": False}},
    after={"metadata": {"name": "tfs-server"}, "spec": {"paused": True}},
)


def seen(history, health=WELL, trials=(), bad=None):
    """What a run has observed."""
    return Observation(history=history, health=health, trials=trials, bad=bad)


@pytest.fixture
def history(record_of):
    """One release that was proven live."""
    return History((record_of("r0"),))


def test_nothing_if_nothing_changed_and_all_is_well(release, history):
    """The second run of one release has nothing to do, and says so."""
    plan = plan_refresh(release, seen(history))
    assert (plan.action, plan.reasons) == ("nothing", ("nothing changed, and the live release is healthy",))


def test_everything_if_forced(release, history):
    """Force does all of it again."""
    assert plan_refresh(replace(release, force=True), seen(history)).action == "everything"


def test_everything_if_nothing_was_ever_proven(release, record_of):
    """A first release, or one after only failures, is built."""
    for records in ((), (record_of("r0", "failed"),)):
        plan = plan_refresh(release, seen(History(records), Verdict.failed("there is none"), (CHANGED,)))
        assert (plan.action, plan.reasons) == ("everything", ("there is no release that was proven live",))


CHANGES = {
    "source": (lambda r: {"source": replace(r.source, revision="sha256:" + "9" * 64)}, "the source changed from "),
    "exporter": (lambda _: {"exporter": "sha256:" + "9" * 64}, "the exporter changed from "),
    "base image": (lambda _: {"base_digest": "sha256:" + "9" * 64}, "the base image changed from "),
    "golden cases": (lambda r: {"golden": (replace(r.golden[0], label="9"),)}, "the golden cases changed"),
    "export settings": (lambda r: {"export": replace(r.export, top_k=3)}, "the export settings changed"),
    "repository": (lambda _: {"repository": "elsewhere/digits-vit"}, "the image's repository changed from "),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_everything_if_what_the_image_is_made_of_changed(release, history, change, reason):
    """Source, exporter, base image, golden cases and repository each call for a new image, by name."""
    plan = plan_refresh(replace(release, **change(release)), seen(history))
    assert plan.action == "everything"
    assert len(plan.reasons) == 1
    assert plan.reasons[0].startswith(reason)


def test_everything_if_the_record_is_older_than_the_settings(release, history):
    """A record that knows no export settings is of another export, whatever they are now."""
    del history.good["release"]["export"]
    plan = plan_refresh(release, seen(history))
    assert (plan.action, plan.reasons) == ("everything", ("the export settings changed",))


def test_manifests_alone_if_only_they_differ(release, history, export, pushed):
    """A change of manifests keeps export and image, under an id of its own."""
    changed = replace(release, manifests_hash="sha256:" + "9" * 64)
    plan = plan_refresh(changed, seen(history, trials=(CHANGED,)))
    assert (plan.action, plan.reasons) == ("manifests", ("differs from what is live: deployment/tfs-server",))
    assert plan.export == export
    assert plan.pushed == replace(pushed, release_id=changed.release_id(pushed.digest))


def test_applied_again_if_the_live_release_is_not_well(release, history):
    """What was deleted, scaled away or answers wrong is applied again, without a build."""
    plan = plan_refresh(release, seen(history, Verdict.failed("deployment/tfs-server is gone")))
    assert plan.action == "manifests"
    assert plan.reasons == ("the live release is not healthy: deployment/tfs-server is gone",)


@pytest.mark.parametrize("outcome", ["open", "failed"])
def test_applied_again_if_an_earlier_run_did_not_end_well(release, record_of, outcome):
    """What a killed run left half-way is finished by the next, even where it looks well."""
    plan = plan_refresh(release, seen(History((record_of("r0"), record_of("r1", outcome, 1)))))
    assert (plan.action, plan.reasons) == ("manifests", ("an earlier run did not end well",))


ILL = Verdict.failed("deployment/tfs-server is gone")
GATE = {"task": "gate", "reason": "GateFailed: http://x: wrong label. Next: curl http://x"}


@pytest.fixture
def told(release, record_of):
    """Plans the runs of a schedule for releases named by letters, after a history like "A B! A" (B was found bad).

    An undo is a record of its own, as `rollback` writes it: "B!" is followed by what was live before.
    """
    sources = {letter: replace(release.source, revision=f"sha256:{letter * 64}") for letter in "ABC"}

    def plan(story, now, health=WELL):
        records, live = [], None
        for minutes, chapter in enumerate(story.split()):
            own = {"source": sources[chapter[0]], "release_id": chapter[0] * 12}
            if not chapter.endswith("!"):
                records.append(record_of(f"r{minutes}", "live", 2 * minutes, **own))
                live = own
                continue
            records.append({**record_of(f"r{minutes}", "failed", 2 * minutes, **own), "bad": GATE})
            if live:
                records.append(record_of(f"r{minutes}.undo", "live", 2 * minutes + 1, **live))
        asked = replace(release, source=sources[now], run_id="now")
        return plan_refresh(asked, seen(History(tuple(records)), health, bad=find_bad(records, asked)))

    return plan


STORIES = {
    "good then bad": ("A B!", "B", "nothing"),
    "bad, then back to the good one": ("A B!", "A", "nothing"),
    "bad, then another": ("A B!", "C", "everything"),
    "bad, another bad, then the first bad again": ("A B! C!", "B", "nothing"),
    "bad, another bad, then that one again": ("A B! C!", "C", "nothing"),
    "a first one that is bad": ("B!", "B", "nothing"),
    "a first one that is bad, then another": ("B!", "A", "everything"),
    "A B A": ("A B A", "A", "nothing"),
    "A B A B": ("A B A", "B", "everything"),
    "A bad A bad": ("A B! A", "B", "nothing"),
    "A B A C": ("A B A", "C", "everything"),
    "bad, and by hand good": ("A B! B", "B", "nothing"),
    "bad, by hand good, then A, then again": ("A B! B A", "B", "everything"),
    "good, later bad": ("A B A B!", "B", "nothing"),
}


@pytest.mark.parametrize(("story", "now", "action"), STORIES.values(), ids=STORIES)
def test_the_schedule_does_not_try_a_bad_release_again(told, story, now, action):
    """What was found bad stays bad until it changes or has been proven; everything else is planned as if it had not been."""
    assert told(story, now).action == action


def test_a_bad_release_says_who_found_it_bad_and_what_to_do(told):
    """The one line names run, time, task, reason and the way out."""
    [reason] = told("A B!", "B").reasons
    assert reason == (
        f"release {'B' * 12} was tried by run r1 at 2026-11-22T12:02:00+00:00 and is bad: gate: GateFailed: http://x: wrong label; "
        "the schedule does not try it again until it changes. Next: fix what the model file names, or trigger refresh_digits_vit by hand"
    )


def test_the_last_good_one_comes_back_if_it_is_not_well(told, export):
    """Where the bad one is not tried and the live one is gone, the live one is applied again as it was recorded."""
    plan = told("A B!", "B", ILL)
    assert (plan.action, plan.manifests_uri, plan.export) == ("restore", "file:///store/m.yaml", export)
    assert plan.release.source.revision == f"sha256:{'A' * 64}"
    assert plan.release.run_id == "now"
    assert plan.pushed.release_id == "A" * 12
    assert plan.reasons[1] == "the live release is not healthy: deployment/tfs-server is gone"


def test_nothing_comes_back_if_there_is_no_good_one(told):
    """A first release that was bad leaves nothing to bring back."""
    assert told("B!", "B", ILL).action == "nothing"


@pytest.mark.parametrize(("outcome", "undone"), [("failed", True), ("open", True), ("open", False)])
def test_what_a_killed_undo_left_is_finished(release, record_of, outcome, undone):
    """A run that died while it undid a bad release, or before: the schedule brings the good one back, and not the bad one."""
    bad = replace(release.source, revision=f"sha256:{'b' * 64}")
    records = [
        record_of("r0", "live", 0),
        {**record_of("r1", outcome, 1, source=bad), "bad": GATE},
        *([record_of("r1.undo", "open", 2)] if undone else []),
    ]
    asked = replace(release, source=bad)
    plan = plan_refresh(asked, seen(History(tuple(records)), bad=find_bad(records, asked)))
    assert (plan.action, plan.reasons[1]) == ("restore", "an earlier run did not end well")
    assert "was tried by run r1 at 2026-11-22T12:01:00+00:00 and is bad: gate: " in plan.reasons[0]
    assert plan.release.source == release.source


def deployment(**changes):
    """A Deployment as the API server gives it."""
    metadata = {"name": "tfs-server", "uid": "u", "resourceVersion": "5", "generation": 2, "managedFields": [{"time": "t"}],
                "annotations": {"deployment.kubernetes.io/revision": "4"}}  # fmt: skip
    state = {"kind": "Deployment", "metadata": metadata, "spec": {"paused": False}, "status": {"replicas": 1}}
    return json.loads(json.dumps({**state, **changes}))


def test_no_difference_if_only_bookkeeping_changed():
    """What the API server and controllers write by themselves is no difference."""
    after = deployment(status={"replicas": 9})
    after["metadata"].update(resourceVersion="6", generation=3, managedFields=[], uid="v")
    after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "5"
    assert differences(Trial(name="deployment/tfs-server", before=deployment(), after=after)) == []


def test_difference_is_shown_as_a_diff():
    """What an apply would change is a unified diff that names the object."""
    lines = differences(
        Trial(name="deployment/tfs-server", before=deployment(), after=deployment(spec={"paused": True}))
    )
    assert lines[:2] == ["--- live deployment/tfs-server", "+++ planned deployment/tfs-server"]
    assert "-  paused: false" in lines
    assert "+  paused: true" in lines


def test_new_and_pruned_objects_are_differences():
    """An object that an apply would create or delete is shown whole."""
    created = differences(Trial(name="service/x", before=None, after=deployment()))
    pruned = differences(Trial(name="service/x", before=deployment(), after=None))
    assert "+kind: Deployment" in created
    assert "-kind: Deployment" in pruned


def test_plan_is_small_enough_for_xcom(release, history):
    """A plan goes from task to task as a dict."""
    assert len(json.dumps(to_dict(plan_refresh(release, seen(history))))) < 4096
