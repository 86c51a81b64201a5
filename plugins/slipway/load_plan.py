"""What a load test does: the rates, the users, and what counts as held."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How a release is loaded, and what it must bear."""

    rates_per_s: tuple[float, ...] = (1, 2, 4, 8)
    closed_users: tuple[int, ...] = (4,)
    step_s: int = 20
    settle_s: int = 5
    grpc_share: float = 0.5  # 0..1
    p95_ms: float | None = None
    least_per_s: float | None = None
    left_out_per_s: float | None = None  # the model file's least_per_s, if the form's rates do not have it
    images: str = "golden"  # or labelled, or a folder
    keep_s: int | None = None  # how long a user keeps its connection; None: to the end
    workers: int = 1  # processes that send the requests

    @property
    def steps(self) -> int:
        """How many steps the test has."""
        return len(self.rates_per_s) + len(self.closed_users)
