"""The model file's `sweep`, and the plan that follows from it."""

import pytest
from pydantic import ValidationError

from slipway.model.served import check_unshared, parse_model_file
from slipway.model.sweep_settings import SweepSettings, sweep_plan
from slipway.variants import Variant

FILE = {
    "source": {"folder": "checkpoint"},
    "gate": {"golden": [{"name": "three", "image": "three.png", "label": "3"}]},
    "target": {"overlay": "local", "namespace": "shop"},
}


def asked(**changes):
    """The settings of a small sweep."""
    return SweepSettings(**{"overlays": ["seed"], "rate_per_s": 4, **changes})


def test_own_overlay_then_named_ones_then_the_grid():
    """Each once: a named overlay may be the own one, and a grid may contain it."""
    plan = sweep_plan(asked(overlays=["local", "seed"], grid={"inter_op": [1, 2], "max_batch_size": [0, 8]}), "local")
    assert plan.variants == (
        Variant(overlay="local"),
        Variant(overlay="seed"),
        Variant(overlay="local", inter_op=1, max_batch_size=0),
        Variant(overlay="local", inter_op=1, max_batch_size=8),
        Variant(overlay="local", inter_op=2, max_batch_size=0),
        Variant(overlay="local", inter_op=2, max_batch_size=8),
    )


def test_every_second_pass_goes_backwards():
    """What gets slower over time makes no variant look worse than another."""
    plan = sweep_plan(asked(passes=3), None)
    assert [one.name for one in plan.turns] == ["base", "seed", "seed", "base", "base", "seed"]
    assert plan.turn_s == 120  # three rounds of 20 s at the rate, and as many in the closed loop


def test_names_say_what_is_different():
    """Each variant has a name of its own."""
    full = Variant(overlay="local", replicas=2, inter_op=1, intra_op=4, max_batch_size=8)
    assert full.name == "local, 2 pods, 1 inter-op, 4 intra-op, batches of 8"
    assert Variant(overlay=None, replicas=1, max_batch_size=0).name == "base, 1 pod, no batches"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grid": {"inter_op": [1, 2, 3, 4], "intra_op": [1, 2, 3, 4]}}, "18 variants are more than 12"),
        ({"step_s": 120, "rounds": 10, "passes": 2}, "takes 9600 s under load, more than 7200"),
        ({"passes": 1, "rounds": 2}, "passes times rounds is 2"),
        ({"passes": 3, "rounds": 7}, "passes times rounds is 21"),
        ({"settle_s": 20}, "settle_s is not below step_s"),
        ({"rate_per_s": 0.5}, "7.5 requests in a round are too few"),
        ({"rate_per_s": 51}, "less than or equal to 50"),
        ({"closed_users": 101}, "less than or equal to 100"),
        ({"grid": {"threads": [1]}}, "Extra inputs are not permitted"),
    ],
)
def test_refused(given, said):
    """A sweep is bounded in number, rate, users and time before it starts."""
    with pytest.raises(ValidationError, match=said):
        asked(**given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep": {"rate_per_s": 4}}, "sweep has nothing to compare with target.overlay"),
        ({"sweep": {"rate_per_s": 4, "overlays": ["local"]}}, "sweep has nothing to compare with target.overlay"),
        (
            {"sweep": {"rate_per_s": 4, "overlays": ["seed"]}, "target": {"gke": {"temporary": True}}},
            "sweep has no effect on a temporary cluster",
        ),
    ],
    ids=["nothing", "only the own overlay", "nothing stays live"],
)
def test_model_file_with_a_sweep_that_compares_nothing(changes, said):
    """It is refused in one line."""
    with pytest.raises(Exception, match=said):
        parse_model_file({**FILE, **changes}, where="include/served/x.yaml")


def test_no_other_model_writes_a_sweeps_objects():
    """The names of its turns count as written, as a preview's do."""
    swept = parse_model_file({**FILE, "sweep": {"rate_per_s": 4, "overlays": ["seed"]}}, where="a.yaml")
    other = {**FILE, "target": {"namespace": "shop", "deployment": "tfs-server-sweep-3"}}
    with pytest.raises(Exception, match=r"'tfs-server-sweep-3' is also written by include/served/a\.yaml"):
        check_unshared({"a": swept, "b": parse_model_file(other, where="b.yaml")})
