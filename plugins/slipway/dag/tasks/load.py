"""The tasks that put load on a release: on the live one to measure it, on a preview to judge it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slipway.dag.deferral import GRACE_S
from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, renew_run_lease
from slipway.dag.stage import BLUE, GREEN, ProgramOperator, StageOperator

if TYPE_CHECKING:
    from slipway.facts import LoadTarget, LoadTest

PROGRAM_S = 120  # the load test's program beyond its steps: start, questions before the load, reports

log = logging.getLogger(__name__)


class ChooseLoadOperator(StageOperator):
    """Finds the live release, its address or the form's, and what the model file asks of it under load."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Run) -> LoadTarget:
        """The LoadTarget."""
        from slipway.dag.forms import read_load_test_form
        from slipway.serving.load import describe_left_out
        from slipway.steps.load_test import choose_load_target
        from slipway.steps.settings import read_settings

        params = read_load_test_form(dict(run.context["params"]))
        target = choose_load_target(self.model, read_settings(), params, run_id=run.run_id)
        log.info(
            "choose: %s %s, version %s, at %s and %s; %d steps of %d s",
            "another server, with the questions of release" if target.elsewhere else "release",
            target.release_id,
            target.version,
            target.rest or "no REST address",
            target.grpc or "no gRPC address",
            target.plan.steps,
            target.plan.step_s,
        )
        if target.plan.left_out_per_s is not None:
            log.info("choose: %s", describe_left_out(target.plan.left_out_per_s))
        return target


class LoadTestOperator(ProgramOperator):
    """Sends the live release steps of constant rate, then as many requests as it answers; checks every answer; keeps the figures."""

    template_fields: Sequence[str] = ("load_python",)
    ui_color = GREEN

    def __init__(self, *, load_python: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load_python = load_python

    def make(self, run: Run) -> LoadTest:
        """The LoadTest."""
        from slipway.steps.load_test import run_test

        return run_test(run.load_target, python=self.load_python, started=self._started)


class LoadGateOperator(ProgramOperator):
    """Sends a preview a constant rate of requests, in turns with the live release if they are compared; judges and keeps the figures.

    With `asks`, the next task asks a person if the result is inconclusive, unless the model file says that it fails.
    """

    template_fields: Sequence[str] = ("load_python",)
    ui_color = BLUE

    def __init__(self, *, load_python: str, asks: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.load_python = load_python
        self.asks = asks

    def make(self, run: Run) -> LoadTest:
        """The LoadTest. Raises GateFailed, LoadTestUnfinished, LeaseLost, TargetBusy."""
        from slipway.steps.load_gate import judge_preview_under_load, measured_of, require_load_passed

        release, bounds = run.release, run.release.gate.load
        assert bounds is not None  # noqa: S101 - the DAG has this task only then
        renew_run_lease(run, bounds.seconds + PROGRAM_S + GRACE_S)
        log.info("preview load: %d rounds, %d s in all, at %g/s", bounds.rounds, bounds.seconds, bounds.rate_per_s)
        found = judge_preview_under_load(
            release, run.export, run.pushed.release_id, python=self.load_python, started=self._started
        )
        renew_run_lease(run, APPLY_S)
        log.info("preview load: %s", found.verdict)
        require_load_passed(release, found, asks=self.asks)
        run.report(found.verdict, measured=measured_of(found.test))
        return found.test
