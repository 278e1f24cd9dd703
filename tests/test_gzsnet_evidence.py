"""The stored tables of GZS-Net belong to the present version of the code, and the script that makes them works."""

import json
import math
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import toys
from evidence import gzsnet
from metrics.block_oracles import Laid

from disentkit import data as datasets
from disentkit import metrics
from disentkit.codes import Block, CodeSpace
from disentkit.data import combinations
from disentkit.errors import UserError
from disentkit.metrics.synthesis import CAP

TABLES = ("gzsnet_variants", "gzsnet_blocks", "gzsnet_curves")
AGAIN = "run python tests/evidence/gzsnet.py"
NAMES = toys.Dots.space.names


def stored(card: str, *tables: str):
    """(the card, tables); the test is skipped where they have not been made yet."""
    for file in (f"{card}.json", *(f"{name}.csv" for name in tables)):
        if not (gzsnet.RESULTS / file).exists():
            pytest.skip(f"there is no {file} in data/results yet: python tests/evidence/gzsnet.py makes it")
    return json.loads((gzsnet.RESULTS / f"{card}.json").read_text()), *(
        pd.read_csv(gzsnet.RESULTS / f"{name}.csv") for name in tables
    )


def asked(*parts: str) -> list[tuple[str, int]]:
    return [(trial.label, trial.seed) for trial in gzsnet.trials("quick", parts)]


def rows_of(table: pd.DataFrame) -> list[tuple[str, int]]:
    return list(table[["variant", "seed"]].drop_duplicates().itertuples(index=False, name=None))


# ---- the stored tables


def test_the_stored_seeds_belong_to_the_present_version():
    card, table = stored("gzsnet_quick", "gzsnet_quick")
    now = gzsnet.versions_of("quick", ["seeds"])
    assert card["method_versions"] == now, f"a method or a measure has changed since: {AGAIN}"
    assert dict(zip(table["variant"], table["method_version"])) == now
    assert rows_of(table) == asked("seeds") and card["draws"] == gzsnet.DRAWS
    assert card["data"] == {"name": "fonts", **gzsnet.DATA_OPTIONS["fonts"]}


def test_the_stored_seeds_and_their_card_agree_on_which_gates_hold():
    card, table = stored("gzsnet_quick", "gzsnet_quick")
    for label, part in table.groupby("variant"):
        assert card["seconds"][label] == part["seconds"].tolist()
        for name, mean in card["means"][label].items():
            assert part[name].mean() == pytest.approx(mean, rel=1e-3, abs=1e-4)
    assert gzsnet.gates(table) == card["gates"]
    assert card["all_hold"] == all(gate["holds"] for gate in card["gates"])


def test_the_stored_variants_belong_to_the_present_version():
    card, table, blocks, curves = stored("gzsnet", *TABLES)
    now = gzsnet.versions_of("quick", gzsnet.ON_LETTERS)
    assert card["missing"] == [], f"not all was trained: {AGAIN}"
    assert card["method_versions"] == now, f"a method or a measure has changed since: {AGAIN}"
    assert dict(zip(table["variant"], table["method_version"])) == now
    wanted = asked(*gzsnet.ON_LETTERS)
    assert rows_of(table) == wanted
    assert rows_of(blocks) == [row for row in wanted if row[0] != "StarGAN"]
    assert rows_of(curves) == [row for row in wanted if not row[0].startswith("beta-")]


def test_the_stored_tables_agree_with_each_other():
    _, seeds = stored("gzsnet_quick", "gzsnet_quick")
    _, table, blocks, curves = stored("gzsnet", *TABLES)
    same = table[table["variant"].isin(seeds["variant"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, seeds, check_dtype=False)
    assert table["best_copy"].nunique() == 1, "not all were measured on the same targets"
    for (label, seed), row in table.set_index(["variant", "seed"]).iterrows():
        mine = blocks[(blocks["variant"] == label) & (blocks["seed"] == seed)]
        own = mine[mine["block"] == mine["attribute"]]["accuracy"]
        if len(mine):
            assert own.mean() == pytest.approx(row["diagonal"], abs=1e-3) and len(own) == gzsnet.ATTRIBUTES
        else:
            assert math.isnan(row["diagonal"])
        ends = curves[(curves["variant"] == label) & (curves["seed"] == seed)].tail(1)
        assert ends["step"].isin([row["steps"]]).all() and ends["seconds"].isin([row["seconds"]]).all()


def test_the_stored_augmentation_belongs_to_the_present_version():
    card, table = stored("gzsnet_augmentation", "gzsnet_augmentation")
    now = gzsnet.versions_of("quick", ["augmentation"])
    assert card["method_versions"] == now, f"a method or a measure has changed since: {AGAIN}"
    assert set(table["method_version"]) == set(now.values())
    assert list(table["way"]) == ["none", "classic", "gzs", "true"]
    seeds = card["augmentation"]["seeds"]
    assert seeds == gzsnet.AUGMENTATION["seeds"] and card["run"]["psnr"] > 0
    each = table[[f"unseen {i}" for i in range(seeds)]].mean(axis=1)
    assert table["unseen"].tolist() == pytest.approx(each.tolist(), rel=1e-3)


def test_the_stored_tables_are_small():
    stored("gzsnet", *TABLES)
    assert sum(file.stat().st_size for file in gzsnet.RESULTS.glob("gzsnet*")) < 300_000


# ---- what is trained


def test_no_two_trainings_are_the_same():
    for preset in ("quick", "smoke"):
        wanted = gzsnet.trials(preset)
        keys = [(t.method, t.data, json.dumps(vars(t.settings(preset)), sort_keys=True), t.seed) for t in wanted]
        assert len(set(keys)) == len(keys) == len({(t.label, t.seed) for t in wanted}) == 19
        for label in ("GZS-Net", "AE+DS", "StarGAN", "ELEGANT"):
            assert [t.seed for t in wanted if t.label == label] == [0, 1, 2]


def test_parts_are_trained_in_order():
    whole = gzsnet.trials("quick")
    assert [t for part in gzsnet.PARTS for t in gzsnet.trials("quick", [part])] == whole
    assert [t.label for t in whole[:2]] == ["GZS-Net", "AE+DS"] and whole[-1].data == "creatures"


def test_variants_differ_in_what_they_are_called_after():
    plain = gzsnet.Trial("", "gzsnet").settings("quick")
    found = {trial.label: trial.settings("quick") for trial in gzsnet.variants("quick")}
    auto = found["autoencoder"]
    assert (auto.lam_sr, auto.lam_csr, auto.lam_cover, auto.lam_latent) == (0, 0, 0, 0)
    assert replace(found["no cycle"], lam_csr=plain.lam_csr) == plain
    assert replace(found["no cover"], lam_cover=plain.lam_cover) == plain
    assert (found["released"].loss, found["released"].lam_cover, found["released"].lam_csr) == ("L1", 1, 0)


def test_constants_are_those_of_the_letters():
    data = datasets.load("fonts", size=32, **gzsnet.DATA_OPTIONS["fonts"])
    assert len(data.space) == gzsnet.ATTRIBUTES and data.space.sizes == (10, 3, 10, 10, 8)
    assert len(data.law.allowed(data.space, "cpu")) == gzsnet.COMBINATIONS


def test_a_version_is_that_of_code_settings_and_measures(monkeypatch):
    versions = gzsnet.versions_of("quick")
    assert len(set(versions.values())) == len(versions) == len({trial.label for trial in gzsnet.trials("quick")})
    assert not set(gzsnet.versions_of("smoke").values()) & set(versions.values())
    trial = gzsnet.Trial("GZS-Net", "gzsnet")
    trained, measured = (f(trial, "quick") for f in (gzsnet.training_version, gzsnet.method_version))
    assert trained != measured == versions["GZS-Net"]
    monkeypatch.setitem(gzsnet.DRAWS, "targets", 7)
    assert gzsnet.method_version(trial, "quick") != measured and gzsnet.training_version(trial, "quick") == trained
    monkeypatch.setitem(gzsnet.DATA_OPTIONS, "fonts", {"letters": "AB"})
    assert gzsnet.training_version(trial, "quick") != trained


def test_only_quick_writes_into_the_results(capsys):
    with pytest.raises(SystemExit):
        gzsnet.main(["--preset", "smoke"])
    assert "give --out" in capsys.readouterr().err


# ---- what is measured


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(gzsnet, "DRAWS", {"targets": 60, "carriers": 60, "read": 600, "searched": 600})
    monkeypatch.setattr(gzsnet, "AUGMENTATION", {"seeds": 1, "n": 20, "steps": 3})
    monkeypatch.setattr(gzsnet.metrics, "co_prediction", partial(metrics.co_prediction, seeds=1, steps=120))


@pytest.fixture(scope="module")
def dots():
    return toys.Dots().with_law(combinations.held_out(toys.Dots.space, 0.25))


class Latents:
    """A perfect autoencoder whose four numbers are the factors, in another order and without their names."""

    image_shape, order = toys.Dots.image_shape, [2, 0, 3, 1]
    codes = CodeSpace([Block(f"z{i}") for i in range(4)])

    def __init__(self):
        self.laid, self.space = Laid({name: [name] for name in NAMES}), toys.Dots.space

    def encode(self, x):
        return self.laid.sight.read(x).float()[:, self.order]

    def decode(self, codes):
        idx = torch.empty(len(codes), 4, dtype=torch.long)
        idx[:, self.order] = codes.round().long()
        return toys.Dots().render(self.space.from_grid(idx))


class Painter:
    """Copies the carrier, and reads nothing in it."""

    def __init__(self, data, kind="onehot"):
        self.image_shape = data.image_shape
        labels = [Block(factor.name, kind, (len(factor),)) for factor in data.space]
        self.codes = CodeSpace([Block("picture", "map", self.image_shape, 0.0, 1.0), *labels])

    def encode(self, x):
        return F.pad(x.flatten(1), (0, self.codes.size - x[0].numel()))

    def decode(self, codes):
        return self.codes.read(codes, "picture")


def test_a_model_whose_blocks_are_its_attributes(few, dots):
    numbers, blocks = gzsnet.measure(Laid({name: [name] for name in NAMES}), dots)
    assert numbers["psnr"] == numbers["seen"] == numbers["rebuilt"] == CAP and numbers["mse"] == 0
    assert numbers["best_copy"] < 30 and numbers["best_provider"] in NAMES and numbers["carrier"] is None
    assert numbers["diagonal"] == 1 and numbers["off_diagonal"] < 0.5 and abs(numbers["leak"]) < 0.15
    assert list(blocks) == ["block", "attribute", "accuracy", "spread"]
    assert blocks["block"].unique().tolist() == [*NAMES, "chance"] and len(blocks) == 5 * 4
    assert (blocks[blocks["block"] == blocks["attribute"]]["accuracy"] == 1).all()
    assert blocks["spread"].isna().tolist() == (blocks["block"] == "chance").tolist()


def test_latents_without_names_are_shared_out(few, dots, monkeypatch):
    view = gzsnet.with_attributes(Latents(), dots)
    assert view.groups == {"kind": ["z1"], "x": ["z3"], "y": ["z0"], "light": ["z2"]}
    monkeypatch.setattr(gzsnet, "read_blocks", lambda model, data: ({"blocks": list(model.codes.names)}, None))
    numbers, _ = gzsnet.measure(Latents(), dots)
    assert numbers["psnr"] == CAP and numbers["carrier"] is None and numbers["blocks"] == list(NAMES)


def test_a_painter_gets_its_best_carrier_and_labels_are_no_code(few):
    data = datasets.load("fonts", size=32, letters="ABCD", pinned=4)  # most of a picture is background
    numbers, blocks = gzsnet.measure(Painter(data), data)
    assert numbers["carrier"] == numbers["best_provider"] == "background"
    assert numbers["psnr"] == pytest.approx(numbers["best_copy"]) and numbers["rebuilt"] == CAP
    assert all(math.isnan(numbers[name]) for name in ("diagonal", "off_diagonal", "leak")) and blocks.empty


def test_blocks_of_numbers_are_read_beside_a_picture(few, dots):
    numbers, blocks = gzsnet.read_blocks(Painter(dots, "free"), dots)
    assert numbers["diagonal"] < 0.6 and blocks["block"].unique().tolist() == ["picture", *NAMES, "chance"]


@pytest.mark.parametrize("steps", [20, 800, 3000])
def test_a_curve_is_means_of_few_stretches(steps):
    step = pd.Series(range(10, steps + 1, 10))
    whole = pd.DataFrame({"step": step, "L_sr": step / steps, "loss_D": 1.0, "accuracy_0": 0.5, "kl_3": 1.0})
    points = gzsnet.curve(whole, 60.0)
    assert list(points) == ["step", "seconds", "L_sr", "loss_D"] and len(points) <= gzsnet.POINTS
    assert points["step"].iloc[-1] == steps and points["seconds"].iloc[-1] == 60
    assert points["seconds"].tolist() == pytest.approx((points["step"] * 60 / steps).tolist())
    assert points["L_sr"].is_monotonic_increasing
    if steps == 800:  # two rows a point
        assert points["L_sr"].tolist() == pytest.approx(whole["L_sr"].to_numpy().reshape(-1, 2).mean(1).tolist())


def test_gates_judge_every_seed():
    ours = {"variant": "GZS-Net", "psnr": 17.0, "best_copy": 13.0, "diagonal": 0.8, "off_diagonal": 0.5}
    other = ours | {"variant": "AE+DS", "psnr": 13.5, "diagonal": 0.1}
    table = pd.DataFrame([row | {"seed": seed} for seed in (0, 1, 2) for row in (ours, other)])

    def held(place, column, value):
        found = gzsnet.gates(table.assign(**{column: table[column].where(table.index != place, value)}))
        return [gate["holds"] for gate in found]

    assert held(0, "psnr", 17.0) == [True, True, True]
    assert [gate["mean"] for gate in gzsnet.gates(table)] == [4.0, 3.5, 0.3]
    assert held(4, "psnr", 15.9) == [False, False, True]  # ours, of one seed
    assert held(3, "psnr", 14.1) == [True, False, True]  # the other's
    assert held(2, "off_diagonal", 0.7) == [True, True, False]
    mixed = table.sample(frac=1, random_state=0)  # rows are known by their seed
    assert [gate["mean"] for gate in gzsnet.gates(mixed)] == [4.0, 3.5, 0.3]


@pytest.mark.slow
def test_the_script_writes_tables_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys, few, quick_pictures):
    keep = {"no cycle", "beta-VAE", "ELEGANT", "StarGAN"}
    every = gzsnet.trials

    def some(preset, parts=gzsnet.PARTS):
        return [t for t in every(preset, parts) if t.label in keep and not t.seed or t in every(preset, ["seeds"])
                or t.data == gzsnet.AUGMENTED]  # fmt: skip

    monkeypatch.setattr(gzsnet, "trials", some)
    out = tmp_path / "out"
    argv = ["--preset", "smoke", "--jobs", "1", "--home", str(tmp_path / "home"), "--out", str(out)]
    assert gzsnet.main([*argv, "--only", "seeds"]) == 0
    assert sorted(file.name for file in out.glob("*")) == ["gzsnet_smoke.csv", "gzsnet_smoke.json"]
    assert "6 of 6: AE+DS, seed 2" in capsys.readouterr().out
    assert gzsnet.main([*argv, "--only", "variants"]) == 0
    card = json.loads((out / "gzsnet.json").read_text())
    assert card["missing"] == ["StarGAN, seed 0", "ELEGANT, seed 0", "beta-VAE, seed 0"] and card["runs"] == 7
    assert gzsnet.main(argv) == 0
    names = ("gzsnet_smoke", *TABLES, "gzsnet_augmentation")
    seeds, table, blocks, curves, ways = (pd.read_csv(out / f"{name}.csv") for name in names)
    assert rows_of(seeds) == asked("seeds") == rows_of(table)[:6] and len(table) == 10
    assert rows_of(blocks) == [row for row in rows_of(table) if row[0] != "StarGAN"]
    assert rows_of(curves) == [row for row in rows_of(table) if row[0] != "beta-VAE"]
    assert table["carrier"].notna().tolist() == table["variant"].isin(["StarGAN", "ELEGANT"]).tolist()
    assert list(ways["way"]) == ["none", "classic", "gzs", "true"] and "unseen 0" in ways
    cards = [json.loads((out / f"{name}.json").read_text()) for name in ("gzsnet", "gzsnet_augmentation")]
    assert cards[0]["missing"] == [] and cards[1]["run"]["psnr"] > 0
    assert all({"draws", "data", "versions", "machine", "command", "method_versions"} <= set(card) for card in cards)
    before = {name: (out / f"{name}.csv").read_text() for name in names}

    def refuse(*args, **options):
        raise UserError("trained again")

    monkeypatch.setattr("disentkit.workbench.train", refuse)
    monkeypatch.setattr(gzsnet, "measure", refuse)
    monkeypatch.setattr(gzsnet, "_measuring", lambda seen=gzsnet._measuring(): seen)
    assert gzsnet.main(argv) == 0
    assert {name: (out / f"{name}.csv").read_text() for name in names} == before


def test_a_failure_does_not_stop_the_others(tmp_path, monkeypatch, capsys, few):
    def train_members(chunk, task):
        made.append(task.method)
        return [(chunk[0], {"failed": "no room" if len(made) == 1 else "", "run": "none"})]

    made = []
    monkeypatch.setattr(gzsnet, "train_members", train_members)
    with pytest.raises(UserError, match="GZS-Net, seed 0: no room"):
        gzsnet.train(gzsnet.trials("smoke", ["seeds"])[:3], "smoke", tmp_path, 1)
    said = capsys.readouterr().out
    assert made == ["gzsnet", "aeds", "gzsnet"] and "2 of 3: AE+DS, seed 0: trained, but not measured:" in said
    assert not list(tmp_path.glob("measured/*"))
