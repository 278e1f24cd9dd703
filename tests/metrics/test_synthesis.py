"""Zero-shot synthesis: oracles, copies, wrong names, what was held out, stored pictures."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
from metrics.block_oracles import APART, Laid

from disentkit.codes import Block, CodeSpace
from disentkit.data import combinations
from disentkit.data.base import ArrayData
from disentkit.data.factors import FactorSpace, category
from disentkit.data.groups import Groups
from disentkit.metrics import Synthesis, synthesise, zero_shot
from disentkit.metrics.synthesis import CAP, CHUNK, KEPT, psnr

NAMES = ["kind", "x", "y", "light"]
NAMED = {name: [name] for name in NAMES}
WRONG = {"kind": ["x"], "x": ["y"], "y": ["light"], "light": ["kind"]}


def dots(part="train"):
    return toys.Dots().with_law(combinations.held_out(toys.Dots.space, 0.25, part))


class Copy:
    """Everything in a block that is no attribute: whoever carries it is copied."""

    image_shape = toys.Dots.image_shape
    codes = CodeSpace([Block("picture", "map", image_shape), *(Block(name) for name in NAMES)])

    def encode(self, x):
        return F.pad(x.flatten(1), (0, len(NAMES)))

    def decode(self, codes):
        return self.codes.read(codes, "picture")


@pytest.fixture(scope="module")
def model():
    return Laid(NAMED)


@pytest.fixture(scope="module")
def oracle(model):
    return zero_shot(model, dots(), n=120)


def test_an_oracle_gets_the_cap(oracle):
    assert isinstance(oracle, Synthesis)
    assert oracle.mse == oracle.seen.mse == 0 and oracle.psnr == oracle.seen.psnr == oracle.rebuilt == CAP
    assert oracle.mses.shape == oracle.psnrs.shape == oracle.seen.psnrs.shape == (120,)
    assert oracle.settings == {"targets": 120, "seen": 120, "seed": 0, "carrier": "kind"}
    assert list(oracle.copies) == NAMES and oracle.best_copy == max(oracle.copies.values()) < 30
    assert oracle.copies[oracle.best_provider] == oracle.best_copy
    table = oracle.table()
    assert list(table.columns) == ["held out", "seen"] and table.loc["synthesis"].tolist() == [CAP, CAP]
    assert table.loc["copy of the x provider", "seen"] == oracle.seen.copies["x"]


def test_targets_are_held_out_and_providers_are_not(oracle, model):
    rule, space = dots().law.rule, toys.Dots.space
    for found, held in ((oracle, True), (oracle.seen, False)):
        assert found.targets.shape == (KEPT, 4) and found.providers.shape == (KEPT, 4, 1, 16, 16)
        assert (rule(found.targets) == held).all()
        assert torch.equal(found.truths, found.syntheses)
        assert torch.equal(found.truths, toys.Dots().render(found.targets))
        values = space.from_grid(model.sight.read(found.providers.flatten(0, 1))).reshape(KEPT, 4, 4)
        assert not rule(values.flatten(0, 1)).any()
        assert torch.equal(values == found.targets[:, None], torch.eye(4, dtype=torch.bool).expand(KEPT, 4, 4))


@pytest.mark.parametrize("carrier", [None, "x", "light"])
def test_copying_scores_what_the_copies_score(carrier):
    found = zero_shot(Copy(), dots(), n=CHUNK + 7, carrier=carrier)
    name = carrier or "kind"
    assert found.settings["carrier"] == name and found.rebuilt == CAP
    assert found.psnr == pytest.approx(found.copies[name]) and found.seen.psnr == pytest.approx(found.seen.copies[name])
    assert torch.equal(found.syntheses, found.providers[:, NAMES.index(name)])


def test_means_by_hand(oracle):
    """From the pictures kept, and PSNR by picture: above that of the mean error, by Jensen."""
    found = zero_shot(Copy(), dots(), n=KEPT)
    errors = [float(((a - b) ** 2).mean()) for a, b in zip(found.syntheses.double(), found.truths.double())]
    assert found.mses.tolist() == pytest.approx(errors) and found.mse == pytest.approx(np.mean(errors))
    assert found.psnr == pytest.approx(np.mean([-10 * math.log10(e) for e in errors]))
    assert found.psnr > -10 * math.log10(found.mse)
    copies = ((found.providers - found.truths[:, None]) ** 2).mean((2, 3, 4)).double()  # (n, m)
    assert list(found.copies.values()) == pytest.approx(psnr(copies).mean(0).tolist(), rel=1e-4)
    assert psnr(torch.tensor([0, 1e-9, 1e-6, 1e-3, 1])).tolist() == pytest.approx([60, 60, 60, 30, 0])


def test_wrong_names_score_low(oracle):
    wrong = zero_shot(Laid(WRONG), dots(), n=60)
    assert wrong.rebuilt == CAP and wrong.psnr < oracle.best_copy + 1  # the code is perfect, its names are not


def test_one_wrong_block_costs_something():
    """A decoder that takes x from a copy in the block of y puts the dot where y's provider has it."""
    found = zero_shot(Laid({"kind": ["kind"], "y": ["x", "y"], "x": ["x"], "light": ["light"]}), dots(), n=60)
    assert found.psnr < CAP - 20


def test_seeds_and_the_global_generator(model):
    before = torch.get_rng_state()
    a, b, c = (zero_shot(Copy(), dots(), n=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(a.mses, b.mses) and not torch.equal(a.mses, c.mses)
    assert torch.equal(before, torch.get_rng_state())


def test_synthesise_by_hand():
    model = toys.build("Groups").model  # blocks x and rest
    providers = torch.rand(5, 2, 1, 16, 16)
    with torch.no_grad():
        codes = [model.encode(providers[:, j]) for j in range(2)]
        wanted = model.decode(model.codes.swap(codes[1], codes[0], "x"))
    assert torch.allclose(synthesise(model, providers, ["x", "rest"]), wanted, atol=1e-6)
    assert torch.allclose(synthesise(model, providers, ["x", "rest"], carrier="rest"), wanted, atol=1e-6)
    assert torch.allclose(synthesise(model, providers.flip(1), ["rest", "x"]), wanted, atol=1e-6)
    with torch.no_grad():
        alone = model.decode(codes[0])
    assert torch.allclose(synthesise(model, providers[:, :1], ["x"]), alone, atol=1e-6)


def test_groups_are_measured_as_what_they_wrap(oracle, model):
    assert zero_shot(model, Groups(dots()), n=120).copies == oracle.copies


def test_stored_pictures(model):
    train, test = (dots(part).law.allowed(toys.Dots.space, "cpu") for part in ("train", "test"))
    train = torch.cat([train, train[:10]])  # some twice
    data, target = (ArrayData(toys.Dots().render(v), v, toys.Dots.space, "few") for v in (train, test))
    found = zero_shot(model, data, target, n=500)
    assert found.psnr == found.seen.psnr == CAP and found.best_copy < 30
    assert found.settings == {"targets": len(test), "seen": len(train), "seed": 0, "carrier": "kind"}
    assert zero_shot(Copy(), data, target, n=20).psnr < 30
    assert zero_shot(model, data, dots("test"), n=20).psnr == CAP  # stored providers, rendered targets
    with pytest.raises(ValueError, match="'few' holds stored pictures, and no law says .* give those as target="):
        zero_shot(model, data)


def test_targets_without_a_provider_are_left_out(model):
    """The brightest are seen at x = 3 only: no other picture shares with such a one the light, and not x as well."""
    law = combinations.unbalanced(toys.Dots.space, "light", "x", full=2, few=1)
    found = zero_shot(model, toys.Dots().with_law(law), n=60)
    assert found.settings["targets"] == 60 and (found.targets[:, 3] == 1).all() and found.psnr == CAP
    assert found.settings["seen"] < 60 and (found.seen.targets[:, 3] < 1).all() and found.seen.psnr == CAP
    assert found.note.endswith(f"; 0 and {60 - found.settings['seen']} more were left out, as for some attribute there "
                               "is no such picture")  # fmt: skip
    assert "more were left out" not in zero_shot(model, dots(), n=20).note
    values = torch.tensor([[0, 3, 3, 1.0], [1, 6, 6, 0.4]])
    with pytest.raises(ValueError, match="no picture that shares '.*' alone with"):
        zero_shot(model, ArrayData(toys.Dots().render(values), values, toys.Dots.space), dots("test"), n=5)


def test_bad_input(model):
    with pytest.raises(ValueError, match="no block is named after attribute 'kind'; this code has f1, f2, f3, f4"):
        zero_shot(Laid(APART), dots())
    with pytest.raises(ValueError, match="Dots has no encoder, so no block can come from a provider"):
        zero_shot(dots(), dots())
    with pytest.raises(ValueError, match="the carrier is one of kind, x, y, light, not 'hair'"):
        zero_shot(model, dots(), carrier="hair")
    with pytest.raises(ValueError, match="no combinations held out"):
        zero_shot(model, toys.Dots())
    with pytest.raises(ValueError, match="data set 'arrays' has none"):
        zero_shot(model, ArrayData(np.zeros((5, 16, 16), np.uint8)))
    other = ArrayData(np.zeros((2, 16, 16), np.uint8), [[0], [1]], FactorSpace([category("hair", "a", "b")]))
    with pytest.raises(ValueError, match=r"the targets are FactorSpace\(hair 2\) .* both must be alike"):
        zero_shot(model, dots(), other)
    with pytest.raises(ValueError, match="targets are drawn from a data set, not from str"):
        zero_shot(model, dots(), "test")
    with pytest.raises(ValueError, match="give run.model"):
        zero_shot(SimpleNamespace(model=model, card={}), dots())
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"):
        zero_shot(model, dots(), n=0)
    with pytest.raises(ValueError, match=r"are \(n, 2, C, H, W\), one per attribute, not \(3, 1, 1, 16, 16\)"):
        synthesise(model, torch.rand(3, 1, 1, 16, 16), ["x", "y"])
    with pytest.raises(ValueError, match=r"each attribute once, not \['x', 'x'\]"):
        synthesise(model, torch.rand(3, 2, 1, 16, 16), ["x", "x"])


def test_a_block_that_no_encoder_reads_and_broken_weights(model):
    class Blind(Copy):
        codes = CodeSpace([Block("picture", "map", (1, 16, 16)), *(Block(n, inferred=n != "y") for n in NAMES)])

    class Broken(Copy):
        def encode(self, x):
            return super().encode(x) * float("nan")

    class Dark(Copy):
        def decode(self, codes):
            return super().decode(codes) * float("nan")

    with pytest.raises(ValueError, match="pictures hold NaN or infinite numbers: its weights are broken"):
        zero_shot(Dark(), dots())
    with pytest.raises(ValueError, match="no encoder reads block 'y', so no provider can give it"):
        zero_shot(Blind(), dots())
    with pytest.raises(ValueError, match="codes hold NaN or infinite numbers: its weights are broken"):
        zero_shot(Broken(), dots())
