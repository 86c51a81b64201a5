"""Two installations refresh one target at once."""

import pytest

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


def test_two_runs_at_once(make_harness, write_row):
    """The second run learns who holds the target and retries by itself; one whole release serves in the end."""
    one, two = (make_harness("faults-two", target__strategy="preview") for _ in range(2))
    try:
        one.run()
        one.content("b")
        with one.in_background() as background:
            background.logs("task_id=preview")
            second = two.run(green=None)
            background.ends()
        assert "TargetBusy" in second.log
        records = [*one.records().values(), *two.records().values()]
        live = max((record for record in records if record["outcome"] == "live"), key=lambda record: record["opened"])
        assert two.serves() == {"release": live["release_id"], "version": live["version"]}
        assert (one.debris(), two.debris()) == ([], [])
    finally:
        one.end()
        two.warm.end()
    write_row("two runs at once, of two installations", "one after the other; one whole release serves")
