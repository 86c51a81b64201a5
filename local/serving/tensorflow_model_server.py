#!/usr/bin/python3
"""The stand-in's program, where the real image has its own: /usr/bin/tensorflow_model_server."""

import sys

from model_server.program import main  # type: ignore[import-not-found]  # beside this file, or installed

if __name__ == "__main__":
    main(sys.argv[1:])
