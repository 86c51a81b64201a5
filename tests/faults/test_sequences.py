"""One release after another, good and bad: what serves afterwards, what the record says, and that nothing else is left."""

import pytest

pytestmark = pytest.mark.stand

BAD_FLAG = ["--rest_api_port=none"]


@pytest.fixture(scope="module")
def road(make_road):
    """A road on which A is live and proven."""
    road = make_road("faults-sequences")
    road.first = road.run().record()
    yield road
    road.end()


def test_good_then_bad(road, tell):
    """A release whose server crashes is given up, and A serves as before, asked again and recorded."""
    with road.container(args=BAD_FLAG):
        run = road.run(green=False)
    assert run.record()["outcome"] == "failed"
    assert "CrashLoopBackOff" in run.reason()
    assert road.serves() == {"release": road.first["release_id"], "version": 1}
    assert road.debris() == []
    tell("crash loop (good → bad)", "the release before it serves, gated again", run.detect_s(), run.good_s())
