"""What a judge says: not yet, yes, no, each with its reason; the gate may also be in doubt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, Self

from slipway.errors import PreflightFailed

Outcome = Literal["wait", "pass", "fail", "inconclusive"]
FindingOutcome = Literal["ok", "warned", "missing"]


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
    def inconclusive(cls, reason: str) -> Self:
        """Neither right nor wrong by what could be measured: a person has to say."""
        return cls(outcome="inconclusive", reason=reason)

    def to_dict(self) -> dict[str, str]:
        """The verdict as XCom and trigger events carry it."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.outcome}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    outcome: FindingOutcome
    said: str
    then: str = ""  # the next command, or what to do

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.said}{f'. Next: {self.then}' if self.then else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """All that was looked at."""

    findings: tuple[Finding, ...]


def require(where: str, findings: Iterable[Finding]) -> None:
    """Raise PreflightFailed, in one line, where something is missing."""
    missing = [one for one in findings if one.outcome == "missing"]
    if missing:
        first = missing[0].then
        raise PreflightFailed(
            f"{where}: {'; '.join(one.said for one in missing)}. Next: {first}"
            f"{'; the log has a line with what to do for each of the others' if missing[1:] else ''}"
        )
