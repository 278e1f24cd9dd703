"""Models outside training: frozen restores all it changes; encode and decode work in batches and check their input."""

import pytest
import torch
import toys
from torch import nn

from disentkit import models
from disentkit.codes import gaussian_blocks


class Plain:
    """Three lines of a user's: no module, no encoder."""

    codes, image_shape = gaussian_blocks(2), (1, 2, 2)

    def decode(self, codes):
        return codes.sigmoid().repeat(1, 2).reshape(-1, 1, 2, 2)


def x(n: int) -> torch.Tensor:
    return toys.Dots().sample(n, torch.Generator().manual_seed(0))["x"]


def coder() -> toys.Coder:
    """A model with batch norm, in mixed modes."""
    model = toys.build("EMA").average
    model.train()
    model.decoder[1].eval()
    return model


def state(model) -> list:
    return [[m.training for m in model.modules()], torch.get_num_threads(), torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"), {k: v.clone() for k, v in model.state_dict().items()}]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_restores_everything(fails):
    model = coder()
    old = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.autocast("cpu", torch.bfloat16):
            before = state(model)
            try:
                with models.frozen(model) as inside:
                    assert inside is model
                    assert not any(m.training for m in model.modules())
                    assert torch.get_num_threads() == 1 and not torch.is_grad_enabled()
                    out = model.decode(torch.randn(4, 4))
                    assert out.dtype == torch.float32 and not out.requires_grad
                    if fails:
                        raise KeyError("boom")
            except KeyError:
                assert fails
            assert toys.same(before, state(model)) == ""  # also the running means of batch norm
    finally:
        torch.set_num_threads(old)


def test_batches_make_no_difference():
    model = coder()
    codes = models.encode(model, x(25), batch=4)
    torch.testing.assert_close(codes, models.encode(model, x(25)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(models.decode(model, codes, batch=7), models.decode(model, codes), rtol=1e-4, atol=1e-6)
    assert models.decode(model, codes).shape == (25, 1, 16, 16)
    assert models.encode(model, x(25)[:0]).shape == (0, 4)


def test_posterior_in_batches():
    from disentkit.methods.vae import GaussianVAE

    with torch.random.fork_rng(devices=[]):
        model = GaussianVAE((1, 16, 16), d=3, fc=8)
    mu, logvar = models.posterior(model, x(9), batch=4)
    assert mu.shape == logvar.shape == (9, 3)
    assert torch.equal(mu, models.encode(model, x(9), batch=4)) and not torch.equal(mu, logvar)


def test_a_users_own_model():
    model = Plain()
    assert isinstance(model, models.Model) and not isinstance(object(), models.Model)
    assert not models.can_encode(model) and models.device_of(model) == torch.device("cpu")
    assert models.decode(model, torch.zeros(3, 2)).eq(0.5).all()


@pytest.mark.parametrize("call, message", [
    (lambda: models.encode(Plain(), torch.zeros(1, 1, 2, 2)), "Plain has no encoder, so no code can be read"),
    (lambda: models.encode(coder(), torch.zeros(1, 3, 16, 16)), r"reads images \(N, 1, 16, 16\), not \(1, 3, 16"),
    (lambda: models.encode(coder(), torch.zeros(1, 16, 16)), r"reads images \(N, 1, 16, 16\), not \(1, 16, 16\)"),
    (lambda: models.encode(coder(), torch.full((1, 1, 16, 16), 255.0)), "these reach from 255 to 255; divide by 255"),
    (lambda: models.encode(coder(), torch.full((1, 1, 16, 16), torch.nan)), "images must lie in 0 ... 1, these reach"),
    (lambda: models.encode(coder(), "cat.png"), "images must be a tensor or an array, not str"),
    (lambda: models.decode(Plain(), "z"), "codes must be a tensor or an array, not str"),
    (lambda: models.decode(Plain(), torch.zeros(1, 3)), r"codes must be \(N, 2\), not \(1, 3\)"),
])  # fmt: skip
def test_errors_say_what_was_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_encode_takes_numpy_bytes_and_doubles():
    model, x = coder(), torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    wanted = models.encode(model, x.float() / 255)
    for same in (x, x.numpy(), x.double() / 255, x.numpy() / 255.0):
        torch.testing.assert_close(models.encode(model, same), wanted)
    assert torch.equal(models.decode(model, wanted.double().numpy()), models.decode(model, wanted))


# ---- learners


@pytest.mark.parametrize("name, wanted", [
    ("Toy", {"coder.encoder", "coder.decoder"}),
    ("TwoDraws", {"coder.encoder", "coder.decoder", "D"}),
    ("EMA", {"coder.encoder", "coder.decoder", "average.encoder", "average.decoder"}),
])  # fmt: skip
def test_networks_are_what_forward_runs(name, wanted):
    learner = toys.build(name)
    networks = learner.networks()
    assert set(networks) == wanted
    assert all(learner.get_submodule(path) is net for path, net in networks.items())
    learner.again = learner.coder.encoder  # a net that two names share is there once
    assert len(learner.networks()) == len(wanted)


@pytest.mark.parametrize("call, message", [
    (lambda learner: learner.model, "Learner must offer the model"),
    (lambda learner: learner.optimizers(), "Learner must offer its optimisers"),
    (lambda learner: learner.step({}), "Learner must write its step"),
])  # fmt: skip
def test_unwritten_parts_say_so(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call(models.Learner(None, None))


def test_adam_is_one_kernel():
    opt = models.adam(nn.Linear(2, 2).parameters(), 0.1, betas=(0.5, 0.9))
    group = opt.param_groups[0]
    assert group["fused"] and (group["lr"], group["betas"], group["eps"]) == (0.1, (0.5, 0.9), 1e-8)
