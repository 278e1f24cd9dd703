"""Models, which people explore and metrics measure, and learners, which `fit` trains.

A model is anything with `codes`, `image_shape` and `decode`; with `encode`, `posterior` and `prior` where they exist.
Trained methods are models, renderers are models, three lines of a user's are a model. Explorers and metrics know
nothing else.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from disentkit.codes import CodeSpace


@runtime_checkable
class Model(Protocol):
    """codes (N, D) <-> images (N, C, H, W) in [0, 1].

    Optional: `encode(x) -> codes` (the posterior mean for VAEs), `posterior(x) -> (mu, logvar)` each (N, D),
    `prior(n, rng) -> codes`.
    """

    codes: CodeSpace
    image_shape: tuple[int, int, int]

    def decode(self, codes: Tensor) -> Tensor: ...


def can_encode(model) -> bool:
    """True where the model infers codes from images."""
    return callable(getattr(model, "encode", None))


def device_of(model) -> torch.device:
    """Where a model's weights lie; the CPU (or its own `device`) for models without weights."""
    if isinstance(model, nn.Module):
        for tensor in [*model.parameters(), *model.buffers()]:
            return tensor.device
    return torch.device(getattr(model, "device", "cpu"))


@contextmanager
def frozen(model):
    """Eval mode, no gradients, float32, one thread; all as before afterwards.

    Every encode or decode outside a training step goes through here. One thread, because two threads on a busy
    machine made a 1 ms decode take 100 ms.
    """
    modes = {m: m.training for m in model.modules()} if isinstance(model, nn.Module) else {}
    threads = torch.get_num_threads()
    try:
        for module in modes:
            module.training = False
        torch.set_num_threads(1)
        with torch.no_grad(), torch.autocast(device_of(model).type, enabled=False):
            yield model
    finally:
        torch.set_num_threads(threads)
        for module, training in modes.items():
            module.training = training


def encode(model, x: Tensor, batch: int = 256) -> Tensor:
    """Codes (N, D) on the CPU of images (N, C, H, W) in [0, 1], torch or numpy; uint8 counts 0 ... 255.

    Raises ValueError where the model has no encoder, and for images of another shape, type or range.
    """
    if not can_encode(model):
        raise ValueError(f"{type(model).__name__} has no encoder, so no code can be read from a picture")
    return _in_batches(model, model.encode, _images(model, x), batch)


def decode(model, codes: Tensor, batch: int = 256) -> Tensor:
    """Images (N, C, H, W) in [0, 1] on the CPU of codes (N, D)."""
    return _in_batches(model, model.decode, model.codes.check(codes), batch)


def posterior(model, x: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """mu and logvar, each (N, D) on the CPU, of a model that has a posterior; images and errors as in `encode`."""
    both = _in_batches(model, lambda part: torch.cat(model.posterior(part), dim=1), _images(model, x), batch)
    return both.chunk(2, dim=1)


def _images(model, x) -> Tensor:
    """Images as a model reads them: float32 (N, C, H, W) in [0, 1]."""
    try:
        x = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"images must be a tensor or an array, not {type(x).__name__}") from None
    if x.ndim != 4 or tuple(x.shape[1:]) != tuple(model.image_shape):
        raise ValueError(f"this model reads images (N, {', '.join(map(str, model.image_shape))}), not {tuple(x.shape)}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    low, high = (float(end) for end in x.aminmax()) if x.numel() else (0.0, 1.0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images must lie in 0 ... 1, these reach from {low:g} to {high:g}; divide by 255?")
    return x


def _in_batches(model, function, tensor: Tensor, batch: int) -> Tensor:
    device = device_of(model)
    with frozen(model):
        return torch.cat([function(part.to(device)).float().cpu() for part in tensor.split(batch)])


class Learner(nn.Module):
    """What `fit` trains: one method, built from `(settings, spec, base=None)`.

    reads           the batch keys a step uses
    draws           independent batches per step
    full_precision  names of networks (see `networks`) that stay float32 where the others compute in bf16
    model           the Model that is explored, measured and saved: only its weights go into a run
    t               how many steps are done, a float tensor on the device that fit advances; whatever changes with
                    time is a tensor expression of it
    rng             the generator fit sets; a step draws from it and from nothing else

    `step` reads nothing back to the host and never branches on a tensor's value, so that on CUDA the whole of it can be
    captured as one graph.
    """

    reads: tuple[str, ...] = ("x",)
    draws: int = 1
    full_precision: tuple[str, ...] = ()
    rng: torch.Generator
    t: Tensor

    def __init__(self, settings, spec, base=None):
        super().__init__()
        self.settings, self.spec = settings, spec
        # A base run stays outside the module tree, or train() would move its batch norm and its weights be saved twice.
        self._outside = (base,)
        self.register_buffer("t", torch.zeros(()), persistent=False)

    @property
    def base(self):
        """The opened run this learner builds on, frozen, or None."""
        return self._outside[0]

    @property
    def model(self) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} must offer the model that it trains")

    def networks(self) -> dict[str, nn.Module]:
        """The networks by dotted name ("D", "vae.encoder"), which fit may run in bf16.

        The model, and any child without a `forward`, is no network itself: its children are.
        """
        found: dict[str, nn.Module] = {}

        def look(module: nn.Module, prefix: str = "") -> None:
            for name, child in module.named_children():
                if child is self.model or type(child).forward is nn.Module.forward:
                    look(child, f"{prefix}{name}.")
                elif not any(child is net for net in found.values()):
                    found[prefix + name] = child

        look(self)
        return found

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers by name; fit calls this once."""
        raise NotImplementedError(f"{type(self).__name__} must offer its optimisers")

    def step(self, opt: dict[str, torch.optim.Optimizer], *batches: dict[str, Tensor]) -> dict[str, Tensor]:
        """One whole update of the paper's algorithm; returns detached losses and gauges, scalars or short vectors."""
        raise NotImplementedError(f"{type(self).__name__} must write its step")

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rows of images (n, C, H, W) for the live picture, by name."""
        x = batch["x"]
        if not can_encode(self.model):
            return {"pictures": x}
        return {"pictures": x, "reconstructions": self.model.decode(self.model.encode(x))}


def adam(parameters, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.Adam:
    """Adam as one fused kernel; on CUDA able to be captured in a graph."""
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True, capturable=parameters[0].is_cuda)
