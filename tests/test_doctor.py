"""doctor(): the report, its advice, and what it calls a problem."""

from collections import namedtuple

import pytest

from disentkit import cli, doctor, runs


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("disentkit.machine.idle_cores", lambda: 1)  # the real one looks for 0.3 s
    return tmp_path / "home"


def test_the_report_is_short_aligned_and_names_a_preset(home):
    report = doctor.doctor()
    lines = repr(report).splitlines()
    assert str(report) == repr(report)
    assert len(lines) <= 8 + len(report.problems)
    subjects = [subject for subject, _ in report.rows] + ["take"]
    column = max(len(s) for s in subjects) + 2
    for subject, line in zip(subjects, lines):
        assert line.startswith(subject) and line[column - 1] == " " and line[column] != " "
    assert f"preset '{report.preset}'" in lines[len(report.rows)]
    assert str(home) in repr(report) and "1 thread;" in repr(report)


@pytest.mark.parametrize("free, preset", [(None, "quick"), (1.0, "quick"), (20.0, "course")])
def test_advice(free, preset):
    taken, why = doctor.advice(free)
    assert taken == preset and "\n" not in why


def test_a_home_that_cannot_be_written_is_a_problem_and_not_a_crash(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "file"))
    report = doctor.doctor()
    assert any("Set DISENTKIT_HOME" in problem for problem in report.problems)
    assert cli.main(["doctor"]) == 1
    assert "! cannot write to" in capsys.readouterr().out


def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    problems = []
    assert doctor._gpu(problems) == ("not usable, see below", None)
    assert "make lab TORCH=cuda" in problems[0]


def test_little_memory_and_disk_are_problems(monkeypatch):
    memory = namedtuple("Memory", "available total")(1e9, 8e9)
    disk = namedtuple("Disk", "free")(0.2e9)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: disk)
    problems = []
    assert doctor._memory(problems) == "1.0 of 8.0 GB free"
    doctor._home(problems)
    assert len(problems) == 2 and "0.2 GB" in problems[1]


def test_versions_are_compared_with_the_lock(tmp_path, monkeypatch):
    installed = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "pandas": "3.0.0"}
    monkeypatch.setattr(doctor.metadata, "version", lambda name: installed[name])
    monkeypatch.setattr(doctor.metadata, "PackageNotFoundError", KeyError)
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\nnumpy==2.4.6\ntorch==2.13.0\n")
    assert doctor._versions(lock) == "all 2 packages as in requirements.lock"
    lock.write_text("numpy==2.4.6\ntorch==2.13.0\npandas==3.1.1\npytest==9.2.0\n")
    assert doctor._versions(lock) == (
        "2 of 4 packages as in requirements.lock; different: pandas 3.0.0 (not 3.1.1); not installed: pytest"
    )
    assert doctor._versions(tmp_path / "none").startswith("not compared")


def test_nothing_is_left_behind(home):
    doctor.doctor()
    assert not list(runs.home().iterdir())
