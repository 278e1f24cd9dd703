"""The tree of emblems: neither hue nor fill tells a shape, and the law holds also where one factor is held."""

import pytest
import torch
import torch.nn.functional as F

from disentkit import data
from disentkit.data import emblems
from disentkit.data.emblems import FEW_SPACE, SPACE, Emblems, Tree
from disentkit.data.laws import Real

TEXTURE = SPACE.index("texture")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n, law, space):
    return law.draw(space, n, generator())


@pytest.mark.parametrize(("textures", "shapes"), [(emblems.TEXTURES, 5), (emblems.FEW_TEXTURES, 4)])
def test_neither_hue_nor_fill_tells_the_shape(textures, shapes):
    each_ = len(textures) // shapes
    assert len(set(textures)) == len(textures)
    of = {s: textures[s * each_ : (s + 1) * each_] for s in range(shapes)}
    for own in of.values():
        assert len({hue for hue, _ in own}) == len({fill for _, fill in own}) == each_
    for part in (0, 1):
        for value in {t[part] for t in textures}:
            assert sum(any(t[part] == value for t in own) for own in of.values()) > 1


@pytest.mark.parametrize("space", [SPACE, FEW_SPACE])
@pytest.mark.parametrize(("rho", "tree"), [(0.0, True), (0.75, True), (1.0, True), (0.75, False)])
def test_the_tree(space, rho, tree):
    values = drawn(12_000, Tree(rho, tree), space)
    ground, shape, texture = values[:, :3].long().T
    for k in range(11):
        f, column = space.factors[k], values[:, k]
        if f.kind == "category":
            assert (torch.bincount(column.long(), minlength=len(f)) / 12_000 * len(f) - 1).abs().max() < 0.15
        else:
            place = (column - f.low) / (f.high - f.low)
            assert place.min() >= 0 and place.max() <= 1 + 1e-6 and abs(place.mean() - 0.5) < 0.01
    preferred = (ground == texture // 2).float().mean()
    assert preferred == pytest.approx(rho + (1 - rho) / space.sizes[0], abs=0.015)
    owned = (shape == texture // (space.sizes[2] // space.sizes[1])).float().mean()
    assert owned == (1 if tree else pytest.approx(1 / space.sizes[1], abs=0.015))
    assert torch.corrcoef(values[:, 3:].T).fill_diagonal_(0).abs().max() < 0.03


def joint(space, rho, tree):
    """p(background, shape, texture), written down."""
    b, s, t = space.sizes[:3]
    p = torch.zeros(b, s, t)
    for k in range(t):
        grounds = torch.full((b,), (1 - rho) / b)
        grounds[k // (t // b)] += rho
        shapes = F.one_hot(torch.tensor(k // (t // s)), s).float() if tree else torch.full((s,), 1 / s)
        p[:, :, k] = grounds[:, None] * shapes / t
    return p


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("fixed", ["background", "shape", "texture", "pitch"])
def test_the_tree_holds_when_a_factor_is_held(fixed, tree):
    """The three factors come as often as the joint law says, and the held one is shared by each group."""
    renderer = Emblems(32, Tree(0.75, tree), few=True)
    k = FEW_SPACE.index(fixed)
    renderer.render = lambda values: values.new_zeros(len(values), 3, 32, 32)  # what is drawn is all that matters here
    values = renderer.sample_fixed(k, 2, generator(), groups=10_000)["factors"]
    held = values[:, k].view(-1, 2)
    assert torch.equal(held[:, 0], held[:, 1]) and held[:, 0].std() > 0.05
    b, s, t = values[:, :3].long().T
    found = torch.bincount((b * 4 + s) * 8 + t, minlength=128).view(4, 4, 8) / len(values)
    assert (found - joint(FEW_SPACE, 0.75, tree)).abs().max() < 0.0095
    others = values.view(-1, 2, 11)
    assert (others[:, 0] != others[:, 1]).float().mean(0)[[j for j in range(3, 11) if j != k]].min() > 0.8


def test_rows_of_a_group_are_drawn_on_their_own():
    """With the background held, two textures of a group are independent given it."""
    values = Emblems(32, Tree(1.0), few=True).sample_fixed(0, 2, generator(), groups=500)["factors"].view(-1, 2, 11)
    same = (values[:, 0, TEXTURE] == values[:, 1, TEXTURE]).float().mean()
    assert same == pytest.approx(0.5, abs=0.07)


def test_independent_has_no_tree():
    plain = data.load("emblems", size=32, rho=1.0, few=True, boxes="segmenter")
    free = plain.independent()
    assert (free.law, free.boxes, free.name, free.size) == (Real(), "exact", "emblems_few", 32)
    values = drawn(20_000, free.law, free.space)
    b, s, t = values[:, :3].long().T
    found = torch.bincount((b * 4 + s) * 8 + t, minlength=128) / 20_000
    assert (found * 128 - 1).abs().max() < 0.35
    assert plain.law == Tree(1.0), "and the first is as it was"
