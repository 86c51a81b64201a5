"""The parts of the stand, one module for each."""
