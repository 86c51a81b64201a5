"""The ids of all tasks: what Airflow's database and XCom know them by. An id that is released never changes."""

from __future__ import annotations

RESOLVE = "resolve"
PREFLIGHT = "preflight"
PLAN = "plan"
CHOOSE = "choose"

CLAIM_CLUSTER = "claim_cluster"
CREATE_CLUSTER = "create_cluster"

EXPORT = "export"
BUILD_IMAGE = "build_image"
SMOKE_TEST = "smoke_test"
PUSH = "push"

PREVIEW = "preview"
WAIT_FOR_PREVIEW = "wait_for_preview"
PREVIEW_GATE = "preview_gate"
PREVIEW_LOAD = "preview_load"
APPROVE = "approve"

APPLY = "apply"
WAIT_FOR_ROLLOUT = "wait_for_rollout"
WAIT_FOR_ADDRESS = "wait_for_address"
GATE = "gate"
BAKE = "bake"
ANNOUNCE = "announce"

ROLLBACK = "rollback"
REMOVE_PREVIEW = "remove_preview"
RECORD = "record"
PRUNE = "prune"

LOOK = "look"  # plans a teardown
REMOVE_OBJECTS = "remove_objects"
DELETE_CLUSTER = "delete_cluster"
LEFTOVERS = "leftovers"

LOAD_TEST = "load_test"

MEASURE = "measure"  # each turn of a sweep
RECOMMEND = "recommend"
END_SWEEP = "end_sweep"
