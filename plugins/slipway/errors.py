"""The errors of Slipway, one family per stage.

SlipwayError
├── InputRefused              a model file, Param, connection or setting is missing or invalid
├── ResolveError              a revision or a base image could not be pinned
│   └── HubUnreachable        the Hub does not respond, or reports an error   (can be retried)
├── ExportError               the exporter's output is missing or wrong
│   ├── PromiseBroken         the exported model does not answer as promised
│   ├── ExportOverLimit       the exporter used more than the model file allows
│   ├── ExportInterrupted     the exporter's pod was lost, or the way to it   (can be retried)
│   └── SourceUnreachable     no answer from the source, or a server error    (can be retried)
├── ScratchFull               no space in the worker's temporary folder
├── StoreError                the artifact store cannot be read or written
├── ImageError
│   ├── EngineUnreachable     no engine responds at the Docker connection     (can be retried)
│   ├── ImageBuildFailed
│   ├── SmokeTestFailed
│   │   └── SmokeTestUnfinished  it is not known yet whether the image is good
│   ├── RegistryUnreachable   the registry does not respond, or reports an error (can be retried)
│   ├── RegistryLoginRefused  the registry requires a login, or another one
│   └── ImagePushRefused
├── PreflightFailed           something that the run needs is missing: one report of everything
├── NothingServed             no proven release serves, and the one to deploy is known to be bad
├── ClusterError
│   ├── GoogleUnreachable     Google does not respond, or reports an error    (can be retried)
│   ├── ClusterRefused        Google refused: a right, a quota, a field
│   ├── ClusterUnfit          the cluster exists, but cannot be used
│   ├── TargetBusy            another run writes to the target                (can be retried)
│   ├── ReleaseUnsettled      a run has applied a release and not recorded its end yet (can be retried)
│   ├── LeaseLost             another run has taken the target's Lease from this run
│   ├── ClusterInUse          the cluster has something that the teardown may not delete
│   └── TeardownIncomplete    something that the teardown deletes still exists
├── ManifestError             kustomize refused, or its output is wrong
├── ApplyError
│   ├── ClusterUnreachable    the API server does not respond                 (can be retried)
│   ├── ApplyRefused          the API server refused
│   │   └── NamespaceMissing  the target's namespace does not exist
│   └── FieldOwnedElsewhere   another field manager owns a field that we set
├── RegistryUnusable          the registry's own API does not respond, or refused
├── RetentionIncomplete       something old could not be pruned
├── RolloutFailed             the Deployment did not become ready as applied
├── AddressMissing            the Service got no address in time
├── GateFailed                the release did not answer as promised
├── BakeFailed                the release exceeded a limit while it was watched after its gate
├── LoadTestFailed            the release does not bear the load that the model file asks
├── LoadTestUnfinished        the load test ended without figures
└── RollbackFailed            the release that was rolled back to is not live again

Every message says where, what and what next, in one line of printable characters.
"""

from __future__ import annotations

from typing import Any

from slipway.urls import hide_logins

LONGEST_LINE = 8000  # characters: the findings of a preflight fit, a server's endless answer does not
LONGEST_END = 2000  # of them at the end, where `Next:` is


class SlipwayError(Exception):
    """The base of all errors that Slipway raises on purpose.

    Give `blames_release` if it depends on the case; `measured` goes into the record with the reason.
    A login in a URL of the message is hidden: the message goes into logs and records.
    """

    worth_retrying = False  # whether the same call can succeed a minute later
    blames_release = False  # whether the release is bad: the schedule does not try it again

    def __init__(
        self, message: str, *, blames_release: bool | None = None, measured: dict[str, Any] | None = None
    ) -> None:
        super().__init__(plain_line(hide_logins(message)))
        if blames_release is not None:
            self.blames_release = blames_release
        self.measured = measured


class InputRefused(SlipwayError):
    """A model file, Param, connection or setting is missing or invalid."""


class ResolveError(SlipwayError):
    """A revision or a base image could not be pinned."""


class HubUnreachable(ResolveError):
    """The Hub does not respond, or reports a server error."""

    worth_retrying = True


class ExportError(SlipwayError):
    """The exporter's output is missing or wrong."""


class PromiseBroken(ExportError):
    """The exported model does not answer as promised: its golden cases, or 🤗's own answers."""

    blames_release = True


class ExportOverLimit(ExportError):
    """The exporter used more memory, processor time, processes or bytes than the model file allows."""


class ExportInterrupted(ExportError):
    """The exporter's pod was lost, or the connection to it: a node was drained, the pod was deleted."""

    worth_retrying = True


class SourceUnreachable(ExportError):
    """The source does not respond, or reports a server error."""

    worth_retrying = True


class ScratchFull(SlipwayError):
    """The disk of the worker's temporary folder has no space for the task's files."""


class StoreError(SlipwayError):
    """The artifact store cannot be read or written."""


class ImageError(SlipwayError):
    """The image could not be built, tested or pushed."""


class EngineUnreachable(ImageError):
    """No Docker Engine responds at the Docker connection."""

    worth_retrying = True


class ImageBuildFailed(ImageError):
    """The engine refused to create, fill or commit the container."""


class SmokeTestFailed(ImageError):
    """The image did not start, or answered wrong, on the worker's engine."""

    blames_release = True


class SmokeTestUnfinished(SmokeTestFailed):
    """The smoke test ended, by the engine or the time limit, before the image was known to be good or bad."""

    blames_release = False


class RegistryUnreachable(ImageError):
    """The registry does not respond to the engine, or reports a server error."""

    worth_retrying = True


class RegistryLoginRefused(ImageError):
    """The registry requires a login, or refuses the engine's."""


class ImagePushRefused(ImageError):
    """The registry refused the image, or holds another one than was pushed."""


class PreflightFailed(SlipwayError):
    """A project, an API, a right or a quota that the run needs is missing; nothing was built, created or billed."""


class NothingServed(SlipwayError):
    """No proven release serves, and the schedule does not retry the one to deploy, because it is known to be bad."""


class ClusterError(SlipwayError):
    """The cluster could not be created, found or used."""


class GoogleUnreachable(ClusterError):
    """Google does not respond, or reports a server error."""

    worth_retrying = True


class ClusterRefused(ClusterError):
    """Google refused: a right is missing, a quota is full, a field is invalid."""


class ClusterUnfit(ClusterError):
    """The cluster's creation failed, or its state does not allow its use."""


class TargetBusy(ClusterError):
    """Another run holds the Lease of the target."""

    worth_retrying = True


class ReleaseUnsettled(ClusterError):
    """A run has applied a release and has not recorded its end yet, so nobody knows what serves."""

    worth_retrying = True


class LeaseLost(ClusterError):
    """The run no longer holds the target's Lease: its writes could overwrite another run's."""


class ClusterInUse(ClusterError):
    """The cluster has, or may have, something that does not belong to the model."""


class TeardownIncomplete(ClusterError):
    """Something that the teardown deletes still exists."""


class ManifestError(SlipwayError):
    """Kustomize refused, or its output is wrong."""


class ApplyError(SlipwayError):
    """The manifests could not be applied."""


class ClusterUnreachable(ApplyError):
    """The API server does not respond."""

    worth_retrying = True


class ApplyRefused(ApplyError):
    """The API server refused an object."""


class NamespaceMissing(ApplyRefused):
    """The target's namespace does not exist."""


class FieldOwnedElsewhere(ApplyError):
    """Another field manager owns a field that the manifests set."""


class RegistryUnusable(SlipwayError):
    """The registry's own API does not respond to the worker, or refused.

    `status` is its HTTP status: 0 if there was no answer, None if an answer cannot be used.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RetentionIncomplete(SlipwayError):
    """Something old could not be pruned; a later run tries again."""


class RolloutFailed(SlipwayError):
    """The Deployment did not become ready as applied."""


class AddressMissing(SlipwayError):
    """The Service got no address in time."""


class GateFailed(SlipwayError):
    """The release answered wrong, or did not answer in time."""


class BakeFailed(SlipwayError):
    """The release exceeded a limit, answered wrong, or could not be watched, after its gate had passed."""


class LoadTestFailed(SlipwayError):
    """The release does not bear the load that the model file asks, or answers wrongly under load."""


class LoadTestUnfinished(SlipwayError):
    """The load test's program ended without figures."""

    worth_retrying = True


class RollbackFailed(SlipwayError):
    """The release that was rolled back to is not live again."""


def plain_line(text: str) -> str:
    """The text in one line of printable characters; the middle of a very long one is left out.

    Line ends and tabs become spaces. Other control characters, such as ESC, characters that reverse or hide text, and lone
    surrogates, which no database stores, become their escapes.
    """
    text = _without_middle(text)
    if text.isprintable():
        return text
    shown = (char if char.isprintable() else " " if char.isspace() else repr(char)[1:-1] for char in text)
    return _without_middle("".join(shown))


def _without_middle(text: str) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    return f"{text[: LONGEST_LINE - LONGEST_END]} … {text[-LONGEST_END:]}"


def one_line(words: object, *, full_stop: bool = False) -> str:
    """The message of a client, server or error in one line; without the final full stop, because `. Next: …` follows."""
    line = " ".join(plain_line(str(words)).split())
    shown = line if full_stop else line.rstrip(".")
    return shown or (type(words).__name__ if isinstance(words, BaseException) else "")
