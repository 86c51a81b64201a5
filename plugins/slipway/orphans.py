"""Orphans: what Slipway made live and no model file asks for any more. They are reported, never removed."""

from __future__ import annotations

from collections.abc import Iterator

from slipway.errors import SlipwayError
from slipway.history import History, place_of, read_history
from slipway.model_file import served_files
from slipway.record import Record
from slipway.release import LABEL_MODEL, Release
from slipway.rollout import read
from slipway.store import Store


def find_orphans(release: Release, served: frozenset[str] | None = None) -> tuple[str, ...]:
    """What no model file asks for, one a line, with the command that removes it.

    Deployments that this store's records know and the cluster still has: of models whose file is gone (`served` names
    those there are), and of this release's model at an earlier target. Writes nothing. Raises StoreError.
    """
    names = served if served is not None else frozenset(path.stem for path in served_files())
    return tuple(line for record, why in _left_behind(release, names) if (line := _report(record, why)))


def _left_behind(release: Release, served: frozenset[str]) -> Iterator[tuple[Record, str]]:
    """The newest record of each place that nobody asks for."""
    store = Store(release.store)
    for model in store.names("records"):
        if model == release.model:
            here = (release.target, release.deployment)
            why = f"the model file of {model} names another target"
        elif model not in served:
            here, why = None, f"include/served/{model}.yaml is gone"
        else:
            continue
        newest = {place_of(record): record for record in read_history(store, model).records}
        yield from ((record, why) for place, record in newest.items() if place != here)


def _report(record: Record, why: str) -> str | None:
    """One line, none where the Deployment is gone or is another model's by now."""
    target, deployment = place_of(record)
    where = f"deployment/{deployment} in {target.namespace} (connection {target.conn_id})"
    try:
        live = read(target, "Deployment", deployment)
    except SlipwayError as error:
        return f"{where} of model {record['model']} may be an orphan: {why}. It cannot be looked at: {error}"
    if live is None or (live["metadata"].get("labels") or {}).get(LABEL_MODEL) != record["model"]:
        return None
    objects = " ".join(str(ref) for ref in reversed(History((record,)).objects))
    return f"{where} of model {record['model']} is an orphan: {why}. Next: {target.kubectl(f'delete {objects}')}"
