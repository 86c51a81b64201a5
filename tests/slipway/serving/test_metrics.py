import pytest

from slipway.serving.metrics import UNCOUNTED, Counts, PodLook, read_page

PAGE = """\
# TYPE :tensorflow:serving:request_count counter
:tensorflow:serving:request_count{model_name="digits-vit",status="OK"} 112
:tensorflow:serving:request_count{model_name="digits-vit",status="INVALID_ARGUMENT"} 4
:tensorflow:serving:request_count{model_name="digits-vit",status="NOT_FOUND"} 1
:tensorflow:serving:request_count{model_name="digits-vit",status="UNAVAILABLE"} 2
:tensorflow:serving:request_count{model_name="digits-vit",status="DEADLINE_EXCEEDED"} 1
:tensorflow:serving:request_count{model_name="no\\"body",status="NOT_FOUND"} 900
# TYPE :tensorflow:serving:request_latency histogram
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="predict",entrypoint="REST",le="20823"} 3
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="predict",entrypoint="REST",le="1.27482e+06"} 9
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="predict",entrypoint="REST",le="+Inf"} 10
:tensorflow:serving:request_latency_sum{model_name="digits-vit",API="predict",entrypoint="REST"} 8.2e+06
:tensorflow:serving:request_latency_count{model_name="digits-vit",API="predict",entrypoint="REST"} 10
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="Predict",entrypoint="GRPC",le="20823"} 2
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="Predict",entrypoint="GRPC",le="1.27482e+06"} 2
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="Predict",entrypoint="GRPC",le="+Inf"} 2
:tensorflow:serving:request_latency_sum{model_name="digits-vit",API="Predict",entrypoint="GRPC"} 20000
:tensorflow:serving:request_latency_count{model_name="digits-vit",API="Predict",entrypoint="GRPC"} 2
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="",entrypoint="REST",le="20823"} 100
:tensorflow:serving:request_latency_bucket{model_name="digits-vit",API="",entrypoint="REST",le="+Inf"} 100
:tensorflow:serving:request_latency_sum{model_name="digits-vit",API="",entrypoint="REST"} 3000
:tensorflow:serving:request_latency_count{model_name="digits-vit",API="",entrypoint="REST"} 100
# TYPE :tensorflow:serving:batching_session:wrapped_run_count counter
:tensorflow:serving:batching_session:wrapped_run_count{} 7
"""
INF = float("inf")


def test_predictions_of_the_model_are_read_over_both_protocols():
    """Times are in milliseconds. Other models, and the probes' 100 status requests, are not among the predictions."""
    assert read_page(PAGE, "digits-vit") == Counts(
        statuses={"INVALID_ARGUMENT": 4, "NOT_FOUND": 1, "UNAVAILABLE": 2, "DEADLINE_EXCEEDED": 1},
        answered=12,
        total_ms=8220.0,
        within={20.823: 5, 1274.82: 11, INF: 12},
    )


def test_bad_requests_are_refused_and_others_are_errors():
    """A request for a version that is gone, or without an image, is its sender's fault."""
    counts = read_page(PAGE, "digits-vit")
    assert (counts.errors, counts.refused) == (3, 5)


@pytest.mark.parametrize("page", ["<html><body>login</body></html>", "404 page not found", "a b c", "{}"])
def test_another_page_is_refused(page):
    """A proxy's login page is no page of metrics."""
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's message may change
        read_page(page, "digits-vit")


def test_a_server_without_a_request_has_counted_nothing():
    """TF Serving has no line for what it has not counted yet."""
    assert read_page("# TYPE :tensorflow:serving:request_count counter\n", "digits-vit") == Counts()
    assert Counts().mean_ms is None
    assert Counts().p95_within_ms is None


HUNDRED = Counts(answered=100, total_ms=1200.0, within={10.0: 50, 20.0: 95, 40.0: 99, INF: 100})


def test_percentile_is_the_end_of_its_bucket():
    """95 of 100 answers took at most 20 ms; a percentile beyond the last bucket has no end."""
    assert (HUNDRED.mean_ms, HUNDRED.p95_within_ms) == (12.0, 20.0)
    assert Counts(answered=10, within={10.0: 9, INF: 10}).p95_within_ms is None


@pytest.mark.parametrize(("limit_ms", "found"), [(10, (50, 10.0)), (11, (5, 20.0)), (41, (0, INF))], ids=str)
def test_only_answers_in_later_buckets_are_certainly_slower(limit_ms, found):
    """Of the bucket that the limit is in, nobody knows which answers were slower."""
    assert HUNDRED.slower_than(limit_ms) == found


def counted(answered, *, errors=0):
    """Counts with so many predictions of 10 ms."""
    within = {20.0: answered, INF: answered}
    return Counts(statuses={"INTERNAL": errors}, answered=answered, total_ms=10.0 * answered, within=within)


def pod(uid, restarts, counts):
    """A look at a pod."""
    return PodLook(uid=uid, restarts=restarts, counts=counts)


def tallied(*looks):
    """The tally of these looks."""
    tally = UNCOUNTED
    for look in looks:
        tally = tally.add(look)
    return tally


LOOKS = {
    "one pod": ([[pod("a", 0, counted(50))], [pod("a", 0, counted(53, errors=1))]], (3, 1, 0)),
    "a pod that was there before it was ready": ([[pod("a", 0, None)], [pod("a", 0, counted(4))]], (4, 0, 0)),
    "a new pod": ([[pod("a", 0, counted(50))], [pod("a", 0, counted(51)), pod("b", 0, counted(9))]], (10, 0, 0)),
    "a new pod whose server has started again": ([[pod("a", 0, counted(1))], [pod("b", 2, counted(9))]], (9, 0, 2)),
    "a server that started again": ([[pod("a", 1, counted(50))], [pod("a", 2, counted(60))]], (60, 0, 1)),
    "a server that starts again": (
        [[pod("a", 0, counted(50))], [pod("a", 1, None)], [pod("a", 1, counted(7))]],
        (7, 0, 1),
    ),
    "a pod that is not ready for a moment": (
        [[pod("a", 0, counted(50))], [pod("a", 0, None)], [pod("a", 0, counted(52))]],
        (2, 0, 0),
    ),
    "a pod that is gone": ([[pod("a", 0, counted(1)), pod("b", 0, counted(1))], [pod("a", 0, counted(3))]], (2, 0, 0)),
}


@pytest.mark.parametrize(("looks", "found"), LOOKS.values(), ids=LOOKS)
def test_what_was_counted_between_looks(looks, found):
    """A pod that is new, or whose server started again, counts from zero: predictions, errors, restarts."""
    tally = tallied(*looks)
    assert (tally.total.answered, tally.total.errors, tally.restarts) == found
    assert tally.looks == len(looks)
    assert tally.total.within[20.0] == found[0]


def test_the_first_look_counts_nothing():
    """What the gate sent, garbage among it, is in no figure of the bake."""
    tally = tallied([pod("a", 3, counted(50, errors=9))])
    assert (tally.total.answered, tally.total.errors, tally.restarts) == (0, 0, 0)
