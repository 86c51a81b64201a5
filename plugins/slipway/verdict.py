"""What a judge returns: a Verdict with its reason, or the Findings of a preflight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, Self

from slipway.errors import PreflightFailed, plain_line

Outcome = Literal["wait", "pass", "fail", "inconclusive"]
FindingOutcome = Literal["ok", "warned", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judge's outcome and its reason: one line of printable characters, whatever words of a server it has."""

    outcome: Outcome
    reason: str

    def __post_init__(self) -> None:
        """Make the reason one line."""
        object.__setattr__(self, "reason", plain_line(self.reason))

    @classmethod
    def wait(cls, reason: str) -> Self:
        """Not decided yet: check again."""
        return cls(outcome="wait", reason=reason)

    @classmethod
    def passed(cls, reason: str) -> Self:
        """Done, and as required."""
        return cls(outcome="pass", reason=reason)

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Wrong, and waiting will not fix it."""
        return cls(outcome="fail", reason=reason)

    @classmethod
    def inconclusive(cls, reason: str) -> Self:
        """The measurements do not decide it: a person must."""
        return cls(outcome="inconclusive", reason=reason)

    def to_dict(self) -> dict[str, str]:
        """For XCom and trigger events."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.outcome}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one preflight check."""

    outcome: FindingOutcome
    said: str
    then: str = ""  # the next command or step

    def __post_init__(self) -> None:
        """Make both one line, as a Verdict's reason."""
        object.__setattr__(self, "said", plain_line(self.said))
        object.__setattr__(self, "then", plain_line(self.then))

    def __str__(self) -> str:
        """One line for a log."""
        return f"{self.said}{f'. Next: {self.then}' if self.then else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The results of all preflight checks."""

    findings: tuple[Finding, ...]


def require_nothing_missing(where: str, findings: Iterable[Finding]) -> None:
    """Raise PreflightFailed, in one line, if a finding says that something is missing."""
    missing = [one for one in findings if one.outcome == "missing"]
    if missing:
        first = missing[0].then
        raise PreflightFailed(
            f"{where}: {'; '.join(one.said for one in missing)}. Next: {first}"
            f"{'; the log has the next step for each of the others' if missing[1:] else ''}"
        )
