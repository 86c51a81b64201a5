"""Writes serving_protocol/descriptors.bin: the messages of TensorFlow Serving's APIs, from the locked tensorflow-serving-api.

Run it with the exporter's Python, which has that package; the servers need only the file:
    $(python3 -m local env model)/bin/python include/onnx_server/write_descriptors.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "model"))

from grpc_files import SERVICES, descriptors  # noqa: E402  # the exporter's module, found through the line before

FILE = HERE / "serving_protocol" / "descriptors.bin"
WARMUP = "tensorflow_serving/apis/prediction_log.proto"

if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else FILE).write_bytes(descriptors(*SERVICES, WARMUP))
