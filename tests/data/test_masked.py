"""Masks beside the pictures: those of the same pictures, on request, and the data otherwise as they were."""

import pytest
import torch

from disentkit import data
from disentkit.data.base import Renderer
from disentkit.data.dsprites import DSprites
from disentkit.data.masked import Masked
from disentkit.data.scenes import SPACE, Scenes, Tied


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Bars(Renderer):
    """Its masks are its pictures."""

    name, image_shape, space = "bars", (1, 4, 4), SPACE

    def render(self, values):
        return values[:, 1:2, None, None].expand(-1, 1, 4, 4)

    mask = render


def test_masks_are_those_of_the_pictures_that_came():
    plain = Scenes(32, Tied("y", "horizon", 0.5))
    masked = Masked(plain)
    batch, before = masked.sample(7, generator()), plain.sample(7, generator())
    assert set(batch) == {"x", "factors", "mask"}
    assert batch["mask"].shape == (7, 1, 32, 32) and batch["mask"].dtype == torch.float32
    assert torch.equal(batch["x"], before["x"]) and torch.equal(batch["factors"], before["factors"])
    assert torch.equal(batch["mask"], plain.mask(batch["factors"])) and batch["mask"].amax((1, 2, 3)).min() == 1
    rows = masked.sample_fixed(2, 3, generator(), groups=2)
    assert torch.equal(rows["mask"], plain.mask(rows["factors"])) and rows["factors"][:, 2].unique().numel() == 2


def test_everything_else_is_that_of_the_data():
    plain = Scenes(32, Tied("y", "horizon", 0.5))
    masked = Masked(plain)
    assert (masked.name, masked.space, masked.spec, masked.law) == (plain.name, plain.space, plain.spec, plain.law)
    assert masked.fingerprint() == plain.fingerprint() and repr(masked) == f"Masked({plain})"
    moved = masked.to("meta")
    assert moved.device.type == moved.data.device.type == "meta" and masked.data.device.type == "cpu"


def test_a_learner_that_reads_masks_gets_them():
    found = data.complete(data.load("scenes", size=32), ("x", "mask"))
    assert isinstance(found, Masked) and "mask" in found.sample(1, generator())
    assert data.complete(found, ("mask",)) is found, "they are there already"
    plain = Scenes(32)
    assert data.complete(plain, ("x", "factors")) is plain
    assert torch.equal(Masked(Bars(), "mask").sample(3, generator())["mask"][:, 0, 0, 0], Bars().sample(
        3, generator())["factors"][:, 1])  # fmt: skip


def test_bad_input():
    with pytest.raises(ValueError, match="'dsprites' has no masks of its pictures; scenes and creatures have"):
        data.complete(DSprites(), ("mask",))
    with pytest.raises(ValueError, match="no key 'depth'; there are mask"):
        Masked(Scenes(32), ("mask", "depth"))
