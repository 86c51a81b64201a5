"""What earlier tasks of a run left, by the names of the tasks; only here is XCom read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from slipway.errors import InputRefused, SlipwayError
from slipway.facts import from_dict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.facts import Applied, Export, Image, Plan, Previewed, Proof, Pushed, Teardown
    from slipway.release import Release
    from slipway.verdict import Verdict

BY_HAND = frozenset({"manual", "operator_triggered"})  # of Airflow's types of runs
VERDICT = "verdict"  # XCom's key for it, beside the fact
RETURN_VALUE = "return_value"  # XCom's key for a task's result
GRPC = "grpc"  # XCom's key for where gRPC is asked, beside the URL

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """The facts of one run. Each property raises InputRefused where its task left nothing."""

    context: Context

    def left(self, task_id: str, *, key: str = RETURN_VALUE) -> Any:
        """What a task left, None where it left nothing."""
        return self.context["ti"].xcom_pull(task_ids=task_id, key=key)

    def leave(self, key: str, value: Any) -> None:
        """Leave something of this task beside its fact."""
        self.context["ti"].xcom_push(key=key, value=value)

    def report(self, verdict: Verdict, *, bad: bool = False, **more: Any) -> None:
        """Leave this task's verdict for the record, with what it rests on, whether the task then passes or fails.

        It is `bad` where the schedule is not to try the release again: the record says so at once.
        """
        said = {**verdict.to_dict(), "at": datetime.now(UTC).isoformat(), **more, **({"bad": True} if bad else {})}
        self.leave(VERDICT, said)
        if bad:
            self._mark_bad(verdict.reason)

    def _mark_bad(self, reason: str) -> None:
        """In the record already, where the store takes it; `record` writes it again."""
        from slipway.records.record import mark_bad

        try:
            mark_bad(self.release, task=self.context["ti"].task_id, reason=reason)
        except SlipwayError as error:
            log.warning("record: not marked bad before its end: %s", error)

    def verdict_of(self, task_id: str) -> dict[str, Any] | None:
        """The verdict that a task left, None where it left none."""
        found: dict[str, Any] | None = self.left(task_id, key=VERDICT)
        return found

    @property
    def by_hand(self) -> bool:
        """Whether a person, or another program for them, has triggered the run, and not its schedule or an Asset."""
        run_type = self.context["dag_run"].run_type
        return str(getattr(run_type, "value", run_type)) in BY_HAND

    @property
    def release(self) -> Release:
        """What `resolve` left, or the recorded release that `choose` or `plan` brings back."""
        from slipway.release import Release

        return from_dict(Release, self._chosen("release") or self._planned("release") or self._needed("resolve"))

    @property
    def teardown(self) -> Teardown:
        """What `look` has found to be torn down, or what a run with a cluster of its own tears down."""
        from slipway.facts import Teardown
        from slipway.steps.teardown import teardown_of

        looked = self.left("look")
        return from_dict(Teardown, looked["teardown"]) if looked else teardown_of(self.release)

    @property
    def plan(self) -> Plan:
        """What `plan` left, or `choose`."""
        from slipway.facts import Plan

        return from_dict(Plan, self._chosen("plan") or self._needed("plan"))

    @property
    def export(self) -> Export:
        """What `export` left; where it was skipped, the live release's."""
        from slipway.facts import Export

        return from_dict(Export, self._planned("export") or self._needed("export"))

    @property
    def image(self) -> Image:
        """What `build_image` left."""
        from slipway.facts import Image

        return from_dict(Image, self._needed("build_image"))

    @property
    def proof(self) -> Proof:
        """What `smoke_test` left."""
        from slipway.facts import Proof

        return from_dict(Proof, self._needed("smoke_test"))

    @property
    def pushed(self) -> Pushed:
        """What `push` left; where it was skipped, the live release's."""
        from slipway.facts import Pushed

        return from_dict(Pushed, self._planned("pushed") or self._needed("push"))

    @property
    def applied(self) -> Applied:
        """What `apply` left."""
        from slipway.facts import Applied

        return from_dict(Applied, self._needed("apply"))

    @property
    def previewed(self) -> Previewed:
        """What `preview` left."""
        from slipway.facts import Previewed

        return from_dict(Previewed, self._needed("preview"))

    @property
    def address(self) -> str:
        """The URL that `wait_for_address` left."""
        return str(self._needed("wait_for_address"))

    @property
    def baseline(self) -> Any:
        """How the live release tells the gate's labelled set, as `plan` left it; None where nobody compares."""
        return (self._chosen("plan") or self.left("plan") or {}).get("baseline")

    @property
    def grpc_address(self) -> str | None:
        """Where `wait_for_address` found gRPC, as host:port; None where it is not known."""
        found: str | None = self.context["ti"].xcom_pull(task_ids="wait_for_address", key=GRPC)
        return found

    def _needed(self, task_id: str) -> Any:
        fact = self.left(task_id)
        if fact is None:
            raise InputRefused(f"task {task_id}: left nothing in this run. Next: clear {task_id}")
        return fact

    def _chosen(self, part: str) -> Any:
        """A part of what `choose` left, in a run that brings a recorded release back."""
        chosen = self.left("choose")
        return chosen[part] if chosen else None

    def _planned(self, part: str) -> Any:
        """What the plan keeps of the live release, so that there is nothing to build."""
        plan = self._chosen("plan") or self.left("plan")
        return plan.get(part) if plan else None
