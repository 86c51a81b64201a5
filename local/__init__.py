"""The stand: one machine on which Slipway runs with real parts. See `python3 -m local --help`."""
