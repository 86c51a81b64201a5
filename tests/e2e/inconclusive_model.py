"""A model whose gate is always inconclusive, in the stand's Airflow for the length of a `with` block."""

import json
import urllib.error
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml
from dag_run import until
from fixtures.stand import parse_again
from trial_project import PROJECT, remove_images, trial_file


@contextmanager
def inconclusive_model(model, stand, kubectl, engine, airflow_api, **rules):
    """A model file with a latency limit that no server meets: its `dag`, its `records()`, oldest first, and `write(**changes)`."""
    path, dag = PROJECT / "include" / "served" / f"{model}.yaml", f"refresh_{model.replace('-', '_')}"
    own = {"gate__latency_ms": 1, "target__deployment": f"tfs-{model}", "target__strategy": "preview", **rules}
    kept = Path(stand["store"].removeprefix("file://")) / "records" / model
    before = set(kept.glob("*.json"))

    def write(**changes):
        path.write_text(yaml.safe_dump(trial_file(**{**own, **changes})))

    def knows():
        try:
            return not airflow_api(f"/dags/{dag}/details")["is_stale"]  # the file of an earlier test may be gone
        except urllib.error.HTTPError:
            return None

    def records():
        new = [json.loads(path.read_text()) for path in set(kept.glob("*.json")) - before]
        return sorted(new, key=lambda record: record["opened"])

    write()
    parse_again(airflow_api)
    try:
        until(knows, f"Airflow knows {dag}")
        yield SimpleNamespace(model=model, dag=dag, write=write, records=records)
    finally:
        path.unlink()
        kubectl("delete", "deployment,service,hpa,pdb,lease", "-l", f"slipway/model={model}", "--wait=false")
        remove_images(engine, model)
