"""Held-out combinations: which tuples are held out, that none leaks, and rules that can be turned around."""

import math
import pickle

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from disentkit.data import combinations
from disentkit.data.base import ArrayData
from disentkit.data.combinations import Scattered, every, held_out, unbalanced, unseen
from disentkit.data.factors import Factor, FactorSpace, category
from disentkit.data.laws import Correlated, Grid, HeldOut, draw_fixed

SPACE = FactorSpace([category("letter", *"abcdef"), category("ink", *"rgbyw"), category("ground", *"rgbyw"),
                     Factor("size", "real", (0.5, 1.0, 2.0, 4.0)),
                     Factor("turn", "cyclic", tuple(range(0, 360, 30)))])  # fmt: skip
GRID = SPACE.from_grid(SPACE.tuple_of(torch.arange(SPACE.grid_size)))  # 7,200 tuples
LARGE = FactorSpace(Factor(f"f{k}", "real", tuple(range(8))) for k in range(8))  # 16.8 million


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_colour(values):
    return values[:, 1] == values[:, 2]


def law_of(part: str, never=same_colour):
    return held_out(SPACE, 0.2, part, never)


# ---- what is held out


@pytest.mark.parametrize("make", [
    law_of, lambda part: unbalanced(SPACE, "letter", "turn", 3, 4, part, same_colour),
], ids=["scattered", "unbalanced"])  # fmt: skip
def test_the_parts_share_out_the_grid(make):
    drawn = {part: ~make(part).rule(GRID) for part in ("train", "test", "all")}
    assert not (drawn["train"] & drawn["test"]).any()
    assert torch.equal(drawn["train"] | drawn["test"], drawn["all"])
    assert torch.equal(drawn["all"], ~same_colour(GRID))  # what does not exist is in no part
    for part, wanted in drawn.items():
        values = make(part).draw(SPACE, 20_000, rng())
        found = SPACE.flat_of(SPACE.to_grid(values))
        assert wanted[found].all() and torch.equal(SPACE.from_grid(SPACE.to_grid(values)), values)
        assert len(found.unique()) > 0.9 * wanted.sum()  # and all of it comes


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_that_of_so_many_tosses(share):
    """A hash promises no exact share: within 4.5 standard deviations of a binomial, per seed and per value."""
    found = torch.stack([held_out(SPACE, share, seed=seed).rule(GRID) for seed in range(20)])  # (20, 7200)
    off = (found.double().mean(1) - share).abs() / math.sqrt(share * (1 - share) / len(GRID))
    assert off.max() < 4.5 and off.max() > 0.5  # neither biased nor even
    for k in range(len(SPACE)):
        for value in GRID[:, k].unique():
            part = found[0][GRID[:, k] == value].double()
            assert abs(part.mean() - share) < 4.5 * math.sqrt(share * (1 - share) / len(part))
    both = (found[0] & found[1:]).double().mean(1)  # seeds have nothing to do with each other
    assert (both - share**2).abs().max() < 4.5 * share / math.sqrt(len(GRID))


def test_neighbours_in_the_grid_have_nothing_in_common():
    held = held_out(SPACE, 0.2).rule(GRID).double()
    for step in (1, 2, 12, 48, 240, 1200):  # neighbours along each axis
        assert abs((held[step:] * held[:-step]).mean() - 0.04) < 4.5 * 0.2 / math.sqrt(len(held) - step)


def by_hand(position: int, seed: int) -> int:
    """The hash in plain integers."""
    mixed = 0x9E3779B9
    for part in (seed % 2**32, position % 2**32, position // 2**32):
        mixed ^= part
        for _ in range(3):
            mixed = ((mixed // 2**16) ^ mixed) * 0x45D9F3B % 2**32
        mixed ^= mixed // 2**16
    return mixed


def test_the_hash_is_the_same_everywhere():
    position = torch.tensor([0, 1, 2, 7199, 2**31, 2**32 - 1, 2**32, 10**15])
    for seed in (0, 1, 2**31 + 5, -1):
        assert combinations._hash(position, seed).tolist() == [by_hand(p, seed) for p in position.tolist()]
    # Written down once: a split that is another one tomorrow is no split.
    assert held_out(SPACE, 0.2).rule(GRID[:60]).nonzero()[:, 0].tolist() == PINNED


PINNED = [1, 18, 21, 25, 36, 37, 42, 43, 48, 49, 53, 59]


def test_unbalanced_is_what_it_says():
    rule = unbalanced(SPACE, "letter", "turn", full=4, few=2).rule
    letter, turn = SPACE.to_grid(GRID)[:, 0], SPACE.to_grid(GRID)[:, 4]
    assert torch.equal(rule(GRID), (letter >= 4) & (turn >= 2))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.floats(-9, 9, width=16), min_size=1, max_size=5, unique=True), min_size=1, max_size=3),
       st.integers(0, 99))  # fmt: skip
def test_nearest_grid_values_as_the_space_finds_them(axes, seed):
    space = FactorSpace(Factor(f"f{k}", "real", tuple(sorted(axis))) for k, axis in enumerate(axes))
    values = 20 * torch.rand(50, len(space), generator=rng(seed)) - 10
    assert torch.equal(combinations.grid_of(space, values), space.to_grid(values))
    exact = space.from_grid(space.draw_grid(50, rng(seed)))
    assert torch.equal(combinations.grid_of(space, exact), space.to_grid(exact))


# ---- the other part


class Inks(toys.Dots):
    space, image_shape, name = SPACE, (1, 1, 5), "inks"

    def render(self, values):
        return values[:, None, None] / 360


def test_unseen_draws_what_training_does_not():
    data = Inks().with_law(law_of("train"))
    other = unseen(data)
    assert type(other) is Inks and torch.equal(other.law.rule(GRID), law_of("test").rule(GRID))
    assert data.law.rule.part == "train"  # the data themselves stay as they were
    few = Inks().with_law(unbalanced(SPACE, "letter", "turn", 3, 4, never=same_colour))
    idx = SPACE.to_grid(unseen(few).law.draw(SPACE, 500, rng()))
    assert (idx[:, 0] >= 3).all() and (idx[:, 4] >= 4).all() and (idx[:, 1] != idx[:, 2]).all()


@pytest.mark.parametrize("make, message", [
    (lambda: Inks(), "data set 'inks' has no combinations held out by `held_out` or `unbalanced`"),
    (lambda: Inks().with_law(Correlated("ink", "size", 0.5)), "'inks' has no combinations held out"),
    (lambda: Inks().with_law(HeldOut(Grid(), same_colour)), "'inks' has no combinations held out"),
    (lambda: ArrayData(torch.zeros(3, 4, 4)), "data set 'arrays' has no combinations held out"),
    (lambda: Inks().with_law(law_of("all")), "data set 'inks' holds no combination out: take its part 'train'"),
    (lambda: Inks().with_law(law_of("test")), "'inks' draws only held-out combinations already: give the part 'train'"),
    (lambda: Inks().with_law(held_out(SPACE, 0)), "no combination is held out by Scattered"),
])  # fmt: skip
def test_unseen_needs_something_held_out(make, message):
    with pytest.raises(ValueError, match=message):
        unseen(make())


def test_rules_can_be_pickled_and_read():
    for law in (law_of("train"), unbalanced(SPACE, "letter", "turn", 3, 4, "test", same_colour)):
        law.draw(SPACE, 5, rng())
        text = pickle.dumps(law)
        again = pickle.loads(text)
        assert again == law and hash(again) == hash(law) and repr(again) == repr(law) and "0x" not in repr(law)
        assert len(text) < 5000  # the listed tuples are not in it
        assert torch.equal(again.draw(SPACE, 99, rng()), law.draw(SPACE, 99, rng()))
    assert repr(law_of("train")) == "HeldOut(Grid(), Scattered(share 0.2, seed 0), part train, never same_colour)"
    other = [held_out(SPACE, 0.2, seed=1), held_out(SPACE, 0.3), held_out(SPACE, 0.2, "test"), law_of("train", None)]
    assert all(law != law_of("train") for law in other)
    prints = {Inks().with_law(law).fingerprint() for law in [law_of("train"), *other]}
    assert len(prints) == 5


def test_a_factor_can_be_held_fixed():
    data = Inks().with_law(law_of("train"))
    factors = data.sample_fixed(3, 10, rng(), groups=200)["factors"]
    assert not data.law.rule(factors).any()
    assert (factors.reshape(200, 10, 5)[:, :, 3] == factors.reshape(200, 10, 5)[:, :1, 3]).all()


# ---- large grids


def test_a_large_grid_is_never_listed(monkeypatch):
    law = held_out(LARGE, 0.2)
    monkeypatch.setattr(FactorSpace, "tuple_of", None)
    values = {part: held_out_quickly(LARGE, part).draw(LARGE, 5000, rng()) for part in ("train", "test", "all")}
    rule = law.rule
    assert (
        not rule(values["train"]).any()
        and rule(values["test"]).all()
        and 0.1 < rule(values["all"]).float().mean() < 0.3
    )
    assert not torch.equal(values["train"][:99], values["all"][:99]) and not law._allowed
    for call in (lambda: draw_fixed(law, LARGE, 0, 5, rng()), lambda: law.allowed(LARGE, "cpu")):
        with pytest.raises(
            ValueError, match="a grid of 16,777,216 tuples is too large to list those that a rule leaves"
        ):
            call()


def held_out_quickly(space, part):
    """The law without the check at its making."""
    return combinations.Combinations(Grid(), Scattered(space=space, part=part))


def test_drawn_again_or_listed_is_the_same_law(monkeypatch):
    counts = []
    for listed in (10**6, 10):
        monkeypatch.setattr(combinations, "LISTED", listed)
        law = law_of("train")
        assert bool(law._allowed) is False
        drawn = SPACE.flat_of(SPACE.to_grid(law.draw(SPACE, 60_000, rng())))
        counts.append(torch.bincount(drawn, minlength=SPACE.grid_size).double())
    left = ~law_of("train").rule(GRID)
    for count in counts:  # uniform over what is left: chi-square, its mean the degrees of freedom
        wanted = 60_000 / left.sum()
        chi2, free = (((count - wanted) ** 2)[left] / wanted).sum(), left.sum() - 1
        assert count[~left].sum() == 0 and abs(chi2 - free) < 4.5 * math.sqrt(2 * free)


# ---- what cannot be


@pytest.mark.parametrize("make, message", [
    (lambda: held_out(SPACE, 1.0), "share must lie in 0 ... 1, and 1 itself leaves nothing to train on, not 1.0"),
    (lambda: held_out(SPACE, -0.1), "share must lie in 0 ... 1"),
    (lambda: held_out(SPACE, part="valid"), "unknown part 'valid'; there are train, test, all"),
    (lambda: held_out(SPACE, 0.0, "test"), r"no combination is held out by Scattered\(share 0, seed 0\), part test"),
    (lambda: held_out(SPACE, never=lambda v: v[:, 0] == 1), "the held-out rule leaves no picture with letter 'b'"),
    (lambda: held_out(SPACE, never=lambda v: v[:, 3] == 2), "the held-out rule leaves no picture with size 2"),
    (lambda: held_out(SPACE, 0.2, "test", lambda v: v[:, 0] == 1), "leaves no picture with letter 'b'"),
    (lambda: held_out(SPACE, 0.9999), "the held-out rule leaves no picture with letter '.'"),
    (lambda: held_out(LARGE, never=lambda v: v[:, 7] == 3), "the held-out rule leaves no picture with f7 3"),
    (lambda: unbalanced(SPACE, "letter", "letter", 1, 1), "needs two factors, not 'letter' twice"),
    (lambda: unbalanced(SPACE, "letter", "tilt", 1, 1), "no factor 'tilt'; there are letter, ink"),
    (lambda: unbalanced(SPACE, "letter", "turn", 7, 1), "full must lie in 1 ... 6, the values of 'letter', not 7"),
    (lambda: unbalanced(SPACE, "letter", "turn", 0, 1), "full must lie in 1 ... 6"),
    (lambda: unbalanced(SPACE, "letter", "turn", 1, 13), "few must lie in 1 ... 12, the values of 'turn', not 13"),
    (lambda: unbalanced(SPACE, "letter", "turn", 6, 1, "test"), "no combination is held out by Unbalanced"),
    (lambda: combinations.Rule(space=SPACE).held(GRID), None),
])  # fmt: skip
def test_rules_say_what_was_wrong(make, message):
    with pytest.raises(ValueError if message else NotImplementedError, match=message or "must write held"):
        make()


def test_every_draws_what_is_held_out_as_well():
    data = toys.Dots().with_law(held_out(toys.Dots.space, 0.4))
    assert len(data.law.allowed(data.space, "cpu")) < data.space.grid_size
    assert len(every(data).law.allowed(data.space, "cpu")) == data.space.grid_size
    assert every(toys.Dots()).law == toys.Dots().law
