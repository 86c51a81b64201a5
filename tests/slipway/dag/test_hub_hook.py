"""The connection to the Hub, as Airflow's page of connections tests it."""

import pytest

from slipway.dag.hub_hook import HubHook
from slipway.get_provider_info import get_provider_info


@pytest.fixture
def tested(monkeypatch):
    """What the test of a connection with this password says."""

    def test(password):
        monkeypatch.setenv(
            "AIRFLOW_CONN_HUGGINGFACE_DEFAULT", f'{{"conn_type": "huggingface", "password": "{password}"}}'
        )
        return HubHook().test_connection()

    return test


def test_the_token_goes_to_the_hubs_client(monkeypatch):
    """It is the connection's password."""
    monkeypatch.setenv("AIRFLOW_CONN_HUGGINGFACE_DEFAULT", '{"conn_type": "huggingface", "password": "hf_mine"}')
    assert HubHook().get_conn().token == "hf_mine"


def test_a_token_that_is_none_is_named(tested):
    """Without asking the Hub."""
    assert tested("not a token") == (
        False,
        "connection huggingface_default: its password is not a Hub token. Next: set it to the token, hf_…",
    )


def test_an_unreachable_hub_is_one_line(tested):
    """The tests' Hub does not listen."""
    works, said = tested("hf_mine")
    assert not works
    assert said
    assert "\n" not in said


def test_the_provider_names_the_hook():
    """Its metadata has the class and the type of connection that the class says."""
    [form] = get_provider_info()["connection-types"]
    assert form["hook-class-name"] == f"{HubHook.__module__}.{HubHook.__qualname__}"
    assert (form["connection-type"], form["hook-name"]) == (HubHook.conn_type, HubHook.hook_name)
