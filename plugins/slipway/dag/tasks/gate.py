"""The gate: the sensor that sends the golden requests, and the approval by a person."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError, HITLTriggerEventError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException

from slipway.dag.deferral import GRACE_S, Times, Wait
from slipway.dag.run import Run
from slipway.dag.run_lease import APPLY_S, renew_run_lease
from slipway.dag.stage import BLUE, reported_failures
from slipway.dag.task_ids import APPROVE, GATE, PREVIEW, PREVIEW_GATE
from slipway.dag.tasks.waits import WaitSensor
from slipway.dag.tries import count_lost_try, note_deferral, note_resumption
from slipway.errors import GateFailed, SlipwayError, one_line
from slipway.facts import Export, JsonObject, to_dict
from slipway.release import Release
from slipway.serving.gate import gate_blames_release, gate_goes_on
from slipway.steps.approval import RESULT, does_person_decide, explain_refusal, list_findings
from slipway.steps.waits import NO_GRPC_TO_PREVIEW, explain_gate, preview_pods, public_gate, why_no_grpc
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import PollingTrigger

BODY = """\
The gate sent the golden requests to version {version} of **{model}**, release `{release_id}`, {where}. {result}

{findings}

{then}
"""
AT_PREVIEW = "which runs next to the live release, where no user's request reaches it"
THEN = "*Approve*: the release {yes}. *Reject*, or no answer within {minutes:g} minutes: {no}."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenWait(Wait):
    """A wait whose trigger sends the golden requests to one version."""

    release: Release  # with the limits to apply
    export: Export
    url: str  # of the REST port; a path means the API server's proxy
    grpc: str | None  # host:port
    no_grpc: str  # why `grpc` is None
    pods: dict[str, str] | None = (
        None  # labels of the pods that gRPC goes to, through the API server, if `grpc` is None
    )

    def asked(self) -> JsonObject:
        """The trigger's arguments that say what is asked, and where."""
        return {
            "release": to_dict(self.release),
            "url": self.url,
            "version": self.export.version,
            "golden_uri": self.export.golden_uri,
            "grpc": self.grpc,
            "no_grpc": self.no_grpc,
            "pods": self.pods,
            "descriptors_uri": self.export.descriptors_uri,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWait(GoldenWait):
    """Sends the golden requests to one version until the gate's rules have decided."""

    baseline: JsonObject | None = None  # how the live release classifies the labelled set
    poll_s = 1.0

    @property
    def limit_s(self) -> int:
        """The model file's limit."""
        return self.release.gate_timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Sends the golden requests."""
        from slipway.dag.triggers.gate import PredictionTrigger

        return PredictionTrigger(**self.asked(), baseline=self.baseline, int8_uri=self.export.int8_uri, **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """What was asked, promised and answered, and the next command; with what was measured."""
        verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
        reason = f"{verdict.reason}, which is not enough" if verdict.outcome == "inconclusive" else verdict.reason
        return GateFailed(
            explain_gate(self.release, self.url, self.export.version, reason),
            blames_release=gate_blames_release(
                verdict, late=event.get("late"), unanswered=bool(event.get("unanswered"))
            ),
            measured=event["found"],
        )


class PredictionSensor(WaitSensor):
    """The gate: sends the golden requests to the public address, several rounds in a row, to exactly the released version.

    A preview has no address: its requests go through the API server. With `asks`, the next task asks a person if the result
    is inconclusive, unless the model file says that it fails; without, an inconclusive result fails.
    """

    ui_color = BLUE

    def __init__(self, *, asks: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asks = asks

    def execute(self, context: Context) -> Any:
        """Wait; skipped if it is the gate of a preview that there is not."""
        if self.preview and Run(context).result_of(PREVIEW) is None:
            raise AirflowSkipException("there is no preview")
        return super().execute(context)

    def wait_for(self, run: Run) -> Wait:
        """The gate's rounds at the public address, or at the preview."""
        release = run.release
        if self.preview:
            preview = release.preview
            return GateWait(
                release=preview,
                export=run.export,
                url=preview.proxy_path,
                grpc=None,
                no_grpc=NO_GRPC_TO_PREVIEW,
                pods=preview_pods(release, run.previewed) if release.preview_is_first_test else None,
                baseline=run.baseline,
            )
        return GateWait(
            release=public_gate(
                release,
                previewed=run.result_of(PREVIEW) is not None,
                preview_verdict=run.verdict_of(PREVIEW_GATE),
                restored=run.action == "restore",
            ),
            export=run.export,
            url=run.address,
            grpc=run.grpc_address,
            no_grpc=why_no_grpc(release),
            baseline=run.baseline,
        )

    def goes_on(self, run: Run, verdict: Verdict) -> bool:
        """On a pass; on an inconclusive result if a person is asked next, or has approved before."""
        approval, may_ask = run.verdict_of(APPROVE) or {}, run.release.gate.on_inconclusive == "ask"
        approved = may_ask and approval.get("outcome") == "pass"
        return gate_goes_on(verdict, asks=self.asks and may_ask, approved=approved)

    def measured(self, event: JsonObject) -> JsonObject:
        """How long answers took, and how the labelled set was classified."""
        return {"measured": event["found"]}


class ApproveOperator(ApprovalOperator):
    """Asks a person if the gate's result is inconclusive, or if the model file wants every release approved; else passes at once.

    A rejection, or no answer in time, fails and marks the release as bad: the schedule does not ask again. A task whose worker
    died asks again, because Airflow keeps no answer from one try to the next.
    """

    ui_color = BLUE

    def __init__(self, *, preview: bool = False, **kwargs: Any) -> None:
        super().__init__(subject="Is this release good enough?", fail_on_reject=True, **kwargs)
        self.preview = preview

    def _verdict(self, run: Run) -> JsonObject | None:
        """The verdict that a person decides on."""
        return run.preview_verdict if self.preview else run.verdict_of(GATE)

    def execute(self, context: Context) -> Any:
        """Ask, with what the gate found."""
        run = Run(context)
        count_lost_try(self, context)
        verdict = self._verdict(run)
        if verdict is None or not does_person_decide(run.release.gate, verdict):
            why = "the gate's result was conclusive" if verdict else "the gate left no result"
            log.info("approve: %s, nobody is asked", why)
            return why
        limit_s = run.release.gate.ask_timeout_s
        with reported_failures(run):
            renew_run_lease(run, limit_s + GRACE_S)
        self.subject = f"Is version {run.pushed.version} of {run.release.model} good enough?"
        self.body = self._body(run, verdict, limit_s)
        self.response_timeout = timedelta(seconds=limit_s)
        log.info("approve: asking for %d s: %s", limit_s, verdict["reason"])
        note_deferral(context)
        return super().execute(context)

    def _body(self, run: Run, verdict: JsonObject, limit_s: int) -> str:
        yes, no = "replaces the live one", "it is deleted, and nothing has changed"
        if not self.preview:
            yes, no = "stays and counts as proven live", "it is rolled back to the last good release"
        return BODY.format(
            version=run.pushed.version,
            model=run.release.model,
            release_id=run.pushed.release_id,
            where=AT_PREVIEW if self.preview else f"at {run.address}",
            result=RESULT[verdict["outcome"]],
            findings="\n".join(f"- {part}" for part in list_findings(run.release.gate, verdict, run.baseline)),
            then=THEN.format(yes=yes, no=no, minutes=limit_s / 60),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """What was answered and by whom, for the record. Anything but an approval fails in one line."""
        run = Run(context)
        note_resumption(context)
        with reported_failures(run):
            verdict = self._answer(context, run, event)
            renew_run_lease(run, APPLY_S)  # another run may have replaced the release while the person was asked
        log.info("approve: %s", verdict)
        run.report(verdict)
        return verdict.reason

    def _answer(self, context: Context, run: Run, event: dict[str, Any]) -> Verdict:
        """The person's approval. Raises GateFailed for anything else; only a person's no blames the release."""
        answered = True
        try:
            super().execute_complete(context, event)
        except HITLRejectException:
            refused = f"{_name_of(event)} rejected it"
        except HITLTimeoutError:
            refused = f"nobody answered within {run.release.gate.ask_timeout_s} s, which means no"
        except HITLTriggerEventError as error:
            refused, answered = f"Airflow could not ask: {one_line(error)}", False
        else:
            return Verdict.passed(f"{_name_of(event)} approved it at {event['responded_at']}")
        raise GateFailed(
            explain_refusal(run.release, self._verdict(run), refused, answered=answered), blames_release=answered
        )


def _name_of(event: dict[str, Any]) -> str:
    user = event.get("responded_by_user") or {}
    return str(user.get("name") or user.get("id") or "somebody")
