"""The commands of the stand, one module each."""
