"""The export: a served model, its version, and the golden cases that it promises to answer.

The model is opened only in the exporter's own process; this module handles its files and their hashes.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from slipway.errors import ExportError, PromiseBroken
from slipway.facts import Card, Export, from_dict, to_dict
from slipway.model.content import content_hash, write_model_layer
from slipway.model.exporter import ExporterHost, run_exporter
from slipway.model.sources import fetch_source, keep_source
from slipway.names import digest_of, short
from slipway.records.store import Store, read_json
from slipway.release import Release
from slipway.scratch import scratch_folder
from slipway.serving.accuracy import find_int8_change, judge_int8, wilson_interval
from slipway.serving.golden import GoldenCase, Reference
from slipway.serving.labelled_set import read_images
from slipway.strict_json import load_json

SHOWN_LABELS = 10

log = logging.getLogger(__name__)


def run_export(release: Release, host: ExporterHost) -> Export:
    """Export the release's source, or find the same export in the store.

    Raises ExportError with the exporter's last line, ScratchFull, StoreError.
    """
    store, known = Store(release.store), _inputs_key(release)
    if not release.force and store.exists(known):
        log.info("export: found in the store, for the same source, exporter and golden cases: %s", store.uri_of(known))
        export = from_dict(Export, store.read_json(known))
        check_golden_labels(release, export)
        check_int8(release, export)
        return export
    with scratch_folder("export") as scratch:
        export = keep_export(release, _export(release, store, scratch, host), store)
    store.put_json(to_dict(export), known)
    check_golden_labels(release, export)
    check_int8(release, export)
    if export.card:
        log.info("export: model card %s: %s", export.card.uri, export.card.parity)
    return export


def renew_golden_cases(release: Release, live: Export, host: ExporterHost) -> Export:
    """The live export with the release's golden cases, made by the exporter or found in the store.

    Only the golden cases are stored, under the live version. The model's warmup requests contain the golden images too, so
    a new image changes the content, but not the model's answers. Raises as `run_export` does.
    """
    store, known = Store(release.store), _inputs_key(release)
    if found := store.exists(known):
        log.info("export: golden cases found in the store: %s", store.uri_of(known))
        golden = read_json(from_dict(Export, store.read_json(known)).golden_uri)
    else:
        with scratch_folder("export") as scratch:
            golden = _golden(_export(release, store, scratch, host))
    renewed = replace(live, golden_uri=_keep_golden(golden, store, _prefix(release, live.version)))
    if not found:
        store.put_json(to_dict(renewed), known)
    check_golden_labels(release, renewed)
    log.info("export: new golden cases for version %d: %s", live.version, renewed.golden_uri)
    return renewed


def _export(release: Release, store: Store, scratch: Path, host: ExporterHost) -> Path:
    """Run the exporter, and keep the source that it used; the folder of its results."""
    source = fetch_source(release, store, scratch)
    out = run_exporter(release, source, host=host, scratch=scratch)
    keep_source(release, store, scratch)
    return out


def _inputs_key(release: Release) -> str:
    """The store's key of the export that these inputs gave."""
    return f"exports/{release.model}/inputs/{short(export_inputs_hash(release))}.json"


def check_golden_labels(release: Release, export: Export) -> None:
    """Refuse a label of a golden case or of the labelled set that the exported model does not have.

    The labels of a SavedModel archive, and of exports by earlier versions of Slipway, are unknown.
    Raises ExportError, StoreError.
    """
    known = read_json(export.report_uri).get("labels")
    if known is None:
        return
    asked = {label: f"gate.golden {case.name}" for case in release.golden for label in case.labels}
    if release.gate.quality is not None:
        asked |= {image.label: f"gate.quality.set: {image.name}" for image in read_images(release.gate.quality)}
    if unknown := sorted(asked.keys() - set(known)):
        some = ", ".join(known[:SHOWN_LABELS]) + (" …" if known[SHOWN_LABELS:] else "")
        raise ExportError(
            f"{asked[unknown[0]]}: {unknown[0]!r} is none of the model's {len(known)} labels ({some}). Next: use one of them"
        )


def check_int8(release: Release, export: Export) -> None:
    """Refuse an int8 model that is beyond its bounds already where it was exported; within chance, the gate decides.

    Raises PromiseBroken, StoreError.
    """
    if export.int8_uri is None or release.gate.quality is None:
        return
    labels, bounds = read_json(export.int8_uri), release.gate.quality
    change = find_int8_change(read_images(bounds), labels["float32"], labels["int8"])
    for verdict in judge_int8(bounds, change):
        log.info("export: %s", verdict.reason)
        if verdict.outcome == "fail":
            raise PromiseBroken(
                f"{verdict.reason}. Next: use float16_weights, another export.calibration, or a larger gate.quality.int8_max_changed and int8_max_drop"
            )


def export_inputs_hash(release: Release) -> str:
    """sha256:… of everything that determines the exporter's results. The connection that reads the source does not."""
    source = release.source
    identity = {"kind": source.kind, "location": source.location, "revision": source.revision, "allow": source.allow}
    cases = [asdict(case) for case in release.golden]
    return digest_of([identity, release.exporter, asdict(release.export), cases, *release.runtime_inputs])


def keep_export(release: Release, out: Path, store: Store) -> Export:
    """Put the exporter's results in `out` into the store, under the version of their content."""
    model = out / release.served_by.model_folder
    content = content_hash(model)
    version = claim_version(store, release.model, content)
    prefix = _prefix(release, version)
    with scratch_folder("layer") as scratch:
        layer = scratch / "model.tar"
        write_model_layer(model, release.version_folder(version), layer)
        model_uri = store.put_file(layer, f"{prefix}/model.tar")
    log.info("export: version %d, content %s", version, content)
    report = load_json((out / "export.json").read_text(encoding="utf-8"))
    return Export(
        version=version,
        content_hash=content,
        model_uri=model_uri,
        golden_uri=_keep_golden(_golden(out), store, prefix),
        descriptors_uri=store.put_file(out / "descriptors.bin", f"{prefix}/descriptors.bin"),
        report_uri=store.put_file(out / "export.json", f"{prefix}/export.json"),
        card=_keep_card(out / "card", store, prefix),
        sandbox=str(report["sandbox"]),
        int8_uri=_keep_int8(report["int8"], store, prefix) if "int8" in report else None,
    )


def _prefix(release: Release, version: int) -> str:
    """The store's folder of a version."""
    return f"exports/{release.model}/{version}"


def _golden(out: Path) -> dict[str, Any]:
    """The golden cases among the exporter's results."""
    return {"cases": [to_dict(_case(folder)) for folder in sorted((out / "golden").iterdir())]}


def _keep_golden(golden: dict[str, Any], store: Store, prefix: str) -> str:
    """Put golden cases into the store; their URI."""
    return store.put_json(golden, f"{prefix}/golden-{short(digest_of(golden))}.json")


def _keep_int8(labels: dict[str, Any], store: Store, prefix: str) -> str:
    """Put the labels in float32 and int8 into the store, by their content: another labelled set gives others. Returns their URI."""
    return store.put_json(labels, f"{prefix}/int8-{short(digest_of(labels))}.json")


def _keep_card(folder: Path, store: Store, prefix: str) -> Card:
    """Put the model card and its pictures into the store. Another card of the same version gets a folder of its own."""
    card = load_json((folder / "card.json").read_text(encoding="utf-8"))
    digest = digest_of({name: value for name, value in card.items() if name != "measured"})
    uris = {
        file.name: store.put_file(file, f"{prefix}/card-{short(digest)}/{file.name}")
        for file in sorted(folder.iterdir())
    }
    return Card(
        uri=uris["README.md"],
        digest=digest,
        parity=describe_parity(card["parity"], card.get("int8")),
        parameters=card["parameters"],
        size=card["bytes"],
    )


def describe_parity(parity: dict[str, Any] | None, int8: dict[str, Any] | None = None) -> str:
    """The card's parity figures in one line. The image's labels have this line, so changing it changes every image."""
    if parity is None:
        return "not known: a SavedModel archive has no checkpoint"
    return (
        f"{parity['labels_equal']} of {parity['images']} labels equal, probabilities at most "
        f"{parity['largest_difference']:.5f} apart, pixels at most {parity['largest_levels']:g} levels"
        f"{f', {skipped} images not compared' if (skipped := parity.get('skipped')) else ''}"
        f"{_describe_int8(int8) if int8 else ''}"
    )


def _describe_int8(int8: dict[str, Any]) -> str:
    """What int8 changed where it was exported, with the gate's interval."""
    lower, upper = wilson_interval(int8["labels_changed"], int8["images"])
    return (
        f"; all that in float32: int8 changes {int8['labels_changed']} of {int8['images']} labels (95 % interval {lower:.4f} to {upper:.4f}), "
        f"{int8['correct_int8']} correct instead of {int8['correct_float32']}"
    )


def claim_version(store: Store, model: str, content: str) -> int:
    """The version number of this content: the one that it has, or the next free one.

    Simultaneous tasks get the same number for the same content: a claim is a file that only one of them can create.
    """
    while True:
        claims = {int(name.removesuffix(".json")): name for name in store.names(f"versions/{model}")}
        for number, name in claims.items():
            if store.read_json(f"versions/{model}/{name}")["content_hash"] == content:
                return number
        number = max(claims, default=0) + 1
        if store.claim(f"versions/{model}/{number}.json", {"content_hash": content}):
            return number


def _case(folder: Path) -> GoldenCase:
    case = load_json((folder / "case.json").read_text(encoding="utf-8"))
    reference = case["reference"]
    return GoldenCase(
        name=case["name"],
        label=tuple(case["label"]) if isinstance(case["label"], list) else case["label"],
        min_confidence=case["min_confidence"],
        reference=Reference(**reference) if reference else None,
        rest_body=(folder / "rest.json").read_text(encoding="utf-8"),
        grpc_request=base64.b64encode((folder / "grpc.bin").read_bytes()).decode(),
    )
