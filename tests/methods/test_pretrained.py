"""The adapter of pytorch-pretrained-biggan: on its architecture with small random weights, and its errors."""

import sys

import pytest
import torch
from methods.family import draw, rng
from torch import nn

from disentkit import models
from disentkit.errors import UserError
from disentkit.methods import pretrained, walks
from disentkit.methods.directions import learn
from disentkit.methods.pretrained import PretrainedBigGAN, load

LAYERS = [(False, 16, 16), (True, 16, 8), (True, 8, 4), (False, 4, 2), (False, 2, 1)]


def small(classes: int = 1000, **other) -> nn.Module:
    """The package's BigGAN at 16 pixels with 6 latent numbers, weights and statistics drawn from one seed."""
    package = pytest.importorskip("pytorch_pretrained_biggan")
    settings = {"output_dim": 16, "z_dim": 6, "channel_width": 4, "layers": LAYERS, "attention_layer_position": 3}
    config = package.BigGANConfig(num_classes=classes, **(settings | other))
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        biggan = package.BigGAN(config)
        nn.init.normal_(biggan.embeddings.weight)
        for module in biggan.modules():
            if hasattr(module, "running_means"):
                module.running_means.normal_(0, 0.3)
                module.running_vars.uniform_(0.5, 1.5)
        for part, start in ((biggan.generator.bn.weight, nn.init.ones_), (biggan.generator.bn.bias, nn.init.zeros_)):
            start(part)  # the package leaves them as the memory was
        nn.init.normal_(biggan.generator.gen_z.bias)
        with torch.no_grad():
            for _ in range(5):  # the spectral norms look for their largest singular value
                biggan.train()(torch.randn(1, config.z_dim), torch.eye(classes)[:1], 1.0)
    return biggan


def test_it_is_a_model_that_draws_what_the_package_draws():
    biggan = small()
    model = PretrainedBigGAN(biggan, truncation=0.6)
    assert isinstance(model, models.Model) and not models.can_encode(model)
    assert [(block.name, block.kind, block.shape) for block in model.codes] == [
        ("class", "onehot", (1000,)), ("z", "gaussian", (6,)),
    ]  # fmt: skip
    assert model.image_shape == (3, 16, 16)
    words = model.codes["class"].labels
    assert words[0] == "0" and words[14] == "14 indigo bunting" and words[992] == "992 agaric" and len(words) == 1000

    codes = model.prior(3, rng())
    with torch.no_grad():
        images = biggan(0.6 * codes[:, 1000:], codes[:, :1000], 0.6)  # in [-1, 1]
    torch.testing.assert_close(models.decode(model, codes), (images + 1) / 2)
    assert images.std(0).mean() > 0.01
    assert all(torch.equal(block.write(codes, block.read(codes)), codes) for block in model.codes)
    other = PretrainedBigGAN(biggan, truncation=1.0)
    assert not torch.allclose(models.decode(other, codes), models.decode(model, codes), atol=1e-3)


def test_its_prior_is_cut_off():
    model = PretrainedBigGAN(small(classes=3))
    codes = model.prior(4000, rng())
    e = model.codes.read(codes, "z")
    assert e.abs().max() <= 2 and e.abs().max() > 1.95 and abs(float(e.mean())) < 0.02
    assert float(e.var()) == pytest.approx(0.774, abs=0.02)  # of N(0, 1) between -2 and 2
    share = model.codes.read(codes, "class").mean(0)
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    assert torch.equal(codes, model.prior(4000, rng())) and model.codes["class"].labels == ("0", "1", "2")


def test_it_stays_as_it_was_trained():
    model = PretrainedBigGAN(small(classes=3)).train()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    codes = model.prior(2, rng()).requires_grad_()
    model.decode(codes).sum().backward()
    assert codes.grad[:, 3:].abs().min() > 0 and all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("label", [None, 2])
def test_first_layer_makes_the_first_map(label):
    biggan = small(classes=3)
    model, seen = PretrainedBigGAN(biggan), []
    W, b, shape = model.first_layer(label)
    # What the first block reads is the map itself, in the order of channels, rows, columns.
    biggan.generator.layers[0].register_forward_hook(lambda module, given, out: seen.append(given[0]))
    codes = model.prior(5, rng())
    codes[:, :3] = torch.full((3,), 1 / 3) if label is None else torch.eye(3)[label]
    models.decode(model, codes)
    assert seen[0].shape[1:] == shape == (64, 4, 4)
    torch.testing.assert_close(seen[0].flatten(1), codes[:, 3:] @ W.T + b, atol=1e-4, rtol=1e-4)


def test_the_weights_of_z_are_those_it_meets():
    biggan = small(classes=3)
    model = PretrainedBigGAN(biggan)
    A = model.level_weights()["z"]
    W, _, _ = model.first_layer()
    first, rest = A[: len(W)], A[len(W) :]
    torch.testing.assert_close(first.T @ first, W.T @ W / model.truncation**2, atol=1e-3, rtol=1e-4)  # any order
    norms = [norm for layer in biggan.generator.layers for norm in layer.children() if hasattr(norm, "scale")]
    read = torch.cat([part for norm in norms for part in (norm.scale(draw(1, 12)), norm.offset(draw(1, 12)))], dim=1)
    without = torch.cat([draw(1, 12)[:, :6] * 0, draw(1, 12)[:, 6:]], dim=1)
    still = torch.cat([part for norm in norms for part in (norm.scale(without), norm.offset(without))], dim=1)
    torch.testing.assert_close((read - still)[0], rest @ draw(1, 12)[0, :6], atol=1e-4, rtol=1e-4)


def test_directions_and_baselines_run_on_it():
    model = PretrainedBigGAN(small(classes=3))
    steered = learn(model, ["x", "brightness"], batch=8, levels=2, steps=6)
    found = [torch.tensor(d.u) for d in steered.directions.values()]
    found += [walks.closed_form_direction(model, "y"), walks.linear_walk(model, "zoom", steps=2), *walks.sefa(model, 2)]
    for u in [*found, *walks.ganspace(model, 2, n=50)]:
        assert (u[:3] == 0).all() and float(u.norm()) == pytest.approx(1, abs=1e-4)
    assert steered.codes.names == ("class", "z", "x", "brightness")
    codes = steered.prior(2, rng())
    moved = steered.codes.write(codes, "brightness", steered.codes.read(codes, "brightness") + 0.1)
    assert models.decode(steered, moved).shape == (2, 3, 16, 16)
    assert (models.decode(steered, moved) - models.decode(steered, codes)).abs().max() > 0


@pytest.mark.parametrize("truncation, message", [
    (0.41, "no statistics for truncation 0.41; the nearest that it has is 0.4"),
    (0.58, "no statistics for truncation 0.58; the nearest that it has is 0.6"),
    (1.2, "the nearest that it has is 1"),
    (0, "truncation must be a finite number above 0, not 0"),
    (float("nan"), "truncation must be a finite number above 0, not nan"),
])  # fmt: skip
def test_a_truncation_without_statistics_is_refused(truncation, message):
    with pytest.raises(UserError, match=message):
        PretrainedBigGAN(small(classes=3), truncation)


def test_every_truncation_it_takes_meets_its_own_statistics():
    biggan = small(classes=3)
    bn = biggan.generator.bn
    taken = []
    for k in range(1, 51):
        try:
            taken.append((k, PretrainedBigGAN(biggan, round(k * 0.02, 2)).truncation))
        except UserError:
            continue
    assert len(taken) == 46
    x = torch.zeros(1, 4, 1, 1)
    for k, truncation in taken:
        meant = -bn.running_means[k] / (bn.running_vars[k] + bn.eps).sqrt()
        torch.testing.assert_close(bn(x, truncation)[0, :, 0, 0], meant)


def test_a_configuration_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="layers draw 16 pixels, but its configuration says 128"):
        PretrainedBigGAN(small(classes=3, output_dim=128))


# ---- load


@pytest.fixture
def folder(tmp_path):
    biggan = small(classes=3)
    torch.save(biggan.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(biggan.config.to_json_string())
    return tmp_path


def test_a_folder_is_loaded(folder):
    model, same = load(folder, truncation=0.5), PretrainedBigGAN(small(classes=3), 0.5)
    codes = model.prior(2, rng())
    torch.testing.assert_close(models.decode(model, codes), models.decode(same, codes))
    assert model.truncation == 0.5


def test_a_folder_that_holds_no_model_is_refused(folder):
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no BigGAN that the package reads"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="holds no config.json; a BigGAN is both, pytorch_model.bin and config.json"):
        load(folder)


def test_without_a_network_it_says_which_files_to_put_where(monkeypatch, tmp_path, caplog):
    pytest.importorskip("pytorch_pretrained_biggan")
    import requests

    def offline(*args, **options):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", offline)
    with pytest.raises(UserError) as error:
        load("biggan-deep-256", cache=tmp_path)
    line = str(error.value)
    assert line.startswith("the weights of biggan-deep-256 cannot be fetched (no route to host); put https://")
    assert "biggan-deep-256-pytorch_model.bin as pytorch_model.bin" in line and "config.json as config.json" in line
    assert "\n" not in line and not caplog.records


def test_unknown_names_and_a_missing_package_are_one_line(monkeypatch):
    pytest.importorskip("pytorch_pretrained_biggan")
    with pytest.raises(UserError, match="unknown BigGAN 'biggan-128'. Did you mean 'biggan-deep-128'"):
        load("biggan-128")
    with pytest.raises(UserError, match="no statistics for truncation 0.41"):
        load("biggan-deep-128", truncation=0.41)  # before anything is fetched


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_pretrained_biggan", None)
    with pytest.raises(UserError, match=r"package is not installed .*: pip install 'disentkit\[biggan\]'"):
        load()
    assert pretrained.NAMES[0] == "biggan-deep-128"
