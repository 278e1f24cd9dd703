"""What `workbench.score` measures of wide blocks, how it is kept and how it is told."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from metrics.block_oracles import APART, SHORTCUT, Laid, Sight
from metrics.mixing_oracles import FEATURE, LAYOUT, Finder, Generator, Mixer, Reader, Tiles

from disentkit import cli, judging, metrics, runs, scores, segmenter, workbench
from disentkit.codes import Block, CodeSpace, gaussian_blocks
from disentkit.data import combinations
from disentkit.data.base import ArrayData
from disentkit.errors import UserError
from disentkit.metrics import arrays
from disentkit.metrics.blocks import block_stats

DOTS = toys.Dots()
COLUMNS = {"factorvae_score", "betavae_score", "mig"}
pytestmark = pytest.mark.usefixtures("quick_pictures")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """A judge that is never wrong, in no time, and few pictures."""
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(judging, "judge_of", Sight)
    monkeypatch.setattr(arrays, "POINTS", 200)
    full = metrics.betavae_score
    monkeypatch.setattr(metrics, "betavae_score", lambda model, data: full(model, data, L=5, votes=20))


def measure(model, data=DOTS, **options):
    """The scores; those of columns from few votes."""
    return scores.measure(model, data, **options, L=5, votes=20)


def history(steps: int = 100) -> pd.DataFrame:
    """Of a training whose first block comes alive in the last tenth, and the others never."""
    late = np.arange(1, steps + 1) > 0.9 * steps
    gauges = {f"accuracy_{i}": np.where(late & (i == 0), 0.9, 0.5) for i in range(4)}
    return pd.DataFrame({"step": range(1, steps + 1), "alive": late.astype(float), **gauges})


# ---- what is measured


def test_blocks_that_are_the_factors():
    found = measure(Laid(APART), history=history())
    assert set(found) == {"blocks"}
    blocks = found["blocks"]
    for block, (factor,) in APART.items():
        assert blocks["best"][factor]["block"] == block and blocks["best"][factor]["follows"] == 1
        for kind in ("linear", "nearest", "follows"):
            assert blocks[kind][block][factor] == 1
            others = [blocks[kind][other][factor] for other in APART if other != block]
            assert max(others) < 0.65  # two kinds have chance 0.5
        assert blocks["keeps"][block][factor] < 0.6
    assert blocks["followed"] == ["x", "y", "light"] and blocks["judge"] == dict.fromkeys(DOTS.space.names, 1.0)
    assert blocks["linear"]["chance"] == {"kind": 0.5, "x": 0.25, "y": 0.25, "light": 0.3333}
    assert list(blocks["follows"]) == [*APART, "all", "chance"]
    assert (blocks["alive"], blocks["accuracy"]) == (1, {"f1": 0.9, "f2": 0.5, "f3": 0.5, "f4": 0.5})
    assert blocks["settings"]["codes"] == "pictures"
    assert json.loads(json.dumps(blocks, allow_nan=False)) == blocks


def test_the_shortcut():
    blocks = measure(Laid(SHORTCUT))["blocks"]
    assert {best["block"] for best in blocks["best"].values()} == {"f1"}
    assert "alive" not in blocks  # nobody knows


def test_the_same_numbers_as_the_metrics():
    model = toys.build("Groups").model
    blocks = measure(model, more=True)
    swaps = metrics.swap_matrix(model, DOTS, Sight(DOTS))
    for name, frame in {"follows": swaps.follows, "keeps": swaps.keeps}.items():
        assert pd.DataFrame(blocks["blocks"][name]).T.to_numpy() == pytest.approx(frame.to_numpy(), abs=5e-5)
    assert set(blocks) == {"blocks", "retrieval"} and list(blocks["retrieval"])[-1] == "random"
    assert measure(model, more=True) == blocks


def test_more_is_asked_for():
    assert "retrieval" not in measure(toys.build("Groups").model)


@pytest.mark.parametrize("toy, wide", [("Regrouped", "pose"), ("Maps", "layout")])
def test_a_model_with_both_kinds_gets_both(toy, wide):
    model = toys.build(toy).model
    found = measure(model)
    assert set(found) == COLUMNS | {"blocks"}
    assert list(found["blocks"]["follows"]) == [*model.codes.names, "all", "chance"]
    assert found["mig"]["left_out"][wide]


@pytest.mark.parametrize("toy", ["Toy", "Critic"])
def test_columns_alone_ask_for_no_judge(toy, monkeypatch):
    monkeypatch.setattr(judging, "judge_of", lambda data: pytest.fail("a judge was asked for"))
    model = toys.build(toy).model  # Critic has a one-hot block, and noise that no encoder reads
    assert scores.wide(model.codes) == [] and set(measure(model)) == COLUMNS


def test_which_blocks_are_wide():
    space = CodeSpace([Block("a"), Block("b", "onehot", (3,)), Block("c", shape=(2,)), Block("d", "map", (1, 2, 2)),
                       Block("e", "gaussian", (5,), inferred=False), Block("f", "map", (1,))])  # fmt: skip
    assert scores.wide(space) == ["c", "d", "f"]
    assert scores.wide(gaussian_blocks(3)) == []


class Tied(toys.Dots):
    """Dots of which only the kind varies."""

    name = "tied dots"

    def sample(self, n, rng):
        factors = super().sample(n, rng)["factors"]
        factors[:, 1:] = torch.tensor([6.0, 6.0, 1.0])
        return {"x": self.render(factors), "factors": factors}


def test_one_factor_is_enough_for_wide_blocks():
    found = measure(Laid(APART), Tied())
    assert list(found["blocks"]["best"]) == ["kind"] and found["blocks"]["best"]["kind"]["block"] == "f1"


def test_what_is_not_defined_is_none():
    assert scores._row(pd.Series({"a": float("nan"), "b": 0.123456})) == {"a": None, "b": 0.1235}


def test_a_gauge_of_other_blocks_is_none():
    space = Laid(APART).codes
    assert scores.gauge(space, None) == scores.gauge(space, history().drop(columns="alive")) == {}
    assert scores.gauge(space, history().drop(columns="accuracy_3")) == {}


@pytest.mark.parametrize("model", [Laid(APART), toys.build("Toy").model])
def test_data_without_factors_are_refused(model):
    with pytest.raises(UserError, match="data set 'arrays' has no factors, so there is nothing to score"):
        scores.measure(model, ArrayData(np.zeros((4, 16, 16), np.uint8)))


# ---- names


def test_wide_blocks_are_named_after_what_follows_them():
    model = Laid(APART)
    found, stats = measure(model), block_stats(model, DOTS, n=200)
    named = scores.named(stats, model.codes, found)
    assert [(row["name"], row["factor"], row["correlation"]) for row in named] == [
        (block, factor, 1.0) for block, (factor,) in APART.items()
    ]
    assert all(row["factor"] is None for row in stats)  # those given stay as they are
    nothing = dict.fromkeys([*APART, "all", "chance"], dict.fromkeys(DOTS.space.names, 0.25))
    again = scores.named(named, model.codes, {"blocks": {"follows": nothing}})  # what was found before is forgotten
    assert [row["factor"] for row in again] == [None] * 4


def test_columns_keep_the_factor_they_have():
    codes = CodeSpace([Block("x", shape=(1,)), Block("rest", shape=(3,))])
    stats = [{"name": "x", "factor": "light", "correlation": 0.4}, {"name": "rest", "factor": "kind", "correlation": 1}]
    follows = {"x": {"x": 1.0}, "rest": {"x": 0.9}, "all": {"x": 1.0}, "chance": {"x": 0.25}}
    named = scores.named(stats, codes, {"blocks": {"follows": follows}})
    assert named[0] == stats[0] and named[1]["factor"] == "x" and named[1]["correlation"] == pytest.approx(13 / 15)
    assert scores.named(stats, codes, {"mig": {}}) == stats


# ---- kept and told


def test_scores_and_names_are_kept_in_the_card(monkeypatch):
    run = toys.train_run("Groups")
    strong = pd.DataFrame({"kind": [1.0, 0.5, 1, 0.5], "x": [0.3, 0.9, 1, 0.25]}, ["x", "rest", "all", "chance"])
    swaps = metrics.Swaps(strong, strong, pd.Series({"kind": 1.0, "x": 1.0}), {}, "")
    monkeypatch.setattr(metrics, "swap_matrix", lambda *args, **options: swaps)
    found = workbench.score(run, DOTS)
    assert [(row["name"], row["factor"]) for row in run.stats] == [("x", "kind"), ("rest", "x")]
    again = workbench.open_run(run.path)
    assert again.stats == run.stats and again.card["scores"] == found
    workbench.score(run, DOTS, more=True)
    assert {"blocks", "retrieval"} <= set(workbench.open_run(run.path).card["scores"])


def test_other_data_name_nothing():
    run = toys.train_run("Groups")
    before = run.stats
    assert workbench.score(run, Tied())["blocks"]
    assert run.stats is before and run.card["scores"] == {}


@pytest.mark.parametrize("toy, columns", [("Groups", False), ("Regrouped", True)])
def test_the_command_prints_tables(toy, columns, capsys, monkeypatch):
    run = toys.train_run(toy)
    found = measure(run.model, more=True)
    found["blocks"] |= {"followed": ["x"], "alive": 1.5, "accuracy": {"x": 0.9, "rest": 0.5}}
    found["retrieval"]["all"]["x"] = None  # a factor of which no picture has its like
    monkeypatch.setattr("disentkit.workbench.score", lambda run, more: found)
    assert cli.main(["score", run.name, "--all"]) == 0
    out = capsys.readouterr().out
    assert ("FactorVAE score" in out) == columns
    head, *rows = out[out.index("what follows a block") :].split("\n\n")[0].splitlines()[1:]
    assert head.split() == ["block", *DOTS.space.names]
    assert [row.split("  ")[0] for row in rows] == [*run.model.codes.names, "all", "chance", "the judge"]
    assert len({len(row) for row in [head, *rows]}) == 1
    assert "retrieval (mAP)" in out and "the same by the nearest picture" in out and "nan" not in out
    best = found["blocks"]["best"]["x"]["block"]
    assert f"followed    1 of 4  beat twice chance: x {best}" in out and "1.5 of 2" in out


def test_a_factor_that_one_measure_knows_and_another_does_not_is_a_dash(capsys, monkeypatch):
    """As where a generator's own pictures vary in all factors and those of the data set in one."""

    class Half(Laid):
        """Dots whose place is noise that no encoder reads, so that swaps start from the prior."""

        def __init__(self):
            super().__init__({"kind": ["kind"], "noise": ["x", "y"], "light": ["light"]})
            self.codes = CodeSpace(Block(b.name, "free", b.shape, inferred=b.name != "noise") for b in self.codes)

    run, found = toys.train_run("Groups"), measure(Half(), Tied())
    assert "x" in found["blocks"]["judge"] and "x" not in found["blocks"]["linear"]["kind"]
    monkeypatch.setattr("disentkit.workbench.score", lambda run, more: found)
    assert cli.main(["score", run.name]) == 0
    out = capsys.readouterr().out
    assert out[out.index("what can be read") :].splitlines()[2].split() == ["kind", "1.00", "-", "-", "-"]


def test_the_command_without_factors_is_one_line(capsys):
    run = toys.train_run("Groups")
    nameless = ArrayData(np.zeros((4, 16, 16), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench.Run, "data", lambda self: nameless)
        assert cli.main(["score", run.name]) == 2
    assert "data set 'arrays' has no factors, so there is nothing to score" in capsys.readouterr().err


def test_a_sweep_counts_what_is_followed():
    from disentkit.members import _full

    found = {"blocks": {"followed": ["x", "y"], "alive": 2.5}}
    assert _full(found) == {"followed": 2.0, "alive": 2.5} and _full({"blocks": {"followed": []}}) == {"followed": 0.0}


# ---- blocks that are the attributes

NAMED = {name: [name] for name in DOTS.space.names}
HELD = toys.Dots().with_law(combinations.held_out(toys.Dots.space, 0.3))


def test_blocks_named_after_the_attributes_need_no_judge(monkeypatch):
    monkeypatch.setattr(judging, "judge_of", lambda data: pytest.fail("a judge was asked for"))
    found = measure(Laid(NAMED), HELD)
    assert set(found) == {"co_prediction", "zero_shot"} and json.loads(json.dumps(found, allow_nan=False)) == found
    read, made = found["co_prediction"], found["zero_shot"]
    assert read["diagonal"] > 0.99 and read["leak"] < 0.1 and list(read["accuracy"]) == [*NAMED, "chance"]
    assert (
        made["psnr"]
        == made["rebuilt"]
        == made["seen"]
        == 60
        > made["best_copy"]
        == made["copies"][made["best_provider"]]
    )


def test_blocks_under_wrong_names_are_found_out():
    wrong = {"kind": ["x"], "x": ["y"], "y": ["light"], "light": ["kind"]}
    found = measure(Laid(wrong), HELD)
    assert found["co_prediction"]["diagonal"] < found["co_prediction"]["off_diagonal"]
    assert found["zero_shot"]["psnr"] < 30 < found["zero_shot"]["rebuilt"]


@pytest.mark.parametrize("data", [DOTS, HELD.with_law(combinations.held_out(DOTS.space, 0.3, "all")),
                                  HELD.with_law(combinations.held_out(DOTS.space, 0))])  # fmt: skip
def test_where_nothing_is_held_out_there_is_no_zero_shot(data):
    assert set(measure(Laid(NAMED), data)) == {"co_prediction"}


def test_a_missing_name_is_measured_as_before():
    assert set(measure(Laid({**{n: [n] for n in ("kind", "x", "y")}, "f4": ["light"]}))) == {"blocks"}


def test_the_command_prints_attributes(capsys, monkeypatch):
    run = toys.train_run("Groups")
    monkeypatch.setattr("disentkit.workbench.score", lambda run, more: measure(Laid(NAMED), HELD))
    assert cli.main(["score", run.name]) == 0
    out = capsys.readouterr().out
    assert "what a small classifier reads from a block" in out and "60.00 dB  of combinations that were held out" in out
    head = out[out.index("what a small classifier") :].splitlines()[1]
    assert head.split() == ["block", *DOTS.space.names]


def test_a_sweep_counts_what_is_synthesised():
    from disentkit.members import _full

    found = {"co_prediction": {"diagonal": 0.9, "off_diagonal": 0.3, "leak": 0.1}, "zero_shot": {"psnr": 20.0}}
    assert _full(found) == {"diagonal": 0.9, "off_diagonal": 0.3, "zero_shot_psnr": 20.0}


# ---- directions


def test_directions_of_a_renderer_are_measured():
    """The code of dots holds x itself, so a direction along it moves x and leaves y where it is."""
    from disentkit.methods.steered import Steered, make_direction

    class Code(toys.Dots):
        """Dots whose code is where they are, in spreads from the middle."""

        codes = gaussian_blocks(2)

        def decode(self, codes):
            place = 7.5 + 1.5 * codes
            return self.render(torch.cat([torch.zeros(len(codes), 1), place, torch.ones(len(codes), 1)], dim=1))

        def prior(self, n, rng):
            return self.codes.prior(n, rng)

    per_unit = 1.5 / toys.SIZE  # of the width
    x = make_direction("x", [1.0, 0.0], s=[-2, 2], t=[-2 * per_unit, 2 * per_unit])
    found = measure(Steered(Code(), [x, make_direction("hair", [0.6, 0.8])]))
    assert found["instrument"] == "Threshold" and found["directions"]["hair"] == {}
    assert found["directions"]["x"]["spearman"] > 0.95
    assert found["directions"]["x"]["slope"] == pytest.approx(1, abs=0.05)
    assert found["leakage"]["x"]["x"] > 5 * found["leakage"]["x"]["y"]


def test_nothing_is_scored_without_encoder_and_directions():
    with pytest.raises(UserError, match="train directions on this run"):
        measure(toys.Dots())


# ---- mixing

DRAWN = {"mask_iou", "frechet", "drawn_clusters", "pose_invariance"}
ENCODED = {"transfer", "self_recombination", "code_clusters", "texture_distance", "pose_r2"}
ALWAYS = {"judge", "segmenter", "settings", "gates"}


@pytest.fixture
def tiles(monkeypatch):
    """Judge and segmenter that are never wrong, few pictures, and the data."""
    monkeypatch.setattr(judging, "judge_of", Reader)
    monkeypatch.setattr(segmenter, "segmenter_of", Finder)
    for name in ("MIXES", "DRAWN", "COMPARED", "CODES", "POSES", "RECOMBINED", "TURNED", "MASKS"):
        monkeypatch.setattr(scores, name, 120)
    return Tiles()


class TiedMixer(Mixer):
    def tied(self, n, rng):
        return self.prior(n, rng)


def test_a_perfect_mixer_meets_every_gate(tiles):
    found = scores.measure(TiedMixer(), tiles)
    assert set(found) == DRAWN | ENCODED | ALWAYS and json.loads(json.dumps(found, allow_nan=False)) == found
    names = ["mask IoU", *(f"mixing accuracy of {name}" for name in ("background", "shape", "texture"))]
    assert list(found["gates"]) == [*names, "NMI of E_p and shape"]
    assert all(gate["met"] and gate["measured"] == 1 for gate in found["gates"].values())
    assert [gate["asked"] for gate in found["gates"].values()] == [0.7, 0.6, 0.6, 0.4, 0.6]
    assert found["judge"] == dict.fromkeys(["background", "shape", "texture", "rotation"], 1.0)
    assert found["transfer"]["matrix"]["texture"] == {"background": 0, "shape": 0, "texture": 1, "pose": 0}
    assert found["transfer"]["right"]["rotation"] == "pose" and found["transfer"]["all_right"] == 1
    assert set(found["frechet"]) == {"free", "free_floor", "tied", "tied_floor"}
    assert found["drawn_clusters"]["accuracy"] == found["code_clusters"]["accuracy"] == {"p": 1, "c": 1, "b": 1}
    assert found["pose_invariance"]["shape"]["same"] == 1 and found["texture_distance"]["mixed"] == 0


def test_gates_that_are_missed_say_so(tiles):
    found = scores.measure(Mixer({**LAYOUT, "p": [], "c": ["texture", "shape"]}), tiles)
    assert found["gates"]["mixing accuracy of shape"] == {"asked": 0.6, "measured": 0, "met": False}
    assert not found["gates"]["NMI of E_p and shape"]["met"] and found["gates"]["mixing accuracy of texture"]["met"]
    assert set(found["frechet"]) == {"free", "free_floor"}


def test_without_an_encoder_what_needs_none_is_measured(tiles):
    found = scores.measure(Generator(), tiles)
    assert set(found) == DRAWN | ALWAYS and list(found["gates"]) == ["mask IoU"]


def test_feature_mode_beside_the_code_mode_it_stands_on(tiles):
    class Feature(Mixer):
        base = Mixer({**LAYOUT, "z": []})

    found = scores.measure(Feature(FEATURE), tiles)
    assert set(found) == {"mask_iou"} | ENCODED - {"pose_r2"} | ALWAYS
    gate = found["gates"]["mask IoU, feature mode above code mode"]
    assert gate["met"] and gate["measured"] == pytest.approx(1 - found["mask_iou"]["code"], abs=1e-4)
    assert "mask IoU" not in found["gates"] and found["transfer"]["diagonal"]["shape"] == 1
    same = scores.measure_mixing(Feature(FEATURE), tiles, code=Mixer())
    assert not same["gates"]["mask IoU, feature mode above code mode"]["met"] and same["mask_iou"]["code"] == 1
    assert "code" not in scores.measure(Mixer(FEATURE), tiles)["mask_iou"]


def test_mixing_is_not_measured_on_other_data(tiles):
    with pytest.raises(UserError, match="data set 'dots' has no category 'background'"):
        scores.measure(Mixer(), DOTS)
    with pytest.raises(UserError, match="and 'arrays' draws none"):
        scores.measure(Mixer(), ArrayData(np.zeros((4, 16, 16, 3), np.uint8)))


@pytest.mark.slow
def test_the_methods_themselves(tiles, monkeypatch):
    """FineGAN, MixNMatch and its feature mode on emblems, all as they begin; so are judge and segmenter."""
    from disentkit import judges
    from disentkit.data import emblems
    from disentkit.methods import finegan, mixnmatch, mixnmatch_feature

    data = emblems.load(32, few=True)
    judge = judges.Judge(judges.Settings(width=4), data.spec).eval()
    judge.card = {"accuracy": dict.fromkeys(data.space.names, 0.99)}
    monkeypatch.setattr(judging, "judge_of", lambda data: judge)
    finder = segmenter.Segmenter(segmenter.Settings(width=4, size=32), data.spec).eval()
    monkeypatch.setattr(segmenter, "segmenter_of", lambda data: finder)
    for name in ("MIXES", "DRAWN", "COMPARED", "CODES", "POSES", "RECOMBINED", "TURNED", "MASKS"):
        monkeypatch.setattr(scores, name, 30)
    few = {"z": 4, "parents": 4, "children": 8, "size": 32, "nets": "small", "wide": 0.5}
    plain = finegan.StagedGenerator(data.image_shape, finegan.Settings(**few))
    code = mixnmatch.MixNMatchModel(data.image_shape, mixnmatch.Settings(**few))
    feature = mixnmatch_feature.FeatureMode(code, mixnmatch_feature.Settings(size=32))
    before = {name: value.clone() for name, value in code.state_dict().items()}
    found = [scores.measure(model, data) for model in (plain, code, feature)]
    assert found[0]["judge"]["shape"] == 0.99 and [len(f["gates"]) for f in found] == [1, 5, 4]
    assert set(found[0]["frechet"]) == {"free", "free_floor", "tied", "tied_floor"}
    assert list(found[2]["transfer"]["matrix"]["shape"]) == ["background", "texture", "shape and pose"]
    assert {"feature", "code", "area"} <= set(found[2]["mask_iou"])
    assert all(torch.equal(value, before[name]) for name, value in code.state_dict().items())  # batch norm at rest
    json.dumps(found, allow_nan=False)


def test_a_sweep_takes_mixing_scores(tiles):
    from disentkit.members import _full

    assert isinstance(_full(scores.measure(Generator(), tiles)), dict)
