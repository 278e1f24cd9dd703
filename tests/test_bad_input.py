"""A careless user loses nothing: what a refusal, a second training, a full GPU or a full disk leave behind."""

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
import toys

from disentkit import checkpoints, cli, metrics, runs, training, workbench
from disentkit.data.base import ArrayData
from disentkit.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_pictures")


def smoke(method: str, **options) -> workbench.Run:
    return workbench.train(method, **{"preset": "smoke", "device": "cpu", "threads": 1, "say": toys.quiet} | options)


def test_a_refused_training_takes_nothing_away(monkeypatch):
    """resume=False forgets the interrupted one only where the new one can begin."""
    kept = runs.home() / "working" / "vae-dsprites-smoke-s0" / checkpoints.CHECKPOINT
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"hours")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options in ({"device": "cuda"}, {"precision": "half"}, {"threads": -1}, {"lr": 0}, {"minutes": "x"}):
        with pytest.raises(UserError):
            smoke("vae", resume=False, **options)
    assert kept.read_bytes() == b"hours"


def test_two_trainings_of_one_name_at_once(monkeypatch, capsys):
    fit, working = training.fit, runs.home() / "working"

    def another(*args, **options):
        with pytest.raises(UserError, match="is being trained at this moment, by another process or notebook. Wait"):
            smoke("vae", resume=False, steps=2)
        assert checkpoints.is_trained(working / "vae-dsprites-smoke-s0")
        (working / "vae-dsprites-smoke-s0").mkdir(exist_ok=True)
        assert cli.main(["runs", "rm", "working/vae-dsprites-smoke-s0"]) == 2
        assert "working/vae-dsprites-smoke-s0 is being trained at this moment, so it stays" in capsys.readouterr().err
        return fit(*args, **options)

    monkeypatch.setattr(training, "fit", another)
    smoke("vae", steps=2)
    assert not [path for path in working.iterdir() if path.is_dir()]
    assert not checkpoints.is_trained(working / "vae-dsprites-smoke-s0")
    monkeypatch.setattr(training, "fit", fit)
    assert smoke("vae", steps=2).card["stopped"] == "done"


@pytest.mark.parametrize("place", [torch.nn.Module, ArrayData])
def test_a_gpu_that_is_full_from_the_start(monkeypatch, place):
    def full(self, *args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(place, "to", full)
    with pytest.raises(UserError, match="the GPU is out of memory at batch 16. Take settings with batch=8"):
        smoke("vae", data=ArrayData(np.zeros((4, 32, 32), np.uint8)))


def test_a_full_disk_does_not_take_the_scores(monkeypatch, capsys):
    for name in ("factorvae_score", "betavae_score", "mig"):
        monkeypatch.setattr(metrics, name, lambda *args, **options: 1.0)
    run = smoke("vae", steps=2)
    card = (run.path / "card.json").read_text()

    def full(self, *args, **options):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert workbench.score(run) == run.card["scores"]
    assert "could not be written (No space left on device), so it has not these scores" in capsys.readouterr().out
    assert (run.path / "card.json").read_text() == card and not (run.path / ".card.json").exists()


@pytest.mark.parametrize("method, told", [("factorvae", "cannot be permuted"), ("infogan", "batch norm needs two"),
                                          ("infowgan", "batch norm needs two")])  # fmt: skip
def test_a_batch_of_one_is_refused(method, told):
    with pytest.raises(UserError, match=f"{told}.*not 1"):
        workbench.train(method, preset="smoke", batch=1, say=lambda line: pytest.fail("something began"))
