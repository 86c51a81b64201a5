"""A model under load: previews next to the live release, of which a heavier one is stopped, and a load test. The tests run in order."""

import json
from pathlib import Path

import pytest
from test_story import Story, nudge, plan_of
from trial_project import remove_images

from benchmarks.wider import widen

MODEL = "loaded"
LOAD = {"rate_per_s": 6, "max_slowdown": 1.0, "grpc_share": 0.5, "rounds": 10, "step_s": 5, "settle_s": 1}
FILES = {"load.json", "load.png", "report.html", "samples.csv"}

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.slow]


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A model whose previews are loaded; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(
        tmp_path_factory.mktemp(MODEL),
        MODEL,
        surroundings,
        stand=stand,
        kubectl=kubectl,
        engine=engine,
        target__strategy="preview",
        gate__load=LOAD,
        gate__on_inconclusive="fail",
        load_test={"rates_per_s": [2, 4.2], "closed_users": [2], "step_s": 5, "settle_s": 1},
    )
    yield place
    place.end()


def rounds_of(record, at):
    """What the record has of the rounds of one server."""
    return [one for one in record["verdicts"]["preview_load"]["measured"]["load"]["rounds"] if one["at"] == at]


def newest_file(story, release_id):
    """The figures that were kept last with a release."""
    kept = story.store.glob(f"loads/{MODEL}/{release_id}/*/load.json")
    return max(kept, key=lambda file: file.stat().st_mtime)


def test_1_a_first_release_bears_its_load(story):
    """It is loaded alone, as there is nothing to compare it with; figures and picture are kept with it. Live, it is tested."""
    _, [record] = story.run()
    found = record["verdicts"]["preview_load"]
    assert (record["outcome"], found["outcome"]) == ("live", "pass")
    assert "requests at 6/s, each answered correctly" in found["reason"]
    assert "there is no live release to compare with" in found["reason"]
    assert len(rounds_of(record, "release")) == LOAD["rounds"]
    assert rounds_of(record, "beside") == []
    [folder] = story.store.glob(f"loads/{MODEL}/{record['release_id']}/*")
    assert {file.name for file in folder.iterdir()} >= FILES
    assert plan_of(story.run()[0])[0] == "nothing"
    story.run(f"load_test_{MODEL}")
    assert json.loads(newest_file(story, record["release_id"]).read_text())["before"] is None


def test_2_a_release_that_is_as_fast_goes_live(story):
    """Both releases are measured in turns, over REST and gRPC, and every answer of both was right."""
    nudge(story.checkpoint / "model.safetensors", "classifier/bias:0")
    _, [record] = story.run()
    found = record["verdicts"]["preview_load"]
    assert (record["outcome"], found["outcome"]) == ("live", "pass")
    assert "times the live release's, at most 2 times allowed" in found["reason"]
    for at in ("release", "beside"):
        assert [one["errors"] for one in rounds_of(record, at)] == [{}] * LOAD["rounds"]
        assert all(one["p95_ms"] > 0 for one in rounds_of(record, at))
    figures = json.loads(Path(found["measured"]["load"]["uri"].removeprefix("file://")).read_text())
    assert all(set(step["by_protocol"]) == {"grpc", "rest"} for step in figures["steps"])


def test_3_the_live_release_is_tested_under_load(story):
    """Over REST and gRPC, at each rate and in a closed loop; figures and picture are kept with the release.

    In the picture is the test of the release before, not what its gate measured.
    """
    serving, before = story.live(), story.traces()
    log, records = story.run(f"load_test_{MODEL}")
    assert "load: the objective (no error) holds up to 4.2/s, with p95 " in log
    newest = newest_file(story, serving["release"])
    figures = json.loads(newest.read_text())
    assert [step["name"] for step in figures["steps"]] == ["2/s", "4.2/s", "2 users"]
    assert figures["version"] == serving["version"]
    first = min(story.records().values(), key=lambda record: record["opened"])
    assert (figures["before"]["version"], first["version"] != serving["version"]) == (first["version"], True)
    assert all(set(step["by_protocol"]) == {"grpc", "rest"} for step in figures["steps"])
    assert {file.name for file in newest.parent.iterdir()} >= FILES
    after = story.traces()
    assert records == []
    assert {part: after[part] for part in ("cluster", "engine", "registry")} == {
        part: before[part] for part in ("cluster", "engine", "registry")
    }


def test_4_another_address_is_tested(story):
    """The form's, over gRPC alone; here it is the live release's, whose own test is in the same picture. The figures are marked."""
    serving = story.live()
    service = json.loads(story.kubectl("get", f"service/{story.deployment}", "-o", "json"))
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    story.run(f"load_test_{MODEL}", grpc=f"{address}:8500", rates_per_s=[3])
    figures = json.loads(newest_file(story, serving["release"]).read_text())
    assert (figures["elsewhere"], figures["address"]) == (True, f"{address}:8500")
    assert figures["version"] == figures["before"]["version"] == serving["version"]
    assert [step["name"] for step in figures["steps"]] == ["3/s", "2 users"]
    assert all(set(step["by_protocol"]) == {"grpc"} for step in figures["steps"])


def test_5_a_heavier_model_is_stopped(story):
    """It gives the same answers, several times as slowly. Nothing live changes, and the release counts as bad."""
    serving = story.live()
    widen(story.checkpoint, 196608)
    log, [record] = story.run(green=False)
    found = record["verdicts"]["preview_load"]
    assert record["verdicts"]["preview_gate"]["outcome"] == "pass"
    assert found["outcome"] == "fail", found
    assert "times the live release's, at most 2 times allowed (95 % interval " in found["reason"]
    assert "Next: look at file://" in log
    assert (record["outcome"], record["bad"]["task"]) == ("failed", "preview_load")
    assert (record["tasks"]["apply"], record["objects"]) == ("upstream_failed", [])
    assert story.live() == serving
    figures = json.loads(Path(found["measured"]["load"]["uri"].removeprefix("file://")).read_text())
    assert figures["beside"]["version"] == serving["version"]
