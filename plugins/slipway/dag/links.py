"""The links that the UI shows on tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ServedModelLink(BaseOperatorLink):
    """Where the model server says which versions it serves. The task has found the address; without one there is no link."""

    name = "Served model"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """The URL of the model's status, once the task has passed."""
        return getattr(operator, "served_model", "")
