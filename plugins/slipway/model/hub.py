"""Asks the Hugging Face Hub which commit a revision names now, and whether its files may be read.

The exporter fetches the files. HF_ENDPOINT and HF_TOKEN have the same meaning as for 🤗's own client.
"""

from __future__ import annotations

import re

from slipway.errors import HubUnreachable, InputRefused, ResolveError, one_line

HUB_TIMEOUT_S = 30
PROBED_FILE = "config.json"  # every checkpoint has it; a gated model's files are protected, its metadata is not
TOKEN = re.compile(r"[!-~]+")  # HTTP refuses anything else, with an error that quotes it
COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_ACCEPTED = (
    "Invalid credentials"  # the Hub's 401 for an invalid token; for private and missing models its 401 has other words
)
UNAUTHORIZED, TOO_MANY_REQUESTS, SERVER_ERROR = 401, 429, 500


def hub_token(conn_id: str | None) -> str | None:
    """The token (the password) of a connection; None without a connection. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    if conn_id is None:
        return None
    try:
        token = BaseHook.get_connection(conn_id).password
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: no such connection. Next: create it in Airflow (Admin, Connections), type http, password: the Hub's token"
        ) from error
    if not token or not TOKEN.fullmatch(token):
        raise InputRefused(f"connection {conn_id}: its password is not a Hub token. Next: set it to the token, hf_…")
    return str(token)


def hub_commit(repo: str, revision: str, *, token_conn_id: str | None = None) -> str:
    """The commit (40 hex digits) that a branch, tag or commit of a Hub model names now. Its files are readable.

    Raises InputRefused, ResolveError; HubUnreachable if it can be retried.
    """
    from httpx2 import HTTPError  # from the HTTP library that the client uses; it lets these errors through
    from huggingface_hub import HfApi, hf_hub_url

    api = HfApi(token=hub_token(token_conn_id))
    where = f"source.hub {repo}@{revision}"
    try:
        commit = api.model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S).sha
        if commit is None or not COMMIT.fullmatch(commit):
            raise ResolveError(f"{where}: the Hub reports no commit. Next: set revision to a commit")
        api.get_hf_file_metadata(url=hf_hub_url(repo, PROBED_FILE, revision=commit), timeout=HUB_TIMEOUT_S)
    except (HTTPError, OSError, ValueError) as error:
        raise hub_error(error, where, token_conn_id) from error
    return str(commit)


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
