"""An emulator of Google's side of GKE for the stand."""
