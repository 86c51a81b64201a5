"""Names that the emulator and the stand share. The stand imports them without the emulator's packages."""

PROJECT = "slipway-stand"
REGISTRY_TOKENS = "Slipway's stand: an emulator of Google"  # the issuer of the tokens that Distribution accepts
