"""Asks the Hugging Face Hub which commit a revision names now, and whether its files may be read.

The exporter fetches the files. HF_ENDPOINT and HF_TOKEN have the same meaning as for 🤗's own client.
"""

from __future__ import annotations

import asyncio
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from slipway.connections import HTTP, HUGGINGFACE, find_connection
from slipway.errors import HubUnreachable, InputRefused, ResolveError, one_line
from slipway.strict_json import load_json
from slipway.urls import has_login, query_of

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

HUB_TIMEOUT_S = 30  # to connect, and between two bytes
TOTAL_S = 60  # for a whole answer
PROBED_FILE = "config.json"  # every checkpoint has it; a gated model's files are protected, its metadata is not
TOKEN = re.compile(r"[!-~]+")  # HTTP refuses anything else, with an error that quotes it
COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_ACCEPTED = (
    "Invalid credentials"  # the Hub's 401 for an invalid token; for private and missing models its 401 has other words
)
UNAUTHORIZED, TOO_MANY_REQUESTS, SERVER_ERROR = 401, 429, 500


def hub_token(conn_id: str | None) -> str | None:
    """The token (the password) of a connection of type `http` or `huggingface`; None without a connection. Raises InputRefused.

    It is for the Hub at HF_ENDPOINT: a connection with a host must have that one.
    """
    if conn_id is None:
        return None
    connection = find_connection(conn_id, HTTP, HUGGINGFACE, needs="password: the Hub's token")
    endpoint = hub_endpoint()
    if connection.host and _host(connection.host) != _host(endpoint):
        raise InputRefused(
            f"connection {conn_id}: is for {_host(connection.host)}, and the Hub is at {_host(endpoint)}. "
            "Next: name another connection in source.token_conn_id, or leave its host empty"
        )
    token = connection.password
    if not token or not TOKEN.fullmatch(token):
        raise InputRefused(f"connection {conn_id}: its password is not a Hub token. Next: set it to the token, hf_…")
    return str(token)


def hub_endpoint() -> str:
    """The Hub's URL, from HF_ENDPOINT. Raises InputRefused if it has a login: error messages and records have the URL."""
    from huggingface_hub import constants

    if has_login(constants.ENDPOINT) or query_of(constants.ENDPOINT):
        raise InputRefused(
            "HF_ENDPOINT: has a login or a query, which would be kept in logs and records. "
            "Next: leave it out, and name a connection with a token in source.token_conn_id"
        )
    return constants.ENDPOINT


def _host(url: str) -> str:
    return url.lower().rpartition("://")[2].partition("/")[0].rpartition("@")[2]


def hub_commit(repo: str, revision: str, *, token_conn_id: str | None = None) -> str:
    """The commit (40 hex digits) that a branch, tag or commit of a Hub model names now. Its files are readable.

    Raises InputRefused, ResolveError; HubUnreachable if it can be retried.
    """
    from httpx import HTTPError, InvalidURL

    where, token = f"source.hub {repo}@{revision}", hub_token(token_conn_id)
    try:
        commit = asyncio.run(_find_commit(repo, revision, token))
    except (HTTPError, InvalidURL, OSError, ValueError) as error:
        raise hub_error(error, where, token_conn_id) from error
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ResolveError(f"{where}: the Hub reports no commit. Next: set revision to a commit")
    return commit


async def _find_commit(repo: str, revision: str, token: str | None) -> Any:
    """The Hub's data on the revision, after a check that its files may be read.

    The Hub's own client limits neither size nor time of an answer, so only its errors are used.
    """
    from huggingface_hub import errors, hf_hub_url, is_offline_mode
    from huggingface_hub.utils import build_hf_headers, validate_repo_id  # type: ignore[attr-defined]  # it has it

    from slipway.bounded_http import bounded_client

    if is_offline_mode():
        raise errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    validate_repo_id(repo)
    endpoint = hub_endpoint()
    async with bounded_client(headers=build_hf_headers(token=token), timeout=HUB_TIMEOUT_S) as client:
        facts = await _ask(client, "GET", f"{endpoint}/api/models/{repo}/revision/{quote(revision, safe='')}")
        if facts.has_redirect_location:
            host = facts.url.join(facts.headers["Location"]).host
            raise ResolveError(
                f"source.hub {repo}@{revision}: the Hub at {endpoint} redirects to another host, {host}. Next: correct HF_ENDPOINT"
            )
        found = load_json(facts.content)
        commit = found.get("sha") if isinstance(found, dict) else None
        if commit:
            await _ask(client, "HEAD", hf_hub_url(repo, PROBED_FILE, revision=commit))
    return commit


async def _ask(client: AsyncClient, method: str, url: str) -> Response:
    """The Hub's answer. Raises httpx.HTTPError, and the errors of the Hub's client for a refusal.

    A redirect to another host leads to the file's content, which is not needed; a renamed model redirects within the Hub.
    So no redirect to another host is followed: the token is for the Hub.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]  # it has it

    from slipway.bounded_http import send_within_host

    answer, _ = await send_within_host(client, method, url, total_s=TOTAL_S)
    # httpx or httpx2, which the Hub's client uses since a version of 2026: its errors are that package's.
    package = next(base.__module__ for base in HfHubHTTPError.__mro__ if base.__module__.startswith("httpx"))
    http: Any = import_module(package.partition(".")[0])
    request = http.Request(method, str(answer.url))
    hf_raise_for_status(
        http.Response(answer.status_code, headers=answer.headers.raw, content=_reasons(answer), request=request)
    )
    return answer


def _reasons(answer: Response) -> bytes:
    """The body of an answer, for the Hub's client, which expects a JSON object if it is JSON at all; empty if it is another value."""
    try:
        found = load_json(answer.content)
    except ValueError:
        return answer.content
    return answer.content if isinstance(found, dict) else b""


def hub_error(error: Exception, where: str, token_conn_id: str | None) -> ResolveError:
    """Slipway's error for what the Hub's client raised; HubUnreachable if it can be retried."""
    from huggingface_hub import constants

    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and not isinstance(error, ValueError):
        return HubUnreachable(
            f"{where}: the Hub at {constants.ENDPOINT} does not respond: {one_line(error)}. "
            "Next: check that the worker reaches it, or set HF_ENDPOINT"
        )
    if status is not None and (status == TOO_MANY_REQUESTS or status >= SERVER_ERROR):
        return HubUnreachable(f"{where}: the Hub at {constants.ENDPOINT} reports HTTP {status}. Next: try again later")
    return ResolveError(f"{where}: {_refused(error, status, token_conn_id)}")


def _refused(error: Exception, status: int | None, token_conn_id: str | None) -> str:
    from huggingface_hub import errors

    named = f"the token of connection {token_conn_id}" if token_conn_id else None
    if isinstance(error, errors.GatedRepoError):
        who = named or "a token, and name a connection with it in source.token_conn_id"
        return f"access is gated. Next: accept its terms on the Hub as the owner of {who}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision. Next: use a branch, a tag or a full commit of the model"
    if isinstance(error, errors.EntryNotFoundError):
        return f"it has no {PROBED_FILE}. Next: use a checkpoint of transformers"
    if status == UNAUTHORIZED and NOT_ACCEPTED in str(error):
        return f"the Hub does not accept {named or 'the token in HF_TOKEN'}. Next: replace it with a valid one"
    if isinstance(error, errors.RepositoryNotFoundError) or status == UNAUTHORIZED:  # the Hub reports both alike
        how = f"whether {named} may read it" if named else "name a connection with a token in source.token_conn_id"
        return f"no such model, or a private one. Next: check the name, or {how}"
    return f"{one_line(error)}. Next: check the name and the revision on the Hub"
