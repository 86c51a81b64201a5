#!/usr/bin/env python3
"""The server's program. In the image it is /usr/local/bin/onnx_model_server."""

import os
import signal
import sys

# A container's first process ignores SIGTERM unless it handles it, and the imports below take part of a second.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

# NumPy multiplies small matrices for fast image processors: on several threads each product takes ten times the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from onnx_server.program import main  # noqa: E402  # next to this file, or installed

if __name__ == "__main__":
    main(sys.argv[1:])
