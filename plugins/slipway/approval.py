"""A person's word where the gate is in doubt. No answer in time means no."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError, HITLTriggerEventError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.handover import Handover
from slipway.holding import APPLY_S, renew_target
from slipway.operators import BLUE, GRACE_S, one_line_failures
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

BODY = """\
The gate asked version {version} of **{model}**, release `{release_id}`, {where}. It gave no wrong answer that the model
file forbids, and yet:

{doubt}

{then}
"""
BESIDE = "beside the live release, where no user's request reaches it"
THEN = "*Approve*: the release {yes}. *Reject*, or no answer within {minutes:g} minutes: {no}."

log = logging.getLogger(__name__)


class DoubtOperator(ApprovalOperator):
    """Asks a person where the gate was in doubt, and passes at once where it was not.

    A rejection and a silence fail, which undoes the release, and are remembered: the schedule does not ask again. A task whose
    worker died asks again: Airflow keeps no answer from one try to the next, and silence means no.
    """

    ui_color = BLUE

    def __init__(self, *, gate_task_id: str, preview: bool = False, **kwargs: Any) -> None:
        super().__init__(subject="Is this release good enough?", fail_on_reject=True, **kwargs)
        self.gate_task_id = gate_task_id
        self.preview = preview

    def execute(self, context: Context) -> Any:
        """Ask, with what the gate said; nothing where it was sure."""
        run = Handover(context)
        said = run.said(self.gate_task_id)
        if said is None or said["outcome"] != "inconclusive":
            log.info("approve: the gate was not in doubt, nobody is asked")
            return "the gate was not in doubt"
        limit_s = run.release.gate.ask_timeout_s
        with one_line_failures(run):
            renew_target(run, limit_s + GRACE_S)
        self.subject = f"Is version {run.pushed.version} of {run.release.model} good enough?"
        self.body = self._body(run, said["reason"], limit_s)
        self.response_timeout = timedelta(seconds=limit_s)
        log.info("approve: asking for %d s: %s", limit_s, said["reason"])
        return super().execute(context)

    def _body(self, run: Handover, doubt: str, limit_s: int) -> str:
        yes, no = ("replaces the live one", "it goes, and nothing has changed")
        if not self.preview:
            yes, no = ("stays, and counts as proven live", "it goes, and the last good release serves")
        return BODY.format(
            version=run.pushed.version,
            model=run.release.model,
            release_id=run.pushed.release_id,
            where=BESIDE if self.preview else f"at {run.address}",
            doubt="\n".join(f"- {part}" for part in doubt.split("; ")),
            then=THEN.format(yes=yes, no=no, minutes=limit_s / 60),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """What was answered and by whom, for the record; anything but yes fails in one line."""
        run, bad = Handover(context), True
        try:
            super().execute_complete(context, event)
        except HITLRejectException:
            refused = f"{_who(event)} said no"
        except HITLTimeoutError:
            refused = f"nobody answered within {run.release.gate.ask_timeout_s} s, which means no"
        except HITLTriggerEventError as error:
            refused, bad = f"Airflow could not ask: {' '.join(str(error).split())}", False
        else:
            with one_line_failures(run):
                renew_target(run, APPLY_S)  # what a person has said yes to may have been replaced since it was asked
            verdict = Verdict.passed(f"{_who(event)} said yes at {event['responded_at']}")
            log.info("approve: %s", verdict)
            run.say(verdict)
            return verdict.reason
        then = "mend the model, or its gate in the model file" if bad else "trigger again"
        said = f"GateFailed: the gate was in doubt, and {refused}. Next: {then}"
        run.say(Verdict.failed(said), bad=bad)
        raise AirflowFailException(said)


def _who(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")
