"""The model file's `load_test`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from slipway.load_plan import LoadPlan
from slipway.model.field_types import Part, RelativePath, Schedule, Share

DEFAULT_PLAN = LoadPlan()
LONGEST_S = 3600  # of a whole test
Rate = Annotated[float, Field(gt=0, le=2000)]
Users = Annotated[int, Field(ge=1, le=1000)]


class LoadSettings(Part):
    """How the DAG `load_test_NAME` loads the live release, and what it must bear, see [load.md](load.md)."""

    rates_per_s: Annotated[tuple[Rate, ...], Field(max_length=20)] = Field(
        default=DEFAULT_PLAN.rates_per_s,
        description="Requests a second, one step after another, each rate larger than the one before. All users together.",
    )
    closed_users: Annotated[tuple[Users, ...], Field(max_length=5)] = Field(
        default=DEFAULT_PLAN.closed_users,
        description="After the rates: numbers of users each of which asks again as soon as it has an answer. They show the most that the release can do.",
    )
    step_s: Annotated[int, Field(ge=5, le=900)] = Field(
        default=DEFAULT_PLAN.step_s, description="How long each step takes, in seconds."
    )
    settle_s: Annotated[int, Field(ge=1, le=300)] = Field(
        default=DEFAULT_PLAN.settle_s, description="How much of a step's beginning is in no figure, in seconds."
    )
    grpc_share: Share = Field(
        default=DEFAULT_PLAN.grpc_share,
        description="The share of the users that ask over gRPC, from 0 to 1; the others ask over REST.",
    )
    keep_s: Annotated[int, Field(ge=1, le=LONGEST_S)] | None = Field(
        default=DEFAULT_PLAN.keep_s,
        description="After how many seconds a user opens a new connection, so that pods which the autoscaler adds get requests too. The time that this takes is in the latencies. If left out: it keeps its connection to the end.",
    )
    p95_ms: Annotated[float, Field(gt=0, le=60_000)] | None = Field(
        default=DEFAULT_PLAN.p95_ms,
        description="The objective: the largest 95th percentile of the answer times at which a rate counts as held. If left out: only errors and the rate count.",
    )
    least_per_s: Rate | None = Field(
        default=DEFAULT_PLAN.least_per_s,
        description="The rate, one of `rates_per_s`, at which the objective must hold; else the run is red. If left out, or if the form names rates without it: the test only measures.",
    )
    most_per_s: Rate | None = Field(
        default=None,
        description="The largest rate that the form may name. If left out: the largest of `rates_per_s`.",
    )
    workers: Annotated[int, Field(ge=1, le=8)] = Field(
        default=DEFAULT_PLAN.workers,
        description="How many processes of the Airflow worker send the requests, for rates that one processor cannot send.",
    )
    images: RelativePath = Field(
        default=DEFAULT_PLAN.images,
        description="Which images are sent: `golden` for the golden cases, `labelled` for `gate.quality.set`, or else a folder of images, relative to the model file.",
    )
    schedule: Schedule | None = Field(
        default=None, description="When it runs by itself: as the model file's `schedule`. If left out: only by hand."
    )
    after_release: bool = Field(
        default=False, description="Whether it also runs after each release that became live and proven."
    )

    @field_validator("rates_per_s")
    @classmethod
    def _rates_rise(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise(rates)):
            raise ValueError("is not in rising order")
        return rates

    @model_validator(mode="after")
    def _it_can_run(self) -> LoadSettings:
        steps = len(self.rates_per_s) + len(self.closed_users)
        if not steps:
            raise ValueError("has no step: give rates_per_s, closed_users or both")
        if steps * self.step_s > LONGEST_S:
            raise ValueError(f"{steps} steps of {self.step_s} s are more than {LONGEST_S} s: leave some out")
        if self.settle_s >= self.step_s:
            raise ValueError("settle_s is not below step_s: nothing would be measured")
        if self.least_per_s is not None and self.least_per_s not in self.rates_per_s:
            raise ValueError("least_per_s is none of rates_per_s")
        if self.most_per_s is not None and self.most_per_s < max(self.rates_per_s, default=0):
            raise ValueError("most_per_s is below the largest of rates_per_s")
        return self

    @property
    def form_most_per_s(self) -> float:
        """The largest rate that the form may name; 0 if it may name none."""
        return self.most_per_s if self.most_per_s is not None else max(self.rates_per_s, default=0)
