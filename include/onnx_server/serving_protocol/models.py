"""A loaded version of a model, by TensorFlow Serving's rules for requests and signatures."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import metrics
from .messages import PredictResponse
from .tensors import array_of, fill_proto
from .words import ServingError, invalid

DEFAULT_SIGNATURE = "serving_default"

# Runs a signature: its name, the inputs, the names of the wanted outputs, and the deadline by time.monotonic().
RunSignature = Callable[[str, dict[str, np.ndarray], list[str], float | None], Sequence[np.ndarray]]


class Model:
    """One loaded version. `predict` may be called from many threads."""

    def __init__(self, name: str, version: int, signatures: dict[str, Any], run: RunSignature, runtime: str) -> None:
        """Answer requests for these SignatureDefs with `run`. `runtime` is its label in the metrics."""
        self.name = name
        self.version = version
        self.signatures = signatures
        self._run = run
        self._runtime = runtime

    def signature(self, name: str) -> Any:
        """The SignatureDef of this name; "" means serving_default."""
        wanted = name or DEFAULT_SIGNATURE
        if wanted not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{wanted}" not found.')
        return self.signatures[wanted]

    def predict(
        self,
        signature_name: str,
        inputs: dict[str, np.ndarray],
        wanted: tuple[str, ...] = (),
        *,
        deadline_s: float | None = None,
    ) -> dict[str, np.ndarray]:
        """All outputs, or those in `wanted`, by name. Without a deadline there is no limit."""
        signature = self.signature(signature_name)
        _check_names(inputs, wanted, signature)
        names = list(wanted or signature.outputs)
        began = time.monotonic()
        answers = self._run(signature_name or DEFAULT_SIGNATURE, inputs, names, deadline_s)
        metrics.RUNTIME_LATENCY.add((time.monotonic() - began) * 1e6, self.name, "Predict", self._runtime)
        return dict(zip(names, answers, strict=True))

    def answer(self, request: Any, *, deadline_s: float | None = None) -> Any:
        """The PredictResponse to a PredictRequest. It names the version that answered."""
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        self.signature(signature_name)
        inputs = {name: array_of(name, proto) for name, proto in request.inputs.items()}
        outputs = self.predict(signature_name, inputs, tuple(request.output_filter), deadline_s=deadline_s)
        response = PredictResponse()
        for name, value in outputs.items():
            fill_proto(response.outputs[name], np.asarray(value))
        response.model_spec.name = request.model_spec.name
        response.model_spec.signature_name = signature_name
        response.model_spec.version.value = self.version
        return response


def _check_names(inputs: dict[str, np.ndarray], wanted: tuple[str, ...], signature: Any) -> None:
    """Raise ServingError for inputs and outputs that the signature does not have (2.20.0 predict_util.cc:51-150)."""
    given, expected = set(inputs), set(signature.inputs)
    if len(given) != len(expected):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(expected)} len({{{_join(given)}}}) != "
            f"len({{{_join(expected)}}}). Sent extra: {{{_join(given - expected)}}}. "
            f"Missing but required: {{{_join(expected - given)}}}."
        )
    if given != expected:
        raise invalid(f"Signature input alias: {_join(expected - given)} not found in request")
    for name in wanted:
        if name not in signature.outputs:
            expected = set(signature.outputs)
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{_join(expected)}}}."
            )
        if wanted.count(name) > 1:
            raise invalid(f"duplicate output tensor alias: {name}")


def _join(names: set[str]) -> str:
    return ",".join(sorted(names))
