import asyncio
import re
from dataclasses import replace

import httpx
import pytest
from hub_stub import REPO, REVISION

from slipway.errors import HubUnreachable, InputRefused, ResolveError
from slipway.facts import to_dict
from slipway.model.hub import _find_commit, hub_commit, hub_token
from slipway.model.served import parse_model_file, read_model_file
from slipway.paths import INCLUDE
from slipway.release import Source
from slipway.steps.resolve import resolve_source

OLDER = "2e4d" * 10
GOLDEN = {"golden": [{"name": "three", "image": "digits-vit/golden/three.png", "label": "3"}]}


@pytest.fixture
def connection(monkeypatch):
    """Makes a connection `hub` with this password and host, in the environment."""

    def make(password, host=""):
        monkeypatch.setenv("AIRFLOW_CONN_HUB", f'{{"conn_type": "http", "password": "{password}", "host": "{host}"}}')

    return make


def file_of(**source):
    """A model file with a Hub source."""
    return parse_model_file({"source": {"hub": REPO, **source}, "gate": GOLDEN}, where="m.yaml")


@pytest.mark.parametrize(("revision", "commit"), [("main", REVISION), ("v1", OLDER), (OLDER, OLDER), ("pull/3", OLDER)])
def test_branch_tag_and_commit_are_pinned(hub, digits_checkpoint, revision, commit):
    """Whatever names a commit now is pinned to its 40 hex digits, with 🤗's own client."""
    hub.add(digits_checkpoint, commit=OLDER, names=("v1", "pull/3"))
    hub.add(digits_checkpoint)
    assert commit == hub_commit(REPO, revision)


def test_new_commit_is_noticed(hub, digits_checkpoint):
    """Each run asks the Hub again for a branch's commit."""
    hub.add(digits_checkpoint, commit=OLDER)
    assert Source(kind="hub", location=REPO, revision=OLDER) == resolve_source(file_of(), None)
    hub.add(digits_checkpoint, commit=REVISION)
    assert Source(kind="hub", location=REPO, revision=REVISION) == resolve_source(file_of(), None)


def test_param_replaces_the_files_revision(hub, digits_checkpoint):
    """A run may use another revision than the model file's."""
    hub.add(digits_checkpoint, commit=OLDER, names=("v1",))
    assert resolve_source(file_of(), "v1").revision == OLDER


@pytest.mark.parametrize("access", ["private", "gated"])
def test_token_of_a_connection_gives_access(hub, digits_checkpoint, connection, access):
    """A private or gated model is pinned with the token of a connection. The Source does not contain the token."""
    hub.add(digits_checkpoint, readers={"hf_reader"}, **{access: True})
    connection("hf_reader")
    pinned = resolve_source(file_of(token_conn_id="hub"), None)
    assert Source(kind="hub", location=REPO, revision=REVISION, token_conn_id="hub") == pinned
    assert "hf_reader" not in f"{pinned!r} {to_dict(pinned)}"


@pytest.mark.parametrize(
    ("access", "password", "says"),
    [
        ({"private": True}, None, "no such model, or a private one. Next: .*source.token_conn_id"),
        (
            {"private": True},
            "hf_other",
            "no such model, or a private one. Next: .*the token of connection hub may read",
        ),
        ({"gated": True}, None, "access is gated. Next: accept its terms .*source.token_conn_id"),
        ({"gated": True}, "hf_other", "access is gated. Next: accept its terms .*the token of connection hub"),
        ({}, "hf_unknown", "the Hub does not accept the token of connection hub. Next: replace it with a valid one"),
    ],
)
def test_refused_without_access(hub, digits_checkpoint, connection, access, password, says):  # noqa: PLR0917 (fixtures)
    """A model that may not be read is refused before anything is built, with what to do next and without the token."""
    hub.tokens = {"hf_other"}
    hub.add(digits_checkpoint, readers={"hf_reader"}, **access)
    if password:
        connection(password)
    with pytest.raises(ResolveError, match=rf"^source\.hub {REPO}@main: {says}") as refusal:
        hub_commit(REPO, "main", token_conn_id="hub" if password else None)
    assert "\n" not in str(refusal.value)
    assert "hf_" not in str(refusal.value)
    assert not refusal.value.worth_retrying


@pytest.mark.parametrize(
    ("repo", "revision", "says"),
    [
        ("someone/else", "main", "no such model, or a private one. Next: check the name"),
        (REPO, "gone", "no such revision. Next: use a branch, a tag or a full commit"),
        (REPO, "0" * 40, "no such revision. Next: "),
        ("-odd-", "main", ".*Next: check the name"),
    ],
)
def test_refused_if_the_hub_does_not_have_it(hub, digits_checkpoint, repo, revision, says):
    """An unknown model or revision is named, and not retried."""
    hub.add(digits_checkpoint)
    with pytest.raises(ResolveError, match=rf"^source\.hub {repo}@{revision}: {says}") as refusal:
        hub_commit(repo, revision)
    assert "\n" not in str(refusal.value)
    assert not refusal.value.worth_retrying


def test_refused_if_it_is_not_a_checkpoint(hub, tmp_path):
    """A model without config.json is refused before anything is fetched."""
    (tmp_path / "model.gguf").touch()
    hub.add(tmp_path)
    with pytest.raises(ResolveError, match=r"it has no config\.json. Next: "):
        hub_commit(REPO, "main")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retryable_if_the_hub_has_an_error(hub, digits_checkpoint, status):
    """The Hub's server errors and rate limit can be retried."""
    hub.add(digits_checkpoint)
    hub.failing = status
    with pytest.raises(HubUnreachable, match=rf"the Hub at {hub.url} reports HTTP {status}\. Next: ") as refusal:
        hub_commit(REPO, "main")
    assert refusal.value.worth_retrying


def test_retryable_if_the_hub_does_not_respond(hub):
    """A Hub that does not respond is named by its address, in one line."""
    hub.close()
    with pytest.raises(HubUnreachable, match=rf"the Hub at {hub.url} does not respond: .*HF_ENDPOINT$") as refusal:
        hub_commit(REPO, "main")
    assert refusal.value.worth_retrying
    assert "\n" not in str(refusal.value)


def test_shipped_model_is_refused_in_one_line_without_a_hub():
    """On a machine without access to the Hub, hf-vit fails at its first task."""
    with pytest.raises(HubUnreachable, match=r"^source\.hub google/vit-base-patch16-224@main: .*Next: ") as refusal:
        resolve_source(read_model_file(INCLUDE / "served" / "hf-vit.yaml"), None)
    assert "\n" not in str(refusal.value)


def test_hub_is_not_asked_for_a_commit_in_the_store(hub):
    """A full commit with a copy in the store needs no Hub. A branch does."""
    hub.close()
    kept = Source(kind="hub", location=REPO, revision=REVISION)
    assert kept == resolve_source(file_of(revision=REVISION), None, is_kept=lambda source: source == kept)
    with pytest.raises(HubUnreachable):
        resolve_source(file_of(revision=REVISION), None, is_kept=lambda _: False)
    with pytest.raises(HubUnreachable):
        resolve_source(file_of(), None, is_kept=lambda _: True)


@pytest.mark.parametrize(
    ("password", "says"),
    [("", "its password is not a Hub token"), ("hf_a\\nX-Evil: 1", "its password is not a Hub token")],
)
def test_refused_if_the_connection_has_no_token(connection, password, says):
    """A connection whose password is not a token is refused. The message does not contain the password."""
    connection(password)
    with pytest.raises(InputRefused, match=rf"^connection hub: {says}\. Next: ") as refusal:
        hub_token("hub")
    assert "Evil" not in str(refusal.value)


def test_refused_if_there_is_no_connection():
    """A missing connection is named; the message says how to create it."""
    with pytest.raises(
        InputRefused, match=r"^connection nowhere: no such connection\. Next: .*password: the Hub's token$"
    ):
        hub_token("nowhere")


def test_token_connection_does_not_change_the_export(release):
    """The same revision, read with another token, is the same export."""
    from slipway.model.export import export_inputs_hash

    source = Source(kind="hub", location=REPO, revision=REVISION)
    mine, yours = (replace(release, source=replace(source, token_conn_id=name)) for name in ("mine", "yours"))
    assert export_inputs_hash(mine) == export_inputs_hash(yours)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", export_inputs_hash(mine))


def test_an_endless_answer_can_be_retried(mean_server, monkeypatch):
    """A slow or endless answer of the Hub or its proxy counts as no response."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", mean_server.url)
    monkeypatch.setattr("slipway.model.hub.TOTAL_S", 0.3)
    with pytest.raises(HubUnreachable, match=r"does not respond: .*answer.*Next: "):
        hub_commit(REPO, "main")
    assert mean_server.sent < 64 * 1024 * 1024


@pytest.mark.parametrize("host", ["{url}", "{url}/", "{host}", ""])
def test_the_token_is_for_the_hub_that_the_connection_names(hub, connection, host):
    """Its host may be HF_ENDPOINT's, or empty."""
    connection("hf_reader", host.format(url=hub.url, host=hub.url.removeprefix("http://")))
    assert hub_token("hub") == "hf_reader"


def test_refused_if_the_connection_is_for_another_host(hub, digits_checkpoint, connection):
    """The password of another server's connection is not sent to the Hub."""
    hub.add(digits_checkpoint)
    connection("hf_reader", "https://api.example/v1")
    with pytest.raises(
        InputRefused, match=r"^connection hub: is for api\.example, and the Hub is at 127.*Next: "
    ) as refusal:
        hub_commit(REPO, "main", token_conn_id="hub")
    assert "hf_reader" not in str(refusal.value)
    assert hub.asked == []


def test_no_redirect_to_another_host_is_followed(hub, digits_checkpoint, connection, redirecting_server, monkeypatch):
    """The Hub's answer comes from HF_ENDPOINT, and the token goes only there; the line names the other host."""
    hub.add(digits_checkpoint)
    server = redirecting_server(hub.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    connection("hf_reader")
    with pytest.raises(ResolveError, match=r"redirects to another host, 127\.0\.0\.1\. Next: correct HF_ENDPOINT"):
        hub_commit(REPO, "main", token_conn_id="hub")
    assert [headers["Authorization"] for headers in server.seen] == ["Bearer hf_reader"]
    assert hub.asked == []


def test_no_redirect_to_plain_http_is_followed(monkeypatch):
    """A redirect of the same host that drops TLS gets no token. The transport answers as no server on one port can."""
    asked = []

    def answer(request):
        asked.append(str(request.url))
        if request.method == "GET":
            return httpx.Response(200, json={"sha": REVISION})
        return httpx.Response(302, headers={"Location": f"http://hub.example{request.url.path}"})

    class Client(httpx.AsyncClient):
        def __init__(self, **options):
            super().__init__(**options, transport=httpx.MockTransport(answer))

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    template = "https://hub.example/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("slipway.bounded_http.httpx.AsyncClient", Client)
    asyncio.run(_find_commit(REPO, "main", "hf_reader"))
    assert [url.split("/")[0] for url in asked] == ["https:", "https:"]


@pytest.mark.parametrize(
    "endpoint", ["http://me:pass-word@hub.example", "http://pass-word@hub.example", "http://hub.example?key=pass-word"]
)
def test_refused_if_hf_endpoint_has_a_login(connection, monkeypatch, endpoint):
    """Messages and records have the Hub's URL, so it may have no login."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    connection("hf_reader")
    for use in (lambda: hub_commit(REPO, "main"), lambda: hub_token("hub")):
        with pytest.raises(InputRefused, match=r"^HF_ENDPOINT: has a login or a query, .*Next: ") as refusal:
            use()
        assert "pass-word" not in str(refusal.value)
