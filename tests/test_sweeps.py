"""Sweeps: what stands in the table, what is never done twice, what is refused before anything is trained."""

import csv
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toys

from disentkit import checkpoints, cli, commands, members, runs, sweeps, tables, workbench
from disentkit.data.base import ArrayData
from disentkit.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(autouse=True)
def _toys_have_a_preset(monkeypatch, tmp_path):
    """And nothing is shipped."""
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    presets = {("smoke", "dots"): toys.Settings(steps=2), ("smoke", "folder"): toys.Settings(steps=2)}
    monkeypatch.setattr(toys.Toy, "PRESETS", presets, raising=False)
    monkeypatch.setattr(toys.TwoDraws, "PRESETS", presets, raising=False)


def first(model, data) -> dict[str, float]:
    """A measure that takes no time."""
    return {"first": float(next(model.parameters()).detach().sum())}


def sweep(grid: dict, seeds=2, method: str = "Toy", **options) -> pd.DataFrame:
    """Of toys, in this process."""
    usual = {"data": toys.Dots(), "preset": "smoke", "jobs": 1, "measures": [first], "device": "cpu", "say": toys.quiet}
    return sweeps.sweep(method, grid, seeds=seeds, **usual | options)


@pytest.fixture
def never(monkeypatch):
    """From here on, training is a failure."""

    def use():
        for name in ("train", "train_together"):
            monkeypatch.setattr(workbench, name, lambda *a, **k: pytest.fail("something was trained"))

    return use


def place() -> Path:
    return sweeps.usual_place("Toy", "dots", "smoke")


def rows() -> list[dict]:
    with place().open(newline="") as file:
        return list(csv.DictReader(file))


def names() -> list[str]:
    return sorted(folder.name for folder in runs.folders())


# ---- the table


def test_a_row_says_what_was_asked_measured_and_taken():
    table = sweep({"lr": [0.001, 0.25]})
    assert list(zip(table["lr"], table["seed"])) == [(0.001, 0), (0.001, 1), (0.25, 0), (0.25, 1)]
    assert list(table.columns) == [
        "method", "data", "data_version", "seed", "lr", "batch", "steps", "size", "preset", "first", "recon", "seconds",
        "threads", "precision", "device", "run", "disentkit", "torch", "failed",
    ]  # fmt: skip
    assert table["failed"].isna().all() and (table["threads"] == 1).all()
    for _, row in table.iterrows():
        run = workbench.open_run(row["run"])
        assert (run.card["settings"]["lr"], run.card["seed"], run.card["threads"]) == (row["lr"], row["seed"], 1)
        assert row["first"] == pytest.approx(first(run.model, None)["first"], rel=1e-9)
        assert row["recon"] == pytest.approx(run.history["recon"].iloc[-1], rel=1e-5)
        assert (row["seconds"], row["precision"]) == (run.card["seconds"], run.card["precision"])
        assert (row["disentkit"], row["torch"]) == tuple(run.card["versions"][k] for k in ("disentkit", "torch"))
    assert names() == [f"Toy-dots-smoke-lr{lr}-s{s}" for lr in ("0.001", "0.25") for s in (0, 1)]


def test_recon_and_kl_are_the_ends_of_the_history():
    history = pd.DataFrame({"step": [1, 2], "recon": [9.0, 1.23456789], "kl_0": [9, 0.5], "kl_1": [9, 0.25], "klx": 7})
    assert members._ends(history) == {"recon": 1.23457, "kl": 0.75}
    assert members._ends(pd.DataFrame({"step": [1], "kl": [3.0]})) == {"kl": 3.0}


def test_what_is_finished_is_never_done_again(never):
    once = sweep({"lr": [1, 4]})
    written, said = place().read_bytes(), []
    never()
    assert sweep({"lr": [1, 4]}, say=said.append).equals(once) and place().read_bytes() == written
    assert said == [f"4 of 4 are in {place()} already"]


def test_a_sweep_grows(monkeypatch):
    sweep({"lr": [1]}, seeds=[1])
    trained, train = [], workbench.train
    monkeypatch.setattr(workbench, "train", lambda *a, **k: trained.append((k["lr"], k["seed"])) or train(*a, **k))
    table = sweep({"lr": [4, 1]}, seeds=[0, 1])
    assert trained == [(4, 0), (4, 1), (1, 0)]
    assert list(zip(table["lr"], table["seed"])) == [(4, 0), (4, 1), (1, 0), (1, 1)]  # in the order of the question
    assert [(float(row["lr"]), int(row["seed"])) for row in rows()] == [(1, 1), (4, 0), (4, 1), (1, 0)]


def test_a_run_that_is_there_is_opened_and_only_measured(never):
    """Killed after the run was saved and before its row was written; or trained by hand, long ago."""
    run = toys.train_run("Toy", settings=toys.Settings(steps=2), seed=1)
    never()
    table = sweep({}, seeds=[1])
    assert table["run"].tolist() == [run.name] and table["failed"].isna().all()


def test_a_damaged_run_is_trained_again():
    before = sweep({}, seeds=1)
    place().unlink()
    weights = runs.find(before["run"][0]) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    after = sweep({}, seeds=1)
    assert after["run"][0] == before["run"][0] + "-2" and after["first"][0] == before["first"][0]


def test_several_methods_share_a_table_and_own_columns_stay(tmp_path, never):
    out = tmp_path / "all.csv"
    sweep({"lr": [0.25]}, seeds=1, out=out)
    head, row = out.read_text().splitlines()
    out.write_text(f'{head},remark\n{row.replace("0.25", "2.5E-01")},"mine, all mine"\n')
    other = sweep({}, seeds=1, out=out, method="TwoDraws")
    assert "recon" not in other.columns and "remark" not in other.columns
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["method"] for row in found] == ["Toy", "TwoDraws"]
    assert [row["remark"] for row in found] == ["mine, all mine", ""] and list(found[0])[-1] == "failed"
    never()
    assert sweep({"lr": [0.25]}, seeds=1, out=out)["remark"][0] == "mine, all mine"  # a spreadsheet's 2.5E-01 is 0.25


def test_numbers_are_compared_as_numbers():
    assert tables._answers({"lr": "1E-04", "d": "10", "name": "x"}, {"lr": 0.0001, "d": 10.0, "name": "x"})
    assert not tables._answers({"lr": "0.001"}, {"lr": 0.0001})
    assert not tables._answers({}, {"lr": 0.0001}) and not tables._answers({"estimator": "mss"}, {"estimator": "mws"})


def test_probes_go_into_the_history_of_each_run():
    table = sweep({}, seeds=1, probes=[first], probe_every=1)
    run = workbench.open_run(table["run"][0])
    assert run.history["first"].notna().all() and run.card["probes"] == {"names": ["first"], "every": 1}


def test_full_is_the_score_of_the_workbench(monkeypatch):
    found = {"factorvae_score": {"pruned": 0.5, "unpruned": 0.6, "surviving": 3}, "betavae_score": {"score": 0.9},
             "mig": {"mig": 0.1}}  # fmt: skip
    monkeypatch.setattr(workbench, "score", lambda run, data: found)
    table = sweep({}, seeds=1, measures=None)
    columns = ["factorvae", "factorvae_unpruned", "surviving", "betavae", "mig"]
    assert table.loc[0, columns].tolist() == [0.5, 0.6, 3, 0.9, 0.1]


def images(seed: int) -> ArrayData:
    return ArrayData(np.random.default_rng(seed).integers(0, 256, (20, 16, 16), dtype=np.uint8), name="mine")


def test_pictures_without_factors_are_not_scored():
    table = sweep({}, seeds=1, data=images(0), measures=None)
    assert table["failed"].isna().all() and table["recon"][0] > 0 and "factorvae" not in table.columns
    with pytest.raises(UserError, match="scores need two factors or more that vary; data set 'mine' has none"):
        sweep({}, data=images(0), measures=["full"])


def test_other_data_of_the_same_name_are_another_row():
    for seed in (0, 1):
        sweep({}, seeds=1, data=images(seed), measures=[])
    table = pd.read_csv(sweeps.usual_place("Toy", "mine", "smoke"))
    assert len(table) == 2 and table["data_version"].nunique() == 2


def test_a_precision_asked_for_by_name_is_part_of_the_question():
    half = sweep({}, seeds=1, precision="bf16")
    full = sweep({}, seeds=1, precision="float32")
    assert (half["precision"][0], full["precision"][0]) == ("bfloat16", "float32")
    assert len(rows()) == 2 and half["run"][0] != full["run"][0]
    assert sweep({}, seeds=1, precision="bf16")["run"][0] == half["run"][0]


def test_together_gives_the_same_rows():
    alone = sweep({"lr": [1e-3, 4e-3]}, seeds=3)
    opened = sweep({"lr": [1e-3, 4e-3]}, seeds=3, together=2, out=runs.home() / "again.csv")
    assert opened.equals(alone)
    for name in names():
        runs.remove(name)
    together = sweep({"lr": [1e-3, 4e-3]}, seeds=3, together=2, out=runs.home() / "third.csv")
    assert together.drop(columns="seconds").equals(alone.drop(columns="seconds")) and len(names()) == 6


def test_members_share_no_working_folder(monkeypatch):
    """Two members of one seed would go on from each other's checkpoints."""
    seen, alone = [], checkpoints.alone
    monkeypatch.setattr(checkpoints, "alone", lambda folder: seen.append(folder.name) or alone(folder))
    sweep({"lr": [1, 1.0000001]}, seeds=1)
    assert [n for n in seen if "smoke-" in n] == ["Toy-dots-smoke-lr1-s0", "Toy-dots-smoke-lr1.0000001-s0"]


def test_means_over_the_seeds():
    table = sweep({"lr": [0.001, 0.25]})
    means = sweeps.means("Toy", table, ["lr"])
    assert means["lr"].tolist() == ["0.001", "0.25"] and means["seeds"].tolist() == [2, 2]
    recon = table.loc[table["lr"] == 0.25, "recon"]
    assert means["recon"][1] == f"{recon.mean():.3g} ({recon.std():.2g})"
    assert set(means.columns) == {"lr", "seeds", "first", "recon", "seconds"}
    assert len(sweeps.means("Toy", table, [])) == 1


# ---- failures


def failing(patch, *bad: tuple):
    """Trainings of these (lr, seed) fail, with an error that nobody thought of."""
    train = workbench.train

    def some(method, **options):
        if (options.get("lr"), options["seed"]) in bad:
            raise RuntimeError("a sudden\n  end")
        return train(method, **options)

    patch.setattr(workbench, "train", some)


def test_a_failed_member_is_recorded_tried_again_and_the_others_go_on(monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, (1, 1), (4, 0))
        said = []
        table = sweep({"lr": [1, 4]}, say=said.append)
    assert table["failed"].fillna("").tolist() == ["", "RuntimeError: a sudden end", "RuntimeError: a sudden end", ""]
    assert said[1] == "2 of 4: lr=1 seed=1: failed: RuntimeError: a sudden end"
    assert len(rows()) == 4 and len(names()) == 2
    trained, train = [], workbench.train
    monkeypatch.setattr(workbench, "train", lambda *a, **k: trained.append((k["lr"], k["seed"])) or train(*a, **k))
    table = sweep({"lr": [1, 4]})
    assert trained == [(1, 1), (4, 0)] and table["failed"].isna().all()
    assert len(rows()) == 4 and all(row["failed"] == "" for row in rows())


def test_a_loss_that_is_no_number_is_a_failure_with_its_reason():
    table = sweep({"lr": [1e-3, 1e30]}, seeds=1)
    assert table["failed"].isna().tolist() == [True, False]
    assert re.search("became (nan|inf) at step 2; training stopped", table["failed"][1])


def test_one_of_several_together_may_fail():
    table = sweep({"lr": [1e30, 1e-3]}, together=2)
    assert table["failed"].isna().tolist() == [False, False, True, True]


def test_a_measure_that_fails_costs_no_training(never):
    def broken(model, data):
        raise ValueError("cannot be measured")

    table = sweep({}, seeds=1, measures=[first, broken])
    assert table["failed"][0] == "trained, but not measured: ValueError: cannot be measured"
    never()
    assert sweep({}, seeds=1)["failed"].isna().all()


def test_a_full_disk_is_a_failure_of_the_member(monkeypatch):
    def full(*_, **__):
        raise UserError("the run could not be saved")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", full)
        assert "could not be saved" in sweep({}, seeds=1)["failed"][0]
    assert sweep({}, seeds=1)["failed"].isna().all()


def test_control_c_keeps_what_is_finished_and_the_same_goes_on(monkeypatch):
    step, count = toys.Toy.step, []

    def interrupting(self, opt, *batches):
        count.append(1)
        if len(count) == 3:  # the first step of the second member
            signal.raise_signal(signal.SIGINT)
        return step(self, opt, *batches)

    monkeypatch.setattr(toys.Toy, "step", interrupting)
    with pytest.raises(KeyboardInterrupt):
        sweep({}, seeds=3)
    assert [row["seed"] for row in rows()] == ["0"]
    table = sweep({}, seeds=3)
    assert len(count) == 6 and table["failed"].isna().all()  # two steps each: none was taken twice


# ---- what is refused before anything is trained


@pytest.mark.parametrize("grid, options, message", [
    ({"beat": [1, 4]}, {}, "unknown setting of vae 'beat'. Did you mean 'beta'"),
    ({"gamma": [1]}, {}, "unknown setting of vae 'gamma'"),
    ({"beta": [1, "four"]}, {}, "setting beta of vae must be a finite number, not 'four'"),
    ({"beta": [1, float("nan")]}, {}, "not nan"),
    ({"d": [2, 2.5]}, {}, "setting d of vae must be a whole number of 1 or more, not 2.5"),
    ({"lr": [1e-3, 0]}, {}, "setting lr of vae must be a finite number above 0, not 0"),
    ({"beta": [4, 1, 4.0]}, {}, "beta has the value 4 twice"),
    ({"beta": []}, {}, "beta needs a list of values, one or more"),
    ({"beta": "1,4"}, {}, "beta needs a list of values, one or more, not '1,4'"),
    ({"beta": 4}, {}, "beta needs a list of values, one or more, not 4"),
    ({}, {"seeds": []}, "seeds must be one or more, and different: not none"),
    ({}, {"seeds": [0, 3, 0]}, "seeds must be one or more, and different: not 0, 3, 0"),
    ({}, {"seeds": 0}, "seeds must be a whole number of 1 or more, not 0"),
    ({}, {"seeds": [1.5]}, "seed must be a whole number"),
    ({}, {"preset": "smok"}, "unknown preset 'smok'. Did you mean 'smoke'"),
    ({}, {"data": "dsprite"}, "no preset 'smoke' for data 'dsprite'"),
    ({"size": [32, 48]}, {}, "16 pixels, not 48"),
    ({}, {"data_options": {"sise": 3}}, "unknown option for data set 'dsprites': 'sise'"),
    ({}, {"backend": "ray"}, "unknown backend 'ray'. Known: loky, dask"),
    ({}, {"backend": "dask"}, "dask needs the address of its scheduler"),
    ({}, {"scheduler": "tcp://node1:8786"}, "dask needs the address of its scheduler, .*; loky none"),
    ({}, {"jobs": 0.5}, "jobs must be a whole number of 1 or more, not 0.5"),
    ({}, {"together": 0}, "together must be a whole number of 1 or more, not 0"),
    ({}, {"device": "gpu"}, "unknown device 'gpu'"),
    ({}, {"precision": "f16"}, "unknown precision 'f16'"),
    ({}, {"measures": ["score"]}, "unknown measure 'score'. Did you mean 'scores'"),
    ({}, {"measures": "scores"}, "measures and probes are lists"),
    ({}, {"measures": ["full", "scores"]}, "'full' and 'scores' fill the same columns"),
    ({}, {"probes": ["rocen"], "probe_every": 5}, "unknown measure 'rocen'. Did you mean 'recon'"),
    ({}, {"probe_every": 5}, "probe_every=5 measures nothing"),
    ({}, {"probes": ["recon"], "probe_every": 0}, "probe_every must be a whole number of 1 or more, not 0"),
])  # fmt: skip
def test_mistakes_are_said_before_anything_is_trained(grid, options, message, never):
    never()
    with pytest.raises(UserError, match=message):
        sweep(grid, **{"method": "vae", "data": "dsprites"} | options)
    assert not (runs.home() / "sweeps").exists() and not names()


@pytest.mark.parametrize("text, message", [
    ("a,b\n1,2\n", "is not the table of a sweep: it has no column 'data'"),
    ("", "has no column 'data'"),
    ("\0\xff\x01", "is not the table of a sweep|cannot be read as a table"),
    ('method,data,seed,failed\n"vae', "cannot be read as a table"),
])  # fmt: skip
def test_a_file_that_is_no_table_is_left_alone(text, message, never, tmp_path):
    never()
    out = tmp_path / "notes.csv"
    out.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        sweep({}, out=out)
    assert out.read_text(encoding="latin-1") == text
    with pytest.raises(UserError, match="cannot be read as a table .*name another file"):
        sweep({}, out=tmp_path)


def test_two_sweeps_do_not_write_one_table(never):
    never()
    place().parent.mkdir(parents=True)
    with sweeps._alone(place()), pytest.raises(UserError, match="another sweep is writing .*Toy-dots-smoke.csv"):
        sweep({})


def test_a_table_that_cannot_be_written_keeps_its_rows(monkeypatch):
    sweep({}, seeds=1)
    written = place().read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda s, t: full(s, t) if s.suffix == ".draft" else os.replace(s, t))
        with pytest.raises(UserError, match="could not be written .No space left on device.; the runs are kept"):
            sweep({}, seeds=2)
    assert place().read_bytes() == written and not list(place().parent.glob("*.draft"))
    assert len(sweep({}, seeds=2)) == 2 and len(names()) == 2  # the second run was there already


# ---- the command


def call(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        code = cli.main(["sweep", *argv])
    except SystemExit as leaving:  # argparse
        code = leaving.code
    told = capsys.readouterr()
    return code, told.out, told.err


ARGV = ("vae", "--preset", "smoke", "--set", "steps=2", "--measures", "none", "--jobs", "1", "--device", "cpu")


def test_the_command(capsys):
    table = sweeps.usual_place("vae", "dsprites", "smoke")
    code, out, _ = call(capsys, *ARGV, "--set", "beta=1,4")
    assert code == 0 and "2 of 2: steps=2 beta=4 seed=0: recon " in out
    lines = out.split("\n\n")[1].splitlines()
    assert lines[0].split()[:5] == ["steps", "beta", "seeds", "recon", "kl"] and len(lines) == 3
    assert str(table) in out and len(pd.read_csv(table)) == 2
    code, out, _ = call(capsys, *ARGV, "--set", "beta=1,4", "--seeds", "0,", "--out", str(table))
    assert code == 0 and f"2 of 2 are in {table} already" in out


def test_the_command_passes_everything_on(capsys, monkeypatch):
    asked = {}
    table = pd.DataFrame([{"beta": 1.0, "d": 2, "seed": 0, "recon": 2.0, "failed": np.nan}])
    monkeypatch.setattr(sweeps, "sweep", lambda method, grid, **k: asked.update(k, method=method, grid=grid) or table)
    argv = "betavae --set beta=1,4 --set d=2 --seeds 7, --preset course --out t.csv --measures scores,tc "
    argv += "--probe-every 9 --probes recon,tc --jobs 3 --together 2 --backend dask --scheduler tcp://a:1 "
    argv += "--device cpu --precision bf16"
    assert call(capsys, *argv.split())[0] == 0
    assert asked == {
        "method": "betavae", "grid": {"beta": [1.0, 4.0], "d": [2]}, "seeds": [7], "data": "dsprites",
        "preset": "course", "out": "t.csv", "measures": ["scores", "tc"], "probes": ["recon", "tc"], "probe_every": 9,
        "jobs": 3, "together": 2, "backend": "dask", "scheduler": "tcp://a:1", "device": "cpu", "precision": "bf16",
        "data_options": None,
    }  # fmt: skip
    call(capsys, "betavae", "--probe-every", "9")
    assert (asked["probes"], asked["measures"], asked["seeds"], asked["grid"]) == (["scores"], None, [0], {})


def test_failures_are_exit_code_1_and_an_interrupt_130(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, (None, 0))
        code, out, err = call(capsys, *ARGV)
        assert code == 1 and err.endswith("disentkit: 1 of 1 failed; the same command tries them again\n")
        assert "1 of 1: steps=2 seed=0: failed: RuntimeError: a sudden end" in out

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "sweep", interrupted)
    code, _, err = call(capsys, *ARGV)
    assert code == commands.INTERRUPTED and err == "disentkit: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("argv, told", [
    ("", "required: METHOD"),
    ("nope", "unknown method 'nope'"),
    ("vae --data dsprite", "unknown data set 'dsprite'"),
    ("vae --set beta", "--set takes NAME=VALUE"),
    ("vae --set beat=1", "unknown setting 'beat'. Did you mean 'beta'?"),
    ("vae --set beta=1,x", "--set beta: 'x' is not a number"),
    ("vae --set beta=1,,4", "--set beta: '' is not a number"),
    ("vae --set d=2.5", "'2.5' is not a whole number"),
    ("vae --set beta=1,1", "beta has the value 1 twice"),
    ("vae --set beta=1 --set beta=4", "--set beta is given twice; put all its values into one"),
    ("vae --seeds 0", "'0' is not a whole number of 1 or more"),
    ("vae --seeds 0,x", "'x' is not a whole number"),
    ("vae --seeds 1,1", "seeds must be one or more, and different"),
    ("vae --measures fll", "unknown measure 'fll'. Did you mean 'full'?"),
    ("vae --probes tc", "--probes needs --probe-every K"),
    ("vae --backend dask", "needs the address of its scheduler"),
    ("vae --jobs 0", "'0' is not a whole number of 1 or more"),
    ("vae --sedes 3", "unknown argument: --sedes 3"),
])  # fmt: skip
def test_a_mistake_is_one_line(capsys, argv, told, never):
    never()
    code, _, err = call(capsys, *argv.split())
    assert code == 2 and told in err
    assert err.startswith("disentkit: ") and err.count("\n") == 1


def test_the_help_teaches(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0 and "usage: disentkit sweep" in out and "--set gamma=10,20,40 --seeds 10" in out


def test_a_scheduler_that_does_not_answer_is_one_line(capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(sweeps, "ANSWER", 0.2)
    code, _, err = call(capsys, *ARGV, "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "no dask scheduler answers at tcp://127.0.0.1:1 (" in err and err.count("\n") == 1


def test_without_dask_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = call(capsys, *ARGV, "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "pip install 'disentkit[dask]'" in err


# ---- the real engines

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ["vae", "--set", "beta=1,4", "--seeds", "3", "--preset", "smoke", "--measures", "recon"]


def environment(home: Path) -> dict[str, str]:
    return dict(os.environ, DISENTKIT_HOME=str(home), OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))


def command(home: Path, *argv: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "disentkit.cli", "sweep", *COMMAND, *argv]
    return subprocess.run(line, env=environment(home), capture_output=True, text=True, timeout=400)


def numbers(home: Path) -> pd.DataFrame:
    """The table in an order of its own, without what depends on the machine's mood."""
    table = pd.read_csv(home / "sweeps" / "vae-dsprites-smoke.csv")
    return table.drop(columns="seconds").sort_values(["beta", "seed"], ignore_index=True)


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """The home of a sweep of 2 x 3 smoke runs in a single process."""
    home = tmp_path_factory.mktemp("one")
    done = command(home, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.slow
def test_numbers_do_not_depend_on_how_many_train_at_a_time(one_by_one, tmp_path):
    done = command(tmp_path, "--jobs", "2", "--together", "2")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(numbers(tmp_path), numbers(one_by_one), check_exact=True)


@pytest.mark.slow
def test_a_killed_sweep_repeats_nothing(one_by_one, tmp_path):
    """2 x 3 smoke runs, kill -9 after two rows, the same command again."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL on this system")
    table = tmp_path / "sweeps" / "vae-dsprites-smoke.csv"
    line = [sys.executable, "-m", "disentkit.cli", "sweep", *COMMAND, "--jobs", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    going = subprocess.Popen(line, env=environment(tmp_path), **pipes)
    try:
        while going.poll() is None and not (table.exists() and len(table.read_text().splitlines()) > 2):
            time.sleep(0.01)
    finally:
        going.kill()
        told = going.communicate()[0]
    assert going.returncode == -signal.SIGKILL, told
    before = table.read_text().splitlines()
    assert 3 <= len(before) < 7
    time.sleep(2)  # its workers see that they are alone, and end
    finished = {f: (f / "weights.safetensors").stat().st_mtime_ns for f in (tmp_path / "runs").glob("vae-*")}
    assert len(finished) >= len(before) - 1
    time.sleep(2)
    assert {f for f in (tmp_path / "runs").glob("vae-*")} == set(finished)  # they have ended

    done = command(tmp_path, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert f"{len(before) - 1} of 6 are in {table} already" in done.stdout
    after = table.read_text().splitlines()
    assert after[: len(before)] == before and len(after) == 7
    assert len(list((tmp_path / "runs").glob("vae-*"))) == 6  # no member has a second run
    assert all((f / "weights.safetensors").stat().st_mtime_ns == then for f, then in finished.items())
    pd.testing.assert_frame_equal(numbers(tmp_path), numbers(one_by_one), check_exact=True)


@pytest.mark.slow
def test_a_killed_process_is_a_failure_of_its_member_alone():
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL on this system")
    options = {"seeds": 3, "method": "vae", "data": "dsprites"}
    before = sweep({"steps": [2]}, **options)
    doomed = before["first"][1]

    def deadly(model, data):
        if abs(float(next(model.parameters()).detach().sum()) - doomed) < 1e-9:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"alive": 1.0}

    table = sweep({"steps": [2]}, jobs=2, measures=[deadly], out=runs.home() / "deadly.csv", **options)
    assert table["alive"].fillna(0).tolist() == [1, 0, 1]
    assert table["failed"].fillna("").tolist() == ["", "its process was killed, perhaps for want of memory", ""]


CLUSTER = """
import sys
from distributed import LocalCluster
from disentkit import cli

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        code = cli.main(["sweep", *sys.argv[1:], "--backend", "dask", "--scheduler", cluster.scheduler_address])
        print("workers", len(cluster.scheduler_info["workers"]))
    sys.exit(code)
"""


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_table(one_by_one, tmp_path):
    """The real engine: a scheduler and two workers, each a process of its own."""
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    line = [sys.executable, str(script), *COMMAND]
    done = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6" in done.stdout and "workers 2" in done.stdout
    pd.testing.assert_frame_equal(numbers(tmp_path), numbers(one_by_one), check_exact=True)


# ---- what only the method, the disk or the measure can refuse


@pytest.mark.parametrize("grid, method", [
    ({"estimator": ["mss", "xyz"]}, "betatcvae"), ({"N": [4]}, "betatcvae"), ({"nets": ["foo"]}, "infogan"),
    ({"categories": [0], "continuous": [0]}, "infogan"), ({"d": [10**10]}, "vae"),
])  # fmt: skip
def test_what_the_method_refuses_is_said_before_anything_is_trained(grid, method, never):
    never()
    with pytest.raises(UserError):
        sweeps.sweep(method, grid, preset="smoke", measures=[first], jobs=1, say=toys.quiet)
    assert not sweeps.usual_place(method, "dsprites", "smoke").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_trained(monkeypatch, never, tmp_path):
    make = tempfile.TemporaryFile

    def refuse(dir):
        if dir == tmp_path:
            raise PermissionError(13, "Permission denied")
        return make(dir=dir)

    never()
    monkeypatch.setattr(tables.tempfile, "TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"no table can be written to .*x.csv \(Permission denied\); name another file"):
        sweep({"lr": [0.1]}, out=tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["lr", "seed", "seconds"])
def test_a_measure_named_like_a_column_is_a_failure(name):
    rows_ = sweep({"lr": [0.1]}, seeds=1, measures=[lambda model, data: {name: 55.0}])
    assert f"a measure is called '{name}'" in rows_["failed"][0] and rows_["lr"][0] == 0.1


def test_a_table_from_a_spreadsheet_is_read(never):
    sweep({"lr": [0.1]}, seeds=np.int64(1))
    place().write_bytes(b"\xef\xbb\xbf" + place().read_bytes())
    never()
    assert len(sweep({"lr": [0.1]}, seeds=[0])) == 1


def test_an_address_without_a_port_is_one_line():
    with pytest.raises(UserError, match="'nowhere' is no address of a dask scheduler; one looks like tcp://node1:8786"):
        sweep({"lr": [0.1]}, backend="dask", scheduler="nowhere", jobs=None)
