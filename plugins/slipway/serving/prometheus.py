"""Asks a Prometheus for one number, over its HTTP API."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from slipway.bounded_http import bounded_client, send_bounded
from slipway.connections import HTTP, find_connection
from slipway.errors import InputRefused, one_line
from slipway.strict_json import load_json
from slipway.urls import plain_url

QUERY = "/api/v1/query"
TIMEOUT_S = 20
MAX_BYTES = 1024 * 1024
OK = 200


class PrometheusUnread(Exception):
    """Why a Prometheus gave no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """Where a Prometheus is, and how one logs in to it."""

    conn_id: str
    url: str
    headers: dict[str, str]
    login: tuple[str, str] | None

    def __repr__(self) -> str:
        """Without the login."""
        return f"Prometheus({self.conn_id}, {plain_url(self.url)})"


def find_prometheus(conn_id: str) -> Prometheus:
    """The Prometheus of a connection. Raises InputRefused. For threads: Airflow's look-up blocks an event loop."""
    connection = find_connection(conn_id, HTTP, needs="host and port of a Prometheus")
    host = str(connection.host or "").rstrip("/")
    if not host:
        raise InputRefused(f"connection {conn_id}: has no host. Next: fill in host and port of a Prometheus")
    url = host if "://" in host else f"{connection.schema or 'http'}://{host}"
    url = f"{url}:{connection.port}" if connection.port else url
    login, password = connection.login, connection.password or ""
    bearer = {"Authorization": f"Bearer {password}"} if password and not login else {}
    return Prometheus(conn_id=conn_id, url=url, headers=bearer, login=(login, password) if login else None)


async def ask_number(server: Prometheus, query: str) -> float:
    """The one number that a query gives now; NaN if it is none. Raises PrometheusUnread."""
    where = f"connection {server.conn_id}: {plain_url(server.url)}{QUERY}"
    try:
        async with bounded_client(
            max_bytes=MAX_BYTES, timeout=TIMEOUT_S, headers=server.headers, auth=server.login
        ) as client:
            answer = await send_bounded(
                client, "POST", f"{server.url}{QUERY}", total_s=TIMEOUT_S, data={"query": query}
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PrometheusUnread(f"{where}: {one_line(error)}") from error
    try:
        body = load_json(answer.text)
    except ValueError:
        body = None
    if answer.status_code != OK or not isinstance(body, dict) or body.get("status") != "success":
        said = body.get("error") if isinstance(body, dict) else None
        raise PrometheusUnread(f"{where}: HTTP {answer.status_code}: {one_line(said or answer.text[:200])}")
    return _number(body.get("data"), f"{where}: {query}")


def _number(data: Any, where: str) -> float:
    """The number in a query's result: of a scalar, or of the only element of a vector."""
    found = data if isinstance(data, dict) else {}
    kind, result = found.get("resultType"), found.get("result")
    if kind == "vector" and isinstance(result, list):
        if len(result) != 1:
            then = "join them, with sum(…) say" if result else "end the query in `or vector(0)`, if nothing means zero"
            raise PrometheusUnread(f"{where}: {len(result)} numbers, one is needed. Next: {then}")
        result = result[0].get("value") if isinstance(result[0], dict) else None
    if kind in {"scalar", "vector"} and isinstance(result, list) and len(result) == len(("time", "number")):
        with suppress(TypeError, ValueError):
            return float(result[1])
    raise PrometheusUnread(f"{where}: a result of type {kind}, not one number. Next: write a query for one number now")
