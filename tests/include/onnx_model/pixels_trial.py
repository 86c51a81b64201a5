"""Run in the second exporter's environment: how far the server's values are from 🤗's, for every processor. Prints JSON."""

import dataclasses
import json
import sys

import processor as planned
from families import measure_processors
from onnx_file import describe_step
from sample_images import built_in

from onnx_server import preprocess as served

EXAMPLES = {"height": 8, "width": 9, "edge": 7, "multiple": 2, "filter": "bicubic", "factor": 0.5, "offset": -1.0, "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6), "height_share": 0.5, "width_share": 0.75}  # fmt: skip


def understood() -> dict[str, bool]:
    """Whether the server reads each kind of step that the exporter writes, with the same fields."""
    found = {}
    for kind in planned.Step.__args__:
        step = kind(**{field.name: EXAMPLES[field.name] for field in dataclasses.fields(kind)})
        read = served.step_of(json.loads(json.dumps(describe_step(step))))
        found[kind.__name__] = type(read).__name__ == kind.__name__ and dataclasses.asdict(read) == dataclasses.asdict(
            step
        )
    return found


def main() -> None:
    """Measure; progress lines go to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    json.dump({"understood": understood(), "levels": measure_processors(built_in())}, out)


if __name__ == "__main__":
    main()
