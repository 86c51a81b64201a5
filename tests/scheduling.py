"""Airflow's own scheduler on a database of a test's own: it says which tasks it queues, and nothing runs them."""

from airflow.executors.local_executor import LocalExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import timezone
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.utils.db import synchronize_log_template
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

BUNDLE = "test"


class Scheduled:
    """A run of a DAG, as the scheduler sees it."""

    def __init__(self, dag):
        import_all_models()
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine)
        self.session = Session(engine)
        synchronize_log_template(session=self.session)
        Pool.create_or_update_pool(Pool.DEFAULT_POOL_NAME, 128, "", include_deferred=False, session=self.session)
        self.session.add(DagBundleModel(name=BUNDLE))
        self.session.flush()
        self._store(dag)
        self.runner = SchedulerJobRunner(job=Job(), executors=[LocalExecutor()])

    def _store(self, dag):
        """Store the DAG as the DAG processor does, and begin a run by hand."""
        from airflow.dag_processing.collection import update_dag_parsing_results_in_db

        update_dag_parsing_results_in_db(
            BUNDLE,
            None,
            [LazyDeserializedDAG.from_dag(dag)],
            {},
            parse_duration=0,
            warnings=set(),
            session=self.session,
        )
        self.session.get(DagModel, dag.dag_id).is_paused = False
        now = timezone.utcnow()
        self.run = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).create_dagrun(
            run_id="manual",
            logical_date=now,
            data_interval=(now, now),
            run_after=now,
            run_type=DagRunType.MANUAL,
            state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.TEST,
            session=self.session,
        )
        self.session.flush()

    def turn_around(self, task_id):
        """Give the mapped instances of a task their numbers in reverse: the first row of the table gets the last one."""
        mine = (TaskInstance.task_id == task_id, TaskInstance.map_index >= 0)
        last = self.session.scalar(select(func.max(TaskInstance.map_index)).where(*mine))
        for number in (
            -TaskInstance.map_index - 2,
            last + TaskInstance.map_index + 2,
        ):  # each row has a number of its own
            self.session.execute(update(TaskInstance).where(TaskInstance.task_id == task_id).values(map_index=number))

    def queue(self):
        """What the scheduler queues now, as pairs of task and map index."""
        self.session.expire_all()
        ready, _ = self.run.update_state(session=self.session)
        self.run.schedule_tis(ready, session=self.session)
        self.session.flush()
        queued = self.runner._executable_task_instances_to_queued(max_tis=32, session=self.session)
        return [(one.task_id, one.map_index) for one in queued]

    def end(self, task_id, map_index, state):
        """A task ends."""
        self.session.execute(
            update(TaskInstance)
            .where(TaskInstance.task_id == task_id, TaskInstance.map_index == map_index)
            .values(state=state)
        )
