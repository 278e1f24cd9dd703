"""MIX: the flow of one step, the bits and what they mean, whose loss teaches whom, and the shortcut as a unit test."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
import toys
from methods.family import equal, rng, weights
from test_toys import like_a_capture

from disentkit.codes import Block, CodeSpace
from disentkit.data.base import Spec
from disentkit.errors import UserError
from disentkit.machine import seeded
from disentkit.methods import mix
from disentkit.methods.mix import MIX, Settings

LN2 = math.log(2)


def build(**settings) -> MIX:
    """A learner with the weights of seed 0, on 16 pixels; its own draws come from `rng(7)`."""
    few = {"n": 3, "d": 4, "nets": "small", "wide": 0.125, "size": 16, "steps": 4, "batch": 6}
    settings = Settings(**few | settings)
    with seeded(0):
        learner = MIX(settings, Spec((1, settings.size, settings.size)))
    learner.rng = rng(7)
    return learner.train()


def pictures(seed: int, n: int = 6) -> torch.Tensor:
    return torch.rand(n, 1, 16, 16, generator=rng(seed))


def batches() -> list[dict]:
    return [{"x": pictures(1)}, {"x": pictures(2)}]


def descent(learner, lr: float = 0.01) -> dict:
    """The learner's optimisers as plain descent, which makes no full step of a gradient that is only rounding."""
    learner.rates_fall = lambda opt: None
    made = learner.optimizers().items()
    return {name: torch.optim.SGD(opt.param_groups[0]["params"], lr=lr) for name, opt in made}


# ---- bits, mixing, unmixing


def test_bit_one_takes_the_block_from_the_first_picture():
    f1, f2 = torch.ones(2, 6), -torch.ones(2, 6)
    m = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    assert mix.mix(f1, f2, m).tolist() == [[1, 1, -1, -1, -1, -1], [-1, -1, 1, 1, 1, 1]]


def test_mix_is_the_code_spaces_mix():
    f1, f2 = torch.randn(5, 12, generator=rng(0)), torch.randn(5, 12, generator=rng(1))
    m = mix.draw_mask(5, 3, rng(2))
    space = CodeSpace(Block(f"f{i}", "free", (4,)) for i in range(3))
    assert torch.equal(mix.mix(f1, f2, m), space.mix(f1, f2, m))


@pytest.mark.parametrize("bits", [(2, 5), (2,)])
def test_bits_that_do_not_divide_the_code_are_refused(bits):
    with pytest.raises(ValueError, match="do not divide codes of 12 numbers into blocks"):
        mix.mix(torch.zeros(2, 12), torch.zeros(2, 12), torch.ones(bits))


def test_unmixing_what_was_mixed_gives_the_first_picture_back():
    """With Enc and Dec the identity, x4 = x1 for every mask."""
    f1, f2 = torch.randn(5, 12, generator=rng(0)), torch.randn(5, 12, generator=rng(1))
    for seed in range(5):
        m = mix.draw_mask(5, 3, rng(seed))
        assert torch.equal(mix.mix(mix.mix(f1, f2, m), f1, m), f1)


def test_label_of_the_classifier_is_the_mask():
    """A classifier that says of each block whether x3 has it from x1 has no loss; one that says the opposite has."""
    m = mix.draw_mask(8, 3, rng(0))
    assert mix.classification_loss(20 * (2 * m - 1), m) < 1e-6 < 10 < mix.classification_loss(-20 * (2 * m - 1), m)
    torch.testing.assert_close(mix.classification_loss(torch.zeros(8, 3), m), torch.tensor(LN2))


def test_masks_are_fair_bits_per_pair_or_one_for_the_batch():
    m = mix.draw_mask(4000, 3, rng(0))
    assert set(m.unique().tolist()) == {0.0, 1.0} and (m.mean(0) - 0.5).abs().max() < 0.03
    assert torch.corrcoef(m.T).fill_diagonal_(0).abs().max() < 0.06
    one = mix.draw_mask(64, 3, rng(0), "batch")
    assert one.shape == (64, 3) and (one == one[0]).all()


def flow(learner: MIX, m: torch.Tensor) -> dict[str, torch.Tensor]:
    """The step's pictures, written as the paper's section 2 says it, block by block."""
    x1, x2 = (2 * b["x"] - 1 for b in batches())
    codes, model = learner.auto.codes, learner.auto
    f1, f2 = model.encoder(x1), model.encoder(x2)
    x3 = model.decoder(codes.mix(f1, f2, m))
    f3 = model.encoder(x3)
    return {"x1": x1, "x2": x2, "f1": f1, "f2": f2, "x3": x3, "x4": model.decoder(codes.mix(f3, f1, m))}


def test_masks_of_ones_and_zeros():
    learner = build()
    enc, dec = learner.auto.encoder, learner.auto.decoder
    ones, zeros = flow(learner, torch.ones(6, 3)), flow(learner, torch.zeros(6, 3))
    torch.testing.assert_close(ones["x4"], dec(enc(dec(ones["f1"]))))  # all blocks are tested
    torch.testing.assert_close(zeros["x4"], dec(zeros["f1"]))  # none is
    torch.testing.assert_close(zeros["x3"], dec(zeros["f2"]))


def test_sampled_mask_loss_is_the_sum_over_all_masks():
    """The paper sums L_M over 2^n masks; one random mask per pair has that sum divided by 2^n as its mean."""
    learner, n = build(), 3
    every = [torch.tensor([bits] * 6, dtype=torch.float32) for bits in itertools.product((0, 1), repeat=n)]
    with torch.no_grad():
        losses = torch.stack([(f := flow(learner, m))["x4"].sub(f["x1"]).square().mean((1, 2, 3)) for m in every])
        exact = losses.sum(0).mean() / 2**n
        assert len(every) == 8 and losses.std(0).min() > 0  # masks differ, so the next lines could fail
        sampled = torch.zeros(400)
        for i in range(400):
            m = mix.draw_mask(6, n, rng(100 + i))
            f = flow(learner, m)
            sampled[i] = mix.mixing_loss(f["x4"], f["x1"])
            at = (m @ torch.tensor([4.0, 2.0, 1.0])).long()
            torch.testing.assert_close(sampled[i], losses[at, torch.arange(6)].mean())
    error = sampled.std() / 20
    assert (sampled.mean() - exact).abs() < 4 * error and error < 0.05 * losses.std()


def test_the_shortcut_pleases_two_losses_and_not_the_third():
    """One block holds the whole picture, the decoder ignores the others: L_M = 0, x3 is a picture of the data, and the
    best classifier is left with (n - 1) / n ln 2."""
    n, x1, x2 = 4, pictures(1).flatten(1), pictures(2).flatten(1)
    others = (n - 1) * 256

    def encode(x):
        return torch.cat([x, torch.zeros(len(x), others)], dim=1)

    def decode(f):
        return f[:, :256]

    m = mix.draw_mask(6, n, rng(0))
    x3 = decode(mix.mix(encode(x1), encode(x2), m))
    x4 = decode(mix.mix(encode(x3), encode(x1), m))
    assert mix.mixing_loss(x4, x1) == 0
    from_x1 = (x3 == x1).all(1)
    assert torch.equal(from_x1, m[:, 0] == 1) and torch.equal(x3[~from_x1], x2[~from_x1])
    best = torch.cat([40 * (2 * from_x1.float() - 1)[:, None], torch.zeros(6, n - 1)], dim=1)
    torch.testing.assert_close(mix.classification_loss(best, m), torch.tensor((n - 1) / n * LN2))


# ---- the step


@pytest.mark.parametrize("lam_AE", [0.0, 2.0])
def test_step_equals_a_hand_written_reference(lam_AE):
    weigh = {"lam_M": 3.0, "lam_G": 0.5, "lam_C": 2.0, "lam_AE": lam_AE}
    learner, reference = build(**weigh), build(**weigh)
    m = mix.draw_mask(6, 3, rng(7))
    losses = learner.step(descent(learner), *batches())

    f, C, D = flow(reference, m), reference.C, reference.D
    y = C(torch.cat([f["x1"], f["x2"], f["x3"]], 1)).sigmoid()
    L_C = -(m * y.log() + (1 - m) * (1 - y).log()).mean()
    L_M, L_G = (f["x4"] - f["x1"]).square().mean(), -D(f["x3"]).sigmoid().log().mean()
    again = [(reference.auto.decoder(f[k]) - f[x]).square().mean() for k, x in (("f1", "x1"), ("f2", "x2"))]
    players = [*reference.auto.parameters(), *C.parameters()]
    total = 3 * L_M + 0.5 * L_G + 2 * L_C + lam_AE * sum(again)
    grads = torch.autograd.grad(total, players, retain_graph=True)
    fake = f["x3"].detach()
    loss_D = -(D(f["x1"]).sigmoid().log() + (1 - D(fake).sigmoid()).log()).mean()
    grads_D = torch.autograd.grad(loss_D, list(D.parameters()))
    for name, wanted in {"L_M": L_M, "L_G": L_G, "L_C": L_C, "loss_D": loss_D}.items():
        torch.testing.assert_close(losses[name], wanted.detach(), rtol=1e-4, atol=1e-5)
    assert ("L_AE" in losses) == bool(lam_AE)
    ours = [*learner.auto.parameters(), *learner.C.parameters(), *learner.D.parameters()]
    for p, before, g in zip(ours, [*players, *D.parameters()], [*grads, *grads_D], strict=True):
        torch.testing.assert_close(p, before - 0.01 * g, rtol=1e-3, atol=1e-5)


def test_gradients_go_to_their_own_players():
    learner = build()
    opt = learner.optimizers()
    before = {name: weights(getattr(learner, name)) for name in ("auto", "C", "D")}
    x1, x2 = (2 * b["x"] - 1 for b in batches())
    _, x3 = learner.update_auto(opt, x1, x2, mix.draw_mask(6, 3, rng(0)))
    assert not x3.requires_grad and all(p.requires_grad for p in learner.D.parameters())
    assert equal(before["D"], weights(learner.D)) and all(p.grad is None for p in learner.D.parameters())
    assert not equal(before["auto"], weights(learner.auto)) and not equal(before["C"], weights(learner.C))
    after = {name: weights(getattr(learner, name)) for name in ("auto", "C")}
    grads = [p.grad.clone() for p in learner.auto.parameters()]
    learner.update_D(opt["D"], x1, x3)
    assert all(equal(after[name], weights(getattr(learner, name))) for name in after)
    assert equal(grads, [p.grad for p in learner.auto.parameters()]) and not equal(before["D"], weights(learner.D))


def test_without_its_weight_the_classifier_only_watches():
    """lam_C = 0: the autoencoder's step is that of the other two losses, and the gauge goes on learning."""
    learner, reference = build(lam_C=0.0), build(lam_C=0.0)
    m = mix.draw_mask(6, 3, rng(7))
    before = weights(learner.C)
    learner.step(descent(learner), *batches())
    f = flow(reference, m)
    loss = (f["x4"] - f["x1"]).square().mean() - reference.D(f["x3"]).sigmoid().log().mean()
    for p, old, g in zip(
        learner.auto.parameters(),
        reference.auto.parameters(),
        torch.autograd.grad(loss, list(reference.auto.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(p, old - 0.01 * g, rtol=1e-3, atol=1e-5)
    assert not equal(before, weights(learner.C))


def test_classifier_helps_and_does_not_oppose():
    """One step down along L_C alone lowers it, for the classifier alone and for the autoencoder alone."""
    for player in ("auto", "C"):
        learner = build(lam_M=0.0, lam_G=0.0)
        x1, x2 = (2 * b["x"] - 1 for b in batches())
        m = mix.draw_mask(6, 3, rng(0))
        opt = descent(learner, lr=0.02)
        other = "C" if player == "auto" else "auto"
        opt[other] = torch.optim.SGD(opt[other].param_groups[0]["params"], lr=0.0)
        first, _ = learner.update_auto(opt, x1, x2, m)
        second, _ = learner.update_auto(opt, x1, x2, m)
        assert second["L_C"] < first["L_C"]


def test_noise_reaches_the_classifier_alone():
    quiet, noisy = build(), build(noise=0.5)
    seen = {}
    for name, learner in (("quiet", quiet), ("noisy", noisy)):
        learner.C.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].detach()}))
        losses = learner.step(learner.optimizers(), *batches())
        seen[f"{name} losses"] = losses
    assert torch.equal(seen["quiet"][:, :2], seen["noisy"][:, :2])  # x1 and x2
    noise = seen["noisy"][:, 2] - seen["quiet"][:, 2]
    assert 0.4 < noise.std() < 0.6
    for name in ("L_M", "L_G", "loss_D"):
        torch.testing.assert_close(seen["quiet losses"][name], seen["noisy losses"][name])


def test_step_sizes_fall_after_so_many_steps():
    learner = build(fall=2, lr=1.0, lr_C=2.0, lr_D=3.0)
    opt = learner.optimizers()
    for t, times in ((0, 1.0), (1, 1.0), (2, 0.9), (5, 0.81)):
        learner.t.fill_(t)
        learner.rates_fall(opt)
        found = [float(opt[name].param_groups[0]["lr"]) for name in ("auto", "C", "D")]
        assert found == pytest.approx([times, 2 * times, 3 * times])
    still, moving = build(lr=0.0, lr_C=0.0, lr_D=0.0), build(lr=1e-2)
    for learner in (still, moving):
        before = weights(learner)
        learner.step(learner.optimizers(), *batches())
        assert equal(before, weights(learner)) == (learner is still)


def test_gauge_counts_the_blocks_that_are_read():
    learner = build()
    learner.accuracy.copy_(torch.tensor([0.9, 0.59, 0.7]))
    for p in learner.C[-1].parameters():  # a classifier that says 1 always
        p.data.zero_()
    learner.C[-1].bias.data.fill_(1.0)
    losses = learner.step(learner.optimizers(), *batches())
    share = mix.draw_mask(6, 3, rng(7)).mean(0)
    torch.testing.assert_close(losses["accuracy"], torch.tensor([0.9, 0.59, 0.7]).lerp(share, 0.02))
    assert losses["alive"] == (losses["accuracy"] > mix.ALIVE).sum()


def test_step_can_be_captured_and_repeats_itself():
    learner = build(noise=0.1, lam_AE=1.0, fall=1)
    opt, same = learner.optimizers(), batches()
    learner.step(opt, *same)
    with like_a_capture():
        losses = learner.step(opt, *same)
    assert all(v.ndim <= 1 and not v.requires_grad and v.isfinite().all() for v in losses.values())
    runs = [toys.fit(build(), steps=3, seed=seed)[1] for seed in (0, 0, 1)]
    assert toys.same(runs[0], runs[1]) == "" and toys.same(runs[0], runs[2]) != ""


def test_resumes_bit_for_bit(tmp_path):
    class Stop(Exception):
        pass

    def stop(step, rows, learner):
        if step == 2:
            raise Stop

    _, whole = toys.fit(build(fall=2), steps=5)
    often = {"folder": tmp_path, "checkpoint_seconds": 0, "watch_seconds": 0}
    with pytest.raises(Stop):
        toys.fit(build(fall=2), steps=5, watch=stop, **often)
    fitted, resumed = toys.fit(build(fall=2), steps=5, **often)
    assert fitted.started_at == 1 and toys.same(whole, resumed) == ""


def test_live_picture_shows_mixes():
    learner = build(n=4)
    rows = learner.preview({"x": pictures(1)})
    codes = learner.model.encode(pictures(1))
    wanted = learner.model.decode(learner.model.codes.swap(codes, codes.roll(1, 0), ["f2", "f4"]))
    torch.testing.assert_close(rows["mixed with the left neighbour"], wanted)
    torch.testing.assert_close(rows["reconstructions"], learner.model.decode(codes))


def test_autoencoder_overfits_one_batch():
    learner = build(lam_G=0.0, lam_C=0.0, lam_AE=1.0, d=32, wide=0.5, lr=3e-3)
    opt, same = learner.optimizers(), batches()
    first = learner.step(opt, *same)["L_AE"]
    for _ in range(150):
        last = learner.step(opt, *same)["L_AE"]
    x = same[0]["x"]
    assert last < 0.25 * first
    assert F.mse_loss(learner.model.decode(learner.model.encode(x)), x) < 0.4 * x.var()


@pytest.mark.parametrize("settings, message", [
    ({"mask": "pair"}, "unknown mask 'pair'"),
    ({"n": 10**6}, "n=1000000 blocks of d=4 numbers are too many: 256 blocks and 65,536 numbers at most"),
    ({"wide": 1e9}, "wide can be 16 at most"),
    ({"lam_C": -1.0}, "lam_C must be 0 or more, not -1"),
    ({"noise": -0.5}, "noise must be 0 or more"),
    ({"batch": 1}, "batch norm needs two pictures"),
    ({"nets": "large"}, "unknown nets 'large'"),
    ({"wide": -1.0}, "wide must be a finite number above 0"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)
