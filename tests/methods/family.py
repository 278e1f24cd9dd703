"""What the tests of the VAE family share: small learners on 16 pixels, and the laws of the house that all must keep."""

import torch
import toys
from test_toys import global_states, like_a_capture

from disentkit.data.base import Spec
from disentkit.machine import seeded
from disentkit.models import Learner


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed))


def posteriors(m: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes z ~ q(z|x), mu and logvar, (m, d) each: posteriors that overlap in part."""
    mu, logvar = draw(m, d, seed=seed), draw(m, d, seed=seed + 1) - 2
    return mu + (logvar / 2).exp() * draw(m, d, seed=seed + 2), mu, logvar


def batch(seed: int = 0, n: int = 8) -> dict:
    return {"x": torch.rand(n, 1, 16, 16, generator=rng(seed))}


def weights(net) -> list:
    return [p.detach().clone() for p in net.parameters()]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def build(cls: type[Learner], settings) -> Learner:
    """The learner with the weights of seed 0, on 16 pixels; its own draws come from `rng(7)`."""
    with seeded(0):
        learner = cls(settings, Spec((1, 16, 16)))
    learner.rng = rng(7)
    return learner


def one_step_down(learner: Learner, x: torch.Tensor, objective) -> dict:
    """Takes a step and compares the gradients with those of `objective(mu, logvar, z, logits) -> loss`, hand-written.

    Only for learners that draw nothing but the codes' noise. Returns the losses of the step.
    """
    model = learner.vae
    noise = torch.randn(len(x), learner.settings.d, generator=rng(7))
    mu, logvar = model.encoder(x).chunk(2, dim=1)
    z = mu + (logvar / 2).exp() * noise
    wanted = torch.autograd.grad(objective(mu, logvar, z, model.decoder(z)), list(model.parameters()))
    losses = learner.step(learner.optimizers(), {"x": x})
    for p, g in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-4)
    return losses


def keeps_the_laws(cls: type[Learner], settings) -> None:
    """A step reads nothing back to the host and leaves the global generators alone; they have no say; same seed, same
    numbers; a training that is cut off and resumed is bit-identical; presets can be built and have a code to read."""
    learner = build(cls, settings)
    opt, batches = learner.optimizers(), [batch(i) for i in range(learner.draws)]
    learner.step(opt, *batches)
    with like_a_capture():
        losses = learner.step(opt, *batches)
    assert losses and all(v.ndim <= 1 and not v.requires_grad and v.isfinite().all() for v in losses.values())

    before = global_states()
    results = []
    for seed, stray in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stray)
            results.append(toys.fit(build(cls, settings), steps=3, seed=seed)[1])
    assert toys.same(before, global_states()) == ""
    assert toys.same(results[0], results[1]) == "" and toys.same(results[0], results[2]) != ""

    for (preset, data), preset_settings in cls.PRESETS.items():
        assert (preset_settings.size <= 32) == (preset in ("smoke", "quick"))
        if data == "shapes3d":
            assert (preset_settings.d, preset_settings.fc) == (6, 256)


def resumes(cls: type[Learner], settings, folder) -> None:
    """Cut off at step 2 of 5 and resumed, the numbers are those of the training in one go."""

    class Stop(Exception):
        pass

    def stop(step, rows, learner):
        if step == 2:
            raise Stop

    _, whole = toys.fit(build(cls, settings), steps=5)
    often = {"folder": folder, "checkpoint_seconds": 0, "watch_seconds": 0}
    try:
        toys.fit(build(cls, settings), steps=5, watch=stop, **often)
        raise AssertionError("the training was not cut off")
    except Stop:
        pass
    fitted, resumed = toys.fit(build(cls, settings), steps=5, **often)
    assert fitted.started_at == 1 and toys.same(whole, resumed) == ""
