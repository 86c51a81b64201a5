"""The load gate: a preview bears a constant rate, judged by itself and beside the live release, before any user reaches it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slipway.errors import GateFailed
from slipway.facts import Export, JsonObject, LoadTest
from slipway.kubernetes.forward import Route, forwarded
from slipway.kubernetes.port_forward import PodRoute
from slipway.kubernetes.proxy import send_to_service
from slipway.load_plan import LoadPlan
from slipway.names import LABEL_MODEL, LABEL_RELEASE, load_run_folder, preview_name
from slipway.programs import Started
from slipway.records.history import read_history
from slipway.records.store import Store, read_bytes, read_json
from slipway.release import LoadBounds, Release
from slipway.scratch import scratch_folder
from slipway.serving.gate import gate_goes_on, judge_all
from slipway.serving.golden import OK, GoldenCase, cases_from
from slipway.serving.load import Server, questions_of_cases, render_load_request, wrong_answers
from slipway.serving.load_gate import judge_answers, judge_times, steps_of
from slipway.serving.load_program import run_load_test
from slipway.steps.load_test import FIGURES, keep_load_test
from slipway.steps.location import located
from slipway.verdict import Verdict

LONGEST_BODY = 200  # characters of an answer that is not OK
NO_LIVE = Verdict.passed("load: there is no live release to compare with")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """The live release to compare with: its version, its id and its path through the API server; or why there is none."""

    version: int = 0
    release_id: str = ""
    path: str | None = None
    without: Verdict = NO_LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJudgement:
    """What the load gate found."""

    verdict: Verdict
    blames_release: bool  # if it does not pass
    test: LoadTest


def judge_preview_under_load(
    release: Release, export: Export, release_id: str, *, python: str, started: Started
) -> LoadJudgement:
    """Load the preview, and the live release in turns with it if they are compared; keep the figures.

    Raises LoadTestUnfinished, StoreError, and what the cluster's client raises.
    """
    bounds = release.gate.load
    assert bounds is not None  # noqa: S101 - the caller has checked
    cases = cases_from(read_json(export.golden_uri))
    live = Live() if bounds.max_slowdown is None else find_live(release, cases[0])
    routes = [predict_route(release, release.preview.proxy_path, export.version)]
    pods = [_pods_of(release.model, preview_name(release_id))]
    if live.path:
        routes.append(predict_route(release, live.path, live.version))
        pods.append(_pods_of(release.model, live.release_id))
    asked = [*routes, *(pods if bounds.grpc_share else ())]
    with scratch_folder("load") as scratch, forwarded(release.target, asked) as forwarding:
        servers = servers_at((export.version, live.version)[: len(routes)], forwarding.addresses)
        request = render_load_request(
            plan_of_bounds(bounds),
            questions_of_cases(cases),
            model=release.model,
            server=servers[0],
            beside=servers[1] if live.path else None,
            rounds=bounds.rounds,
            descriptors=read_bytes(export.descriptors_uri) if bounds.grpc_share else b"",
        )
        out, figures = run_load_test(request, python=python, scratch=scratch, started=started)
        uri = keep_load_test(release.store, load_run_folder(release.model, release_id, release.run_id), out)
    test = LoadTest(uri=uri, release_id=release_id, version=export.version, figures=figures)
    return _judge(bounds, live, test, forwarding.lost)


def _judge(bounds: LoadBounds, live: Live, test: LoadTest, lost: Mapping[str, int]) -> LoadJudgement:
    figures = test.figures
    times = judge_times(bounds, figures, live.without)
    verdict = judge_all([judge_answers(bounds, figures, lost), *times])
    wrong = wrong_answers(steps_of(figures, "release"))
    blames = bool(wrong) or any(one.outcome == "fail" for one in times)
    return LoadJudgement(verdict=verdict, blames_release=blames, test=test)


def servers_at(versions: Sequence[int], addresses: Sequence[str]) -> list[Server]:
    """The servers of these versions: first their addresses for REST, then those for gRPC, if there are any."""
    rest, grpc = addresses[: len(versions)], addresses[len(versions) :]
    return [
        Server(version=version, rest=url, grpc=grpc[place] if grpc else None)
        for place, (version, url) in enumerate(zip(versions, rest, strict=True))
    ]


def _pods_of(model: str, release_id: str) -> PodRoute:
    return PodRoute(labels={LABEL_MODEL: model, LABEL_RELEASE: release_id})


def predict_route(release: Release, service: str, version: int) -> Route:
    """The one path of a release's Service that a load asks; `service` is the Service's path at the API server."""
    return Route(service=service, path=f"{release.version_path(version)}:predict")


def plan_of_bounds(bounds: LoadBounds) -> LoadPlan:
    """The steps of the rounds."""
    return LoadPlan(
        rates_per_s=(bounds.rate_per_s,),
        closed_users=(),
        step_s=bounds.step_s,
        settle_s=bounds.settle_s,
        grpc_share=bounds.grpc_share,
        p95_ms=bounds.p95_ms,
    )


def find_live(release: Release, case: GoldenCase) -> Live:
    """The last good release at the target, if it answers through the API server now. Raises StoreError."""
    history = read_history(Store(release.store), release.model).at(located(release).target, release.deployment)
    if history.good is None:
        return Live()
    version, path = int(history.good["version"]), release.proxy_path
    answer = asyncio.run(
        send_to_service(release.target, path, f"{release.version_path(version)}:predict", case.rest_body)
    )
    if answer.status == OK:
        return Live(version=version, release_id=history.good["release_id"], path=path)
    how = f"answered HTTP {answer.status}" if answer.status else "did not answer"
    said = f"version {version} {how}: {answer.body[:LONGEST_BODY]}"
    return Live(without=Verdict.inconclusive(f"load: not compared with the live release: {said}"))


def require_load_passed(release: Release, found: LoadJudgement, *, asks: bool) -> None:
    """Raise GateFailed unless the run goes on: on a pass, or on an inconclusive result if a person is asked next."""
    may_ask = asks and release.gate.on_inconclusive == "ask"
    if gate_goes_on(found.verdict, asks=may_ask, approved=False):
        return
    enough = ", which is not enough" if found.verdict.outcome == "inconclusive" else ""
    raise GateFailed(
        f"preview of release {found.test.release_id}: {found.verdict.reason}{enough}. "
        f"Next: look at {found.test.uri}/load.png; then mend the model, give it more CPU, or change gate.load",
        blames_release=found.blames_release,
        measured=measured_of(found.test),
    )


def measured_of(test: LoadTest) -> JsonObject:
    """What the record keeps of a load test: where its files are, and the latencies of each round."""
    rounds = [
        {name: step[name] for name in ("round", "at", "reached_per_s", "p50_ms", "p95_ms", "errors")}
        for step in test.figures["steps"]
    ]
    return {"load": {"uri": f"{test.uri}/{FIGURES}", "rounds": rounds}}
