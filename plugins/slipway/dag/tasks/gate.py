"""A person's word where the gate is in doubt. No answer in time means no."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError, HITLTriggerEventError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, renew_lease
from slipway.dag.stage import BLUE, GRACE_S, reported_failures
from slipway.dag.tasks.waits import Times, WaitSensor
from slipway.facts import JsonObject, to_dict
from slipway.release import Release
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import ReleaseTrigger

BODY = """\
The gate asked version {version} of **{model}**, release `{release_id}`, {where}. It gave no wrong answer that the model
file forbids, and yet:

{doubt}

{then}
"""
BESIDE = "beside the live release, where no user's request reaches it"
THEN = "*Approve*: the release {yes}. *Reject*, or no answer within {minutes:g} minutes: {no}."

log = logging.getLogger(__name__)


class ApproveOperator(ApprovalOperator):
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
        run = Run(context)
        said = run.verdict_of(self.gate_task_id)
        if said is None or said["outcome"] != "inconclusive":
            log.info("approve: the gate was not in doubt, nobody is asked")
            return "the gate was not in doubt"
        limit_s = run.release.gate.ask_timeout_s
        with reported_failures(run):
            renew_lease(run, limit_s + GRACE_S)
        self.subject = f"Is version {run.pushed.version} of {run.release.model} good enough?"
        self.body = self._body(run, said["reason"], limit_s)
        self.response_timeout = timedelta(seconds=limit_s)
        log.info("approve: asking for %d s: %s", limit_s, said["reason"])
        return super().execute(context)

    def _body(self, run: Run, doubt: str, limit_s: int) -> str:
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
        run, bad = Run(context), True
        try:
            super().execute_complete(context, event)
        except HITLRejectException:
            refused = f"{_who(event)} said no"
        except HITLTimeoutError:
            refused = f"nobody answered within {run.release.gate.ask_timeout_s} s, which means no"
        except HITLTriggerEventError as error:
            refused, bad = f"Airflow could not ask: {' '.join(str(error).split())}", False
        else:
            with reported_failures(run):
                renew_lease(run, APPLY_S)  # what a person has said yes to may have been replaced since it was asked
            verdict = Verdict.passed(f"{_who(event)} said yes at {event['responded_at']}")
            log.info("approve: %s", verdict)
            run.report(verdict)
            return verdict.reason
        then = "mend the model, or its gate in the model file" if bad else "trigger again"
        said = f"GateFailed: the gate was in doubt, and {refused}. Next: {then}"
        run.report(Verdict.failed(said), bad=bad)
        raise AirflowFailException(said)


def _who(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")


APPROVE = "approve"  # the task that asks a person where the first gate is in doubt
NO_GRPC_BESIDE = "a preview is asked through the API server, which passes on REST alone"


class PredictionSensor(WaitSensor):
    """The gate: the golden cases at the public address, several rounds in a row, of exactly the released version.

    A preview, which has no address, is asked the same through the API server. With `asks`, a task after it asks a person
    where the gate is in doubt; else doubt means no.
    """

    ui_color = BLUE
    poll_s = 1.0

    def __init__(self, *, asks: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asks = asks

    def trigger(self, run: Run, times: Times) -> ReleaseTrigger:
        """Asks the golden questions."""
        from slipway.dag.triggers.gate import PredictionTrigger

        release, export = run.release, run.export
        return PredictionTrigger(
            release=to_dict(self.judged(run)),
            url=self.url(run),
            version=export.version,
            golden_uri=export.golden_uri,
            grpc=None if self.preview else run.grpc_address,
            no_grpc=NO_GRPC_BESIDE if self.preview else why_no_grpc(release),
            descriptors_uri=export.descriptors_uri,
            baseline=run.baseline,
            **times,
        )

    def judged(self, run: Run) -> Release:
        """The release by the rules that this gate judges it by.

        After a preview the labelled set has been told by the very same image. A release that had none is known to be good.
        """
        release = self.release(run)
        if self.preview or release.strategy == "rolling":
            return release
        was_previewed = run.left("preview") is not None
        gate = replace(release.gate, quality=None) if was_previewed else release.gate.promises_only
        return replace(release, gate=gate)

    def url(self, run: Run) -> str:
        """Where the questions go; without a host, to the API server."""
        return self.release(run).proxy_path if self.preview else run.address

    def accepts(self, run: Run, verdict: Verdict) -> bool:
        """A pass; doubt where a person is asked next, or has said yes before."""
        said = run.verdict_of(APPROVE) or {}
        may_doubt = said.get("outcome") == "pass" or (self.asks and run.release.gate.on_inconclusive == "ask")
        return verdict.outcome == "pass" or (verdict.outcome == "inconclusive" and may_doubt)

    def more(self, event: JsonObject) -> JsonObject:
        """How long answers took, and how the labelled set was told."""
        return {"measured": event["found"]}

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.gate_timeout_s

    def blames_release(self, event: JsonObject) -> bool:
        """Where an answer was wrong, or left a doubt that was not enough: not where none came, in time or at all."""
        return event["outcome"] == "inconclusive" or (event.get("late") is False and not event.get("unanswered"))

    def explain(self, run: Run, reason: str) -> str:
        """What was asked, promised and answered, and the next command, where the trigger knows no better one."""
        asked = f"{self.url(run)}{run.release.version_path(run.export.version)}"
        look = run.release.target.kubectl(f"get --raw {asked}") if self.preview else f"curl {asked}"
        said, _, then = reason.partition(". Next: ")
        return f"GateFailed: {asked}: {said}. Next: {then or look}"


def why_no_grpc(release: Release) -> str:
    """Why the gate knows no address for gRPC, where it knows none."""
    if release.address:
        return "the model file gives target.address without target.grpc_address"
    return f"service/{release.service} has no port tf-serving-grpc"
