"""The stored tables of MIX belong to the present version of the code, and the script that makes them works."""

import json
import math

import pandas as pd
import pytest
import toys
from evidence import mix
from metrics.block_oracles import APART, SHORTCUT, Laid, Sight

from disentkit.errors import UserError

TABLES = ("mix_quick", "mix_variants", "mix_blocks", "mix_curves")


def stored(card: str, *tables: str):
    """(the card, tables); the test is skipped where they have not been made yet."""
    for file in (f"{card}.json", *(f"{name}.csv" for name in tables)):
        if not (mix.RESULTS / file).exists():
            pytest.skip(f"there is no {file} in data/results yet: python tests/evidence/mix.py makes it")
    return json.loads((mix.RESULTS / f"{card}.json").read_text()), *(
        pd.read_csv(mix.RESULTS / f"{name}.csv") for name in tables
    )


# ---- the stored tables


def test_the_stored_seeds_belong_to_the_present_version():
    card, table = stored("mix_quick", "mix_quick")
    (now,) = mix.versions_of("quick", ["seeds"]).values()
    assert card["method_version"] == now, "MIX has changed since: run python tests/evidence/mix.py"
    assert set(table["method_version"]) == {now}
    assert tuple(table["seed"]) == mix.SEEDS == tuple(card["seeds"])
    assert card["draws"] == mix.DRAWS


def test_the_stored_seeds_and_their_card_agree_on_which_gates_hold():
    card, table = stored("mix_quick", "mix_quick")
    for name, mean in card["means"].items():
        assert table[name].mean() == pytest.approx(mean, rel=1e-3, abs=1e-4)
    assert mix.gates(table) == card["gates"]
    assert card["all_hold"] == all(gate["holds"] for gate in card["gates"])


def test_the_stored_variants_belong_to_the_present_version():
    card, table, blocks, curves = stored("mix", *TABLES[1:])
    now = mix.versions_of("quick")
    assert card["method_versions"] == now, "a method has changed since: run python tests/evidence/mix.py"
    assert dict(zip(table["variant"], table["method_version"])) == now
    asked = [(trial.label, trial.seed) for trial in mix.trials("quick")]
    assert list(zip(table["variant"], table["seed"])) == asked
    assert list(blocks[["variant", "seed"]].drop_duplicates().itertuples(index=False, name=None)) == asked
    assert set(curves["variant"]) == {trial.label for trial in mix.trials("quick") if trial.method == "mix"}
    assert card["draws"] == mix.DRAWS


def test_the_stored_tables_agree_with_each_other():
    _, seeds = stored("mix_quick", "mix_quick")
    _, table, blocks, _ = stored("mix", *TABLES[1:])
    table = table[table["variant"] == "MIX"].reset_index(drop=True)
    if list(seeds["settings"]) != list(table["settings"]):
        pytest.fail("mix_quick and mix_variants are of different settings: run python tests/evidence/mix.py")
    for name in ("alive", "followed", "mse"):
        assert list(seeds[name]) == list(table[name])
    for _, row in seeds.iterrows():
        mine = blocks[(blocks["variant"] == "MIX") & (blocks["seed"] == row["seed"])]
        for name in mine["factor"].unique():
            follows = mine[mine["factor"] == name].set_index("block")["follows"]
            assert row[f"follows_{name}"] == follows.drop(["all", "chance"]).max() == follows[row[f"best_{name}"]]
            assert row[f"chance_{name}"] == follows["chance"]


def test_the_stored_tables_are_small():
    stored("mix", *TABLES)
    files = [mix.RESULTS / f"{name}.csv" for name in TABLES] + [mix.RESULTS / f"{n}.json" for n in ("mix", "mix_quick")]
    assert sum(file.stat().st_size for file in files) < 300_000


# ---- what is trained


def test_no_two_trainings_are_the_same():
    for preset in ("quick", "smoke"):
        wanted = mix.trials(preset)
        keys = [(t.method, json.dumps(vars(t.settings(preset)), sort_keys=True), t.seed) for t in wanted]
        assert len(set(keys)) == len(keys) == len({(t.label, t.seed) for t in wanted})
        assert [t.seed for t in wanted if t.label == "MIX"] == [0, 1, 2]


def test_a_variant_that_is_the_preset_is_left_out():
    plain = mix.Trial("MIX", "mix").settings("quick")
    labels = [trial.label for trial in mix.variants("quick")]
    assert [label for label in labels if label.startswith("d=")] == [f"d={d}" for d in mix.WIDTHS if d != plain.d]
    assert ("no noise" in labels) == (plain.noise != 0)
    (auto,) = [trial.settings("quick") for trial in mix.variants("quick") if trial.label == "autoencoder"]
    assert (auto.lam_M, auto.lam_G, auto.lam_C) == (0, 0, 0) and auto.lam_AE > 0


def test_a_version_is_that_of_code_and_settings():
    versions = mix.versions_of("quick")
    assert len(set(versions.values())) == len(versions) == len({trial.label for trial in mix.trials("quick")})
    assert mix.versions_of("smoke")["VAE"] != versions["VAE"]
    trial = mix.Trial("MIX", "mix")
    assert mix.training_version(trial, "quick") != mix.method_version(trial, "quick")  # measures train nothing


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        mix.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


# ---- what is measured


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(
        mix, "DRAWS", dict(mix.DRAWS, pairs=600, probed=600, retrieved=200, reconstructed=50, changed=50)
    )


def test_a_model_whose_blocks_are_its_factors(few):
    data = toys.Dots()
    numbers, blocks, best = mix.measure(Laid(APART), data, Sight(data))
    assert (numbers["codes"], numbers["followed"], numbers["distinct"]) == ("pictures", 3, 3)  # not two equal kinds
    assert numbers["mse"] == 0 and 1 / 4 < numbers["largest"] < 0.6
    assert [best[f"best_{name}"] for name in data.space.names] == list(APART)
    assert [best[f"follows_{name}"] for name in data.space.names] == [1.0] * 4
    table = blocks.set_index(["block", "factor"])
    assert list(blocks["block"].unique()) == [*APART, "all", "chance", "pixels"]
    own = table.loc[[(block, factors[0]) for block, factors in APART.items()]].droplevel("block")
    own["chance"] = table.loc["chance"]["follows"]
    assert (own[["linear", "nearest", "follows", "retrieval"]] == 1).all(axis=None)
    assert own["keeps"].between(own["chance"] - 0.1, own["chance"] + 0.1).all()
    assert table.loc[("chance", "x"), "linear"] == 0.25
    assert table.loc["pixels"][["linear", "follows"]].isna().all(axis=None)


def test_the_shortcut_shows(few):
    data = toys.Dots()
    numbers, _, best = mix.measure(Laid(SHORTCUT), data, Sight(data))
    assert numbers["largest"] == 1 and numbers["distinct"] == 1 and numbers["followed"] == 3
    assert {best[f"best_{name}"] for name in data.space.names} == {"f1"}


def test_a_code_that_is_not_inferred_has_no_error(few):
    data = toys.Dots()
    numbers, blocks, _ = mix.measure(toys.build("Critic").model, data, Sight(data))
    assert numbers["codes"] == "prior" and math.isnan(numbers["mse"]) and 0 < numbers["largest"] <= 1
    noise = blocks[blocks["block"] == "noise"]
    assert noise["linear"].isna().all() and noise["follows"].notna().all()


def history(steps: int = 1000) -> pd.DataFrame:
    """Two blocks, of which the second comes alive in the last tenth."""
    step = pd.Series(range(10, steps + 1, 10))
    late = (step > 0.9 * steps).astype(float)
    return pd.DataFrame({"step": step, "L_M": step / steps, "loss_D": 1.0, "alive": late, "accuracy_0": 0.5,
                         "accuracy_1": 0.5 + 0.3 * late, "seconds": step})  # fmt: skip


def test_gauges_are_those_of_the_end():
    found = mix.gauges(history())
    assert found == {"alive": 1, "accuracy_0": 0.5, "accuracy_1": pytest.approx(0.8)}
    assert mix.gauges(history()[["step", "L_M"]]) == {}


@pytest.mark.parametrize("steps", [200, 800, 3000])
def test_a_curve_is_means_of_few_stretches(steps):
    whole, points = history(steps), mix.curve(history(steps))
    assert len(points) <= mix.POINTS and points["step"].iloc[-1] == steps
    assert list(points) == ["step", "L_M", "loss_D", "alive", "accuracy_0", "accuracy_1"]
    assert points["step"].is_monotonic_increasing and points["L_M"].is_monotonic_increasing
    if steps == 800:  # two rows a point
        assert points["L_M"].tolist() == pytest.approx(whole["L_M"].to_numpy().reshape(-1, 2).mean(1).tolist())
        assert points["step"].tolist() == whole["step"].tolist()[1::2]


def test_gates_judge_every_seed():
    table = pd.DataFrame({"alive": [3, 5, 8], "followed": [3, 3, 4]})
    assert [gate["holds"] for gate in mix.gates(table)] == [True, True]
    assert mix.gates(table)[0]["mean"] == pytest.approx(16 / 3, abs=1e-4)
    assert [gate["holds"] for gate in mix.gates(table.assign(alive=[2, 8, 8]))] == [False, True]
    assert [gate["holds"] for gate in mix.gates(table.assign(followed=[4, 4, 2]))] == [True, False]


@pytest.mark.slow
def test_the_script_writes_tables_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys, few):
    keep = {"MIX", "no noise", "VAE", "InfoGAN"}
    wanted = [trial for trial in mix.trials("smoke") if trial.label in keep]
    monkeypatch.setattr(mix, "trials", lambda preset, parts=mix.PARTS: wanted[: None if "variants" in parts else 3])
    argv = ["--preset", "smoke", "--jobs", "1", "--home", str(tmp_path / "home"), "--out", str(tmp_path / "out")]
    assert mix.main([*argv, "--only", "seeds"]) == 0
    assert sorted(file.name for file in (tmp_path / "out").glob("*")) == ["mix_smoke.csv", "mix_smoke.json"]
    assert mix.main(argv) == 0
    assert "gates are not judged at smoke" in capsys.readouterr().out
    names = ("mix_smoke", *TABLES[1:])
    table, rows, blocks, curves = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in names)
    assert list(table["seed"]) == [0, 1, 2] and (table["largest"] >= 1 / 8).all()
    assert list(rows["variant"]) == ["MIX"] * 3 + ["no noise", "VAE", "InfoGAN"]
    assert rows["mse"].notna().tolist() == [True] * 5 + [False]
    assert rows["alive"].notna().tolist() == [True] * 4 + [False] * 2
    assert set(blocks["variant"]) == keep and set(curves["variant"]) == {"MIX", "no noise"}
    card = json.loads((tmp_path / "out" / "mix.json").read_text())
    assert set(card["method_versions"]) == keep and {"judge", "draws", "versions", "machine", "command"} <= set(card)
    before = {name: (tmp_path / "out" / f"{name}.csv").read_text() for name in names}

    def refuse(*args, **options):
        raise UserError("trained again")

    monkeypatch.setattr("disentkit.workbench.train", refuse)
    monkeypatch.setattr("disentkit.judging._trained", refuse)
    assert mix.main(argv) == 0
    assert {name: (tmp_path / "out" / f"{name}.csv").read_text() for name in names} == before
