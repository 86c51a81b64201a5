"""Hostile Params of manual runs: each is accepted, or refused in one line."""

from hostile import accept_or_refuse, mutated
from hypothesis import given

from slipway.dag.forms import read_refresh_form, read_rollback_form, read_teardown_form, refresh_form
from slipway.errors import InputRefused

REFRESH = {
    "revision": "main", "overlay": None, "min_confidence": 0.8, "force": True, "plan_only": False, "break_lease": False,
}  # fmt: skip


@given(mutated(REFRESH).filter(lambda params: isinstance(params, dict)))
def test_any_refresh_params(params):
    """The Params of a refresh: only those of the form, each of its type."""
    found = accept_or_refuse(read_refresh_form, params, refusals=InputRefused)
    assert found is None or set(params) <= set(refresh_form(None))


@given(mutated({"release": "0123456789ab", "break_lease": False}).filter(lambda params: isinstance(params, dict)))
def test_any_rollback_params(params):
    """The Params of a rollback."""
    found = accept_or_refuse(read_rollback_form, params, refusals=InputRefused)
    assert found is None or isinstance(found, str)


@given(mutated({"with_others": True, "break_lease": False}).filter(lambda params: isinstance(params, dict)))
def test_any_teardown_params(params):
    """The Params of a teardown."""
    assert accept_or_refuse(read_teardown_form, params, refusals=InputRefused) in {None, True, False}
