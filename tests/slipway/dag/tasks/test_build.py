import pytest
from airflow.sdk.exceptions import AirflowSkipException

from slipway.dag.tasks.build import BuildImageOperator
from slipway.facts import Plan


def test_no_image_is_built_if_only_golden_cases_are_new(context_of, release):
    """The task skips itself after `export`, not `plan`: what deploys waits for the new golden cases."""
    context = context_of("build_image", resolve=release, plan=Plan(action="cases", reasons=("so",)))
    with pytest.raises(AirflowSkipException, match="the live image stays"):
        BuildImageOperator(task_id="build_image").execute(context)
