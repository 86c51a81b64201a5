"""Variants of a release that a sweep compares: other overlays, and other numbers of pods, threads and joined images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An overlay, and what is different from it. None means: as the overlay says."""

    overlay: str | None  # None: the base
    replicas: int | None = None
    inter_op: int | None = None  # threads
    intra_op: int | None = None  # threads
    max_batch_size: int | None = None  # images; 0: requests are not joined

    @property
    def name(self) -> str:
        """As tables and the UI show it; different for each variant."""
        said = [self.overlay or "base"]
        if self.replicas is not None:
            said.append("1 pod" if self.replicas == 1 else f"{self.replicas} pods")
        if self.inter_op is not None:
            said.append(f"{self.inter_op} inter-op")
        if self.intra_op is not None:
            said.append(f"{self.intra_op} intra-op")
        if self.max_batch_size is not None:
            said.append(f"batches of {self.max_batch_size}" if self.max_batch_size else "no batches")
        return ", ".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep compares, and how each variant is loaded."""

    variants: tuple[Variant, ...]  # the first is the model file's own overlay
    rate_per_s: float
    closed_users: int
    p95_ms: float | None  # the objective at the rate
    passes: int
    rounds: int  # of each variant in each pass
    step_s: int
    settle_s: int  # the beginning of a step, which is in no figure

    @property
    def turns(self) -> tuple[Variant, ...]:
        """The variants as they are measured. Every second pass goes backwards: what changes over time affects all of them."""
        return tuple(
            variant
            for number in range(self.passes)
            for variant in (self.variants if number % 2 == 0 else self.variants[::-1])
        )

    @property
    def turn_s(self) -> int:
        """How long a variant is loaded in each turn."""
        return 2 * self.rounds * self.step_s
