"""Measurements on the stand; each writes its table into docs/."""
