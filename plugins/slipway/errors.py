"""What can go wrong, one family per stage.

SlipwayError
├── InputRefused              a model file, Param, connection or setting that cannot be meant
├── ResolveError              a revision or a base image that could not be pinned
│   └── HubUnreachable        the Hub did not answer, or is in trouble        (worth another try)
├── ExportError               the exporter did not leave what it promised
│   ├── PromiseBroken         the model does not do what was promised of it
│   └── SourceUnreachable     nobody answered where the source is             (worth another try)
├── ScratchFull               no room in the worker's temporary folder
├── StoreError                the artifact store did not take or give
├── ImageError
│   ├── EngineUnreachable     no engine answers at the Docker connection      (worth another try)
│   ├── ImageBuildFailed
│   ├── SmokeTestFailed
│   │   └── SmokeTestUnfinished  nothing is known of the image yet
│   ├── RegistryUnreachable   the registry did not answer, or is in trouble   (worth another try)
│   ├── RegistryLoginRefused  the registry wants a login, or another one
│   └── ImagePushRefused
├── PreflightFailed           something is missing that the run needs: all of it in one report
├── ClusterError
│   ├── GoogleUnreachable     Google did not answer, or is in trouble          (worth another try)
│   ├── ClusterRefused        Google said no: a right, a quota, a field
│   ├── ClusterUnfit          there is a cluster, and it cannot be used
│   ├── TargetBusy            another run writes to the target                (worth another try)
│   ├── LeaseLost             the target is another run's since this one took it
│   ├── ClusterInUse          something lives in it that a teardown was not told to take
│   └── TeardownIncomplete    something that was to be torn down is still there
├── ManifestError             kustomize refused, or the result is not what was asked for
├── ApplyError
│   ├── ClusterUnreachable    the API server did not answer                   (worth another try)
│   ├── ApplyRefused          the API server said no
│   └── FieldOwnedElsewhere   another field manager owns what we want to set
├── RegistryUnusable          the registry's own API did not answer, or refused
├── RetentionIncomplete       something old could not be pruned
├── RolloutFailed             the Deployment does not become what was applied
├── AddressMissing            the Service was given no address in time
├── GateFailed                the release did not answer as promised
└── RollbackFailed            the release that was rolled back to is not live again

Every message says where, what and what next, in one line.
"""

from __future__ import annotations

from typing import Any


class SlipwayError(Exception):
    """The base of all errors that Slipway raises on purpose.

    `blames_release` may be given where it depends on the case; `measured` is what the record keeps beside the reason.
    """

    worth_retrying = False  # whether the same call may succeed a minute later
    blames_release = False  # whether the release itself is bad: the schedule does not try it again

    def __init__(
        self, message: str, *, blames_release: bool | None = None, measured: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        if blames_release is not None:
            self.blames_release = blames_release
        self.measured = measured


class InputRefused(SlipwayError):
    """A model file, Param, connection or setting is missing or cannot be meant."""


class ResolveError(SlipwayError):
    """A revision or a base image could not be pinned."""


class HubUnreachable(ResolveError):
    """The Hub did not answer, or answered that it is in trouble."""

    worth_retrying = True


class ExportError(SlipwayError):
    """The exporter did not leave what it promised."""


class PromiseBroken(ExportError):
    """The exported model does not do what was promised of it: of its golden cases, or of 🤗's own answers."""

    blames_release = True


class SourceUnreachable(ExportError):
    """Nobody answered where the source is, or a server in trouble did."""

    worth_retrying = True


class ScratchFull(SlipwayError):
    """The disk of the worker's temporary folder has no room for what the task has to put there."""


class StoreError(SlipwayError):
    """The artifact store did not take or give."""


class ImageError(SlipwayError):
    """The image could not be made, proven or sent."""


class EngineUnreachable(ImageError):
    """No Docker Engine answers where the Docker connection points."""

    worth_retrying = True


class ImageBuildFailed(ImageError):
    """The engine refused to create, fill or commit the container."""


class SmokeTestFailed(ImageError):
    """The image started wrong or answered wrong on the worker's engine."""

    blames_release = True


class SmokeTestUnfinished(SmokeTestFailed):
    """The engine or the clock ended the smoke test before the image was known to be good or bad."""

    blames_release = False


class RegistryUnreachable(ImageError):
    """The registry did not answer the engine, or answered that it is in trouble."""

    worth_retrying = True


class RegistryLoginRefused(ImageError):
    """The registry wants a login, or does not take the one that the engine was given."""


class ImagePushRefused(ImageError):
    """The registry refused the image, or holds something else than was sent."""


class PreflightFailed(SlipwayError):
    """A project, an API, a right or a quota is not there that the run needs; nothing was built, made or billed."""


class ClusterError(SlipwayError):
    """The cluster could not be made, found or used."""


class GoogleUnreachable(ClusterError):
    """Google did not answer, or answered that it is in trouble."""

    worth_retrying = True


class ClusterRefused(ClusterError):
    """Google said no: a right is missing, a quota is full, a field cannot be meant."""


class ClusterUnfit(ClusterError):
    """The cluster's creation failed, or its state allows no use."""


class TargetBusy(ClusterError):
    """Another run holds the Lease of the target."""

    worth_retrying = True


class LeaseLost(ClusterError):
    """The run held the Lease of the target, and does not any more: what it would write may undo another's work."""


class ClusterInUse(ClusterError):
    """Something lives in the cluster, or may, that is not the model's."""


class TeardownIncomplete(ClusterError):
    """Something that was to be torn down is still there."""


class ManifestError(SlipwayError):
    """Kustomize refused, or what it rendered is not what was asked for."""


class ApplyError(SlipwayError):
    """The cluster did not take the manifests."""


class ClusterUnreachable(ApplyError):
    """The API server did not answer."""

    worth_retrying = True


class ApplyRefused(ApplyError):
    """The API server said no to an object."""


class FieldOwnedElsewhere(ApplyError):
    """Another field manager owns a field that the manifests set."""


class RegistryUnusable(SlipwayError):
    """The registry's own API did not answer the worker, or refused."""


class RetentionIncomplete(SlipwayError):
    """Something old could not be pruned, and stays until a later run."""


class RolloutFailed(SlipwayError):
    """The Deployment does not become what was applied."""


class AddressMissing(SlipwayError):
    """The Service was given no address in time."""


class GateFailed(SlipwayError):
    """The deployment answered, and not as promised, or did not answer in time."""


class RollbackFailed(SlipwayError):
    """The release that was rolled back to is not live again."""


def one_line(words: object, *, full_stop: bool = False) -> str:
    """What a client, a server or an error says, as one line; without its full stop, for `… . Next: …` to follow."""
    line = " ".join(str(words).split())
    shown = line if full_stop else line.rstrip(".")
    return shown or (type(words).__name__ if isinstance(words, BaseException) else "")
