"""GZS-Net on the data of its paper: dSprites, and files laid out as Fonts, iLab and RaFD are."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from disentkit import data, workbench
from disentkit.data.fonts import COLOURS
from disentkit.methods.gzsnet import GZSNet

SIDE = 32  # of the preset smoke


def test_groups_of_dsprites():
    groups = data.complete(data.load("dsprites", size=SIDE), ("group",))
    batch = groups.sample(50, torch.Generator().manual_seed(0))
    assert batch["group"].shape == (50, 7, 1, SIDE, SIDE) and len(groups.space) == 5
    factors = batch["group_factors"]
    shared = factors[:, 1:] == factors[:, :1]  # (50, 6, 5): five partners and a stranger
    assert torch.equal(shared, torch.cat([torch.eye(5), torch.zeros(1, 5)]).bool().expand(50, 6, 5))
    assert torch.equal(batch["group"][:, 0], batch["x"]) and torch.equal(factors[:, 0], batch["factors"])


def test_dsprites_has_the_layout_of_five_blocks_of_two():
    for preset in ("paper", "quick", "smoke"):
        settings = GZSNet.PRESETS[preset, "dsprites"]
        assert (settings.d, settings.d_first, settings.loss) == (2, 0, "BCE")


def write(folder, names):
    """Pictures of one colour each, another for each name."""
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), tuple(rng.integers(256, size=3).tolist())).save(path)


def toys():
    for kind, ground, turn in itertools.product(("bus", "car", "tank"), (1, 2, 3), (1, 2, 6)):
        yield f"{kind}-i0001-b{ground:04}-c00-r{turn:02}-l0-f1.png"


def faces():
    for pose, number, expression in itertools.product((0, 90, 180), (1, 2, 3), ("happy", "neutral", "surprised")):
        yield f"Rafd{pose:03}_{number:02}_Caucasian_female_{expression}_frontal.jpg"


def letters():
    three = [colour.replace("yellow", "Yellow") for colour in list(COLOURS)[:3]]
    for words in itertools.product("Aab", ("small", "large"), three, three, ("one", "two")):
        yield "/".join([*words, "_".join(words) + ".png"])


@pytest.mark.parametrize("name", ["dsprites", "ilab", "rafd", "fonts_folder"])
def test_a_smoke_step_on_each(tmp_path, quick_pictures, name):
    options = {}
    if name != "dsprites":
        write(tmp_path / "files", {"ilab": toys, "rafd": faces, "fonts_folder": letters}[name]())
        options = {"path": str(tmp_path / "files")}
    loaded = data.load(name, size=SIDE, **options)
    # By name where the method has presets for it; other data take those of a folder.
    which = {"data": loaded} if name == "fonts_folder" else {"data": name, "data_options": options}
    run = workbench.train(
        "gzsnet", **which, preset="smoke", steps=2, device="cpu", threads=1, bar=False, say=lambda text: None
    )
    assert run.model.codes.names == loaded.space.names and run.card["steps"] == 2
    assert np.isfinite(run.history.to_numpy(dtype=float)).all()
