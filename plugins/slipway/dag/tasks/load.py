"""The tasks that test the live release under load."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slipway.dag.run import Run
from slipway.dag.stage import BLUE, GREEN, ProgramOperator, StageOperator

if TYPE_CHECKING:
    from slipway.facts import LoadTarget, LoadTest

log = logging.getLogger(__name__)


class ChooseLoadOperator(StageOperator):
    """Finds the live release, its address, and what the model file asks of it under load."""

    ui_color = BLUE

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def make(self, run: Run) -> LoadTarget:
        """The LoadTarget."""
        from slipway.dag.forms import read_load_test_form
        from slipway.steps.load_test import choose_load_target
        from slipway.steps.settings import read_settings

        changes = read_load_test_form(dict(run.context["params"]))
        target = choose_load_target(self.model, read_settings(), changes, run_id=run.run_id)
        log.info(
            "choose: release %s, version %s, at %s and %s; %d steps of %d s",
            target.release_id,
            target.version,
            target.rest,
            target.grpc or "no gRPC address",
            target.plan.steps,
            target.plan.step_s,
        )
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
