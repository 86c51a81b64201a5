"""What a judge says: not yet, yes, no, each with its reason; the gate may also be in doubt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, Self

Outcome = Literal["wait", "pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge says of what it was shown."""

    outcome: Outcome
    reason: str

    @classmethod
    def wait(cls, reason: str) -> Self:
        """Not yet: look again."""
        return cls(outcome="wait", reason=reason)

    @classmethod
    def passed(cls, reason: str) -> Self:
        """Done, and as it should be."""
        return cls(outcome="pass", reason=reason)

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Wrong, and waiting will not mend it."""
        return cls(outcome="fail", reason=reason)

    @classmethod
    def doubtful(cls, reason: str) -> Self:
        """Neither right nor wrong by what could be measured: a person has to say."""
        return cls(outcome="inconclusive", reason=reason)

    def to_dict(self) -> dict[str, str]:
        """The verdict as XCom and trigger events carry it."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.outcome}: {self.reason}"
