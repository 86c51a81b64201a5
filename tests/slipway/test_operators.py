import pytest
from airflow.sdk.exceptions import AirflowFailException

from slipway.errors import ClusterUnreachable, EngineUnreachable, ImagePushRefused, InputRefused
from slipway.operators import one_line_failures


@pytest.mark.parametrize("error", [InputRefused("m.yaml: source: missing. Next: give one"), ImagePushRefused("denied")])
def test_failed_at_once_if_it_will_not_go_away(error):
    """What another try cannot mend fails the task without a retry, in its one line, with its cause."""
    with pytest.raises(AirflowFailException) as failure, one_line_failures():
        raise error
    assert str(failure.value) == f"{type(error).__name__}: {error}"
    assert failure.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [EngineUnreachable("no engine"), ClusterUnreachable("no answer"), ValueError("a bug")]
)
def test_tried_again_if_it_may_go_away(error):
    """What may pass a minute later, and what nobody foresaw, is left to Airflow's retries."""
    with pytest.raises(type(error)) as failure, one_line_failures():
        raise error
    assert failure.value is error
