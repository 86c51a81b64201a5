"""Names that both sides of the emulator know: the program, and the stand that starts it without the program's packages."""

PROJECT = "slipway-stand"
REGISTRY_TOKENS = "Slipway's stand: an emulator of Google"  # who signs what Distribution takes for a token
