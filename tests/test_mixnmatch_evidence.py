"""The stored tables of FineGAN and MixNMatch belong to the present version, and the script that makes them works."""

import json
import math
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
from evidence import mixnmatch
from evidence import mixnmatch_plan as plan
from metrics.mixing_oracles import LAYOUT, Finder, Generator, Mixer, Reader, Tiles

from disentkit import data as datasets
from disentkit import judging, runs, scores, segmenter
from disentkit.errors import UserError
from disentkit.methods import settings_for

AGAIN = "run python tests/evidence/mixnmatch.py"
PATHS = {"quick": "mixnmatch_quick", "variants": "mixnmatch_variants", "shipped": "mixnmatch_shipped"}
trained = pytest.mark.parametrize("part", ["quick", "variants"])


def stored(part: str) -> tuple[dict, pd.DataFrame]:
    """(card, table); the test is skipped where they have not been made yet."""
    files = [mixnmatch.RESULTS / f"{PATHS[part]}.{kind}" for kind in ("json", "csv")]
    if not all(file.exists() for file in files):
        pytest.skip(f"there is no {files[1].name} in data/results yet: python tests/evidence/mixnmatch.py makes it")
    return json.loads(files[0].read_text()), pd.read_csv(files[1])


def rows_of(table: pd.DataFrame) -> list[tuple[str, int]]:
    return list(table[["variant", "seed"]].itertuples(index=False, name=None))


# ---- the stored tables


@trained
def test_the_stored_table_belongs_to_the_present_version(part):
    card, table = stored(part)
    now = mixnmatch.versions_of("quick", part)
    assert card["method_versions"] == now, f"a method or a measure has changed since: {AGAIN} --only {part}"
    assert rows_of(table) == [(trial.label, trial.seed) for trial in plan.trials("quick", [part])]
    assert [now[label] for label in table["variant"]] == list(table["method_version"])
    assert card["data"] == {"name": plan.DATA, **plan.DATA_OPTIONS} and card["missing"] == []


@trained
def test_the_stored_table_was_read_by_the_shipped_judges(part):
    card, _ = stored(part)
    for kind, reader in card["readers"].items():
        folder = runs.SHIPPED.parent / "judges" / (reader["name"] + ("-segmenter" if kind == "segmenter" else ""))
        if (folder / "card.json").exists():
            there = json.loads((folder / "card.json").read_text())["weights"]
            assert reader["weights"] == there, f"the shipped {kind} is another one: {AGAIN} --only {part}"


def test_the_stored_seeds_and_their_card_agree_on_which_gates_hold():
    card, table = stored("quick")
    assert mixnmatch.gates(table, "quick") == card["gates"]
    assert card["all_hold"] == all(gate["holds"] for gate in card["gates"])
    for label, rows in table.groupby("variant"):
        for name, mean in card["means"][label].items():
            assert rows[name].mean() == pytest.approx(mean, rel=1e-3, abs=1e-3)


def test_the_stored_tables_agree_where_they_show_one_training():
    (_, seeds), (_, variants) = stored("quick"), stored("variants")
    both = seeds.merge(variants, on=["method_version", "seed"], suffixes=("", "_there"))
    for name in (*mixnmatch.SCORES, "seconds"):
        assert both[name].equals(both[f"{name}_there"])


def test_the_stored_gates_are_those_of_the_shipped_runs():
    _, table = stored("shipped")
    now = pd.read_csv(mixnmatch.io.StringIO(mixnmatch._csv(mixnmatch.shipped())))
    pd.testing.assert_frame_equal(table, now, obj=f"other runs are shipped now: {AGAIN} --only shipped; table")


def test_the_shipped_runs_are_of_the_present_preset():
    for folder in mixnmatch.shipped_runs():
        card = runs.read_card(folder)
        assert card["settings"] == vars(settings_for(card["method"], plan.DATA, card["preset"])), folder.name


@pytest.mark.parametrize("part", plan.PARTS)
def test_the_stored_tables_are_small(part):
    stored(part)
    assert sum(file.stat().st_size for file in mixnmatch.RESULTS.glob(f"{PATHS[part]}.*")) < 100_000


# ---- what is trained


def test_no_two_trainings_of_a_part_are_the_same():
    for preset in ("quick", "smoke"):
        for part in ("quick", "variants"):
            wanted = plan.trials(preset, [part])
            keys = [(t.method, json.dumps(vars(t.settings(preset)), sort_keys=True), repr(t.options), t.seed)
                    for t in wanted]  # fmt: skip
            assert len(set(keys)) == len(keys) == len({(t.label, t.seed) for t in wanted})
        assert [t.seed for t in plan.trials(preset, ["quick"]) if t.label == "FineGAN"] == [0, 1, 2]
    assert plan.trials("quick") == plan.trials("quick", ["quick"]) + plan.trials("quick", ["variants"])


def test_variants_differ_in_what_they_are_called_after():
    found = {trial.label: trial for trial in plan.variants("quick")}
    full = found.pop("full").settings("quick")
    changed = {
        "one joint critic": {"critics"}, "no critics": {"critics"}, "no relaxed prediction": {"lam_pred"},
        "prediction with tied codes": {"pred"}, "reconstruction, no critics": {"critics", "lam_rec"},
        "no auxiliary loss": {"lam_aux"}, "boxes ignored": {"boxes"}, "log form": {"pair"},
        "masks left alone": {"lam_area", "lam_sharp"}, "boxes of a segmenter": set(),
        "parents in colour": {"grey"}, "nothing of ours": {"lam_area", "lam_sharp", "grey", "cosine"},
    }  # fmt: skip
    assert set(found) <= set(changed) and len(found) >= len(changed) - 2  # what the preset is already is left out
    for label, trial in found.items():
        settings = trial.settings("quick")
        assert {name for name in vars(full) if getattr(settings, name) != getattr(full, name)} <= changed[label]
        assert bool(trial.options) == (label == "boxes of a segmenter")
        assert trial.options or settings != full


def test_the_whole_method_has_all_seeds_and_is_that_of_quick():
    whole = [(t.changes, t.settings("quick"), t.seed) for t in plan.variants("quick") if t.label == "full"]
    mixing = [t for t in plan.trials("quick", ["quick"]) if t.label == "MixNMatch"]
    quick = [(t.changes, t.settings("quick"), t.seed) for t in mixing]
    assert whole == quick and [seed for *_, seed in whole] == list(plan.SEEDS)


def test_codes_are_those_of_the_data():
    s = plan.variants("quick")[0].settings("quick")
    data = datasets.load(plan.DATA, size=s.size, **plan.DATA_OPTIONS)
    assert (len(data.space["shape"]), len(data.space["texture"])) == (s.parents, s.children)


def test_a_version_is_that_of_code_settings_and_measures(monkeypatch):
    for part in ("quick", "variants"):
        versions = mixnmatch.versions_of("quick", part)
        assert len(set(versions.values())) == len(versions)
        assert not set(mixnmatch.versions_of("smoke", part).values()) & set(versions.values())
    full = plan.variants("quick")[0]
    trained, measured = (f(full, "quick") for f in (plan.training_version, mixnmatch.method_version))
    assert trained != measured and plan.training_version(replace(full, label="other", seed=3), "quick") == trained
    finder = replace(full, options={"boxes": "segmenter"})
    assert plan.training_version(finder, "quick") != trained
    monkeypatch.setattr(scores, "POSES", 7)
    mixnmatch._measuring.cache_clear()
    assert mixnmatch.method_version(full, "quick") != measured and plan.training_version(full, "quick") == trained
    mixnmatch._measuring.cache_clear()
    monkeypatch.setattr(plan, "DATA_OPTIONS", {})
    assert plan.training_version(full, "quick") != trained
    assert "methods/finegan.py" in plan.figures.files_behind("methods/mixnmatch.py")


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        mixnmatch.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


# ---- what is measured


@pytest.fixture
def exact(monkeypatch):
    """A judge and a segmenter that are never wrong, and few pictures."""
    monkeypatch.setattr(judging, "judge_of", lambda data, **options: Reader())
    monkeypatch.setattr(segmenter, "segmenter_of", lambda data, **options: Finder())
    for name in ("MIXES", "DRAWN", "COMPARED", "CODES", "POSES", "RECOMBINED", "TURNED", "MASKS"):
        monkeypatch.setattr(scores, name, 120)


def test_a_model_whose_blocks_are_its_factors(exact):
    row = mixnmatch.measure(Mixer(), Tiles())
    assert tuple(row) == mixnmatch.SCORES
    for name in ("mixing_background", "mixing_shape", "mixing_texture", "all_right", "iou_generated", "iou_code"):
        assert row[name] == pytest.approx(1, abs=1e-3), name
    assert [row[name] for name in ("nmi_p", "nmi_c", "nmi_b")] == pytest.approx([1, 1, 1], abs=1e-3)
    assert max(row[name] for name in ("cross_b_texture", "cross_c_background", "cross_p_texture")) < 0.3
    assert 0 < row["area"] < 0.3 and row["frechet"] >= 0


def test_a_texture_from_the_backgrounds_picture_shows(exact):
    row = mixnmatch.measure(Mixer(LAYOUT | {"b": ["background", "texture"], "c": ["background"]}), Tiles())
    assert row["mixing_texture"] == row["all_right"] == 0 and row["mixing_shape"] == 1


def test_a_generator_without_encoders_has_no_mixes(exact):
    row = mixnmatch.measure(Generator(), Tiles())
    has = {"iou_generated", "area", "frechet"}
    assert {name for name, value in row.items() if not math.isnan(value)} == has


def test_ends_are_means_of_the_last_tenth():
    step = pd.Series(range(10, 401, 10))
    history = pd.DataFrame({"step": step, "accuracy_p": step / 400, "L_p": 1.0, "area_child": 0.3})
    found = mixnmatch.ends(history)
    assert found == {"finite": True, "accuracy_p": pytest.approx((370 + 380 + 390 + 400) / 1600)}
    history.loc[3, "L_p"] = math.inf
    assert mixnmatch.ends(history)["finite"] is False
    history.loc[3, "L_p"] = math.nan
    assert mixnmatch.ends(history)["finite"] is False


def test_chance_of_a_patch_is_that_of_the_usual_answer():
    found = mixnmatch.chances(plan.Trial("", changes=plan.CODES), "quick")
    assert 0.5 <= found["accuracy_aux"] < 0.9 and found["accuracy_D_b"] == 0.5
    parents, children = plan.CODES["parents"], plan.CODES["children"]
    assert found["accuracy_p"] == found["accuracy_E_p"] == 1 / parents
    assert found["accuracy_c"] == found["accuracy_E_c"] == found["accuracy_E_b"] == 1 / children
    assert set(mixnmatch.chances(plan.Trial("", "finegan", plan.CODES), "quick")) == set(found) - {
        f"accuracy_E_{k}" for k in "bpc"
    }


def test_gates_judge_every_seed(monkeypatch):
    chances = {"accuracy_D_b": 0.5, "accuracy_E_b": 0.2}
    monkeypatch.setattr(
        mixnmatch,
        "chances",
        lambda trial, preset: dict(list(chances.items())[: 2 if trial.method == "mixnmatch" else 1]),
    )
    row = {"finite": True, "accuracy_D_b": 0.7, "accuracy_E_b": 0.6}
    table = pd.DataFrame(
        [row | {"variant": label, "seed": s} for s in plan.SEEDS for label in ("MixNMatch", "FineGAN")]
    )

    def held(place, column, value):
        found = mixnmatch.gates(table.assign(**{column: table[column].where(table.index != place, value)}), "quick")
        return [gate["holds"] for gate in found]

    assert held(0, "finite", True) == [True] * 5 and [g["mean"] for g in mixnmatch.gates(table, "quick")][2] == 0.6
    assert held(2, "finite", False) == [False, True, True, True, True]
    assert held(4, "accuracy_E_b", 0.2) == [True, True, False, True, True]
    assert held(5, "accuracy_D_b", 0.4) == [True, True, True, True, False]


def test_gates_of_shipped_runs_are_those_of_their_cards(monkeypatch, tmp_path):
    met = {
        "mask IoU": {"asked": 0.7, "measured": 0.8, "met": True},
        "other": {"asked": 1, "measured": 0.1, "met": False},
    }
    cards = {
        "finegan-emblems-course-s0": {"method": "finegan", "seed": 0, "weights": "a" * 64, "scores": {"gates": met}},
        "biggan-scenes-course-s0": {"method": "biggan", "seed": 0, "weights": "b" * 64, "scores": {}},
    }
    monkeypatch.setattr(runs, "folders", lambda: [runs.SHIPPED / name for name in cards] + [tmp_path / "finegan-own"])
    monkeypatch.setattr(runs, "read_card", lambda folder: cards[folder.name])
    table = mixnmatch.shipped()
    assert table["run"].unique().tolist() == ["finegan-emblems-course-s0"] and table["met"].tolist() == [True, False]
    assert table["weights"].tolist() == ["a" * 12] * 2 and table["measured"].tolist() == [0.8, 0.1]
    cards["biggan-scenes-course-s0"]["method"] = "mixnmatch"
    with pytest.raises(UserError, match="the card of biggan-scenes-course-s0 has no gates: score the run"):
        mixnmatch.shipped()


# ---- the script


@pytest.mark.slow
def test_the_script_writes_tables_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys, quick_pictures):
    for name in ("MIXES", "DRAWN", "COMPARED", "CODES", "POSES", "RECOMBINED", "TURNED", "MASKS"):
        monkeypatch.setattr(scores, name, 40)
    mixnmatch._measuring.cache_clear()
    every, keep = plan.trials, ("full", "no critics")
    monkeypatch.setattr(
        plan, "trials", lambda preset, parts=plan.PARTS: [
            t for t in every(preset, parts) if t.seed == 0 and t.label in (*keep, *plan.METHOD_OF)
        ],
    )  # fmt: skip
    out = tmp_path / "out"
    argv = ["--preset", "smoke", "--jobs", "1", "--home", str(tmp_path / "home"), "--out", str(out)]
    assert mixnmatch.main([*argv, "--only", "quick"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2: MixNMatch, seed 0" in said and "2 of 2: FineGAN, seed 0" in said
    assert mixnmatch.main([*argv, "--only", "variants"]) == 0
    assert "1 of 1: no critics, seed 0" in capsys.readouterr().out  # "full" is the first seed
    quick, variants = (pd.read_csv(out / f"mixnmatch_{name}.csv") for name in ("smoke", "variants"))
    assert rows_of(quick) == [("MixNMatch", 0), ("FineGAN", 0)] and rows_of(variants) == [(k, 0) for k in keep]
    assert quick["finite"].all() and quick["accuracy_E_b"].isna().tolist() == [False, True]
    assert quick["mixing_shape"].isna().tolist() == [False, True] and quick["frechet"].notna().all()
    assert variants.loc[0, list(mixnmatch.SCORES)].equals(quick.loc[0, list(mixnmatch.SCORES)])
    cards = [json.loads((out / f"mixnmatch_{name}.json").read_text()) for name in ("smoke", "variants")]
    assert all(card["missing"] == [] and set(card["readers"]) == {"judge", "segmenter"} for card in cards)
    before = (out / "mixnmatch_smoke.csv").read_text()

    def refuse(*args, **options):
        raise UserError("trained again")

    monkeypatch.setattr("disentkit.workbench.train", refuse)
    monkeypatch.setattr(mixnmatch, "_measuring", partial(lambda seen: seen, mixnmatch._measuring()))
    monkeypatch.setattr(mixnmatch, "measure", refuse)
    assert mixnmatch.main([*argv, "--only", "quick"]) == 0
    assert (out / "mixnmatch_smoke.csv").read_text() == before
