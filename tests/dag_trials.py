"""A small model file, and what Airflow computes the colour of a run from."""

from typing import NamedTuple

GOOD = """\
source: {folder: digits-vit/checkpoint}
schedule: "0 3 * * *"
gate: {golden: [{name: three, image: three.png, label: "3"}]}
"""
LOADED = GOOD.replace('label: "3"}]', 'label: "3"}], load: {rate_per_s: 5}')
BAKED = GOOD.replace('label: "3"}]', 'label: "3"}], bake: {for_s: 60}')
MAY_BE_INCONCLUSIVE = GOOD.replace('label: "3"}]', 'label: "3"}], latency_ms: 500')


class Ran(NamedTuple):
    """A task that has run, with what Airflow needs for the run's colour."""

    task_id: str
    state: str
