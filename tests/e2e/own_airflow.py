"""An Airflow of a test's own: home, database and artifact store below one folder, and its commands."""

from warm import Warm

RUN_LIMIT_S = 3600  # far more than any run takes: its time depends on the machine


class OwnAirflow:
    """Its commands share one process that has imported Airflow, and `more` modules; `end()` ends it."""

    def __init__(self, root, project, surroundings, *more):
        self.store = root / "store"
        self.environment = {
            **surroundings, "AIRFLOW_HOME": str(root / "airflow"), "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{self.store}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"), "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
        }  # fmt: skip
        self.environment.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)
        self.warm = Warm.start(self.environment, *more)
        code, output = self.command("db", "migrate")
        assert code == 0, output[-6000:]

    def command(self, *words, **how):
        """Run an Airflow command; its exit status and its output."""
        done = self.python("airflow", *words, **how)
        return done.returncode, done.stdout + done.stderr

    def python(self, program, *words, **how):
        """Run a script or module in Airflow's environment; the finished process."""
        return self.warm.run(program, *words, environment=self.environment, timeout_s=RUN_LIMIT_S, **how)

    def end(self):
        """End the process."""
        self.warm.end()
