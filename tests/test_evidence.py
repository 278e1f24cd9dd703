"""Committed result tables belong to the present method version, and the script that writes them works."""

import ast
import json

import pandas as pd
import pytest
from evidence import run as evidence

from disentkit import machine, training
from disentkit.data.dsprites import DSprites
from disentkit.methods.factorvae import FactorVAE, Settings

TABLE, CARD = evidence.RESULTS / "factorvae_quick.csv", evidence.RESULTS / "factorvae_quick.json"

SOURCE = '''
"""Prose."""
PRESETS = {1: 2}


def f(x, k=3):
    """More prose."""
    if x < 0:
        raise ValueError(f"{x} is negative")
    return k * x  # a comment
'''


def committed():
    """(the table, its card); the test is skipped where `make evidence` has not been run yet."""
    if not TABLE.exists():
        pytest.skip(f"there is no {TABLE.name} in data/results yet: make evidence writes it")
    return pd.read_csv(TABLE), json.loads(CARD.read_text())


@pytest.mark.parametrize(
    "old, new",
    [
        ("Prose.", "Other prose."),
        ("More prose.", ""),
        ("# a comment", ""),
        ("is negative", "is below zero"),
        ("PRESETS = {1: 2}", "PRESETS = {1: 3}"),
        ("PRESETS = {1: 2}", "PRESETS = {1: 2}\nQUICK = 3"),
        ("return k * x", "return (k\n            * x)"),
    ],
)
def test_prose_and_presets_do_not_change_the_version(old, new):
    assert old in SOURCE
    assert evidence.code(SOURCE.replace(old, new)) == evidence.code(SOURCE)


@pytest.mark.parametrize("old, new", [("k * x", "k + x"), ("k=3", "k=4"), ("x < 0", "x <= 0"), ("return", "yield")])
def test_code_changes_the_version(old, new):
    assert old in SOURCE
    assert evidence.code(SOURCE.replace(old, new)) != evidence.code(SOURCE)


def test_texts_inside_code_count():
    assert evidence.code("f(reduction='sum')") != evidence.code("f(reduction='mean')")


def test_the_version_depends_on_the_settings():
    quick, smoke = evidence.settings_of("quick"), evidence.settings_of("smoke")
    assert evidence.version(evidence.TRAINED_BY, quick) != evidence.version(evidence.TRAINED_BY, smoke)
    assert evidence.method_version("quick") == evidence.method_version("quick")


def test_every_file_of_the_kit_that_a_listed_file_imports_is_listed_too():
    listed = set(evidence.TRAINED_BY + evidence.SCORED_BY)
    harmless = {"codes.py", "errors.py", "__init__.py", "data/__init__.py", "runs.py"}  # no number comes from them
    kit = evidence.ROOT / "disentkit"
    for file in listed:
        for node in ast.walk(ast.parse((kit / file).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("disentkit"):
                module = node.module.removeprefix("disentkit").strip(".").replace(".", "/")
                for name in [module] if module else [alias.name for alias in node.names]:
                    imported = f"{name}.py" if (kit / f"{name}.py").exists() else f"{name}/__init__.py"
                    assert imported in listed | harmless, f"{file} imports {imported}"


def test_the_committed_table_belongs_to_the_present_method_version():
    table, card = committed()
    now = evidence.method_version("quick")
    assert set(table["method_version"]) == {card["method_version"]}
    assert card["method_version"] == now, "the method has changed since data/results was made: run make evidence"
    assert set(table["settings"]) == {evidence.settings_hash(evidence.settings_of("quick"))}


def test_the_committed_table_and_its_card_agree_on_which_gates_hold():
    table, card = committed()
    assert tuple(table["seed"]) == evidence.SEEDS == tuple(card["seeds"])
    for name, mean in card["means"].items():
        assert table[name].mean() == pytest.approx(mean, abs=2e-4)
    for again, noted in zip(evidence.gates(table), card["gates"], strict=True):
        assert again["value"] == pytest.approx(noted["value"], abs=2e-4)
        assert again["holds"] == noted["holds"]
    assert card["all_hold"] == all(gate["holds"] for gate in card["gates"])  # `make evidence` fails where one does not


def passing():
    return pd.DataFrame({"pruned": [0.5, 0.6, 0.6], "factors": [5, 5, 5], "rank_x": [0.95] * 3, "rank_y": [0.95] * 3,
                         "rank_scale": [0.89, 0.95, 0.95]})  # fmt: skip


def test_gates_judge_the_mean_of_the_seeds():
    assert [gate["holds"] for gate in evidence.gates(passing())] == [True] * 4


@pytest.mark.parametrize("column, value, failing", [("pruned", 0.54, 0), ("factors", 4, 0), ("rank_y", 0.9, 2)])
def test_gates_fail(column, value, failing):
    holds = [gate["holds"] for gate in evidence.gates(passing().assign(**{column: value}))]
    assert holds == [i != failing for i in range(4)]


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        evidence.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


def test_fit_still_computes_what_the_tables_were_made_with():
    """Seeds, draws, order of updates and the reading of losses, in float32; a change here asks for `make evidence`."""
    settings = Settings(gamma=10.0, d=4, fc=32, width=32, layers=2, lr=1e-3, lr_D=1e-3, batch=16, steps=40, size=16)
    with machine.seeded(0):
        learner = FactorVAE(settings, DSprites(16).spec)
    rows = training.fit(learner, DSprites(16), steps=40, batch=16, seed=0, device="cpu", precision="float32", threads=1,
                        read_every=20, say=lambda *said: None).rows  # fmt: skip
    assert [row["step"] for row in rows] == [20, 40]
    assert [row["recon"] for row in rows] == pytest.approx([145.3241, 69.0386], rel=1e-4)
    assert [row["kl_1"] for row in rows] == pytest.approx([4.16809, 1.52333], rel=1e-3)
    assert [row["loss_D"] for row in rows] == pytest.approx([0.696352, 0.704013], rel=1e-4)


@pytest.mark.slow
def test_the_script_writes_a_table_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    from disentkit import workbench

    argv = ["--preset", "smoke", "--seeds", "0", "1", "--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("disentkit.metrics.arrays.POINTS", 500)
    train, done = workbench.train, []

    def once(method, **options):
        if options["seed"] == 1 and not done:
            done.append(0)
            raise KeyboardInterrupt
        return train(method, **options)

    monkeypatch.setattr(workbench, "train", once)
    assert evidence.main(argv) == 130
    assert not (tmp_path / "out").exists()
    assert evidence.main(argv) == 0
    assert "seed 0: factorvae-dsprites-smoke-s0 is there" in capsys.readouterr().out

    table = pd.read_csv(tmp_path / "out" / "factorvae_smoke.csv")
    card = json.loads((tmp_path / "out" / "factorvae_smoke.json").read_text())
    assert list(table["seed"]) == [0, 1] and set(table["method_version"]) == {evidence.method_version("smoke")}
    assert (table[["rank_x", "rank_y", "rank_scale"]] <= 1).all(axis=None) and (table["factors"] == 5).all()
    assert card["means"]["pruned"] == pytest.approx(table["pruned"].mean(), abs=2e-4)
    assert {"versions", "machine", "command", "date", "gates"} <= set(card)

    def refuse(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(workbench, "train", refuse)
    assert evidence.main(argv) == 0
