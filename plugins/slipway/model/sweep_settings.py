"""The model file's `sweep`."""

from __future__ import annotations

from itertools import product
from typing import Annotated

from pydantic import Field, model_validator

from slipway.model.field_types import Part
from slipway.model.gate_settings import LEAST_REQUESTS
from slipway.variants import SweepPlan, Variant

MOST_VARIANTS = 12
LEAST_ROUNDS, MOST_ROUNDS = 3, 20  # of a variant in all passes: what an interval needs, and what its table has
LONGEST_S = 2 * 3600  # under load
Threads = Annotated[int, Field(ge=1, le=256)]


class GridSettings(Part):
    """Numbers of which each combination is a variant of the model file's overlay. What is left out is as the overlay says."""

    replicas: tuple[Annotated[int, Field(ge=1, le=20)], ...] = Field(default=(), description="Pods.")
    inter_op: tuple[Threads, ...] = Field(
        default=(), description="Threads for operations that run at the same time; only on TensorFlow."
    )
    intra_op: tuple[Threads, ...] = Field(default=(), description="Threads for the parts of one operation.")
    max_batch_size: tuple[Annotated[int, Field(ge=0, le=1000)], ...] = Field(
        default=(),
        description="Images that are joined at most; 0 for none. On TensorFlow, others need `export.on_bad_image: mark`.",
    )


class SweepSettings(Part):
    """What the DAG `sweep_NAME` compares, and how it loads each variant, see [load.md](load.md#sweep)."""

    overlays: tuple[str, ...] = Field(
        default=(),
        description="Folders of `include/manifests/overlays`, each a variant. The model file's own overlay always is one, and comes first.",
    )
    grid: GridSettings = GridSettings()
    rate_per_s: Annotated[float, Field(gt=0, le=50)] = Field(
        description="Requests a second that each variant is sent, over REST, through the API server."
    )
    closed_users: Annotated[int, Field(ge=1, le=100)] = Field(
        default=4,
        description="After the rate: users that ask again as soon as they have an answer. They show the most that a variant does, and what it costs in CPU.",
    )
    p95_ms: Annotated[float, Field(gt=0, le=60_000)] | None = Field(
        default=None,
        description="The objective: the largest 95th percentile of the answer times at the rate. Of the variants within it, the one with the most requests per CPU second is recommended. If left out: the one with the smallest percentile.",
    )
    passes: Annotated[int, Field(ge=1, le=4)] = Field(
        default=2, description="How often all variants are started and measured, every second time in reverse order."
    )
    rounds: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] = Field(
        default=3, description="How often a variant is measured in each pass."
    )
    step_s: Annotated[int, Field(ge=3, le=120)] = Field(
        default=20, description="How long a round takes at the rate, and again with the closed users, in seconds."
    )
    settle_s: Annotated[int, Field(ge=1, le=60)] = Field(
        default=5, description="How much of a round's beginning is in no figure, in seconds."
    )

    @model_validator(mode="after")
    def _it_is_bounded(self) -> SweepSettings:
        variants = len(_variants(self, None))
        if variants > MOST_VARIANTS:
            raise ValueError(f"{variants} variants are more than {MOST_VARIANTS}: leave some out")
        seconds = variants * self.passes * 2 * self.rounds * self.step_s
        if seconds > LONGEST_S:
            raise ValueError(f"takes {seconds} s under load, more than {LONGEST_S}: leave out variants or rounds")
        return self

    @model_validator(mode="after")
    def _something_is_measured(self) -> SweepSettings:
        if not LEAST_ROUNDS <= self.passes * self.rounds <= MOST_ROUNDS:
            raise ValueError(
                f"passes times rounds is {self.passes * self.rounds}: at least {LEAST_ROUNDS} are an interval, at most {MOST_ROUNDS} make sense"
            )
        if self.settle_s >= self.step_s:
            raise ValueError("settle_s is not below step_s: nothing would be measured")
        asked = self.rate_per_s * (self.step_s - self.settle_s)
        if asked < LEAST_REQUESTS:
            raise ValueError(
                f"{asked:g} requests in a round are too few for a percentile: at least {LEAST_REQUESTS}, by a larger rate or longer steps"
            )
        return self


def sweep_plan(asked: SweepSettings, overlay: str | None) -> SweepPlan:
    """The plan of a sweep; `overlay` is the model file's own."""
    return SweepPlan(
        variants=_variants(asked, overlay),
        rate_per_s=asked.rate_per_s,
        closed_users=asked.closed_users,
        p95_ms=asked.p95_ms,
        passes=asked.passes,
        rounds=asked.rounds,
        step_s=asked.step_s,
        settle_s=asked.settle_s,
    )


def _variants(asked: SweepSettings, overlay: str | None) -> tuple[Variant, ...]:
    """The own overlay, the named ones, then the grid; each once."""
    grid = asked.grid
    numbers = [values or (None,) for values in (grid.replicas, grid.inter_op, grid.intra_op, grid.max_batch_size)]
    combined = [
        Variant(overlay=overlay, replicas=replicas, inter_op=inter_op, intra_op=intra_op, max_batch_size=size)
        for replicas, inter_op, intra_op, size in product(*numbers)
    ]
    named = [Variant(overlay=name) for name in asked.overlays]
    return tuple(dict.fromkeys((Variant(overlay=overlay), *named, *combined)))
