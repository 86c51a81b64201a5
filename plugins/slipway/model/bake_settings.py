"""The model file's `gate.bake`."""

from __future__ import annotations

from string import Template
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from slipway.model.field_types import Part, Share
from slipway.release import QUERY_NAMES, Bake

DEFAULT_BAKE = Bake()


def check_query(query: str) -> str:
    """The query. Raises ValueError if it has a placeholder that nothing fills."""
    unknown = [name for name in Template(query).get_identifiers() if name not in QUERY_NAMES]
    if unknown:
        known = ", ".join(f"${name}" for name in QUERY_NAMES)
        raise ValueError(f"has the placeholder ${unknown[0]}, but only {known} are filled in; a plain $ is written $$")
    return query


Query = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(check_query)]


class PrometheusSettings(Part):
    """A Prometheus of your own, which is asked in place of the pods, see [gate.md](gate.md#a-prometheus-of-your-own)."""

    conn_id: str = Field(
        min_length=1,
        description="A connection of type http with the Prometheus's address: with login and password, or only a password, which is sent as a bearer token.",
    )
    errors: Query | None = Field(
        default=None,
        description="A query for the share of requests that failed, from 0 to 1, which `max_errors` limits.",
    )
    p95_ms: Query | None = Field(
        default=None,
        description="A query for the 95th percentile of the answer times, in milliseconds, which `bake.p95_ms` limits.",
    )

    @model_validator(mode="after")
    def _asks_something(self) -> PrometheusSettings:
        if self.errors is None and self.p95_ms is None:
            raise ValueError("has no query: give errors, p95_ms or both")
        return self


class BakeSettings(Part):
    """How long a release is watched after its gate before it counts as good, see [gate.md](gate.md#bake)."""

    for_s: Annotated[int, Field(ge=10, le=6 * 3600)] = Field(
        default=DEFAULT_BAKE.for_s, description="How long the release is watched, in seconds."
    )
    every_s: Annotated[int, Field(ge=2, le=300)] = Field(
        default=DEFAULT_BAKE.every_s,
        description="How often the golden requests are sent and the metrics are read, in seconds.",
    )
    max_errors: Share = Field(
        default=DEFAULT_BAKE.max_errors,
        description="The largest share of requests that the server may fail to answer, from 0 to 1. Requests that it refuses, because they are bad, are not among them.",
    )
    max_more_errors: Share | None = Field(
        default=DEFAULT_BAKE.max_more_errors,
        description="How far that share may be above the one of the release before: 0.01 for one request in a hundred. If left out: not judged.",
    )
    max_refused: Share | None = Field(
        default=DEFAULT_BAKE.max_refused,
        description="The largest share of requests that the server may refuse (400, 404), from 0 to 1. If left out: not judged, because anybody can send bad requests.",
    )
    p95_ms: Annotated[float, Field(gt=0, le=60_000)] | None = Field(
        default=DEFAULT_BAKE.p95_ms,
        description="Upper limit for the 95th percentile of the server's own answer times, in milliseconds. If left out: not judged.",
    )
    max_slowdown: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=DEFAULT_BAKE.max_slowdown,
        description="How far the mean answer time may be above that of the release before, as a share: 0.2 for 20 %. If left out: not judged.",
    )
    prometheus: PrometheusSettings | None = Field(
        default=None, description="A Prometheus that is asked instead. If left out: the pods' own pages are read."
    )

    @model_validator(mode="after")
    def _is_more_than_a_moment(self) -> BakeSettings:
        if self.every_s > self.for_s:
            raise ValueError("every_s is more than for_s: the release would be looked at once")
        return self

    @model_validator(mode="after")
    def _limits_are_asked_for(self) -> BakeSettings:
        asked = self.prometheus
        if asked is None:
            return self
        for name in ("max_slowdown", "max_more_errors", "max_refused"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is judged by the pods' own pages: leave out {name} or prometheus")
        if self.p95_ms is not None and asked.p95_ms is None:
            raise ValueError("p95_ms needs prometheus.p95_ms, the query for it")
        if asked.p95_ms is not None and self.p95_ms is None:
            raise ValueError("prometheus.p95_ms has no limit: give p95_ms")
        if self.max_errors != DEFAULT_BAKE.max_errors and asked.errors is None:
            raise ValueError("max_errors needs prometheus.errors, the query for it")
        return self
