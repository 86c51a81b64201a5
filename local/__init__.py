"""The stand: a place on one machine where Slipway runs on real parts. `python3 -m local --help` says how."""
