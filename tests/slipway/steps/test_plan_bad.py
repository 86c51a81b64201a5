"""What is planned if the release to deploy is known to be bad."""

from dataclasses import replace

import pytest
from observations import HEALTHY, observed

from slipway.kubernetes.apply import Trial
from slipway.model.target_settings import GkeSettings
from slipway.records.history import History, find_bad_record
from slipway.steps.plan import plan_refresh
from slipway.verdict import Verdict

UNHEALTHY = Verdict.failed("deployment/tfs-server is gone")
GATE = {"task": "gate", "reason": "GateFailed: http://x: wrong label. Next: curl http://x"}


@pytest.fixture
def plan_after(release, record_of):
    """Makes the plan of a scheduled run, after runs of releases with one-letter names: "A B! A" (B was found bad).

    A rollback has a record of its own: "B!" is followed by the release that was live before.
    """
    sources = {letter: replace(release.source, revision=f"sha256:{letter * 64}") for letter in "ABC"}

    def plan(runs, now, health=HEALTHY):
        records, live = [], None
        for minutes, letter in enumerate(runs.split()):
            own = {"source": sources[letter[0]], "release_id": letter[0] * 12}
            if not letter.endswith("!"):
                records.append(record_of(f"r{minutes}", "live", 2 * minutes, **own))
                live = own
                continue
            records.append({**record_of(f"r{minutes}", "failed", 2 * minutes, **own), "bad": GATE})
            if live:
                records.append(record_of(f"r{minutes}.undo", "live", 2 * minutes + 1, **live))
        asked = replace(release, source=sources[now], run_id="now")
        return plan_refresh(asked, observed(History(tuple(records)), health, bad=find_bad_record(records, asked)))

    return plan


HISTORIES = {
    "good then bad": ("A B!", "B", "nothing"),
    "bad, then the good one again": ("A B!", "A", "nothing"),
    "bad, then another": ("A B!", "C", "everything"),
    "two bad ones, then the first again": ("A B! C!", "B", "nothing"),
    "two bad ones, then the second again": ("A B! C!", "C", "nothing"),
    "a bad first one": ("B!", "B", "nothing"),
    "a bad first one, then another": ("B!", "A", "everything"),
    "A again": ("A B A", "A", "nothing"),
    "B again": ("A B A", "B", "everything"),
    "bad again after A": ("A B! A", "B", "nothing"),
    "C is new": ("A B A", "C", "everything"),
    "bad, then good by hand": ("A B! B", "B", "nothing"),
    "bad, good by hand, A, then again": ("A B! B A", "B", "everything"),
    "good, then bad": ("A B A B!", "B", "nothing"),
}


@pytest.mark.parametrize(("runs", "now", "action"), HISTORIES.values(), ids=HISTORIES)
def test_schedule_does_not_try_a_bad_release_again(plan_after, runs, now, action):
    """A bad release stays bad until it changes or is proven; it does not affect the plan of another release."""
    assert plan_after(runs, now).action == action


def test_reason_names_the_run_that_found_the_release_bad(plan_after):
    """The line names run, time, task, reason and what to do next."""
    [reason] = plan_after("A B!", "B").reasons
    assert reason == (
        f"release {'B' * 12} was tried by run r1 at 2026-11-22T12:02:00+00:00 and is bad: gate: GateFailed: http://x: wrong label; "
        "the schedule does not try it again until it changes. Next: fix what the model file names, or trigger refresh_digits_vit by hand"
    )


def test_last_good_release_is_restored_if_it_is_not_healthy(plan_after, export):
    """If the new release is bad and the live one is gone, the live one is applied again as recorded."""
    plan = plan_after("A B!", "B", UNHEALTHY)
    assert (plan.action, plan.manifests_uri, plan.export) == ("restore", "file:///store/m.yaml", export)
    assert plan.release.source.revision == f"sha256:{'A' * 64}"
    assert plan.release.run_id == "now"
    assert plan.pushed.release_id == "A" * 12
    assert plan.reasons[1] == "the live release is not healthy: deployment/tfs-server is gone"


def test_nothing_is_restored_if_there_is_no_good_release(plan_after):
    """After a bad first release there is nothing to restore."""
    assert plan_after("B!", "B", UNHEALTHY).action == "nothing"


GONE, LIVES = (
    Trial(name="deployment/tfs-server", before=before, after={"metadata": {}}) for before in (None, {"metadata": {}})
)
UNSERVED = {  # the runs before; the outcome of a teardown after them; what the API server has; whether the run says that nothing serves
    "a bad first release was removed": ("", None, GONE, True),
    "a bad first release was kept": ("B!", None, LIVES, True),
    "the model was torn down": ("A", "gone", GONE, True),
    "another store's release serves": ("", None, LIVES, False),
    "a good release serves": ("A", None, LIVES, False),
}


@pytest.mark.parametrize(("runs", "torn_down", "trial", "unserved"), UNSERVED.values(), ids=UNSERVED)
def test_plan_says_so_if_nothing_serves(record_of, release, runs, torn_down, trial, unserved):  # noqa: PLR0917
    """A scheduled run does not retry a bad release. It is red if no proven release serves."""
    source = replace(release.source, revision=f"sha256:{'b' * 64}")
    records = [record_of("r0", "live")] if "A" in runs else []
    bad = {**record_of("r1", "failed", 1, source=source), "bad": GATE}
    if "B!" in runs:
        records.append(bad)
    if torn_down:
        records.append({**record_of("r2", "failed", 2, objects=()), "outcome": torn_down, "cause": "teardown"})
    asked = replace(release, source=source)
    plan = plan_refresh(asked, observed(History(tuple(records)), trials=(trial,), bad=bad))
    assert plan.action == "nothing"
    assert (plan.unserved is not None) is unserved
    if unserved:
        assert plan.unserved.startswith(
            "deployment/tfs-server in shop: no release that was proven live serves there, and release abcdefabcdef was tried by run r1 "
        )
        assert plan.unserved.count("Next: ") == 1


def test_temporary_cluster_serves_nothing_by_design(record_of, release):
    """A bad release on a temporary cluster is not retried, and the run stays green."""
    asked = replace(release, cluster=GkeSettings(temporary=True).spec)
    bad = {**record_of("r1", "failed", 1), "bad": GATE}
    plan = plan_refresh(asked, observed(History(()), bad=bad))
    assert (plan.action, plan.unserved) == ("nothing", None)


@pytest.mark.parametrize(("outcome", "rolled_back"), [("failed", True), ("open", True), ("open", False)])
def test_last_good_release_is_restored_if_the_rollback_was_killed(release, record_of, outcome, rolled_back):
    """A run may die during its rollback or before it: the schedule restores the good release and does not try the bad one."""
    bad = replace(release.source, revision=f"sha256:{'b' * 64}")
    records = [
        record_of("r0", "live", 0),
        {**record_of("r1", outcome, 1, source=bad), "bad": GATE},
        *([record_of("r1.undo", "open", 2)] if rolled_back else []),
    ]
    asked = replace(release, source=bad)
    plan = plan_refresh(asked, observed(History(tuple(records)), bad=find_bad_record(records, asked)))
    assert (plan.action, plan.reasons[1]) == ("restore", "an earlier run did not end well")
    assert "was tried by run r1 at 2026-11-22T12:01:00+00:00 and is bad: gate: " in plan.reasons[0]
    assert plan.release.source == release.source


def test_bad_release_is_retried_once_its_image_is_fixed(release, record_of):
    """A golden image is part of the release: a wrong one does not block the right one."""
    wrong, right = (replace(release, golden=(replace(release.golden[0], sha256=letter * 64),)) for letter in "ab")
    records = [record_of("r0"), {**record_of("r1", "failed", 1, golden=wrong.golden), "bad": GATE}]
    assert find_bad_record(records, wrong)["run_id"] == "r1"
    assert find_bad_record(records, right) is None
