"""For every test: a home of the kit in a temporary folder, one thread, and toys that the workbench knows as methods."""

import pytest
import torch
import toys

from disentkit import methods, plots, runs


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Nothing a test makes may land in the checkout or in the user's own home."""
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _threads_stay():
    """A test that leaves another number of threads behind would slow down, or speed up, the rest."""
    threads = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert left == threads


DOT = b"\x89PNG: a picture that takes no time"


@pytest.fixture
def quick_pictures(monkeypatch):
    """Runs get a picture of no worth: drawing takes longer than training a toy."""
    monkeypatch.setattr(plots, "training_picture", lambda rows, history: DOT)


@pytest.fixture(autouse=True)
def _toys_are_methods(monkeypatch):
    """`workbench.train("TwoDraws", settings=toys.Settings(), data=toys.Dots())`, and its run opens again."""
    for name in toys.TOYS:
        monkeypatch.setitem(methods.METHODS, name, ("toys", name))


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory):
    """A finished run of every toy, by name, each built on the same base: one with batch norm.

    Where a toy takes no base it just leaves it alone, so that no toy needs a way of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISENTKIT_HOME", str(tmp_path_factory.mktemp("toys")))
        for name in toys.TOYS:
            patch.setitem(methods.METHODS, name, ("toys", name))
        patch.setattr(plots, "training_picture", lambda rows, history: DOT)
        base = toys.train_run("EMA")
        found = {name: toys.train_run(name, base=base) for name in toys.TOYS}
        assert {run.path.parent for run in found.values()} == {runs.home() / "runs"}
    return found
