"""The versions of the one model: finds them in the base path, loads them, and knows which one is served."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .flags import Flags
from .messages import STATES, GetModelStatusResponse
from .models import Model
from .words import CODE_NUMBERS, ServingError, invalid, log


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A version's folder in the base path. `0042` is version 42."""

    version: int
    folder: Path


def largest_version(base_path: Path) -> Found | None:
    """The folder with the largest number as its name, or None if there is none yet."""
    if not base_path.is_dir():
        return None
    found = [Found(version=int(entry.name), folder=entry) for entry in base_path.iterdir() if entry.name.isdecimal()]
    return max(found, key=lambda one: one.version, default=None)


class Versions:
    """The version that is served, which is the newest that could be loaded, and the state of every version."""

    def __init__(self, flags: Flags, load: Callable[[Found], Model]) -> None:
        """Serve nothing yet. `load` returns the Model in a folder or raises ServingError."""
        self._flags = flags
        self._load = load
        self._serving: Model | None = None
        self._states: dict[int, tuple[str, ServingError | None]] = {}
        self._lock = threading.Lock()

    def load_first(self) -> None:
        """Wait without a limit for a version, and load it. Raises the last error if it cannot be loaded."""
        base_path = Path(self._flags.model_base_path)
        if largest_version(base_path) is None:
            log(f"No versions of servable {self._flags.model_name} found under base path {base_path}; waiting")
        while (found := largest_version(base_path)) is None:
            time.sleep(max(self._flags.file_system_poll_wait_seconds, 1))
        self.bring_up(found)

    def watch(self) -> None:
        """Poll for a larger version without end. If one cannot be loaded, the old one keeps serving."""
        while self._flags.file_system_poll_wait_seconds > 0:
            time.sleep(self._flags.file_system_poll_wait_seconds)
            found = largest_version(Path(self._flags.model_base_path))
            if found and found.version not in self._states:
                try:
                    self.bring_up(found)
                except ServingError:
                    continue  # the version's state and the log have the error

    def bring_up(self, found: Found) -> None:
        """Load this version and serve it. Then unload the previous one."""
        self._set(found.version, "LOADING")
        try:
            model = self._load_with_retries(found)
        except ServingError as error:
            self._set(found.version, "END", error)
            raise
        with self._lock:
            before, self._serving = self._serving, model
        self._set(found.version, "AVAILABLE")
        if before:
            self._set(before.version, "END")
            log(f"Done unloading servable version {before.name} {before.version}")  # it is freed after its last request

    def _set(self, version: int, state: str, error: ServingError | None = None) -> None:
        with self._lock:
            self._states[version] = (state, error)

    def _load_with_retries(self, found: Found) -> Model:
        what = f"loading servable {self._flags.model_name} version {found.version} from {found.folder}"
        tries = max(self._flags.max_num_load_retries, 0) + 1
        for attempt in range(1, tries + 1):
            began = time.monotonic()
            log(f"{what} (try {attempt} of {tries})")
            try:
                model = self._load(found)
            except ServingError as error:
                reason = error.message.strip().splitlines() or [""]
                log(f"{what} failed (try {attempt} of {tries}): {error.code}: {reason[0]}")
                if attempt == tries:
                    raise
                time.sleep(max(self._flags.load_retry_interval_micros, 0) / 1e6)
            else:
                took_s = time.monotonic() - began
                log(f"Successfully loaded servable version {model.name} {model.version} in {took_s:.1f} s")
                return model
        raise AssertionError

    def find(self, name: str, version: int | None, label: str = "") -> Model:
        """The served model. Any other name or version is NOT_FOUND, and every label is unknown."""
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label:
            raise invalid(f"Unrecognized servable version label: {label}")
        with self._lock:
            model = self._serving
        if model is None or name != model.name or version not in {None, model.version}:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServingError("NOT_FOUND", f"Servable not found for request: {wanted}")
        return model

    def status(self, name: str, version: int | None) -> Any:
        """The GetModelStatusResponse for a name and, if given, one version. The newest version is first."""
        with self._lock:
            states = dict(self._states) if name == self._flags.model_name else {}
        wanted = sorted(states if version is None else states.keys() & {version}, reverse=True)
        if not wanted:
            which = "any versions" if version is None else f"version {version}"
            raise ServingError("NOT_FOUND", f"Could not find {which} of model {name}")
        response = GetModelStatusResponse()
        for one in wanted:
            state, error = states[one]
            entry = response.model_version_status.add(version=one, state=STATES[state].number)
            if error:
                entry.status.error_code = CODE_NUMBERS[error.code]
                entry.status.error_message = error.message
            else:
                entry.status.error_code = 0
        return response
