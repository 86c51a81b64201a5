"""Requests that are batched."""

import concurrent.futures

import pytest

from tests.conformance.client import metric, predict
from tests.conformance.servers import wait_until

pytestmark = [pytest.mark.model, pytest.mark.slow]
source = pytest.mark.source


def at_once(server, *bodies):
    """Send predictions at the same time. Returns their answers in order."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: predict(server, body), bodies))


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:936-952")
def test_requests_that_arrive_together_run_once(batching):
    """The rows of two requests fill one batch: there is one run, and each request gets its own answer."""
    before = metric(batching, "batching_session:wrapped_run_count")
    answers = at_once(batching, {"instances": [1.0]}, {"instances": [2.0]})
    assert answers == [(200, {"predictions": [2.5]}), (200, {"predictions": [3.0]})]
    assert metric(batching, "batching_session:wrapped_run_count") == before + 1


@source("batching/batching_session.cc:729-744")
def test_one_error_fails_every_request_of_a_batch(batching):
    """A row that the graph refuses also fails the other request of the batch, which succeeds alone."""
    good, wrong = ({"signature_name": "no_negatives", "instances": [x]} for x in (1.0, -1.0))
    answers = at_once(batching, good, wrong)
    assert [status for status, _ in answers] == [400, 400]
    assert all("no negatives please" in body["error"] for _, body in answers)
    good["instances"] = [1.0, 1.0]
    assert predict(batching, good) == (200, {"predictions": [1.0, 1.0]})


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:1106-1112")
def test_request_larger_than_a_batch_is_invalid(batching):
    """Three rows do not fit into a batch of two."""
    status, body = predict(batching, {"instances": [1.0, 2.0, 3.0]})
    assert status == 400
    assert "Task size 3 is larger than maximum input batch size 2" in body["error"]


@source("batching/batching_session.cc:533-546")
def test_different_shapes_are_not_batched(batching):
    """Two requests of one batch are refused if their rows have different shapes."""
    answers = at_once(batching, {"instances": [[1.0]]}, {"instances": [[1.0, 2.0]]})
    assert [status for status, _ in answers] == [400, 400]
    assert all("from different tasks have different shapes" in body["error"] for _, body in answers)


@source("batching/batching_session.cc:629-637")
def test_output_of_another_size_is_refused(batching):
    """A batched output must have as many rows as the input."""
    status, body = predict(batching, {"signature_name": "scalar", "inputs": [1.0, 2.0]})
    assert (status, body) == (400, {"error": "Batched output tensor has 0 dimensions"})
    status, body = predict(batching, {"signature_name": "uneven", "inputs": [1.0, 2.0]})
    assert status == 400
    assert "0th dimension does not equal the sum of the 0th dimension sizes" in body["error"]


@source("tensorflow/core/kernels/batching_util/shared_batch_scheduler.h:1126-1147")
def test_full_queue_is_unavailable(batching, call, request_of):
    """While the one thread is busy, one request waits in the one batch. The next is refused with 503."""
    taken = metric(batching, "batching_session:queuing_latency_count")
    never = request_of("never", name="plain", x=[1.0, 1.0])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(call, batching, "Predict", never, 3)
        wait_until(lambda: metric(batching, "batching_session:queuing_latency_count") > taken, batching)
        answers = dict(at_once(batching, {"instances": [1.0, 2.0]}, {"instances": [1.0, 2.0]}))
        assert busy.result()[0] == "DEADLINE_EXCEEDED"
    assert answers.keys() == {200, 503}
    assert answers[200] == {"predictions": [2.5, 3.0]}
    assert "The batch scheduling queue to which this task was submitted is full" in answers[503]["error"]
