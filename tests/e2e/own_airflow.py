"""An Airflow of a test's own: home, database and artifact store below one folder, and its commands."""

from warm import Warm

RUN_LIMIT_S = 3600  # far beyond any run: how long one takes is the machine's business


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
        code, said = self.command("db", "migrate")
        assert code == 0, said[-6000:]

    def command(self, *words, **how):
        """An Airflow command; its exit status and what it said come back."""
        done = self.python("airflow", *words, **how)
        return done.returncode, done.stdout + done.stderr

    def python(self, program, *words, **how):
        """A script or module where Airflow is; the finished process comes back."""
        return self.warm.run(program, *words, environment=self.environment, timeout_s=RUN_LIMIT_S, **how)

    def end(self):
        """No more commands."""
        self.warm.end()
