"""The stored figures belong to the present version of the code, and the script that makes them works."""

import json

import pandas as pd
import pytest
from evidence import figures

from disentkit.errors import UserError


def stored(name: str):
    """(table, curves, card); the test is skipped where the figures have not been made yet."""
    if not (figures.RESULTS / f"{name}.json").exists():
        pytest.skip(f"there is no {name}.json in data/results yet: python tests/evidence/figures.py makes it")
    tables = [pd.read_csv(figures.RESULTS / f"{name}_{kind}.csv") for kind in ("sweep", "curves")]
    return *tables, json.loads((figures.RESULTS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", figures.FIGURES)
def test_stored_tables_belong_to_the_present_version(name):
    table, curves, card = stored(name)
    now = figures.versions_of(name, "quick")
    assert card["method_versions"] == now, "a method has changed since: run python tests/evidence/figures.py"
    assert dict(zip(table["method"], table["method_version"])) == now
    data, _, points, sweeps = figures.FIGURES[name]
    assert len(table) == sum(seeds * len(values) for _, grid, seeds in sweeps for values in grid.values())
    assert set(table["label"]) == set(curves["label"])
    assert (curves.groupby(["label", "seed"]).size() >= points).all()


def test_imports_are_followed():
    behind = figures.files_behind("methods/betatcvae.py")
    assert {"methods/betatcvae.py", "methods/vae.py", "nets/factorvae.py", "models.py"} <= set(behind)
    assert "codes.py" not in behind and not any(file.endswith("__init__.py") for file in behind)


def test_a_version_is_that_of_the_method_and_of_its_settings():
    versions = {m: figures.method_version(m, "dsprites", "quick") for m in ("vae", "factorvae", "betatcvae")}
    assert len(set(versions.values())) == 3
    assert figures.method_version("vae", "dsprites", "smoke") != versions["vae"]


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        figures.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_writes_tables_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", {
        "small": ("dsprites", ("scores",), 2, [("betavae", {"beta": [1.0, 4.0]}, 2), ("infowgan", {"noise": [5]}, 1)]),
    })  # fmt: skip
    monkeypatch.setattr("disentkit.metrics.arrays.POINTS", 6_000)
    argv = ["--only", "small", "--preset", "smoke", "--jobs", "1", "--home", str(tmp_path / "home")]
    argv += ["--out", str(tmp_path / "out")]
    assert figures.main(argv) == 0
    table, curves = (pd.read_csv(tmp_path / "out" / f"small_{kind}.csv") for kind in ("sweep", "curves"))
    assert list(table["label"]) == ["betavae beta=1"] * 2 + ["betavae beta=4"] * 2 + ["infowgan noise=5"]
    assert table["factorvae"].between(0, 1).all() and curves["kl"].notna().sum() == 8
    assert (curves["step"] == curves.groupby(["label", "seed"])["step"].transform("max")).sum() == 5
    before = (tmp_path / "out" / "small_sweep.csv").read_text()

    def refuse(*args, **options):
        raise UserError("trained again")

    monkeypatch.setattr("disentkit.workbench.train", refuse)
    assert figures.main(argv) == 0
    assert (tmp_path / "out" / "small_sweep.csv").read_text() == before
