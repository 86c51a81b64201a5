import asyncio

import pytest
from hub_stub import REPO, REVISION

from slipway.dag.triggers.hub import HubTrigger

OLDER = "2e4d" * 10
LIMIT_S = 60  # far more than it takes, also on a busy machine


class State:
    """An Asset's state, with the methods that Airflow gives to a trigger."""

    def __init__(self):
        self.kept = {}

    async def aget(self, key, default=None):
        """The value of a key."""
        return self.kept.get(key, default)

    async def aset(self, key, value):
        """Keep a value."""
        self.kept[key] = value


def trigger(**changes):
    """A watcher of the model on the tests' Hub."""
    return HubTrigger(**{"repo": REPO, "revision": "main", "token_conn_id": None, "poll_s": 0.01, **changes})


async def polled(hub, *, times=3):
    """Return when the Hub has got this many more requests."""
    before = len(hub.asked)
    async with asyncio.timeout(LIMIT_S):
        while len(hub.asked) < before + times:  # noqa: ASYNC110 - what counts is another thread's list
            await asyncio.sleep(0.005)


async def next_commit(events):
    """The commit of the next event."""
    async with asyncio.timeout(LIMIT_S):
        return (await anext(events)).payload["commit"]


async def test_fires_once_for_each_commit(hub, digits_checkpoint):
    """Each commit gives one event, however often it is polled. A temporary failure of the Hub gives none."""
    hub.add(digits_checkpoint, commit=OLDER)
    events = trigger().run()
    assert await next_commit(events) == OLDER
    following = asyncio.ensure_future(next_commit(events))
    await polled(hub)
    hub.failing = 503
    await polled(hub)
    hub.failing = None
    await polled(hub)
    assert not following.done()
    hub.add(digits_checkpoint, commit=REVISION)
    assert await following == REVISION
    await events.aclose()


async def test_last_commit_survives_a_restart(hub, digits_checkpoint):
    """After a restart, the triggerer fires for a commit that came meanwhile, and not again for an old one."""
    hub.add(digits_checkpoint, commit=OLDER)
    state = State()
    first = trigger()
    first.asset_state_store = state
    events = first.run()
    assert await next_commit(events) == OLDER
    following = asyncio.ensure_future(next_commit(events))
    await polled(hub)
    following.cancel()
    assert state.kept == {"seen": {"repo": REPO, "revision": "main", "commit": OLDER}}

    second = trigger()
    second.asset_state_store = state
    events = second.run()
    following = asyncio.ensure_future(next_commit(events))
    await polled(hub)
    assert not following.done()
    hub.add(digits_checkpoint, commit=REVISION)
    assert await following == REVISION
    await events.aclose()


async def test_keeps_polling_if_access_is_refused(hub, digits_checkpoint, monkeypatch, caplog):
    """A watcher without access fires as soon as it gets access. Its token appears in no log and no serialised form."""
    monkeypatch.setenv("AIRFLOW_CONN_HUB", '{"conn_type": "http", "password": "hf_reader"}')
    repo = hub.add(digits_checkpoint, private=True, readers=set())
    hub.tokens = {"hf_reader"}
    events = (watcher := trigger(token_conn_id="hub")).run()
    following = asyncio.ensure_future(next_commit(events))
    await polled(hub)
    assert not following.done()
    repo.readers.add("hf_reader")
    assert await following == REVISION
    await events.aclose()
    assert "hf_reader" not in f"{watcher.serialize()} {caplog.text}"


@pytest.mark.parametrize("changes", [{"repo": "a/b"}, {"revision": "v1"}, {"token_conn_id": "hub"}, {"poll_s": 5.0}])
def test_serialised_form_gives_the_same_watcher(changes):
    """Airflow gets the same watcher back from what it stores."""
    path, arguments = trigger(**changes).serialize()
    assert path == f"{HubTrigger.__module__}.{HubTrigger.__qualname__}"
    assert HubTrigger(**arguments).serialize() == (path, arguments)
