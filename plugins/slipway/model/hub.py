"""The Hugging Face Hub, as resolve sees it: the commit that a revision names now, and whether its files may be read.

The files themselves are the exporter's to fetch. HF_ENDPOINT and HF_TOKEN mean what they mean to 🤗's own client.
"""

from __future__ import annotations

import re

from slipway.errors import HubUnreachable, InputRefused, ResolveError

HUB_TIMEOUT_S = 30
PROBED_FILE = "config.json"  # every checkpoint has it; of a gated model everybody sees the facts, and few the files
TOKEN = re.compile(r"[!-~]+")  # anything else would be refused by HTTP, in words that quote it
COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_ACCEPTED = "Invalid credentials"  # the Hub's words in a 401; others it gives for what is private or not there
UNAUTHORIZED, TOO_MANY_REQUESTS, SERVER_TROUBLE = 401, 429, 500


def hub_token(conn_id: str | None) -> str | None:
    """The token of a connection (its password); None where none is named. Raises InputRefused."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    if conn_id is None:
        return None
    try:
        token = BaseHook.get_connection(conn_id).password
    except AirflowNotFoundException as error:
        raise InputRefused(
            f"connection {conn_id}: there is none. Next: create it in Airflow (Admin, Connections), type http, password: the Hub's token"
        ) from error
    if not token or not TOKEN.fullmatch(token):
        raise InputRefused(f"connection {conn_id}: its password is no Hub token. Next: put the token, hf_…, there")
    return str(token)


def hub_commit(repo: str, revision: str, *, token_conn_id: str | None = None) -> str:
    """The 40-hex commit that a branch, tag or commit of a Hub model names now, its files known to be readable.

    Raises InputRefused, ResolveError, and HubUnreachable where another try may go through.
    """
    from httpx2 import HTTPError  # the client's own HTTP library: its errors pass through the client
    from huggingface_hub import HfApi, hf_hub_url

    api = HfApi(token=hub_token(token_conn_id))
    where = f"source.hub {repo}@{revision}"
    try:
        commit = api.model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S).sha
        if commit is None or not COMMIT.fullmatch(commit):
            raise ResolveError(f"{where}: the Hub names no commit. Next: give a commit as revision")
        api.get_hf_file_metadata(url=hf_hub_url(repo, PROBED_FILE, revision=commit), timeout=HUB_TIMEOUT_S)
    except (HTTPError, OSError, ValueError) as error:
        raise explain(error, where, token_conn_id) from error
    return str(commit)


def explain(error: Exception, where: str, token_conn_id: str | None) -> ResolveError:
    """What the client raised, as one line that says how to mend it; HubUnreachable where another try may go through."""
    from huggingface_hub import constants

    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    if status is None and not isinstance(error, ValueError):
        return HubUnreachable(
            f"{where}: the Hub at {constants.ENDPOINT} does not answer: {_one_line(error)}. "
            "Next: check that the worker reaches it, or set HF_ENDPOINT"
        )
    if status is not None and (status == TOO_MANY_REQUESTS or status >= SERVER_TROUBLE):
        return HubUnreachable(
            f"{where}: the Hub at {constants.ENDPOINT} is in trouble: HTTP {status}. Next: try again later"
        )
    return ResolveError(f"{where}: {_refused(error, status, token_conn_id)}")


def _refused(error: Exception, status: int | None, token_conn_id: str | None) -> str:
    from huggingface_hub import errors

    named = f"the token of connection {token_conn_id}" if token_conn_id else None
    if isinstance(error, errors.GatedRepoError):
        who = named or "a token, and name a connection with it in source.token_conn_id"
        return f"access is gated. Next: accept its terms on the Hub as the owner of {who}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision. Next: name a branch, a tag or a full commit of it"
    if isinstance(error, errors.EntryNotFoundError):
        return f"it has no {PROBED_FILE}. Next: name a checkpoint of transformers"
    if status == UNAUTHORIZED and NOT_ACCEPTED in str(error):
        return f"the Hub does not accept {named or 'the token in HF_TOKEN'}. Next: put a valid one there"
    if isinstance(error, errors.RepositoryNotFoundError) or status == UNAUTHORIZED:  # the Hub does not tell these apart
        how = f"whether {named} may read it" if named else "name a connection with a token in source.token_conn_id"
        return f"no such model, or a private one. Next: check the name, or {how}"
    return f"{_one_line(error)}. Next: check the name and the revision on the Hub"


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
