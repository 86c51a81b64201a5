"""Runs `kubectl kustomize` on the folders `manifests` for a release, and returns the objects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from slipway.errors import ManifestError, one_line
from slipway.kubernetes.manifests import (
    BLANK_IMAGE,
    BLANK_RELEASE_ID,
    BLANK_VERSION,
    Manifest,
    apply_rank,
    check_manifests,
    manifests_to_yaml,
    render_kustomization,
)
from slipway.kubernetes.overlay_files import read_overlay
from slipway.kubernetes.policy import Allowed, check_policy
from slipway.paths import manifests_folders
from slipway.release import Release
from slipway.scratch import scratch_folder

VARIANT = Path("overlays") / "slipway-variant"  # the folder of a variant's kustomization in that copy
COPIED = Path("manifests")  # the folder of the overlay's files that kustomize reads, in the scratch folder
KUBECTL = "kubectl"  # on every worker: a package in requirements.in brings it
RENDER_TIMEOUT_S = 60


def render_manifests(
    release: Release,
    *,
    reference: str = BLANK_IMAGE,
    version: int = BLANK_VERSION,
    release_id: str = BLANK_RELEASE_ID,
    allowed: Allowed | None = None,
) -> list[Manifest]:
    """The checked objects of a release, in the order in which they are applied; the same release gives the same bytes.

    Without image, version and id they are blank. Only `resolve` renders; later tasks read what it stored (`rendered`).
    `resolve` also says what is `allowed` in an overlay; what a later task renders again must be the same.
    Raises ManifestError with kustomize's message, or with the object and field that must not be applied.
    """
    objects = build_manifests(release, reference=reference, version=version, release_id=release_id)
    if allowed is not None:
        check_policy(objects, allowed)
    check_manifests(objects, release, reference=reference)
    return objects


def build_manifests(
    release: Release, *, reference: str, version: int, release_id: str, suffix: str = "", variant: str | None = None
) -> list[Manifest]:
    """What kustomize renders offline, unchecked, in the order of an apply.

    With a suffix, the objects run next to the live ones. A variant is the text of a kustomization on the release's overlay.

    Raises ManifestError for an overlay that is not all in the folders `manifests`, or with kustomize's message.
    """
    roots = manifests_folders()
    overlay = overlay_folder(release.overlay, roots)
    top, files = read_overlay(overlay, roots)
    if variant is not None:
        files, top = {**files, VARIANT / "kustomization.yaml": variant.encode()}, VARIANT
    with scratch_folder("render") as scratch:
        folder = scratch.resolve()
        for place, content in files.items():
            copy = folder / COPIED / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        kustomization = render_kustomization(
            release,
            resources=f"./{COPIED / top}",
            reference=reference,
            version=version,
            release_id=release_id,
            suffix=suffix,
        )
        (folder / "kustomization.yaml").write_text(manifests_to_yaml([kustomization]), encoding="utf-8")
        return sorted(_kustomize(folder, roots[0] / overlay, roots[0]), key=apply_rank)


def overlay_folder(overlay: str | None, roots: Sequence[Path]) -> Path:
    """The folder of an overlay in the folders `manifests`; the base's for None. Raises ManifestError with the overlays that exist."""
    folder = Path("base") if overlay is None else Path("overlays") / overlay
    if (overlay is not None and Path(overlay).name != overlay) or not any(
        (root / folder / "kustomization.yaml").is_file() for root in roots
    ):
        known = {path.parent.name for root in roots for path in root.glob("overlays/*/kustomization.yaml")}
        raise ManifestError(
            f"overlay {overlay!r}: there is no manifests/overlays/{overlay}/kustomization.yaml. Next: use one of {', '.join(sorted(known))}"
        )
    return folder


def _kustomize(folder: Path, overlay: Path, root: Path) -> list[Manifest]:
    """The objects of a folder. kustomize gets nothing of the worker's environment: no PATH with a git, no login, no proxy."""
    program = shutil.which(KUBECTL)
    if program is None:
        raise ManifestError("kubectl: not found on this worker. Next: pip install -r requirements.txt brings it")
    try:
        done = subprocess.run(
            [program, "kustomize", str(folder)],
            env={"HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=RENDER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ManifestError(
            f"{overlay}: kustomize took over {RENDER_TIMEOUT_S} s. Next: kubectl kustomize {overlay}"
        ) from error
    if done.returncode != 0:
        said = one_line(done.stderr.replace(str(folder / COPIED), str(root)))
        raise ManifestError(f"{overlay}: {said}. Next: kubectl kustomize {overlay}")
    try:
        return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    except (yaml.YAMLError, RecursionError) as error:
        raise ManifestError(f"{overlay}: renders no readable YAML. Next: kubectl kustomize {overlay}") from error
