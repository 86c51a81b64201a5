#!/usr/bin/python3
"""The stand-in's program. In the image it has the real one's path: /usr/bin/tensorflow_model_server."""

import sys
from pathlib import Path

PROTOCOL = Path(__file__).parents[2] / "include" / "onnx_server"  # in a checkout; the image has it among its packages
sys.path.append(str(PROTOCOL))

from model_server.program import main  # type: ignore[import-not-found]  # noqa: E402  # next to this file, or installed

if __name__ == "__main__":
    main(sys.argv[1:])
