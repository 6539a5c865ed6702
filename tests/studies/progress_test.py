"""What is shown of a study while it runs."""

from byol_jax.studies import progress

State = progress.State


def test_the_time_left_follows_from_what_was_done_since_the_start(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = progress.Clock()
    states = {
        "old": State(progress.DONE),  # before this start
        "a": State(progress.RUNNING, 0.5),
        "b": State(progress.WAITING),
    }
    assert clock.left(states) is None
    now[0] += 10
    states["a"] = State(progress.RUNNING, 0.75)  # a quarter in ten seconds
    assert clock.left(states) == (0.25 + 1) * 40
    now[0] += 10
    states["a"] = State(progress.DONE, 1.0)
    assert clock.left(states) == 40


def test_times_are_written_as_people_write_them():
    assert [progress.spoken(s) for s in (None, 61, 3723)] == ["-", "01:01", "1:02:03"]


def test_where_there_is_no_terminal_each_change_is_a_line(capsys):
    screen = progress.Screen(lambda states: "table")
    screen.show({"a": State(progress.RUNNING), "b": State(progress.WAITING)})
    screen.show({"a": State(progress.RUNNING, 0.5), "b": State(progress.WAITING)})
    screen.show({"a": State(progress.DONE, 1.0, 62), "b": State(progress.FAILED, note="why")})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "a running",
        "a done in 01:02",
        "b failed: why",
    ]


def test_on_a_terminal_the_table_is_replaced(capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    screen = progress.Screen(lambda states: "row 1\nrow 2")
    screen.show({"a": State(progress.RUNNING)})
    screen.show({"a": State(progress.DONE)})
    text = capsys.readouterr().err
    assert text.count("row 1") == 2 and "\x1b[3F\x1b[J" in text
