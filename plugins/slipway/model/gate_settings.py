"""The model file's `gate`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from slipway.model.bake_settings import BakeSettings
from slipway.model.field_types import Name, Part, RelativePath, Seconds, Sha256, Share, without_login
from slipway.release import Gate, LoadBounds, QualityBounds

DEFAULT_GATE = Gate()
DEFAULT_LOAD = LoadBounds(rate_per_s=1)
DEFAULT_QUALITY = QualityBounds(uri="", digest="", min_top1=None, max_drop=None)
INT8_LIMITS = frozenset({"int8_max_changed", "int8_max_drop"})
LEAST_REQUESTS = 10  # in a step whose 95th percentile is judged


class GoldenImage(Part):
    """An image and the answer that the model must give."""

    name: Name = Field(description="The case's name in logs and records; each case needs its own.")
    image: str = Field(
        description="The image: a path relative to the model file, or a URL, whose query is [kept nowhere](#urls)."
    )
    sha256: Sha256 | None = Field(default=None, description="The image's hash, which is checked. Required for a URL.")
    label: str | tuple[str, ...] = Field(
        description="The label that the answer must have, or a list of accepted labels.",
        json_schema_extra={"form": "text, or a list of texts"},
    )
    min_confidence: Share = Field(default=0.5, description="The least confidence that the answer must have.")

    @field_validator("label", mode="before")
    @classmethod
    def _is_a_text_or_texts(cls, label: Any) -> Any:
        labels = label if isinstance(label, list | tuple) else [label]
        if not labels or not all(isinstance(one, str) and one for one in labels):
            raise ValueError("is neither a text nor a list of texts. Write numbers in quotes")
        if len(set(labels)) != len(labels):
            raise ValueError("names a label twice")
        return label

    @field_validator("image")
    @classmethod
    def _is_a_path_or_a_url(cls, image: str) -> str:
        if "://" in image and not image.startswith(("http://", "https://")):
            raise ValueError("is neither a path nor an http or https URL")
        return without_login(image)

    @model_validator(mode="after")
    def _url_has_a_hash(self) -> GoldenImage:
        if self.image.startswith(("http://", "https://")) and self.sha256 is None:
            raise ValueError("an image by URL needs its sha256")
        return self


class QualitySettings(Part):
    """A labelled set of images, and how many of them a release must classify correctly."""

    set: RelativePath = Field(
        description="The set, relative to the model file: a folder with one folder of images per label, or a CSV file of `image,label` with the images' paths relative to it."
    )
    min_top1: Share | None = Field(
        default=None, description="The least share of its images that must be classified correctly, from 0 to 1."
    )
    max_drop: Share | None = Field(
        default=None, description="How far that share may be below the live release's on the same images."
    )
    int8_max_changed: Share = Field(
        default=DEFAULT_QUALITY.int8_max_changed,
        description="With `export.precision: int8`: how many of the labels may differ from those of the same model in float32, as a share.",
    )
    int8_max_drop: Share = Field(
        default=DEFAULT_QUALITY.int8_max_drop,
        description="With `export.precision: int8`: how far the share classified correctly may be below that of the same model in float32.",
    )

    @model_validator(mode="after")
    def _has_a_limit(self) -> QualitySettings:
        if self.min_top1 is None and self.max_drop is None:
            raise ValueError("has no limit: give min_top1, max_drop or both")
        return self


class LoadGateSettings(Part):
    """What a release must bear at its preview before it goes live, see [load.md](load.md#a-gate)."""

    rate_per_s: Annotated[float, Field(gt=0, le=50)] = Field(
        description="Requests a second that the preview must answer, through the API server."
    )
    p95_ms: Annotated[float, Field(gt=0, le=60_000)] | None = Field(
        default=DEFAULT_LOAD.p95_ms,
        description="Upper limit for the 95th percentile of the answer times at that rate, in milliseconds.",
    )
    max_slowdown: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=DEFAULT_LOAD.max_slowdown,
        description="How far that percentile may be above the live release's, as a share: 0.2 for 20 %. Both are measured in turns, so **the live release gets the same load beside its users' requests**. If left out: not compared.",
    )
    max_errors: Share = Field(
        default=DEFAULT_LOAD.max_errors, description="The share of the requests that may remain without an answer."
    )
    grpc_share: Share = Field(
        default=DEFAULT_LOAD.grpc_share,
        description="The share of the users that ask over gRPC, from 0 to 1, through port-forwards to the pods, which need `get` and `create` on `pods/portforward`.",
    )
    rounds: Annotated[int, Field(ge=3, le=20)] = Field(
        default=DEFAULT_LOAD.rounds,
        description="How often it is measured. The spread of the rounds decides whether a result is conclusive.",
    )
    step_s: Annotated[int, Field(ge=3, le=120)] = Field(
        default=DEFAULT_LOAD.step_s, description="How long a release is loaded in each round, in seconds."
    )
    settle_s: Annotated[int, Field(ge=1, le=60)] = Field(
        default=DEFAULT_LOAD.settle_s, description="How much of a step's beginning is in no figure, in seconds."
    )

    @model_validator(mode="after")
    def _something_is_measured(self) -> LoadGateSettings:
        if self.settle_s >= self.step_s:
            raise ValueError("settle_s is not below step_s: nothing would be measured")
        asked = self.rate_per_s * (self.step_s - self.settle_s)
        if asked < LEAST_REQUESTS:
            raise ValueError(
                f"{asked:g} requests in a step are too few for a percentile: at least {LEAST_REQUESTS}, by a larger rate or a longer step"
            )
        return self


class GateSettings(Part):
    """What must pass before a release counts as live."""

    golden: Annotated[tuple[GoldenImage, ...], Field(min_length=1)] = Field(
        description="Images with the answers that the model must give; every case must pass."
    )
    passes: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="How many rounds in a row must pass, each on new connections."
    )
    timeout_s: Seconds = Field(default=300, description="How long the gate tries before it fails.")
    failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=DEFAULT_GATE.failures,
        description="How many wrong answers the gate tolerates; each starts the count of rounds again.",
    )
    errors: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=DEFAULT_GATE.errors,
        description="How many rounds with a missing answer (no connection, 404, 429, 5xx) the gate tolerates, once a round has passed. If left out: any number within `timeout_s`.",
    )
    latency_ms: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=DEFAULT_GATE.latency_ms,
        description="Upper limit for the 95th percentile of the answer times, in milliseconds, each including its connection. If left out: not judged.",
    )
    garbage: bool = Field(
        default=DEFAULT_GATE.garbage,
        description="Whether each round also sends something that is not an image, which must be refused.",
    )
    quality: QualitySettings | None = Field(
        default=None, description="How much of a labelled set must be classified correctly. If left out: not tested."
    )
    load: LoadGateSettings | None = Field(
        default=None, description="What the release must bear at its preview. If left out: no load is sent."
    )
    bake: BakeSettings | None = Field(
        default=None,
        description="Watches a release after its gate before it counts as good. If left out: it counts as good at once.",
    )
    approval: Literal["when_inconclusive", "always"] = Field(
        default=DEFAULT_GATE.approval,
        description="When a person must approve a release before it goes live, see [gate.md](gate.md#approval): `when_inconclusive`, or `always`, which needs a preview.",
    )
    on_inconclusive: Literal["ask", "fail"] = Field(
        default=DEFAULT_GATE.on_inconclusive,
        description="What follows if the gate's result is inconclusive, see [gate.md](gate.md#inconclusive): `ask` a person, or `fail`.",
    )
    ask_timeout_s: Seconds = Field(
        default=DEFAULT_GATE.ask_timeout_s, description="How long a person has to answer; no answer means no."
    )

    @model_validator(mode="after")
    def _names_differ(self) -> GateSettings:
        names = [case.name for case in self.golden]
        if len(set(names)) != len(names):
            raise ValueError(f"golden cases need different names, but they are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> GateSettings:
        stated = self.approval if "approval" in self.model_fields_set else None
        if stated == "when_inconclusive" and self.on_inconclusive == "fail":
            raise ValueError(
                "approval: when_inconclusive has no effect with on_inconclusive: fail: leave one of them out"
            )
        return self
