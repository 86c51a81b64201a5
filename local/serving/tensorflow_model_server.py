#!/usr/bin/python3
"""The stand-in's program. In the image it has the real one's path: /usr/bin/tensorflow_model_server."""

import sys

from model_server.program import main  # type: ignore[import-not-found]  # next to this file, or installed

if __name__ == "__main__":
    main(sys.argv[1:])
