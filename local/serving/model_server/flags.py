"""The command line: the flags that both servers have, and those that only TensorFlow has an effect for."""

from dataclasses import dataclass

from serving_protocol.flags import Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInFlags(Flags):
    """The flags. Names and defaults are those of the real server."""

    xla_cpu_compilation_enabled: bool = False
    xla_gpu_compilation_enabled: bool = False

    @property
    def compiles(self) -> bool:
        """Whether XLA may compile: either flag allows it (2.20.0 main.cc:337-339)."""
        return self.xla_cpu_compilation_enabled or self.xla_gpu_compilation_enabled
