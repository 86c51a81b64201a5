"""Sends requests to model servers through the API server's proxies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from slipway.bounded_http import EndlessAnswer
from slipway.kubernetes.api import FORBIDDEN, UNAUTHORIZED, how_to_fix_refusal
from slipway.serving.client import no_answer, send_request_async
from slipway.serving.golden import ANSWER_TIMEOUT_S, MAX_ANSWER_BYTES, REQUEST_TIMEOUT_S, Answer
from slipway.strict_json import load_json
from slipway.target import Target

if TYPE_CHECKING:
    import aiohttp

LATE = f"the API server: no complete answer within {ANSWER_TIMEOUT_S:g} s"


async def send_to_service(target: Target, url: str, path: str, body: str | None = None) -> Answer:
    """Send a request; through the target's API server if the URL has no host: then it is the path of a Service's or a pod's proxy."""
    return await (
        _ask_through(target, url + path, body) if url.startswith("/") else send_request_async(url, path, body)
    )


async def _ask_through(target: Target, path: str, body: str | None) -> Answer:
    import aiohttp

    from slipway.kubernetes.client import async_cluster_client

    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S), async_cluster_client(target) as client:
            return await send_through(client, path, body)
    except aiohttp.ClientError as error:  # some of aiohttp's are TimeoutErrors too
        return no_answer(error)
    except TimeoutError:
        return no_answer(EndlessAnswer(LATE))


async def send_through(client: Any, path: str, body: str | None = None) -> Answer:
    """Send a request to a path of the API server on an open `kubernetes_asyncio` client, within a total time."""
    import aiohttp

    # As JSON the client would encode the body again.
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/octet-stream",
    }
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            response = await client.call_api(
                path,
                "GET" if body is None else "POST",
                header_params=headers,
                body=body.encode() if body is not None else None,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=REQUEST_TIMEOUT_S,
            )
            return read_proxy_answer(response.status, await _read_bounded(response))
    except (aiohttp.ClientError, EndlessAnswer) as error:
        return no_answer(error)
    except TimeoutError:
        return no_answer(EndlessAnswer(LATE))


async def _read_bounded(response: aiohttp.ClientResponse) -> str:
    """The body of an answer. Raises EndlessAnswer if it is too large, or hides its size."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise EndlessAnswer("the API server: a compressed answer, which was not asked for")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise EndlessAnswer(f"the API server: an answer of more than {MAX_ANSWER_BYTES} bytes")
    return body.decode(errors="replace")


def read_proxy_answer(status: int, body: str) -> Answer:
    """The answer of the model behind the API server's proxy; no answer (status 0) if the API server itself responded.

    It responds itself if the Service has no endpoint, if the endpoint takes no connection, or if the caller lacks the right.
    """
    try:
        parsed = load_json(body)
    except ValueError:
        parsed = None
    if isinstance(parsed, dict) and (parsed.get("kind"), parsed.get("apiVersion")) == ("Status", "v1"):
        denied = status if status in {UNAUTHORIZED, FORBIDDEN} else 0
        return Answer(status=0, body=f"the API server: HTTP {status}: {parsed.get('message')}", denied=denied)
    return Answer(status=status, body=body)


def how_to_allow_proxy(target: Target, denied: int) -> str:
    """What a person does so that the API server passes the requests on."""
    return _how_to_allow(target, denied, "create on services/proxy", otherwise="set target.strategy to rolling")


def how_to_allow_pod_proxy(target: Target, denied: int) -> str:
    """What a person does so that the API server passes the requests for the pods' metrics on."""
    return _how_to_allow(target, denied, "get on pods/proxy", otherwise="leave gate.bake out of the model file")


def _how_to_allow(target: Target, denied: int, verb: str, *, otherwise: str) -> str:
    if denied == UNAUTHORIZED:
        return how_to_fix_refusal(target, denied, "")
    role = f"a Role with the verb {verb} in namespace {target.namespace}"
    return f"give connection {target.conn_id} {role}, or {otherwise}"
