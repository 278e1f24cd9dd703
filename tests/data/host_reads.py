"""A watch that fails where a tensor's value is read back to the host, which would break a step captured as a graph."""

from torch.utils._python_dispatch import TorchDispatchMode


class NoHostReads(TorchDispatchMode):
    """Raises where a tensor's value is read back, as `.item()` and boolean masks do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "masked_select", "aten.equal.")):
            raise AssertionError(f"{func} reads back to the host")
        return func(*args, **(kwargs or {}))
