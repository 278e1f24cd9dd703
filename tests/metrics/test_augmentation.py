"""Augmentation: an oracle's synthesis is as good as true pictures, wrong names are not, and nothing leaks."""

import sys

import numpy as np
import pytest
import torch
import toys
from metrics.block_oracles import APART, Laid

from disentkit.data import combinations
from disentkit.data.base import ArrayData
from disentkit.metrics import augmentation
from disentkit.metrics.augmentation import SIDE, TESTED, WAYS, _parted, _pictures, _small, worn
from disentkit.metrics.synthesis import synthesise

SPACE = toys.Dots.space
DATA = toys.Dots().with_law(combinations.unbalanced(SPACE, "kind", "x", full=1, few=1))  # rings at x = 3 only
NAMED = {name: [name] for name in SPACE.names}
SMALL = {"attribute": "kind", "n": 200, "steps": 40, "seeds": 1}


@pytest.fixture(scope="module")
def model():
    return Laid(NAMED)


def test_an_oracle_is_as_good_as_the_truth(model):
    """Without help a ring elsewhere is called a dot; measured over seeds 0 ... 2: 0, 0, 0.90 and more, the same."""
    before = torch.get_rng_state()
    frame = augmentation(model, DATA, **SMALL)
    assert torch.equal(before, torch.get_rng_state())
    assert list(frame.index) == list(WAYS)
    assert list(frame.columns) == ["unseen", "unseen spread", "seen", "seen spread", "unseen 0", "seen 0"]
    assert frame.loc["gzs"].equals(frame.loc["true"].rename("gzs"))  # the same pictures, weights and mini-batches
    assert frame.loc["gzs", "unseen"] > frame.loc[["none", "classic"], "unseen"].max() + 0.5
    assert (frame[["unseen spread", "seen spread"]] == 0).all(axis=None)
    assert frame.attrs["settings"] == {
        "attribute": "kind", "pictures": 200, "shown": [200], "tested": TESTED, "steps": 40, "batch": 64,
        "seeds": 1, "seed": 0, "pixels": (16, 16), "chance": 0.5,
    }  # fmt: skip


def test_wrong_names_do_not_help():
    wrong = Laid({"kind": ["x"], "x": ["kind"], "y": ["y"], "light": ["light"]})  # rings are shown as dots
    frame = augmentation(wrong, DATA, **SMALL)
    assert frame.loc["true", "unseen"] > frame.loc["gzs", "unseen"] + 0.5


def test_seeds(model):
    a, b = (augmentation(model, DATA, **SMALL | {"steps": 3, "seeds": seeds, "n": 20}) for seeds in (1, 2))
    assert b["unseen 0"].equals(a["unseen 0"]) and b["seen 0"].equals(a["seen 0"])
    assert b["unseen"].to_numpy() == pytest.approx(b[["unseen 0", "unseen 1"]].mean(axis=1))
    assert b["seen spread"].to_numpy() == pytest.approx(np.abs(b["seen 0"] - b["seen 1"]) / 2)


def test_no_way_meets_a_test_picture(model, monkeypatch):
    rng, given = torch.Generator().manual_seed(0), []

    def noted(model, providers, *names):
        given.append(providers.flatten(0, 1))
        return synthesise(model, providers, *names)

    monkeypatch.setattr(sys.modules["disentkit.metrics.augmentation"], "synthesise", noted)
    parts = _pictures(model, DATA, combinations.unseen(DATA), 100, 3, rng)
    assert {kind: len(x) for kind, (x, _) in parts.items()} == {
        "real": 100, "true": 100, "gzs": 100, "seen": TESTED, "unseen": TESTED
    }  # fmt: skip
    tuples = {kind: model.sight.read(x) for kind, (x, _) in parts.items()}
    held = {kind: DATA.law.rule(SPACE.from_grid(idx)) for kind, idx in tuples.items()}
    assert held["true"].all() and held["gzs"].all() and held["unseen"].all()
    assert not held["real"].any() and not held["seen"].any()
    tuples["providers"] = model.sight.read(torch.cat(given))
    flat = {kind: set(SPACE.flat_of(idx).tolist()) for kind, idx in tuples.items()}
    assert not flat["real"] & flat["seen"] and not flat["true"] & flat["unseen"] and flat["gzs"] == flat["true"]
    assert len(tuples["providers"]) == 4 * 100 and flat["providers"] <= flat["real"]
    assert not flat["providers"] & (flat["seen"] | flat["unseen"])
    assert len(flat["real"]) == 48 and len(flat["true"]) == 18  # all of their parts
    assert all((tuples[kind][:, 3] == classes).all() for kind, (_, classes) in parts.items())


def test_targets_without_a_provider_are_not_shown(model):
    parts = _pictures(model, DATA, combinations.unseen(DATA), 12, 0, torch.Generator().manual_seed(0))
    (true, _), (made, classes) = parts["true"], parts["gzs"]
    assert len(parts["real"][0]) == 12 and 0 < len(true) == len(made) == len(classes) < 12
    assert torch.equal(true, made)
    with pytest.raises(ValueError, match="finds a provider for every attribute among 1 real pictures: give more, n"):
        augmentation(model, DATA, **SMALL | {"n": 1})


def test_parted():
    rng = torch.Generator().manual_seed(0)
    train, test = _parted(DATA, 1 / 5, 3000, rng)
    flat = [SPACE.flat_of(SPACE.to_grid(part)).unique() for part in (train, test)]
    assert [len(part) for part in flat] == [48, 12] and not torch.isin(*flat).any()
    for part, least in ((train, 62), (test, 83)):  # 3000 over 48, and TESTED over 12
        counts = part.unique(dim=0, return_counts=True)[1]
        assert counts.min() == least and counts.max() - least <= 1
    assert len(_parted(DATA, 1 / 5, 40, rng)[0].unique(dim=0)) == 40  # none twice before all were there
    one = toys.Dots().with_law(combinations.HeldOut(DATA.law.law, lambda v: SPACE.flat_of(SPACE.to_grid(v)) > 0))
    with pytest.raises(ValueError, match="a single combination cannot be parted"):
        _parted(one, 1 / 2, 5, rng)


def test_classic_ways():
    x = torch.linspace(0.2, 0.8, 24).expand(400, 3, 32, 24)  # dark on the left
    before = torch.get_rng_state()
    a, b, c = (worn(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == x.shape and 0 <= a.min() and a.max() <= 1
    off = (a - x).abs().flatten(1).mean(1)
    assert off.min() > 0.01 and off.mean() < 0.25
    assert (a[..., -3:].mean((1, 2, 3)) > a[..., :3].mean((1, 2, 3))).float().mean() > 0.95  # nothing is flipped
    assert ((a[:, 0] - a[:, 1]).abs().mean((1, 2)) < 0.1).all()  # no colour is changed
    dot = torch.zeros(400, 1, 32, 32)
    dot[:, :, 16, 16] = 1
    at = worn(dot, torch.Generator().manual_seed(0)).flatten(1).argmax(1)
    near = ((at // 32 - 16).abs() <= 4) & ((at % 32 - 16).abs() <= 4)
    assert near.float().mean() > 0.8 and len(at[near].unique()) > 60  # 81 shifts; the others are erased or outshone


def test_large_pictures_are_averaged_down():
    x = torch.rand(2, 3, 64, 48)
    assert torch.allclose(_small(x), torch.nn.functional.avg_pool2d(x, 2), atol=1e-6) and SIDE == 32
    assert _small(x[:, :, :32, :20]).shape == (2, 3, 32, 20)


def test_bad_input(model):
    with pytest.raises(ValueError, match="no factor 'identity'; there are kind, x, y, light"):
        augmentation(model, DATA)
    with pytest.raises(ValueError, match="no combinations held out"):
        augmentation(model, toys.Dots(), attribute="kind")
    with pytest.raises(ValueError, match="data set 'arrays' has none"):
        augmentation(model, ArrayData(np.zeros((5, 16, 16), np.uint8)))
    with pytest.raises(ValueError, match="no block is named after attribute 'kind'"):
        augmentation(Laid(APART), DATA, attribute="kind")
    with pytest.raises(ValueError, match="Dots has no encoder"):
        augmentation(DATA, DATA, attribute="kind")
    with pytest.raises(ValueError, match="augmentation asks for true pictures of any combination"):
        augmentation(model, ArrayData(torch.zeros(2, 1, 16, 16), SPACE.from_grid(torch.eye(4).long()[:2]), SPACE),
                     attribute="kind")  # fmt: skip
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        augmentation(model, DATA, **SMALL | {"steps": 0})
