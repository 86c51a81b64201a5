"""Send the golden requests as Slipway's gate does, for a shell script: the exit status is 1 if a round does not pass.

The questions and the judgements are Slipway's own, so that a script and a DAG ask the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from slipway.model.export import _case as read_case
from slipway.names import version_path
from slipway.serving.client import send_grpc_request, send_request
from slipway.serving.golden import (
    GARBAGE_BODY,
    judge_answer,
    judge_garbage,
    judge_grpc_answer,
    judge_round,
    judge_status,
)

STARTS_S = 300


def main(words: Sequence[str]) -> int:
    """Wait until the version is there, then ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rest", required=True, help="URL of the REST port")
    parser.add_argument("--grpc", help="HOST:PORT")
    parser.add_argument("--out", type=Path, required=True, help="what the exporter wrote")
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pause-s", type=float, default=0.25, help="between two rounds")
    asked = parser.parse_args(words)
    path = version_path(asked.model, asked.version)
    end_s = time.monotonic() + STARTS_S
    while judge_status(asked.version, send_request(asked.rest, path)).outcome == "wait":
        if time.monotonic() > end_s:
            return 1
        time.sleep(0.25)
    cases = [read_case(folder) for folder in sorted((asked.out / "golden").iterdir())]
    descriptors = (asked.out / "descriptors.bin").read_bytes()
    for number in range(asked.rounds):
        time.sleep(asked.pause_s if number else 0)
        verdicts = [judge_answer(case, send_request(asked.rest, f"{path}:predict", case.rest_body)) for case in cases]
        verdicts.append(judge_garbage(send_request(asked.rest, f"{path}:predict", GARBAGE_BODY), marks=False))
        if asked.grpc:
            verdicts += [
                judge_grpc_answer(case, asked.version, send_grpc_request(asked.grpc, descriptors, case, asked.version))
                for case in cases
            ]
        together = judge_round(verdicts)
        sys.stdout.write(f"{together}\n")
        if together.outcome != "pass":
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
