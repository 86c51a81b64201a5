"""Steady requests to the public address during a good refresh, bad ones and a rollback: none is lost, no answer is wrong."""

import pytest

BAD_FLAG = {"args": ["--rest_api_port=none"]}
DRAIN = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
SHORT = ("new connections", "kept 8 s")

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


@pytest.fixture(scope="module")
def harness(make_harness):
    """A harness with content a live, with the drain of the base's manifests: 10 s."""
    harness = make_harness("faults-load", target__strategy="preview")

    def drain(deployment):
        spec = deployment["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 20
        spec["containers"][0]["lifecycle"] = DRAIN

    with harness.overlay(drain):
        harness.run()
        yield harness
    harness.end()


def test_no_request_is_lost(harness, under_load, write_row):
    """New connections, and those kept for less than the drain, lose nothing; what the others lose is in the table."""
    first = harness.serves()
    harness.content("b")
    with under_load(harness) as seen:
        good = harness.run()
    check(harness, write_row, "good refresh", seen)
    second = harness.assert_live(good, version=2)
    with under_load(harness) as seen, harness.container(**BAD_FLAG):
        bad = harness.run(green=False)
    check(harness, write_row, "bad refresh (crash loop in the preview)", seen)
    harness.assert_given_up(bad, words="CrashLoopBackOff", good=second)
    with under_load(harness) as seen, harness.changed(target__strategy="rolling"), harness.container(**BAD_FLAG):
        bad = harness.run(green=False)
    check(harness, write_row, "bad rolling update (crash loop)", seen)
    harness.assert_given_up(bad, words="CrashLoopBackOff", good=second)
    with under_load(harness) as seen:
        harness.run("rollback_faults_load", release=first["release"])
    check(harness, write_row, "rollback", seen)
    assert harness.serves() == first
    assert harness.debris() == []


def check(harness, write_row, what, seen):
    """Write what the client saw into the table; the short-lived connections lost nothing."""
    for way, found in seen.items():
        words = f"{len(found['failed'])} of {found['requests']} failed, {len(found['wrong'])} wrong"
        shown = ", ".join(f"{part} {found[f'{part}_ms']:.0f} ms" for part in ("p50", "p90", "p99", "most"))
        print(what, way, words, found["failed"][:3], found["wrong"][:3])
        write_row(f"steady load during a {what}: {way}", f"{words}; {shown}", lost=len(found["failed"]))
    for way in SHORT:
        assert seen[way]["requests"] > 50
        assert (seen[way]["failed"], seen[way]["wrong"]) == ([], [])
