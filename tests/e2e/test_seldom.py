"""Rarer chapters of a model's story on the real stand: a changed gate, and runs that were killed. The tests run in order."""

import zlib

import pytest
import yaml
from test_story import BUILDS, Story, nudge, plan_of
from trial_project import remove_images

MODEL = "seldom"

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.slow]


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A model of its own; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(tmp_path_factory.mktemp(MODEL), MODEL, surroundings, stand=stand, kubectl=kubectl, engine=engine)
    yield place
    place.end()


def with_comment(png):
    """The same PNG image in other bytes: with a text chunk before the end."""
    body = b"tEXtComment\x00another file"
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:-12] + chunk + png[-12:]


def test_1_a_changed_gate_is_judged_again_without_a_build(story):
    """After a change of a limit or of a golden image, the live image stays and is judged again. The next run has nothing to do."""
    story.run()
    serving, engine, registry = story.live(), story.traces()["engine"], story.registry()
    file = yaml.safe_load(story.file.read_text())
    story.file.write_text(yaml.safe_dump({**file, "gate": {**file["gate"], "errors": 1000}}))
    log, [record] = story.run()
    assert plan_of(log) == ("gate", "the gate changed: errors from None to 1000")
    assert not [words for words in BUILDS if words in log]
    assert record["verdicts"]["gate"]["outcome"] == "pass"
    picture = story.file.parent / story.model / "golden" / "three.png"
    picture.write_bytes(with_comment(picture.read_bytes()))
    log, [record] = story.run()
    assert plan_of(log) == ("cases", "the golden cases changed")
    assert [words for words in BUILDS if words in log] == ["exporter:"]
    assert (record["outcome"], record["version"], record["release_id"]) == ("live", 1, serving["release"])
    assert (story.live(), story.traces()["engine"], story.registry()) == (serving, engine, registry)
    assert plan_of(story.run()[0])[0] == "nothing"


def test_2_the_next_run_proves_what_a_killed_run_applied(story):
    """A run that is killed after it wrote to the cluster leaves an open record; the next run proves the same release."""
    nudge(story.checkpoint / "model.safetensors", "classifier/bias:0")
    killed = story.kill_after_apply()
    assert (killed["outcome"], killed["version"]) == ("open", 2)
    log, [record] = story.run(break_lease=True)  # nothing reports that the killed run has ended
    assert plan_of(log)[0] == "everything"
    assert (record["outcome"], record["release_id"]) == ("live", killed["release_id"])
    assert record["lease"]["broke"].startswith(f"run {killed['run_id']} of refresh_seldom (installation ")
    assert story.kubectl("get", "leases", "-l", "slipway/model=seldom", "-o", "name") == ""
    assert story.live() == {"release": record["release_id"], "version": 2}


def test_3_a_failed_run_rolls_back_what_a_killed_run_applied(story):
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
