"""The stored tables of the directions belong to the present version of the code, and their script works."""

import json
import math

import pandas as pd
import pytest
import torch
from evidence import direction_parts as parts
from evidence import direction_plan, direction_tools, directions

from disentkit import data as datasets
from disentkit import judges, judging, segmenter, workbench
from disentkit.errors import UserError
from disentkit.methods.factor_model import Trajectories
from disentkit.methods.oracle import OracleGenerator
from disentkit.methods.steered import Steered, make_direction
from disentkit.metrics.instruments import ExactMask
from disentkit.metrics.steering import steer

AGAIN = "run python tests/evidence/directions.py"


def stored(*tables: str):
    """(the card, the card of the gates, tables); the test is skipped where they have not been made yet."""
    files = ["directions.json", "directions_quick.json", *(f"directions_{name}.csv" for name in tables)]
    for file in files:
        if not (directions.RESULTS / file).exists():
            pytest.skip(f"there is no {file} in data/results yet: python tests/evidence/directions.py makes it")
    cards = [json.loads((directions.RESULTS / file).read_text()) for file in files[:2]]
    return *cards, *(pd.read_csv(directions.RESULTS / file) for file in files[2:])


# ---- the stored tables


def test_the_stored_measurements_belong_to_the_present_version():
    card, _ = stored()
    now, optional = directions.versions_of("quick"), {task.words for task in directions.plan("quick") if task.optional}
    made = {words: version for words, version in now.items() if words in card["versions"] or words not in optional}
    assert set(card["missing"]) - optional == set(), f"not all was measured: {AGAIN}"
    assert card["versions"] == made, f"a method or a measure has changed since: {AGAIN}"
    assert card["scale"] == json.loads(json.dumps(directions.SCALES["quick"]))


def test_the_stored_oracle_and_its_card_agree_on_which_gates_hold():
    _, card, table = stored("oracle")
    tables = {"oracle": table}
    if (directions.RESULTS / "directions_baselines.csv").exists():
        tables["baselines"] = pd.read_csv(directions.RESULTS / "directions_baselines.csv")
    assert directions.gates(tables) == card["gates"]
    assert card["all_hold"] == all(gate["holds"] for gate in card["gates"])


def test_the_stored_oracle_has_every_seed_once():
    _, _, table = stored("oracle")
    assert not table.duplicated(["variant", "seed", "factor"]).any()
    seeds = list(directions.SCALES["quick"]["seeds"])
    for (variant, factor), rows in table.groupby(["variant", "factor"]):
        assert list(rows["seed"]) == seeds, (variant, factor)
    assert set(table[table["variant"] == "default"]["factor"]) == set(direction_plan.FACTORS)


def test_the_stored_betas_have_every_run_once():
    _, _, table, curves = stored("betas", "betas_curves")
    keys = ["beta", "seed", "factor"]
    assert len(table) == len(direction_plan.BETAS) * len(directions.SCALES["quick"]["vae_seeds"]) * 3
    assert not table.duplicated(keys).any()
    means = curves.groupby(keys)["std"].mean()
    means = means.reindex(pd.MultiIndex.from_frame(table[keys])).tolist()
    assert means == pytest.approx(table["std"].tolist(), rel=1e-3, nan_ok=True)  # a collapsed run has none


def test_the_stored_cards_say_how_held_out_pairs_tell():
    card, _, table = stored("quality")
    assert card["held_out_tells"] == parts.held_out_tells(table)


def test_the_stored_tables_are_small():
    stored()
    assert sum(file.stat().st_size for file in directions.RESULTS.glob("directions*")) < 300_000


# ---- what is measured


def test_no_two_measurements_are_the_same():
    for preset in ("quick", "smoke"):
        wanted = directions.plan(preset)
        keys = [json.dumps([task.function, task.args], sort_keys=True) for task in wanted]
        assert len(set(keys)) == len(keys) == len({task.words for task in wanted})
        assert [task for part in directions.PARTS for task in directions.plan(preset, [part])] == wanted
        assert {task.part for task in wanted} == set(directions.PARTS)


def test_variants_differ_in_what_they_are_called_after():
    wanted = {task.args["variant"]: task for task in directions.plan("quick", ["ablation"]) if "oracle" in task.words}
    assert set(wanted) == set(direction_plan.VARIANTS)
    few = directions.SCALES["quick"]["few"]
    assert all(task.args["learning"] == few for task in wanted.values())
    assert wanted["direct, as many steps"].args["changes"]["steps"] == few["steps"] * few["levels"]
    assert [variant for variant, task in wanted.items() if task.args["refits"]] == ["filtered 1.5 px"]
    assert [variant for variant, task in wanted.items() if task.optional] == ["LPIPS"]


def test_a_version_is_that_of_code_arguments_and_constants(monkeypatch):
    def after(where, name, value) -> bool:
        """Whether the version is another one then."""
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            directions.code_behind.cache_clear()
            changed = directions.version(task) != before
        directions.code_behind.cache_clear()
        return changed

    def edited(file):
        return lambda asked: "other code" if asked == file else real(asked)

    task, real = directions.plan("quick", ["oracle"])[0], directions._code
    before = directions.version(task)
    assert directions.version(directions.plan("smoke", ["oracle"])[0]) != before
    assert after(directions, "_code", edited("methods/factor_model.py"))
    assert after(directions, "_code", edited("metrics/steering.py"))
    assert not after(directions, "_code", edited("methods/walks.py"))
    assert after(parts, "CODES", 7) and after(direction_tools, "halves", direction_tools.ours)
    assert not after(parts, "READ", 7)  # pictures of a VAE


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        directions.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


def test_gates_judge_means_and_every_seed():
    rows = [{"variant": v, "seed": s, "factor": f, "cos": 0.9, "spearman": 0.95, "seconds": 20.0}
            for v in ("default", "tied") for s in range(5) for f in ("x", "zoom", "y")]  # fmt: skip
    table = pd.DataFrame(rows)

    def held(place, column, value):
        found = table.assign(**{column: table[column].where(table.index != place, value)})
        return [gate["holds"] for gate in directions.gates({"oracle": found})]

    assert held(0, "cos", 0.5) == [True] * 5  # the mean is 0.82
    assert held(0, "cos", 0.3) == [False, True, True, True, True]
    assert held(1, "spearman", 0.89) == [True, True, True, False, True]
    assert held(0, "seconds", 61.0) == [True, True, True, True, False]
    assert held(2, "cos", -1.0) == held(15, "cos", -1.0) == [True] * 5  # y, and the tied oracle
    gan = pd.DataFrame({"model": "gan", "method": ["ours", "ours", "SeFa"], "factor": ["x", "y", "y"],
                        "spearman": [0.9, 0.7, 0.1]})  # fmt: skip
    assert [gate["holds"] for gate in directions.gates({"baselines": gan})] == [True, False]
    assert directions.gates({}) == []


# ---- how it is measured


def straight(n: int = 12, d: int = 6, slope: float = 0.5, noise: float = 0.0) -> tuple[Trajectories, torch.Tensor]:
    """Trajectories along one direction with g(s) = slope s, and that direction."""
    rng = torch.Generator().manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(d, generator=rng), dim=0)
    z0, t = torch.randn(n, d, generator=rng), torch.tensor([-0.2, -0.1, 0.1, 0.2])
    z = z0 + (t / slope)[:, None, None] * u + noise * torch.randn(4, n, d, generator=rng)
    return Trajectories("x", "", z0, z, t, torch.ones(4, n)), u


def test_held_out_pairs_are_explained_by_the_true_direction_only():
    found, _ = straight()
    assert direction_tools.held_out(found, pieces=1) == pytest.approx(1, abs=1e-4)
    noisy, _ = straight(noise=1.0)
    assert direction_tools.held_out(noisy) < 0.6
    a, b = direction_tools.halves(found)
    assert len(a.z0) + len(b.z0) == 12 and not (a.z0[:, None] == b.z0[None]).all(2).any()


def test_as_asked_needs_the_right_scale():
    model = OracleGenerator(size=32, d=8)
    right = make_direction("x", model.u("x"), [-2.0, 2.0], [-0.45, 0.45])
    wrong = make_direction("x", model.u("x"), [-2.0, 2.0], [-0.9, 0.9])
    paths = [steer(Steered(model, [d]), "x", ExactMask(model), t=t, n=10)
             for d, t in ((right, [-0.1, 0.0, 0.1]), (wrong, [-0.2, 0.0, 0.2]))]  # fmt: skip
    assert parts.as_asked(paths[0]) > 0.97 > 0.9 > parts.as_asked(paths[1])
    assert paths[1].r2() == pytest.approx(paths[0].r2(), abs=1e-3)


def test_what_became_of_the_farthest_pictures():
    model = OracleGenerator(size=32, d=8)
    z0 = model.prior(6, torch.Generator().manual_seed(0))
    z = torch.stack([z0 - model.u("texture"), z0, z0 + 2 * model.u("texture")])
    errors = torch.ones(3, 6)
    found = parts.reached(model, Trajectories("brightness", "", z0, z, torch.tensor([-0.1, 0.01, 0.1]), errors))
    k = model.factors.index("texture")
    change = (model.factor_values(z[[0, 2]]) - model.factor_values(z0))[..., k].mean()
    assert found["texture"] == pytest.approx(float(change), abs=1e-6) and found["limit"] == 8**0.5
    assert found["length"] == pytest.approx(float(z[[0, 2]].norm(dim=2).mean()), rel=1e-6)
    still = parts.reached(model, Trajectories("brightness", "", z0, z0.repeat(3, 1, 1), torch.zeros(3), errors))
    assert still["error"] == still["texture"] == 0 and still["energy"] == still["energy_start"] == 1
    errors[0, 2] = torch.inf
    assert parts.reached(model, Trajectories("x", "", z0, z, torch.zeros(3), errors))["length"] != found["length"]


def test_the_oracle_is_read_whole_from_its_code():
    model = OracleGenerator(size=32, d=8)
    reader = direction_tools.instrument(model, judged=True)
    codes = model.prior(5, torch.Generator().manual_seed(0))
    read = reader(model.decode(codes), codes)
    assert reader.names == model.factors and read.shape == (5, len(model.factors))
    torch.testing.assert_close(read[:, 4:], model.factor_values(codes)[:, 4:])
    torch.testing.assert_close(read[:, :3], model.factor_values(codes)[:, :3], atol=0.02, rtol=0)


def test_ranks_of_held_out_pairs():
    rows = [{"model": "oracle", "held_out": h, "spearman": h, "cos": -h} for h in (0.1, 0.5, 0.9)]
    rows += [{"model": "gan", "held_out": h, "spearman": 1 - h, "cos": math.nan} for h in (0.1, 0.5, 0.9)]
    told = parts.held_out_tells(pd.DataFrame(rows))
    assert told == {"oracle": {"spearman": 1.0, "cos": -1.0}, "gan": {"spearman": -1.0}}


# ---- the script


@pytest.mark.slow
def test_the_script_writes_tables_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    argv = ["--preset", "smoke", "--jobs", "1", "--home", str(tmp_path / "home"), "--out", str(out)]
    wanted = direction_plan.plan("smoke", ["oracle", "distribution"])
    few = [task for task in wanted if "seed 1" not in task.words and "gan" not in task.words]
    monkeypatch.setattr(directions, "plan", lambda preset, of=directions.PARTS: [t for t in few if t.part in of])
    assert directions.main([*argv, "--only", "oracle"]) == 0
    names = ["directions.json", "directions_oracle.csv", "directions_smoke.json"]
    assert sorted(file.name for file in out.glob("*")) == names
    card = json.loads((out / "directions.json").read_text())
    assert [words.split(":")[0] for words in card["missing"]] == ["distribution"] * 4 and len(card["versions"]) == 5
    table = pd.read_csv(out / "directions_oracle.csv")
    assert list(table["factor"]) == ["x", "zoom", "y", "brightness"] * 2 + ["y"]
    assert table["cos"].max() <= 1 and (table["seconds"] > 0).all()
    assert math.isclose(abs(table["cos_horizon"]).iloc[-1], abs(table["cos_horizon"]).max())  # where it is tied

    def refuse(*args, **options):
        raise UserError("measured again")

    monkeypatch.setattr(direction_tools, "learn", refuse)  # the oracle's trajectories are kept
    directions.code_behind.cache_clear()
    monkeypatch.setattr(directions, "code_behind", lambda function: "the same")
    assert directions.main([*argv, "--only", "distribution"]) == 0
    before = (out / "directions_distribution.csv").read_text()
    assert "4 of 4: distribution: oracle, brightness" in capsys.readouterr().out
    monkeypatch.setattr(parts, "distribution_rows", refuse)
    assert directions.main([*argv, "--only", "distribution"]) == 0
    assert (out / "directions_distribution.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:10 trajectories for 80 latent dimensions")  # few are meant
def test_the_parts_of_the_gan_on_stand_ins(tmp_path, monkeypatch, quick_pictures):
    """Hardly trained, and found where the shipped ones will be."""
    options = {"preset": "smoke", "size": 64, "data": "scenes", "device": "cpu", "threads": 1, "bar": False}
    base = workbench.train("biggan", name="biggan-scenes-course", **options)
    workbench.train("directions", base=base, name="directions-scenes-course", **options)
    for make, settings in ((judging.judge_of, judges.Settings), (segmenter.segmenter_of, segmenter.Settings)):
        make(datasets.load("scenes", size=64), settings=settings(size=64, steps=60), device="cpu", threads=1, bar=False)
    monkeypatch.setattr(direction_tools, "SHIPPED", base.path.parent.parent)
    wanted = [task for task in direction_plan.plan("smoke") if "gan, " in task.words and not task.optional]
    assert {task.part for task in wanted} == set(directions.PARTS) - {"oracle", "betas", "horizon"}
    assert not any(task.lacks() for task in wanted)
    keep = ("ablation: gan, judge's features", "classes: gan, all", "baselines: gan, y", "baselines: gan, ours",
            "reach: gan, y", "levels: gan, all")  # fmt: skip
    wanted = [task for task in wanted if task.words in keep]
    assert directions.measure(wanted, tmp_path / "kept", 1) == []
    monkeypatch.setattr(directions, "plan", lambda preset, of=directions.PARTS: wanted)
    tables, versions, missing, _ = directions.gather("smoke", tmp_path / "kept")
    assert list(versions) == [task.words for task in wanted] and not missing
    assert set(tables["baselines"]["method"]) == set(direction_plan.METHODS)
    assert len(tables["classes"]) == 2 * 5 * 4 and len(tables["cosines"]) == 2 * 10
    assert tables["levels"].groupby("factor")["share"].sum().tolist() == pytest.approx([1.0] * 4, abs=1e-3)
    assert set(tables["reach"]["instrument"]) == {"segmenter", "saliency"}
    assert {"horizon", "hue", "light"} < set(tables["leakage"]["factor"]) and tables["ablation"]["cos"].isna().all()
    assert len(directions.gates(tables)) == 1
