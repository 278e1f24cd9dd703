"""Transfer: a perfect model, planted faults in their cells, chance, and the same numbers counted one by one."""

import numpy as np
import pytest
import torch
from metrics.mixing_oracles import FEATURE, LAYOUT, Generator, Grey, Mixer, Reader, Tiles

from disentkit.data.base import ArrayData
from disentkit.data.laws import Grid
from disentkit.metrics import mix_pictures, mixes, self_recombination, transfer

TILES = Tiles()
SWAPPED = {**LAYOUT, "b": ["texture"], "c": ["background"]}
PICKERS = ["background", "shape", "texture", "pose"]


def found(layout=None, n=200, model=Mixer, **options):
    return transfer(model(layout), TILES, Reader(), n=n, **options)


def test_a_perfect_model_has_ones_on_the_diagonal_and_zeros_off_it():
    got = found()
    assert list(got.matrix.index) == ["background", "shape", "texture", "rotation"]
    assert list(got.matrix.columns) == PICKERS and list(got.right.values()) == PICKERS
    assert got.diagonal[:3].tolist() == [1, 1, 1] and got.diagonal["rotation"] > 0.99 and got.all_right == 1
    assert (got.off_diagonal[:3] == 0).all()  # the sources differ, so they cannot agree by chance
    assert got.matrix.loc["rotation"].drop("pose").abs().max() < 0.2
    assert got.chance.tolist() == pytest.approx([1 / 6, 1 / 4, 1 / 6, 0]) and got.settings == {"mixes": 200, "seed": 0}


def test_background_and_texture_swapped_are_seen_in_their_cells():
    got = found(SWAPPED)
    assert got.matrix.loc["background", "texture"] == got.matrix.loc["texture", "background"] == 1
    assert got.diagonal[["background", "texture"]].tolist() == [0, 0] and got.diagonal["shape"] == 1
    assert got.off_diagonal["background"] == pytest.approx(1 / 3) and got.all_right == 0


def test_a_shape_taken_from_the_texture_is_seen_in_its_cell():
    got = found({**LAYOUT, "p": [], "c": ["texture", "shape"]})
    assert got.matrix.loc["shape"].tolist() == [0, 0, 1, 0] and got.diagonal["texture"] == 1 and got.all_right == 0


def test_a_rotation_that_the_background_brings():
    got = found({**LAYOUT, "z_b": ["rotation"], "z": ["x", "y", "scale"]})
    assert got.matrix.loc["rotation", "background"] > 0.99 and abs(got.diagonal["rotation"]) < 0.2


def test_a_model_that_shows_whatever_it_likes_is_at_chance():
    got = found(model=Grey, n=2000)
    assert got.matrix.to_numpy() == pytest.approx(np.tile(got.chance.to_numpy()[:, None], 4), abs=0.06)
    assert got.all_right < 0.03


def test_a_model_that_never_turns_has_no_correlation():
    got = found({**LAYOUT, "z": ["x", "y", "scale"]}, n=50)
    assert got.matrix.loc["rotation"].tolist() == [0, 0, 0, 0]


def test_feature_mode_has_three_sources_and_one_of_them_gives_two_attributes():
    got = found(FEATURE)
    assert list(got.matrix.columns) == ["background", "texture", "shape and pose"]
    assert got.right["shape"] == got.right["rotation"] == "shape and pose"
    assert got.diagonal[:3].tolist() == [1, 1, 1] and got.diagonal["rotation"] > 0.99


def test_the_entries_counted_one_by_one():
    class Half(Mixer):
        """Takes the texture of the background's source in every other picture."""

        def decode(self, codes):
            values = self.values(codes)
            values[::2, 2] = values[::2, 0]
            return self.data.render(values)

    model, judge = Half(), Reader()
    made = mix_pictures(model, TILES, n=60, seed=3)
    got = transfer(model, TILES, judge, made=made)
    seen, hits, right = TILES.values_in(made.x), np.zeros((3, 4)), 0
    for i in range(60):
        for k in range(3):
            for j in range(4):
                hits[k, j] += float(seen[i, k]) == float(made.values[i, j, k])
        right += all(float(seen[i, k]) == float(made.values[i, k, k]) for k in range(3))
    assert got.matrix.iloc[:3].to_numpy() == pytest.approx(hits / 60) and got.all_right == right / 60
    angles = np.corrcoef(seen[:, 3].numpy(), made.values[:, 3, 3].numpy())[0, 1]
    assert got.matrix.loc["rotation", "pose"] == pytest.approx(angles, abs=0.01)  # read on a grid of 5 degrees
    assert 0 < got.diagonal["texture"] < 1


def test_sources_differ_and_the_rest_is_drawn_by_the_law():
    values = mixes.different(TILES, 300, 4, torch.Generator().manual_seed(0))
    for k in range(3):
        assert (values[:, :, k].sort(1).values.diff(dim=1) > 0).all()
        counts = values[:, :, k].flatten().long().bincount()
        assert counts.min() > 0.7 * counts.max()
    assert values[:, :, 3].flatten().unique().numel() == 1200


def test_portions_come_to_n(monkeypatch):
    monkeypatch.setattr(mixes, "PIXELS", 16 * 16 * 4)
    assert list(mixes.portions(TILES, 10)) == [4, 4, 2]
    made = mix_pictures(Mixer(), TILES, n=10)
    assert made.x.shape == (10, 3, 16, 16) and made.values.shape == (10, 4, 7)
    assert all(torch.equal(TILES.values_in(made.x)[:, k], made.values[:, k, k]) for k in range(3))


def test_same_seed_same_numbers():
    a, b, c = found(model=Grey, n=40), found(model=Grey, n=40), found(model=Grey, n=40, seed=1)
    assert a.matrix.equals(b.matrix) and not a.matrix.equals(c.matrix)


def test_self_recombination():
    assert self_recombination(Mixer(), TILES, Reader(), n=100).to_numpy() == pytest.approx([1, 1, 1, 1], abs=0.01)
    swapped = self_recombination(Mixer(SWAPPED), TILES, Reader(), n=100)
    assert swapped["texture"] == 1  # back where it came from: only mixing shows the fault
    lost = self_recombination(Mixer({**LAYOUT, "p": []}), TILES, Reader(), n=400)
    assert lost["shape"] == pytest.approx(0.25, abs=0.07) and lost["background"] == 1
    assert list(lost.index) == ["background", "shape", "texture", "rotation"]


def test_bad_input():
    judge = Reader()
    with pytest.raises(ValueError, match="Generator has no encoder for b, z_b, p, c, z, so nothing can be taken"):
        transfer(Generator(), TILES, judge)
    with pytest.raises(ValueError, match="'arrays' draws none"):
        transfer(Mixer(), ArrayData(np.zeros((4, 16, 16, 3), np.uint8)), judge)
    with pytest.raises(ValueError, match="no picker gives 'shape'; this model has background, texture, pose"):
        transfer(Mixer({k: v for k, v in LAYOUT.items() if k != "p"}), TILES, judge)
    with pytest.raises(ValueError, match="give judging.judge_of"):
        transfer(Mixer(), TILES, object())
    with pytest.raises(ValueError, match="n must be a whole number of at least 2, got 1"):
        transfer(Mixer(), TILES, judge, n=1)
    with pytest.raises(ValueError, match="'shape' has 4 values, so 5 sources cannot all differ in it"):
        mixes.different(TILES, 3, 5, torch.Generator())
    with pytest.raises(ValueError, match="codes hold NaN"):
        transfer(type("Broken", (Mixer,), {"encode": lambda self, x: self.code_of(TILES.values_in(x)) / 0})(),
                 TILES, judge, n=5)  # fmt: skip


def test_other_factors_are_named():
    class Plain(Tiles):
        space = type(TILES.space)([f for f in TILES.space if f.name != "texture"])

    with pytest.raises(ValueError, match="data set 'tiles' has no category 'texture', only background, shape"):
        transfer(Mixer(), Plain(), Reader())
    other = Reader()
    other.space = Plain.space
    with pytest.raises(ValueError, match="take its own judge"):
        transfer(Mixer(), TILES, other)


def test_the_law_of_the_data_does_not_matter_and_wrappers_come_off():
    class Wrapped:
        data, name = Tiles().with_law(Grid()), "wrapped"

    assert mixes.independent(Wrapped()).law == Tiles.law
    assert torch.equal(mix_pictures(Mixer(), Wrapped(), n=5).x, mix_pictures(Mixer(), TILES, n=5).x)
    assert set(mixes.pickers(Mixer().codes)) == set(PICKERS) and mixes.pickers(Mixer().codes)["background"] == [
        "b",
        "z_b",
    ]
