"""Requests of the load test's program for what a record's export has: its golden cases, over REST and gRPC."""

import json
from pathlib import Path

from slipway.serving.golden import cases_from
from slipway.serving.load import Server, questions_of_cases, render_load_request


def load_request(record, plan, host):
    """The request that loads the record's release at this host."""
    export = record["export"]
    golden, descriptors = (local_file(export[name]).read_bytes() for name in ("golden_uri", "descriptors_uri"))
    return render_load_request(
        plan,
        questions_of_cases(cases_from(json.loads(golden))),
        model=record["model"],
        server=Server(version=record["version"], rest=f"http://{host}:8501", grpc=f"{host}:8500"),
        descriptors=descriptors,
    )


def local_file(uri):
    """The file of a store's URI."""
    return Path(uri.removeprefix("file://"))
