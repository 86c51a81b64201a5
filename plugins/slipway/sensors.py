"""The refresh DAG's waits: each defers to a trigger at once, and translates its verdict: pass is done, fail is red."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException

from slipway.facts import from_dict
from slipway.release import Release

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.triggers import JudgeTrigger

Fact = dict[str, Any]
GRACE_S = 60  # Airflow's own limit stands behind the trigger's, which says what it was waiting for

log = logging.getLogger(__name__)


class JudgeSensor(BaseSensorOperator):
    """Defers to a trigger; what it found or said is the task's result."""

    poll_s = 5.0

    def __init__(self, *, release: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release = release

    def trigger(self, release: Release, deadline: float) -> JudgeTrigger:
        """The trigger that waits."""
        raise NotImplementedError

    def time_limit_s(self, release: Release) -> int:
        """How long to wait."""
        raise NotImplementedError

    def explain(self, release: Release, verdict: Fact) -> str:  # noqa: ARG002 - for those that know more
        """What a failed wait says: where, what, what next."""
        return str(verdict["reason"])

    def result(self, verdict: Fact) -> Any:
        """What a passed wait leaves for later tasks."""
        return {name: verdict[name] for name in ("outcome", "reason")}

    def execute(self, context: Context) -> Any:  # noqa: ARG002 - Airflow's signature
        """Defer until the trigger has decided."""
        release = from_dict(Release, self.release)
        limit_s = self.time_limit_s(release)
        self.defer(
            trigger=self.trigger(release, time.time() + limit_s),
            method_name="decide",
            timeout=timedelta(seconds=limit_s + GRACE_S),
        )

    def decide(self, context: Context, event: Fact) -> Any:  # noqa: ARG002 - Airflow's signature
        """Pass on what the trigger found, or fail with the reason."""
        log.info("%s: %s", event["outcome"], event["reason"])
        if event["outcome"] != "pass":
            raise AirflowFailException(self.explain(from_dict(Release, self.release), event))
        return self.result(event)


class RolloutSensor(JudgeSensor):
    """Waits until the Deployment is what was applied."""

    template_fields: Sequence[str] = ("release", "applied")
    ui_color = "#fce8e6"
    poll_s = 2.0

    def __init__(self, *, applied: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.applied = applied

    def trigger(self, release: Release, deadline: float) -> JudgeTrigger:  # noqa: ARG002 - the fact is passed as it came
        """Judges the Deployment."""
        from slipway.triggers import RolloutTrigger

        return RolloutTrigger(
            release=self.release, deadline=deadline, poll_s=self.poll_s, generation=self.applied["generation"]
        )

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.rollout_timeout_s

    def explain(self, release: Release, verdict: Fact) -> str:
        """The verdict's reason, what pods and events say, and the next command; the pods' last lines go to the log."""
        from slipway.rollout import diagnose, next_command
        from slipway.target import cluster_client

        release_id = self.applied["release_id"]
        try:
            with cluster_client(release.target) as client:
                reasons = diagnose(client, release, release_id)
        except Exception as error:
            reasons = [f"no diagnosis: {error}"]
        for reason in reasons:
            log.error("rollout: %s", reason)
        shown = f" ({reasons[0]})" if reasons else ""
        return f"RolloutFailed: {verdict['reason']}{shown}. Next: {next_command(release, release_id)}"


class AddressSensor(JudgeSensor):
    """Waits until the Service can be reached from outside; leaves the URL of the REST port."""

    template_fields: Sequence[str] = ("release",)
    ui_color = "#fce8e6"
    poll_s = 2.0

    def execute(self, context: Context) -> Any:
        """The model file's fixed URL where it has one; else defer."""
        release = from_dict(Release, self.release)
        return release.address.rstrip("/") if release.address else super().execute(context)

    def trigger(self, release: Release, deadline: float) -> JudgeTrigger:  # noqa: ARG002 - the fact is passed as it came
        """Judges the Service."""
        from slipway.triggers import AddressTrigger

        return AddressTrigger(release=self.release, deadline=deadline, poll_s=self.poll_s)

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.address_timeout_s

    def result(self, verdict: Fact) -> Any:
        """The URL."""
        return verdict["found"]

    def explain(self, release: Release, verdict: Fact) -> str:
        """The verdict's reason and the next command."""
        return f"AddressMissing: {verdict['reason']}. Next: {release.target.kubectl(f'describe service {release.service}')}"


class PredictionSensor(JudgeSensor):
    """The gate: the golden cases at the public address, several rounds in a row, of exactly the released version."""

    template_fields: Sequence[str] = ("release", "export", "address")
    ui_color = "#d2e3fc"
    poll_s = 1.0

    def __init__(self, *, export: Any, address: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.export = export
        self.address = address

    def trigger(self, release: Release, deadline: float) -> JudgeTrigger:  # noqa: ARG002 - the fact is passed as it came
        """Asks the golden questions."""
        from slipway.triggers import PredictionTrigger

        return PredictionTrigger(
            release=self.release,
            deadline=deadline,
            poll_s=self.poll_s,
            url=self.address,
            version=self.export["version"],
            golden_uri=self.export["golden_uri"],
        )

    def time_limit_s(self, release: Release) -> int:
        """The model file's limit."""
        return release.gate_timeout_s

    def explain(self, release: Release, verdict: Fact) -> str:
        """What was asked, promised and answered, and the next command."""
        asked = f"{self.address}{release.version_path(self.export['version'])}"
        return f"GateFailed: {asked}: {verdict['reason']}. Next: curl {asked}"
