"""Runs on disk: whole or not there, found by name, and refused with one clear line where they are damaged."""

import copy
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from disentkit import judging, metrics, models, places, runs, scores, workbench
from disentkit.data.combinations import every
from disentkit.errors import UserError

SHIPPED = runs.SHIPPED
pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(autouse=True)
def _nothing_is_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def run(toy_runs):
    """A finished run in memory, not yet in this test's home."""
    found = copy.copy(toy_runs["Toy"])
    found.card = copy.deepcopy(found.card) | {"base": None}
    found.path = None
    return found


def codes(model) -> torch.Tensor:
    return model.prior(5, torch.Generator().manual_seed(0))


def drafts() -> list[Path]:
    return [p for p in (runs.home() / "runs").glob(".*")]


# ---- saving


def test_a_run_appears_by_one_rename(run, monkeypatch):
    rename, seen = Path.rename, []

    def spy(self, target):
        seen.append((sorted(p.name for p in self.iterdir()), Path(target).exists(), runs.folders()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    path = run.save()
    whole = ["card.json", "history.csv", "picture.png", "weights.safetensors"]
    assert seen == [(whole, False, [])]  # all of it was written before, and nobody could see it
    assert path == run.path == runs.home() / "runs" / "Toy-dots-own-s0" and drafts() == []
    assert runs.folders() == [path] and path.stat().st_mode & 0o777 == 0o755


def test_a_taken_name_gets_a_number(run):
    names = [run.save().name for _ in range(3)]
    assert names == ["Toy-dots-own-s0", "Toy-dots-own-s0-2", "Toy-dots-own-s0-3"]
    assert run.name == names[2] and {f.name for f in runs.folders()} == set(names)


def test_a_name_taken_at_the_last_moment(run, monkeypatch):
    """Two students' trainings end in the same second."""
    exists = Path.exists
    (runs.home() / "runs" / "Toy-dots-own-s0").mkdir(parents=True)
    (runs.home() / "runs" / "Toy-dots-own-s0" / "theirs").write_text("x")
    monkeypatch.setattr(
        Path, "exists", lambda self, **k: False if self.name == "Toy-dots-own-s0" else exists(self, **k)
    )
    assert run.save().name == "Toy-dots-own-s0-2"


def test_only_the_models_weights_are_kept(run):
    kept = load_file(run.save() / "weights.safetensors")
    assert toys.same(dict(run.model.state_dict()), kept) == ""
    half = load_file(run.save(half=True) / "weights.safetensors")
    assert all(w.dtype == torch.float16 for w in half.values())


FULL = """
import resource, sys, torch, toys
from disentkit import methods, runs
methods.METHODS |= {"Toy": ("toys", "Toy")}
said = []
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as if the disk were full after 20 kB of a file
run = toys.train_run("Toy", say=said.append)
assert run.path is None and len(said) == 2, said
assert "the run could not be saved to" in said[1] and "File too large" in said[1], said
assert said[1].endswith("Make room and save it again. The model is still here: make room, then run.save()."), said
assert list((runs.home() / "runs").iterdir()) == []
assert run.model.decode(run.model.prior(2, torch.Generator())).shape == (2, 1, 16, 16)
"""


def test_full_disk_is_said_and_the_run_stays_usable(tmp_path):
    """The real thing: the system refuses to write, in the libraries' own way."""
    pytest.importorskip("resource", reason="this system cannot limit the size of files")
    root = Path(__file__).resolve().parent
    env = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FULL], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["mkdtemp", "mkdir", "to_csv"])
def test_refused_writing(run, place, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    run.save()
    with monkeypatch.context() as patch:
        if place == "mkdtemp":
            patch.setattr(runs.tempfile, "mkdtemp", refuse)
        elif place == "mkdir":
            mkdir = Path.mkdir
            patch.setattr(
                Path, "mkdir", lambda self, *a, **k: refuse() if self.name == "runs" else mkdir(self, *a, **k)
            )
        else:
            patch.setattr(type(run.history), "to_csv", refuse)
        with pytest.raises(
            UserError, match="the run could not be saved to .*: No space left on device. Make room and save"
        ):
            run.save()
    assert drafts() == [] and len(runs.folders()) == 1
    assert run.save().name == "Toy-dots-own-s0-2"


def test_read_only_home(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(places.tempfile, "TemporaryFile", refuse)
        with pytest.raises(
            UserError, match=r"cannot write to .*home \(Permission denied\). Set DISENTKIT_HOME to a folder"
        ):
            toys.train_run("Toy")  # before anything is trained
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(UserError, match="cannot write to"):
            places.writable_home()


def test_home_is_the_variable_or_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("DISENTKIT_HOME", str(tmp_path / "mine"))
    assert places.home() == tmp_path / "mine" and not (tmp_path / "mine").exists()
    assert places.writable_home() == tmp_path / "mine" and list((tmp_path / "mine").iterdir()) == []
    monkeypatch.delenv("DISENTKIT_HOME")
    monkeypatch.setattr(places, "CHECKOUT", tmp_path / "checkout")
    assert places.home() == tmp_path / "checkout" / "data" / "local"


# ---- opening


def test_opened_by_path_by_name_and_by_kind(run, tmp_path):
    path = run.save()
    for name in (path, str(path), "Toy-dots-own-s0", "own/Toy-dots-own-s0"):
        assert runs.find(name) == path
        opened = workbench.open_run(name)
        assert torch.equal(models.decode(opened.model, codes(run.model)), models.decode(run.model, codes(run.model)))
    assert opened.stats == run.stats and opened.name == "Toy-dots-own-s0" and opened.picture.startswith(b"\x89PNG")

    for name in ("Toy-dots-own-s0", "course"):
        run.save(tmp_path / "shipped" / name)
    assert runs.find("course") == runs.find("shipped/course") == tmp_path / "shipped" / "course"
    assert runs.find("Toy-dots-own-s0") == path  # one's own first
    assert runs.find("shipped/Toy-dots-own-s0") == tmp_path / "shipped" / "Toy-dots-own-s0"
    assert [runs.address(f) for f in runs.folders()] == [
        "own/Toy-dots-own-s0",
        "shipped/Toy-dots-own-s0",
        "shipped/course",
    ]
    assert all(runs.find(runs.address(f)) == f for f in runs.folders())
    assert runs.address(tmp_path / "else") == str(tmp_path / "else")


def test_unknown_names(run):
    with pytest.raises(UserError, match="no run 'x': there are none. Train one with: disentkit train"):
        runs.find("x")
    run.save()
    with pytest.raises(UserError, match="unknown run 'Toy-dot-s0'. Did you mean 'Toy-dots-own-s0'"):
        runs.find("Toy-dot-s0")
    with pytest.raises(UserError, match="unknown run 'shipped/Toy-dots-own-s0'"):
        runs.find("shipped/Toy-dots-own-s0")


def edit(card: dict, **changes) -> str:
    return json.dumps({k: v for k, v in (card | changes).items() if v != "gone"})


@pytest.mark.parametrize("text, message", [
    (lambda card: "{", r"card.json is damaged \(.*\): the run cannot be opened"),
    (lambda card: "[1]", "card.json has card format None, this kit reads 1"),
    (lambda card: "{}", "card.json has card format None"),
    (lambda card: edit(card, format=99), "has card format 99, this kit reads 1; open it with the kit that wrote it"),
    (lambda card: edit(card, settings="gone"), "card.json is damaged: it has no 'settings'"),
    (lambda card: edit(card, blocks="gone"), "card.json is damaged: it has no 'blocks'"),
    (lambda card: edit(card, steps="gone"), "card.json is damaged: it has no 'steps'"),
    (lambda card: edit(card, base={}), "does not fit this version of the kit"),
    (lambda card: edit(card, method="nope"), "unknown method 'nope'"),
    (lambda card: edit(card, settings={"colour": 1}), "does not fit this version of the kit: .*colour"),
    (lambda card: edit(card, method="EMA"), "does not fit this version of the kit: .*Missing key"),
    (lambda card: edit(card, factors=[{"name": "x", "kind": "odd"}]), "does not fit this version .*unknown kind 'odd'"),
])  # fmt: skip
def test_cards_that_cannot_be_read(run, text, message):
    path = run.save()
    (path / "card.json").write_text(text(runs.read_card(path)))
    with pytest.raises(UserError, match=message):
        workbench.open_run(path)


def test_card_is_missing(tmp_path):
    with pytest.raises(UserError, match="is not a run: it has no card.json"):
        runs.read_card(tmp_path)


def test_weights_that_cannot_be_read(run):
    path = run.save() / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match="weights.safetensors is not the file its card names: it was changed or cut short"
    ):
        workbench.open_run(path.parent)
    card = runs.read_card(path.parent)
    runs.write_card(path.parent, card | {"weights": runs.weights_hash(path)})
    with pytest.raises(UserError, match="weights.safetensors is damaged"):
        workbench.open_run(path.parent)
    path.unlink()
    with pytest.raises(UserError, match="has no weights.safetensors; train the run again"):
        workbench.open_run(path.parent)


@pytest.mark.parametrize("name", ["history.csv", "picture.png"])
def test_other_files_missing(run, name):
    path = run.save()
    (path / name).unlink()
    with pytest.raises(UserError, match="does not fit this version of the kit: .*No such file"):
        workbench.open_run(path)


# ---- a run that builds on another


@pytest.fixture
def pair(toy_runs):
    """Folders of a base run and of a second stage on it, in this test's home."""
    base = copy.copy(toy_runs["EMA"])
    base.card = base.card | {"base": None}
    base.save()
    return base.path, toys.train_run("SecondStage", base=base).path


def test_base_is_found_by_name_and_beside_the_run(pair, tmp_path):
    base, second = pair
    card = runs.read_card(second)
    assert card["base"] == {"path": f"own/{base.name}", "weights": runs.read_card(base)["weights"]}  # no machine's path
    opened = workbench.open_run(second)
    with pytest.raises(UserError, match="unknown run"):
        runs.find("nothing")
    base.parent.rename(tmp_path / "handed out")  # an instructor's folder of runs, somewhere else
    again = workbench.open_run(tmp_path / "handed out" / second.name)
    c = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(models.decode(opened.model, c), models.decode(again.model, c))
    workbench.open_run(runs.base_of(tmp_path / "handed out" / second.name, card))


def test_base_is_missing(pair):
    base, second = pair
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(
        UserError, match=f"run '{second.name}' builds on own/{base.name}, which is not there or damaged"
    ):
        workbench.open_run(second)


def test_base_has_changed(pair):
    base, second = pair
    weights = load_file(base / "weights.safetensors")
    weights["encoder.0.bias"] += 1
    save_file(weights, base / "weights.safetensors")
    with pytest.raises(UserError, match="weights.safetensors is not the file its card names"):
        workbench.open_run(second)
    runs.write_card(base, runs.read_card(base) | {"weights": runs.weights_hash(base / "weights.safetensors")})
    with pytest.raises(UserError, match=f"builds on own/{base.name}, whose weights have changed since; train it again"):
        workbench.open_run(second)


def test_base_that_was_never_saved(toy_runs):
    base = copy.copy(toy_runs["EMA"])
    base.path = None
    with pytest.raises(UserError, match="the base run 'EMA-dots-own-s0' is not saved; save it first, with run.save()"):
        toys.train_run("SecondStage", base=base)


# ---- removing


def test_remove(run, tmp_path):
    path = run.save()
    kept = run.save()
    assert runs.remove("Toy-dots-own-s0") == path and runs.folders() == [kept]
    shipped = run.save(tmp_path / "shipped" / "course")
    for name in ("course", "shipped/course", shipped):
        with pytest.raises(UserError, match="is not one of your own runs, so it stays"):
            runs.remove(name)
    assert shipped.exists()


# ---- what the kit ships


def test_shipped_runs_are_whole_small_and_honest(monkeypatch):
    monkeypatch.setattr(runs, "SHIPPED", SHIPPED)
    shipped = [f for f in runs.folders() if f.parent == SHIPPED]
    assert shipped
    for folder in shipped:
        run = workbench.open_run(folder)
        assert (folder / "weights.safetensors").stat().st_size <= 10_000_000
        floats = [w for w in load_file(folder / "weights.safetensors").values() if w.is_floating_point()]
        assert all(w.dtype == torch.float16 for w in floats)
        assert run.history["step"].iloc[-1] == run.card["steps"]
        assert str(Path.home()) not in json.dumps(run.card) and str(places.CHECKOUT) not in json.dumps(run.card)
        if models.can_encode(run.model):
            codes = models.encode(run.model, run.data().sample(4, torch.Generator())["x"])
        else:
            codes = run.model.prior(4, torch.Generator())
        pictures = models.decode(run.model, codes)
        assert pictures.shape == (4, *run.model.image_shape)


@pytest.mark.slow
def test_the_scores_on_shipped_cards_are_measured_again(monkeypatch):
    monkeypatch.setattr(runs, "SHIPPED", SHIPPED)
    for folder in [f for f in runs.folders() if f.parent == SHIPPED]:
        run = workbench.open_run(folder)
        card = run.card["scores"]
        if "blocks" in card:  # wide blocks: swaps of the same pairs, read by the same judge or one trained anew
            swaps = metrics.swap_matrix(run.model, run.data(), judging.judge_of(run.data(), threads=1, bar=False))
            again = swaps.follows.loc[list(run.model.codes.names)].to_numpy()
            stored = pd.DataFrame(card["blocks"]["follows"]).T.loc[list(run.model.codes.names)].to_numpy()
            assert np.abs(again - stored).max() < 0.03, folder.name
            continue
        if "co_prediction" in card:  # blocks that are attributes: the same targets and the same small classifiers
            made, read = metrics.zero_shot(run.model, run.data()), metrics.co_prediction(run.model, every(run.data()))
            assert made.psnr == pytest.approx(card["zero_shot"]["psnr"], abs=0.05), folder.name
            assert read.diagonal == pytest.approx(card["co_prediction"]["diagonal"], abs=0.02), folder.name
            continue
        if "directions" in card:  # the same codes, read by the same instrument
            again = scores.measure_directions(run.model, run.data())["directions"]
            for name, stored in card["directions"].items():
                assert again[name]["spearman"] == pytest.approx(stored["spearman"], abs=0.02), (folder.name, name)
            continue
        if "gates" in card:  # mixing: the same pictures, read by the same judge and segmenter
            again = scores.measure_mixing(run.model, run.data())["gates"]
            assert list(again) == list(card["gates"]), folder.name
            for gate, stored in card["gates"].items():
                assert again[gate]["measured"] == pytest.approx(stored["measured"], abs=0.02), (folder.name, gate)
            continue
        if not models.can_encode(run.model):  # a generator has no scores of its own
            assert card == {}
            continue
        votes = metrics.factorvae_score(run.model, run.data(), votes=100)  # 800 on the card: as many draws take minutes
        assert metrics.mig(run.model, run.data())["mig"] == pytest.approx(card["mig"]["mig"], abs=1e-3), folder.name
        assert votes["surviving"] == card["factorvae_score"]["surviving"], folder.name
        # Five standard deviations of a share of 100 votes.
        assert votes["pruned"] == pytest.approx(card["factorvae_score"]["pruned"], abs=0.25), folder.name
