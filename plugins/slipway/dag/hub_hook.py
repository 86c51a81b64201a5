"""The connection to the Hugging Face Hub, with a form of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from slipway.connections import HUGGINGFACE
from slipway.errors import InputRefused, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class HubHook(BaseHook):
    """A client of the Hub with the token of a connection. The connection's form is in the provider's metadata."""

    conn_name_attr = "hub_conn_id"
    default_conn_name = "huggingface_default"
    conn_type = HUGGINGFACE
    hook_name = "Hugging Face Hub"

    def __init__(self, hub_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hub_conn_id = hub_conn_id

    def get_conn(self) -> HfApi:
        """The client. Raises InputRefused."""
        from huggingface_hub import HfApi

        from slipway.model.hub import hub_endpoint, hub_token

        return HfApi(endpoint=hub_endpoint(), token=hub_token(self.hub_conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the Hub knows the token, and whose it is."""
        try:
            return True, f"the token of {self.get_conn().whoami()['name']}"
        except InputRefused as error:
            return False, str(error)
        except Exception as error:
            return False, one_line(error)
