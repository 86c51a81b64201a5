"""Sends predict requests through the API server's Service proxy."""

from __future__ import annotations

import json

from slipway.kubernetes.api import FORBIDDEN, UNAUTHORIZED, mend
from slipway.serving.client import no_answer, send_request_async
from slipway.serving.golden import REQUEST_TIMEOUT_S, Answer
from slipway.target import Target


async def ask_at(target: Target, url: str, path: str, body: str | None = None) -> Answer:
    """The same; where the URL has no host, through the proxy of the target's API server, as whoever reaches that may."""
    return await (
        _ask_through(target, url + path, body) if url.startswith("/") else send_request_async(url, path, body)
    )


async def _ask_through(target: Target, path: str, body: str | None) -> Answer:
    import aiohttp

    from slipway.kubernetes.client import async_cluster_client

    headers = {
        "Accept": "application/json",
        "Content-Type": "application/octet-stream",
    }  # as JSON it would be encoded again
    try:
        async with async_cluster_client(target) as client:
            response = await client.call_api(
                path,
                "GET" if body is None else "POST",
                header_params=headers,
                body=body.encode() if body is not None else None,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            return read_proxied(response.status, await response.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        return no_answer(error)


def read_proxied(status: int, body: str) -> Answer:
    """What a model behind an API server's proxy answered; where the API server speaks for itself, that there is no answer.

    It says itself that there is no endpoint, that the one there does not take a connection, or that the caller may not ask.
    """
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if isinstance(said, dict) and (said.get("kind"), said.get("apiVersion")) == ("Status", "v1"):
        denied = status if status in {UNAUTHORIZED, FORBIDDEN} else 0
        return Answer(status=0, body=f"the API server: HTTP {status}: {said.get('message')}", denied=denied)
    return Answer(status=status, body=body)


def way_in(target: Target, denied: int) -> str:
    """What a person does so that the API server passes questions on."""
    if denied == UNAUTHORIZED:
        return mend(target, denied, "")
    rights = f"a Role with the verbs get and create on services/proxy in namespace {target.namespace}"
    return f"give connection {target.conn_id} {rights}, or set target.strategy to rolling"
