"""Adam with one second moment per row: its formula, its two limits, and what a rotation of the problem does to it."""

import copy

import pytest
import torch
from methods.family import draw

from disentkit.methods.row_adam import RowAdam


def descend(kind, z: torch.Tensor, gradient, steps: int, lr: float = 0.05) -> torch.Tensor:
    """The path (steps + 1, R, D) of an optimiser from z (R, D), given the gradient as a function of z."""
    z = torch.nn.Parameter(z.clone())
    opt, path = kind([z], lr=lr), [z.detach().clone()]
    for _ in range(steps):
        z.grad = gradient(z.detach())
        opt.step()
        path.append(z.detach().clone())
    return torch.stack(path)


def bowl(d: int, turn: torch.Tensor | None = None):
    """The gradient of 0.5 (z - c)' A (z - c), A stretched along the axes; turned, the same bowl with turned axes."""
    turn = torch.eye(d) if turn is None else turn
    A, c = turn @ torch.diag(torch.logspace(-2, 1, d)) @ turn.T, turn @ torch.linspace(-1, 1, d)
    return lambda z: (z - c) @ A


def test_three_steps_by_hand():
    gradients, lr, b1, b2, eps = draw(3, 4, 5), 0.1, 0.8, 0.95, 1e-3
    z = torch.nn.Parameter(draw(4, 5, seed=1))
    opt, wanted = RowAdam([z], lr, (b1, b2), eps), z.detach().clone()
    m, v = torch.zeros(4, 5), torch.zeros(4)
    for k, g in enumerate(gradients, 1):
        z.grad = g.clone()
        opt.step()
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g**2).mean(1)
        wanted = wanted - lr * (m / (1 - b1**k)) / ((v / (1 - b2**k)).sqrt() + eps)[:, None]
        torch.testing.assert_close(z.detach(), wanted)
    assert torch.equal(z.grad, gradients[-1])  # the gradient is read, not used up


def test_with_one_column_it_is_adam():
    start, path = draw(6, 1), bowl(1)
    torch.testing.assert_close(descend(RowAdam, start, path, 20), descend(torch.optim.Adam, start, path, 20))


@pytest.mark.parametrize("kind, turns_along", [(RowAdam, True), (torch.optim.Adam, False)])
def test_a_turned_problem_has_the_turned_path(kind, turns_along):
    """Adam steps along the axes of the code, whatever they are; one moment per row knows no axes."""
    turn = torch.linalg.qr(draw(6, 6, seed=2))[0]
    start = draw(3, 6)
    path = descend(kind, start, bowl(6), 30)
    turned = descend(kind, start @ turn.T, bowl(6, turn), 30)
    apart = (turned - path @ turn.T).abs().amax()
    assert apart < 1e-4 if turns_along else apart > 0.1


def test_rows_do_not_see_each_other():
    start = draw(5, 4) * torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0])[:, None]
    together = descend(RowAdam, start, bowl(4), 10)
    for i in range(5):
        torch.testing.assert_close(together[:, i : i + 1], descend(RowAdam, start[i : i + 1], bowl(4), 10))


def test_a_row_without_a_gradient_stays():
    path = descend(RowAdam, draw(3, 4), lambda z: z * torch.tensor([[1.0], [0.0], [1.0]]), 5)
    assert torch.equal(path[-1, 1], path[0, 1]) and (path[-1, 0] != path[0, 0]).all()


def test_state_multiplied_by_zero_begins_afresh():
    gradients, z = draw(6, 3, 4), torch.nn.Parameter(draw(3, 4, seed=1))
    opt = RowAdam([z], 0.1)
    for g in gradients[:3]:
        z.grad = g.clone()
        opt.step()
    other = torch.nn.Parameter(z.detach().clone())
    fresh = RowAdam([other], 0.1)
    for value in opt.state[z].values():
        assert isinstance(value, torch.Tensor)  # so a captured step can do it
        value.mul_(0)
    for g in gradients[3:]:
        z.grad, other.grad = g.clone(), g.clone()
        opt.step()
        fresh.step()
        assert torch.equal(z, other)


def test_state_goes_into_a_checkpoint_and_back():
    gradients, z = draw(6, 3, 4), torch.nn.Parameter(draw(3, 4, seed=1))
    opt = RowAdam([z], 0.1)
    for g in gradients[:3]:
        z.grad = g.clone()
        opt.step()
    other = torch.nn.Parameter(z.detach().clone())
    resumed = RowAdam([other], 7.0)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    for g in gradients[3:]:
        z.grad, other.grad = g.clone(), g.clone()
        opt.step()
        resumed.step()
        assert torch.equal(z, other)
