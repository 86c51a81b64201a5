"""Steady requests at the public address while a good refresh, a bad one and a rollback go on: no answer is lost, none is wrong."""

import pytest

BAD_FLAG = {"args": ["--rest_api_port=none"]}
DRAIN = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
SHORT = ("new connections", "kept 8 s")

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alone]


@pytest.fixture(scope="module")
def road(make_road):
    """A road on which A is live, with the drain of the base's manifests: 10 s."""
    road = make_road("faults-load", target__strategy="preview")

    def drain(deployment):
        spec = deployment["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 20
        spec["containers"][0]["lifecycle"] = DRAIN

    with road.overlay(drain):
        road.run()
        yield road
    road.end()


def test_no_request_is_lost(road, under_load, tell):
    """New connections, and those that are kept for less than the drain, lose nothing; what others lose is in the table."""
    first = road.serves()
    road.content("b")
    with under_load(road) as seen:
        good = road.run()
    check(road, tell, "good refresh", seen)
    second = road.has_brought(good, version=2)
    with under_load(road) as seen, road.container(**BAD_FLAG):
        bad = road.run(green=False)
    check(road, tell, "bad refresh (crash loop in the preview)", seen)
    road.has_given_up(bad, words="CrashLoopBackOff", good=second)
    with under_load(road) as seen, road.changed(target__strategy="rolling"), road.container(**BAD_FLAG):
        bad = road.run(green=False)
    check(road, tell, "bad rolling update (crash loop)", seen)
    road.has_given_up(bad, words="CrashLoopBackOff", good=second)
    with under_load(road) as seen:
        road.run("rollback_faults_load", release=first["release"])
    check(road, tell, "rollback", seen)
    assert road.serves() == first
    assert road.debris() == []


def check(road, tell, what, seen):
    """Hold what the client saw to the promise, and tell it."""
    for way, found in seen.items():
        words = f"{len(found['failed'])} of {found['requests']} failed, {len(found['wrong'])} wrong"
        shown = ", ".join(f"{part} {found[f'{part}_ms']:.0f} ms" for part in ("p50", "p90", "p99", "most"))
        print(what, way, words, found["failed"][:3], found["wrong"][:3])
        tell(f"steady load during a {what}: {way}", f"{words}; {shown}", lost=len(found["failed"]))
    for way in SHORT:
        assert seen[way]["requests"] > 50
        assert (seen[way]["failed"], seen[way]["wrong"]) == ([], [])
