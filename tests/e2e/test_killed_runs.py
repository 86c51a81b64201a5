"""What follows a run that was killed after it had written to the cluster, on the real stand. The tests run in order."""

import pytest
from test_story import Story, nudge, plan_of
from trial_project import remove_images

MODEL = "killed"

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.slow]


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A model of its own; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(tmp_path_factory.mktemp(MODEL), MODEL, surroundings, stand=stand, kubectl=kubectl, engine=engine)
    yield place
    place.end()


def test_1_the_next_run_proves_what_a_killed_run_applied(story):
    """A run that is killed after it wrote to the cluster leaves an open record; the next run proves the same release."""
    story.run()
    nudge(story.checkpoint / "model.safetensors", "classifier/bias:0")
    killed = story.kill_after_apply()
    assert (killed["outcome"], killed["version"]) == ("open", 2)
    log, [record] = story.run(break_lease=True)  # nothing reports that the killed run has ended
    assert plan_of(log)[0] == "everything"
    assert (record["outcome"], record["release_id"]) == ("live", killed["release_id"])
    assert record["lease"]["broke"].startswith(f"run {killed['run_id']} of refresh_killed (installation ")
    assert story.kubectl("get", "leases", "-l", "slipway/model=killed", "-o", "name") == ""
    assert story.live() == {"release": record["release_id"], "version": 2}


def test_2_a_failed_run_rolls_back_what_a_killed_run_applied(story):
    """If the next run fails before its own apply, it rolls back what the killed run applied; the good release passes its gate again."""
    serving = story.live()
    with story.broken_target_port():
        killed = story.kill_after_apply()
    with story.swapped_labels():
        log, records = story.run(green=False, break_lease=True)
    assert "PromiseBroken" in log
    assert f"rollback: restore: release {killed['release_id']} of run {killed['run_id']} was not proven live" in log
    assert [record["outcome"] for record in records if record["cause"] == "rollback"] == ["live"]
    assert story.live() == serving
