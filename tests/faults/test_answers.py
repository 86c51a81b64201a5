"""Bad answers at the public address, made by a proxy that changes those of the real server."""

import json

import pytest
from closable_proxies import HttpProxy

GATE_S = 15  # for the bad release's gate only: the release before it keeps the time limit with which it was recorded

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


class Answers:
    """The proxy that is the model's public address; it can change the answers of one version, or of all."""

    def __init__(self):
        self.proxy = HttpProxy()
        self.count = 0

    def of(self, version, change):
        """Change the answers of a version (`change(number, status, prediction)`), or of every version with None."""
        self.count = 0

        def changed(path, status, body):
            is_our_cluster = ":predict" in path and (version is None or f"/versions/{version}:" in path)
            if not is_our_cluster or status != 200:  # a garbage request is refused, as it should be
                return status, body
            self.count += 1
            status, prediction = change(self.count, status, json.loads(body)["predictions"][0])
            return status, json.dumps({"predictions": [prediction]}).encode()

        self.proxy.change = changed

    def unchanged(self):
        """Pass all answers on as they are."""
        self.proxy.change = lambda _, *answer: answer


@pytest.fixture(scope="module")
def answers():
    """The proxy."""
    answers = Answers()
    yield answers
    answers.proxy.close()


@pytest.fixture(scope="module")
def harness(released, answers):
    """The harness behind the proxy. Its gate asks two rounds: six answers, so that one of four is among them."""
    answers.proxy.target = released.address
    with released.changed(target__address=f"http://{answers.proxy.address}", gate__passes=2):
        answers.first = released.run().record()
        released.content("b")
        yield released


def wrong_label(number, status, prediction):
    """Another digit, with the same confidence."""
    return status, {**prediction, "label": "0"}


def low_confidence(number, status, prediction):
    """The right digit, with low confidence."""
    return status, {**prediction, "confidence": 0.3}


def flapping(number, status, prediction):
    """Status 503 for one answer of four."""
    return (503, None) if number % 4 == 0 else (status, prediction)


def unknown_version(number, status, prediction):
    """The answer of a server that has only the old version."""
    return 404, None


FAULTS = {
    "wrong label": (wrong_label, "wrong label"),
    "low confidence": (low_confidence, "0.3"),
    "flapping answers": (flapping, ""),
    "answers from the old version only": (unknown_version, "404"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_with_bad_answers(harness, answers, write_row, fault):
    """The gate fails; the release before it serves again and has passed its gate."""
    change, words = FAULTS[fault]
    good = {"release": answers.first["release_id"], "version": 1}
    answers.of(2, change)
    with harness.changed(gate__timeout_s=GATE_S):
        run = harness.run(green=False)
    answers.unchanged()
    harness.assert_given_up(run, words=words, good=good)
    assert "gate" in run.record()["verdicts"]
    write_row(fault, "the release before it serves and has passed its gate again", run.detect_s(), run.good_s())


def test_the_release_before_it_is_bad_too(harness, answers, write_row):
    """If the rollback's gate fails, log and record report it, and the next run proves what serves."""
    answers.of(None, wrong_label)
    run = harness.run(green=False)
    answers.unchanged()
    rollback = run.record("rollback")
    assert (run.record()["outcome"], rollback["outcome"]) == ("failed", "failed")
    assert "RollbackFailed" in run.log
    assert harness.serves() == {"release": answers.first["release_id"], "version": 1}
    assert harness.debris() == []
    harness.content("a")
    again = harness.run()
    harness.assert_live(again, version=1)
    write_row("the rollback's target is bad too", "red and reported; the next run proves what serves", run.detect_s())
