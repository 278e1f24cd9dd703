"""Factor spaces, the laws that draw from them, stored arrays, and a renderer as a model."""

import numpy as np
import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from disentkit.data.base import ArrayData, Renderer
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Correlated, Grid, HeldOut, Real, draw_fixed

SPACE = FactorSpace([category("kind", "a", "b", "c"), Factor("x", "real", (0.0, 0.5, 2.0, 4.0)),
                     Factor("turn", "cyclic", tuple(range(0, 360, 60)), unit="deg")])  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


factor_spaces = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(
    lambda sizes: FactorSpace(
        Factor(f"f{k}", "real", tuple(0.5 * i - 1 for i in range(n))) for k, n in enumerate(sizes)
    )
)


# ---- the grid


@settings(max_examples=40, deadline=None, derandomize=True)
@given(factor_spaces)
def test_the_grid_has_every_tuple_once(space):
    flat = torch.arange(space.grid_size)
    idx = space.tuple_of(flat)
    assert idx.shape == (space.grid_size, len(space)) and len(idx.unique(dim=0)) == space.grid_size
    assert torch.equal(space.flat_of(idx), flat)
    assert torch.equal(space.to_grid(space.from_grid(idx)), idx)
    values = space.from_grid(idx)
    assert torch.equal(space.check(values), values)
    last = np.stack(np.unravel_index(flat.numpy(), space.sizes), axis=1)  # numpy's order: the last factor fastest
    np.testing.assert_array_equal(idx, last)


def test_nearest_grid_value():
    values = torch.tensor([[1.0, 0.2, 61.0], [2.0, 1.3, 299.0], [0.0, 9.0, -5.0]])
    assert SPACE.to_grid(values).tolist() == [[1, 0, 1], [2, 2, 5], [0, 3, 0]]


@pytest.mark.parametrize("make, message", [
    (lambda: Factor("x", "colour"), "factor 'x': unknown kind 'colour'; known: category, real, cyclic"),
    (lambda: Factor("x", "real", (1.0, 0.0)), "factor 'x': there must be values, ascending and without repeats"),
    (lambda: Factor("x", "real", ()), "factor 'x': there must be values"),
    (lambda: Factor("x", "category", (1, 2)), "factor 'x': the values of a category are its indices"),
    (lambda: Factor("x", "category", (0, 1), ("one",)), "factor 'x': 1 labels for 2 values"),
    (lambda: FactorSpace([Factor("x"), Factor("x")]), "two factors share one name: x, x"),
    (lambda: SPACE["y"], "no factor 'y'; there are kind, x, turn"),
    (lambda: SPACE.check(torch.zeros(2, 2)), r"factors must be \(n, 3\) for kind, x, turn, not \(2, 2\)"),
    (lambda: SPACE.check([[0, 4.5, 0]]), r"factor 'x' is 4.5, outside 0 ... 4"),
    (lambda: SPACE.check([[0, float("nan"), 0]]), r"factor 'x' is nan"),
    (lambda: SPACE.check([[3, 0, 0]]), r"factor 'kind' is 3, outside 0 ... 2"),
    (lambda: SPACE.check([[0.5, 0, 0]]), r"factor 'kind' is 0.5, outside 0 ... 2"),
    (lambda: Correlated("x", "turn", 1.5), "strength must lie in 0 ... 1, not 1.5"),
    (lambda: Correlated("x", "y", 1).draw(SPACE, 2, rng()), "no factor 'y'"),
    (lambda: HeldOut(Grid(), lambda v: v[:, 0] >= 0).draw(SPACE, 2, rng()), "the held-out rule leaves too few tuples"),
    (lambda: HeldOut(Real(), lambda v: v[:, 0] >= 0).draw(SPACE, 2, rng()), "the held-out rule leaves too few tuples"),
    (lambda: draw_fixed(HeldOut(Real(), lambda v: v[:, 0] > 0), SPACE, 1, 2, rng()), "over the law Grid"),
    (lambda: draw_fixed(Grid(), SPACE, 3, 2, rng()), "there is no factor 3; the 3 factors count from 0"),
])  # fmt: skip
def test_errors_say_what_was_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- laws


@pytest.mark.parametrize("law", [Grid(), Real(), Correlated("x", "turn", 0.5), HeldOut(Grid(), lambda v: v[:, 1] > 3)])
def test_laws_stay_in_range_and_follow_the_generator(law):
    values = law.draw(SPACE, 500, rng())
    assert values.shape == (500, 3) and values.dtype == torch.float32
    SPACE.check(values)
    assert torch.equal(values, law.draw(SPACE, 500, rng()))
    assert not torch.equal(values, law.draw(SPACE, 500, rng(1)))


def test_grid_is_uniform_and_independent():
    idx = SPACE.to_grid(Grid().draw(SPACE, 36_000, rng()))
    counts = torch.bincount(SPACE.flat_of(idx), minlength=SPACE.grid_size)
    assert (counts - 500).abs().max() < 5 * 500**0.5


def test_real_fills_the_range_between_grid_values():
    values = Real().draw(SPACE, 10_000, rng())
    assert set(values[:, 0].tolist()) == {0.0, 1.0, 2.0}
    for k, f in enumerate(SPACE):
        if f.kind != "category":
            assert len(values[:, k].unique()) > 9_000
            assert values[:, k].mean().item() == pytest.approx((f.low + f.high) / 2, rel=0.03)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_correlated_ties_two_factors_and_no_third(strength):
    idx = SPACE.to_grid(Correlated("x", "turn", strength).draw(SPACE, 20_000, rng())).double()
    matrix = np.corrcoef(idx.T)
    assert matrix[1, 2] == pytest.approx(strength, abs=0.03)  # places on the axes, half of them tied, half free
    assert abs(matrix[0, 1]) < 0.03 and abs(matrix[0, 2]) < 0.03


def test_held_out_tuples_never_come_and_the_rest_keep_their_shares():
    law = HeldOut(Grid(), lambda v: (v[:, 0] == 1) & (v[:, 1] > 1))
    idx = SPACE.to_grid(law.draw(SPACE, 30_000, rng()))
    flat = torch.bincount(SPACE.flat_of(idx), minlength=SPACE.grid_size)
    held = law.rule(SPACE.from_grid(SPACE.tuple_of(torch.arange(SPACE.grid_size))))
    assert held.sum() == 12 and flat[held].sum() == 0
    assert (flat[~held] - 500).abs().max() < 5 * 500**0.5


@pytest.mark.parametrize("fixed", ["x", "turn"])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_fixed_factor_keeps_its_correlated_partner(fixed, strength):
    """Fixing one of the two and drawing the other gives back the law's own pairs."""
    law = Correlated("x", "turn", strength)
    fixed = draw_fixed(law, SPACE, SPACE.index(fixed), 4, rng(), groups=10_000)
    shares = [torch.bincount(SPACE.flat_of(SPACE.to_grid(v)) % (SPACE.sizes[1] * SPACE.sizes[2]),
                             minlength=SPACE.sizes[1] * SPACE.sizes[2]) / len(v)
              for v in (fixed, law.draw(SPACE, 40_000, rng()))]  # fmt: skip
    torch.testing.assert_close(shares[0], shares[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("k", range(3))
def test_a_fixed_factor_never_brings_a_held_out_tuple_back(k):
    law = HeldOut(Grid(), lambda v: (v[:, 0] == 1) & (v[:, 1] > 1))
    values = draw_fixed(law, SPACE, k, 5, rng(), groups=2000)
    assert not law.rule(values).any()
    groups = values.reshape(2000, 5, 3)
    assert (groups[:, :, k] == groups[:, :1, k]).all()
    free = [j for j in range(3) if j != k]
    assert all((groups[:, :, j] != groups[:, :1, j]).any() for j in free)
    assert len(groups[:, 0, k].unique()) == SPACE.sizes[k]  # every value comes




# ---- a renderer, also as a model


def test_renderer_is_a_model_of_its_factors():
    dots = toys.Dots()
    batch = dots.sample(50, rng())
    codes = dots.code_of(batch["factors"])
    assert torch.equal(dots.values(codes), batch["factors"])
    assert torch.equal(dots.decode(codes), batch["x"])
    assert [b.kind for b in dots.codes] == ["onehot", "uniform", "uniform", "uniform"]
    assert dots.codes["kind"].labels == ("dot", "ring") and (dots.codes["x"].low, dots.codes["x"].high) == (3, 12)
    drawn = dots.prior(200, rng())
    assert torch.equal(dots.values(drawn), dots.law.draw(dots.space, 200, rng()))
    between = dots.codes.write(codes, "x", 5.1)  # any real value between grid points
    assert not torch.equal(dots.decode(between), batch["x"])


def test_renderer_draws_by_its_law():
    dots = toys.Dots()
    held = dots.with_law(HeldOut(Grid(), lambda v: v[:, 0] == 0))
    assert Renderer.sample(held, 100, rng())["factors"][:, 0].unique().tolist() == [1]
    assert Renderer.sample(dots, 100, rng())["factors"][:, 0].unique().tolist() == [0, 1]


def test_fingerprint_changes_with_the_law_and_nothing_else():
    dots = toys.Dots()
    prints = [dots.with_law(law).fingerprint() for law in (
        Grid(), Real(), Correlated("x", "y", 0.5), Correlated("x", "y", 1.0),
        HeldOut(Grid(), lambda v: v[:, 0] == 0), HeldOut(Grid(), lambda v: v[:, 0] == 1),
    )]  # fmt: skip
    assert len(set(prints)) == len(prints)
    same = [dots.with_law(HeldOut(Grid(), lambda v: v[:, 0] == 0)).fingerprint() for _ in range(2)]
    assert same[0] == same[1] == prints[4]  # another function of the same rule, as in another process


def test_unwritten_parts_say_so():
    with pytest.raises(NotImplementedError, match=r"Renderer must write render\(values\)"):
        Renderer().render(torch.zeros(1, 1))


# ---- a factor held fixed


def arrays(n: int = 300) -> ArrayData:
    batch = toys.Dots().sample(n, rng())
    return ArrayData(batch["x"].numpy(), batch["factors"].numpy(), toys.Dots().space, "stored dots")


@pytest.mark.parametrize("data", [toys.Dots(), arrays()], ids=["renderer", "arrays"])
@pytest.mark.parametrize("k", range(4))
def test_sample_fixed(data, k):
    batch = data.sample_fixed(k, 20, rng(), groups=30)
    factors = batch["factors"].reshape(30, 20, 4)
    assert batch["x"].shape == (600, 1, 16, 16)
    assert (factors[:, :, k] == factors[:, :1, k]).all()
    assert len(factors[:, 0, k].unique()) == data.space.sizes[k]  # the shared value itself is drawn
    for other in set(range(4)) - {k}:
        assert (factors[:, :, other] != factors[:, :1, other]).any(1).all()
    if isinstance(data, ArrayData):  # pictures and factors stay together
        torch.testing.assert_close(toys.Dots().render(batch["factors"]), batch["x"])


# ---- stored arrays


@pytest.mark.parametrize("shape, wanted", [((5, 8, 8), (1, 8, 8)), ((5, 8, 8, 3), (3, 8, 8)), ((5, 3, 8, 8), (3, 8, 8)),
                                           ((5, 8, 8, 1), (1, 8, 8)), ((5, 1, 8, 9), (1, 8, 9))])  # fmt: skip
def test_arrays_of_every_layout(shape, wanted):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = ArrayData(images)
    batch = data.sample(400, rng())
    assert data.image_shape == wanted and batch["x"].shape == (400, *wanted) and set(batch) == {"x"}
    whole = data.rows(torch.arange(5))["x"]
    assert whole.dtype == torch.float32 and whole.max() <= 1
    np.testing.assert_allclose(whole.numpy().sum(), images.sum() / 255, rtol=1e-5)
    if shape[-1] in (1, 3):
        np.testing.assert_allclose(whole[2, 0], images[2, :, :, 0] / 255, rtol=1e-6)
    assert {tuple(x.flatten().tolist()) for x in batch["x"]} == {tuple(x.flatten().tolist()) for x in whole}


def test_arrays_name_their_factors():
    data = ArrayData(np.zeros((4, 8, 8), np.uint8), [[0, 1.5], [1, 2.5], [2, 1.5], [0, 2.5]])
    assert data.space == FactorSpace([Factor("f0", "category", (0.0, 1.0, 2.0)), Factor("f1", "real", (1.5, 2.5))])
    assert data.sample(3, rng())["factors"].shape == (3, 2)


def test_arrays_know_when_they_change():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    factors = np.arange(50)[:, None] % 5
    one = ArrayData(images, factors).fingerprint()
    assert one == ArrayData(images.copy(), factors).fingerprint()
    other = images.copy()
    other[31, 4, 4] ^= 1
    turned = images[::-1].copy(), factors[::-1].copy()
    for args in [(other, factors), (turned[0], factors), (images, turned[1]), (images,), (images, factors, None, "me")]:
        assert ArrayData(*args).fingerprint() != one


BLACK = np.zeros((4, 8, 8), np.uint8)


@pytest.mark.parametrize("make, message", [
    (lambda: ArrayData(BLACK.astype(np.int64)), "images must be uint8 or float, not torch.int64"),
    (lambda: ArrayData(BLACK + 200.0), "float images must lie in 0 ... 1, these reach from 200 to 200; divide by 255?"),
    (lambda: ArrayData(BLACK * np.nan), "float images must lie in 0 ... 1, these reach from nan to nan"),
    (lambda: ArrayData(BLACK[0]), r"images must be \(N, H, W\), \(N, H, W, C\) or \(N, C, H, W\), not \(8, 8\)"),
    (lambda: ArrayData(np.zeros((4, 8, 8, 2), np.uint8)), r"not \(4, 8, 8, 2\)"),
    (lambda: ArrayData(BLACK[:0]), "there are no images"),
    (lambda: ArrayData(BLACK, [1, 2, 3, 4]), r"factors must be \(4, K\), not \(4,\)"),
    (lambda: ArrayData(BLACK, [[1]]), r"factors must be \(4, K\), not \(1, 1\)"),
    (lambda: ArrayData(BLACK, [[np.nan]] * 4), "factors hold NaN or infinite values"),
    (lambda: ArrayData(BLACK, [[9, 0, 0]] * 4, SPACE), "factor 'kind' is 9, outside 0 ... 2"),
    (lambda: ArrayData(BLACK, space=SPACE), "a FactorSpace was given without factors"),
    (lambda: ArrayData(BLACK).sample_fixed(0, 2, rng()), "data set 'arrays' has no factors, so none can be held fixed"),
])  # fmt: skip
def test_arrays_say_what_was_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
