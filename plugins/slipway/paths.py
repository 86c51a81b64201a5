"""The project's own folders."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
INCLUDE = PROJECT / "include"
SERVED = INCLUDE / "served"
OVERLAYS = INCLUDE / "manifests" / "overlays"
