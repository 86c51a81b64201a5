"""The commands of the stand, one module for each."""
