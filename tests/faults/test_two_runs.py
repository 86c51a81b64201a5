"""Two installations that want one target at once: they take turns, and what serves in the end is one whole release."""

import pytest

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


def test_two_runs_at_once(make_road, tell):
    """The second run is told who holds the target, tries again by itself, and neither undoes or mixes what the other brings."""
    one, two = (make_road("faults-two", target__strategy="preview") for _ in range(2))
    try:
        one.run()
        one.content("b")
        with one.beside() as beside:
            beside.says("task_id=preview")
            second = two.run(green=None)
            beside.ends()
        assert "TargetBusy" in second.log
        records = [*one.records().values(), *two.records().values()]
        live = max((record for record in records if record["outcome"] == "live"), key=lambda record: record["opened"])
        assert two.serves() == {"release": live["release_id"], "version": live["version"]}
        assert (one.debris(), two.debris()) == ([], [])
    finally:
        one.end()
        two.warm.end()
    tell("two runs at once, of two installations", "they take turns; one whole release serves")
