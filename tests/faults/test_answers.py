"""Answers that are not as promised at the public address, by a door in front of the real one that changes them."""

import json

import pytest
from doors import HttpDoor

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


class Answers:
    """The door that is the model's public address, and what it makes of the answers of one version."""

    def __init__(self):
        self.door = HttpDoor()
        self.count = 0

    def of(self, version, change):
        """Change the answers of a version (`change(number, status, prediction)`), or of all with None."""
        self.count = 0

        def changed(path, status, body):
            asked = ":predict" in path and (version is None or f"/versions/{version}:" in path)
            if not asked or status != 200:  # a garbage question is refused as it should be
                return status, body
            self.count += 1
            status, prediction = change(self.count, status, json.loads(body)["predictions"][0])
            return status, json.dumps({"predictions": [prediction]}).encode()

        self.door.change = changed

    def unchanged(self):
        """As they come."""
        self.door.change = lambda _, *answer: answer


@pytest.fixture(scope="module")
def answers():
    """The door."""
    answers = Answers()
    yield answers
    answers.door.close()


@pytest.fixture(scope="module")
def road(make_road, answers):
    """A road on which A is live behind the door."""
    road = make_road("faults-answers", target__address=f"http://{answers.door.address}")
    answers.door.behind = road.address
    answers.first = road.run().record()
    road.content("b")
    yield road
    road.end()


def wrong_label(number, status, prediction):
    """Another digit, and sure of it."""
    return status, {**prediction, "label": "0"}


def unsure(number, status, prediction):
    """The right digit, and not sure."""
    return status, {**prediction, "confidence": 0.3}


def flapping(number, status, prediction):
    """Every fourth answer is a refusal."""
    return (503, None) if number % 4 == 0 else (status, prediction)


def unknown(number, status, prediction):
    """As a server that has only the old version answers."""
    return 404, None


FAULTS = {
    "wrong label": (wrong_label, "wrong label"),
    "low confidence": (unsure, "0.3"),
    "flapping answers": (flapping, ""),
    "answers from the old version only": (unknown, "404"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_answers_badly(road, answers, tell, fault):
    """The gate does not pass, and the release before it serves again, gated."""
    change, words = FAULTS[fault]
    good = {"release": answers.first["release_id"], "version": 1}
    answers.of(2, change)
    run = road.run(green=False)
    answers.unchanged()
    road.has_given_up(run, words=words, good=good)
    assert "gate" in run.record()["verdicts"]
    tell(fault, "the release before it serves, gated again", run.detect_s(), run.good_s())


def test_the_release_before_it_is_bad_too(road, answers, tell):
    """Where the rollback's own gate does not pass, the run says so, the record too, and the next run proves what serves."""
    answers.of(None, wrong_label)
    run = road.run(green=False)
    answers.unchanged()
    undone = run.record("rollback")
    assert (run.record()["outcome"], undone["outcome"]) == ("failed", "failed")
    assert "RollbackFailed" in run.log
    assert road.serves() == {"release": answers.first["release_id"], "version": 1}
    assert road.debris() == []
    road.content("a")
    again = road.run()
    road.has_brought(again, version=1)
    tell("the rollback's target is bad too", "red and said so; the next run proves what serves", run.detect_s())
