"""The table of a run's times; `make times` measures them."""

from benchmarks.refresh_times import BEGIN, END, RUNS, WHOLE, place, read_times, render


def span(start, end, **facts):
    """A run or a task instance as Airflow's API returns it."""
    stamps = {"start_date": f"2026-11-24T04:00:{start:02}Z", "end_date": f"2026-11-24T04:00:{end:02}.500000Z"}
    return {**stamps, **facts}


def test_only_successful_tasks_have_a_time():
    """Tasks are listed in the order in which they began; a skipped task is left out."""
    tasks = [
        span(9, 20, task_id="apply", state="success"),
        span(3, 3, task_id="export", state="skipped"),
        span(1, 2, task_id="resolve", state="success"),
    ]
    assert list(read_times(span(0, 21), tasks).items()) == [("resolve", 1.5), ("apply", 11.5), (WHOLE, 21.5)]


def test_table_has_medians_and_a_dash_for_tasks_that_never_ran():
    """The table has a row per task and a column per kind of run."""
    measured = {run: [{"resolve": 1.0, WHOLE: 4.0}, {"resolve": 2.0, WHOLE: 5.0}] for run in RUNS}
    measured["first"] = [{"resolve": 1.0, "export": 8.0, WHOLE: 9.0}, {"resolve": 1.2, "export": 9.0, WHOLE: 12.0}]
    lines = render(measured, "a machine").splitlines()
    assert lines[2] == "| task | first | no change | new manifests | forced |"
    assert lines[4:] == [
        "| resolve | 1.1 | 1.5 | 1.5 | 1.5 |",
        "| export | 8.5 | - | - | - |",
        "| **the run** | **10.5** | **4.5** | **4.5** | **4.5** |",
        "| least to most | 9.0 to 12.0 | 4.0 to 5.0 | 4.0 to 5.0 | 4.0 to 5.0 |",
    ]


def test_new_table_replaces_the_old_one():
    """The text around the table is kept."""
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert place(page, "new") == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
