"""The emulator of Google's side of GKE. It runs in the dev environment as a program of its own."""
