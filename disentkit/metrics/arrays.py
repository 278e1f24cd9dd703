"""What the metrics share: checked arrays, rows that share a factor value, codes collected from a model and its data.

A metric is written once, against a *source*. There are two, with the same attributes and methods:

- `ArraySource`: a table of codes and a table of factor values. Rows that share a value are looked up in the table.
- `ModelSource`: a model and its data. Images that share a value are drawn from the data and encoded.

Not here: any metric's own rule (see the file of each metric).
"""
import numpy as np
import torch

from disentkit.codes import Block, gaussian_kl
from disentkit.data.base import ArrayData
from disentkit.models import can_encode, encode, posterior

POINTS = 10_000  # images encoded to learn the spread of a model's codes, and for MIG
CHUNK = 2_500  # images in memory at a time: 40 MB of 64x64 grey pictures


def whole(name: str, value: int, least: int = 1) -> int:
    """`value` as a plain int of at least `least`; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def table(values, what: str) -> np.ndarray:
    """numpy or torch numbers of shape (N, m) as float64, checked: two rows or more, at least one column, all finite."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    values = np.asarray(values)
    try:
        if values.dtype.kind == "c":
            raise TypeError
        values = values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be a table of numbers (numpy or torch), got {values.dtype}: number the words of "
                         "a category first") from None
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{what} must have shape (rows, columns), got {values.shape}")
    if len(values) < 2:
        raise ValueError(f"{what} has {len(values)} row(s); a metric needs at least 2, better thousands")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(bad):
        raise ValueError(f"{what} holds NaN or infinite numbers in column(s) {', '.join(map(str, bad))}")
    return values


class ArraySource:
    """Codes (N, d) and factor values (N, K), given as arrays.

    Attributes (of both sources): `protocol`; `codes` (N, d) float64; `columns`, d names; `discrete`, d flags (True: the
    column holds category numbers); `left_out`, {block: why it is not scored}; `classes` (N, K) int, the factor values
    numbered from 0; `factors`, K names; `constant`, names of factors with a single value, which are not in K; `rng`, a
    numpy generator of its own.
    """

    protocol = "arrays"

    def __init__(self, codes, factors, names=None, seed: int = 0, categorical=()):
        self.codes, values = table(codes, "codes"), table(factors, "factors")
        if len(self.codes) != len(values):
            raise ValueError(f"codes have {len(self.codes)} rows and factors {len(values)}: row i of both must "
                             "belong to the same picture")
        names = [f"factor {k}" for k in range(values.shape[1])] if names is None else [str(n) for n in names]
        if len(names) != values.shape[1]:
            raise ValueError(f"names has {len(names)} entries for {values.shape[1]} factor columns")
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ, got {', '.join(names)}")
        self.columns = [f"z{j}" for j in range(self.codes.shape[1])]
        self.discrete, self.left_out = _flags(categorical, len(self.columns)), {}
        self.rng = np.random.default_rng(seed)
        self.classes, self.factors, self.constant, _ = _varying(_numbered(values, names), names)
        self._index = {}

    def _grouped(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers sorted by the value of factor k (N,), and where each value's rows begin (n,), how many (n,)."""
        if k not in self._index:
            size = _sizes(self.classes[:, k], self.factors[k])
            self._index[k] = np.argsort(self.classes[:, k], kind="stable"), np.cumsum(size) - size, size
        return self._index[k]

    def mean_kl(self) -> None:
        """Arrays have no posterior."""

    @property
    def smallest_group(self) -> int:
        """Rows of the rarest value over all factors."""
        return int(min(self._grouped(k)[2].min() for k in range(len(self.factors))))

    def groups(self, k: int, n: int, count: int):
        """Yields `count` tables of codes (n, d) whose rows share a value of factor k.

        The value is that of a row drawn at random, so it comes as often as in the table; the n rows are drawn without
        replacement. Raises ValueError where a value has fewer.
        """
        order, first, size = self._grouped(k)
        if size.min() < n:
            raise ValueError(f"factor {self.factors[k]!r} has {(size < n).sum()} value(s) with fewer than L = {n} "
                             f"rows, the rarest {size.min()}: give more rows, merge values or take a smaller L")
        for value in self.classes[self.rng.integers(len(order), size=count), k]:
            picked = self.rng.choice(size[value], n, replace=False, shuffle=False)
            yield self.codes[order[first[value] + picked]]  # (n, d)

    def pairs(self, k: int, count: int) -> np.ndarray:
        """Codes (count, 2, d) of pairs of different rows that share a value of factor k, a new value for each pair."""
        order, first, size = self._grouped(k)
        one = self.rng.integers(len(order), size=count)  # a position in `order`
        value = self.classes[order[one], k]
        step = self.rng.integers(1, size[value])  # 1 ... size-1 places further round the same rows: never the same
        two = first[value] + (one - first[value] + step) % size[value]
        return self.codes[order[np.stack([one, two], axis=1)]]


class ModelSource:
    """A model that can encode, and data with factors: images are drawn by the data's law and encoded.

    Scored are the inferred blocks of size 1, and with `onehot=True` also inferred one-hot blocks, as one column with
    the number of the largest entry. The others are named in `left_out`. Attributes as in `ArraySource`; `classes` holds
    the nearest grid value of each factor, so that real-valued laws can be counted.
    """

    protocol = "model"
    smallest_group = None  # every draw is a fresh picture

    def __init__(self, model, data, seed: int = 0, onehot: bool = False):
        if not hasattr(data, "sample"):
            raise ValueError(f"a model is scored on a data set, got {type(data).__name__}: call metric(model, data), "
                             "or metric(codes, factors) with two arrays")
        if data.space is None:
            raise ValueError(f"this metric needs factors; {data.name!r} has none")
        if not can_encode(model):
            raise ValueError(f"{type(model).__name__} has no encode, so its codes cannot be measured on pictures: give "
                             "arrays instead, metric(codes, factors)")
        self.model, self.data, self.left_out, self.blocks = model, data, {}, []
        for block in model.codes:
            if not block.inferred:
                self.left_out[block.name] = "not inferred"
            elif block.scalar or (onehot and block.kind == "onehot"):
                self.blocks.append(block)
            else:
                wide = f"{block.size} numbers wide"
                self.left_out[block.name] = block.kind if block.kind in ("onehot", "map") else wide
        if not self.blocks:
            raise ValueError(f"{type(model).__name__} has no block this metric can score; left out: "
                             + ", ".join(f"{name} ({why})" for name, why in self.left_out.items()))
        self.columns = [block.name for block in self.blocks]
        self.discrete = [not block.scalar for block in self.blocks]
        self.rng = np.random.default_rng(seed)
        self.torch_rng = torch.Generator(device=data.device).manual_seed(seed)
        # Stored pictures that share a value with no other cannot be compared; a renderer draws new ones.
        self._stored = _numbered(data.factors.cpu().numpy(), data.space.names) if isinstance(data, ArrayData) else None
        self._look()

    def _look(self) -> None:
        """Encodes POINTS images: `codes` and `classes`."""
        codes, values = [], []
        for start in range(0, POINTS, CHUNK):
            batch = self.data.sample(min(CHUNK, POINTS - start), self.torch_rng)
            codes.append(self._columns(batch["x"]))
            values.append(batch["factors"])
        self.codes = np.concatenate(codes)  # (POINTS, d)
        classes = np.asarray(self.data.space.to_grid(torch.cat(values).cpu()))  # (POINTS, K)
        self.classes, self.factors, self.constant, self._k = _varying(classes, list(self.data.space.names))

    def mean_kl(self) -> np.ndarray | None:
        """Mean KL(q(z_j|x) || N(0, 1)) in nats of each column (d,), over POINTS new images.

        None without a posterior, and where a scored block is not a number of the code under N(0, 1) (a direction, say).
        """
        plain = all(type(block) is Block and block.kind == "gaussian" for block in self.blocks)
        if not plain or not callable(getattr(self.model, "posterior", None)):
            return None
        total = 0.0
        for start in range(0, POINTS, CHUNK):
            x = self.data.sample(min(CHUNK, POINTS - start), self.torch_rng)["x"]
            mu, logvar = (part.double() for part in posterior(self.model, x))  # (n, D) each
            total = total + gaussian_kl(mu, logvar).sum(dim=0)  # (D,)
        return (total / POINTS)[[block.at[0] for block in self.blocks]].numpy()

    def _columns(self, x: torch.Tensor) -> np.ndarray:
        """Scored columns (n, d) of the codes of images (n, C, H, W)."""
        codes = encode(self.model, x)  # (n, D)
        parts = [self.model.codes.read(codes, block.name).reshape(len(codes), -1) for block in self.blocks]
        parts = [part if block.scalar else part.argmax(dim=1, keepdim=True) for block, part in zip(self.blocks, parts)]
        columns = torch.cat([part.double() for part in parts], dim=1).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(columns).all(axis=0))
        if len(bad):
            names = ", ".join(self.columns[j] for j in bad)
            raise ValueError(f"the model's codes hold NaN or infinite numbers in {names}")
        return columns

    def _fixed(self, k: int, n: int, count: int):
        """Yields codes (groups, n, d), `count` in all, each sharing a value of factor k, CHUNK images at a time."""
        if self._stored is not None:
            _sizes(self._stored[:, self._k[k]], self.factors[k])
        per = max(1, CHUNK // n)
        for start in range(0, count, per):
            groups = min(per, count - start)
            batch = self.data.sample_fixed(self._k[k], n, self.torch_rng, groups)
            yield self._columns(batch["x"]).reshape(groups, n, -1)

    def groups(self, k: int, n: int, count: int):
        """Yields `count` tables of codes (n, d) of fresh images that share a value of factor k."""
        for part in self._fixed(k, n, count):
            yield from part

    def pairs(self, k: int, count: int) -> np.ndarray:
        """Codes (count, 2, d) of fresh pairs of images that share a value of factor k, a new value for each pair."""
        return np.concatenate(list(self._fixed(k, 2, count)))


def source(
    codes, factors, names=None, seed: int = 0, onehot: bool = False, categorical=()
) -> ArraySource | ModelSource:
    """The source for a metric's first two arguments: (codes, factors) as arrays, or (model, data).

    onehot       whether a model's one-hot blocks are scored, as one column of category numbers
    categorical  which columns of an array hold category numbers
    """
    seed = whole("seed", seed, least=0)
    if hasattr(codes, "codes") and hasattr(codes, "decode"):
        if names is not None or len(categorical):
            raise ValueError("names and categorical belong to arrays; with (model, data) both are known")
        return ModelSource(codes, factors, seed, onehot)
    if hasattr(codes, "model"):
        raise ValueError("a run is scored through its model: call metric(run.model, data), or workbench.score(run)")
    if hasattr(factors, "sample_fixed"):
        raise ValueError(f"a data set is scored together with a model, got {type(codes).__name__}: call metric(model, "
                         "data), or metric(codes, factors) with two arrays")
    return ArraySource(codes, factors, names, seed, categorical)


def shares(rng: np.random.Generator, votes: int, K: int) -> np.ndarray:
    """How many of `votes` fix each of K factors, (K,): equal shares, the remainder drawn.

    The papers draw the factor of every vote; the expectation is the same, and the luck of the draw is out of the score:
    chance is 1/K, and three ideal latents for three of five factors are 0.60, not 0.60 give or take 0.02.
    """
    counts = np.full(K, votes // K)
    counts[rng.choice(K, votes % K, replace=False)] += 1
    return counts


def _flags(categorical, d: int) -> list[bool]:
    """d flags, True at the positions in `categorical`; ValueError for a position that is not there."""
    for position in categorical:
        if whole("a position in categorical", position, least=0) >= d:
            raise ValueError(f"categorical names column {position}, and the codes have {d} columns, counted from 0")
    return [j in set(categorical) for j in range(d)]


def _numbered(values: np.ndarray, names) -> np.ndarray:
    """Factor values (N, K) -> whole numbers (N, K), each column counted from 0; ValueError for real-valued columns."""
    classes = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in values.T], axis=1)
    for name, count in zip(names, classes.max(axis=0) + 1):
        if count > max(2, len(values) / 2):
            raise ValueError(f"factor {name!r} has {count} different values in {len(values)} rows: it looks "
                             "real-valued; round it to a few values first, or score a model on data that is rendered")
    return classes


def _sizes(classes: np.ndarray, name: str) -> np.ndarray:
    """How many rows each value has, (n,), of one factor's values (N,); ValueError where one has a single row."""
    size = np.bincount(classes)
    if size.min() < 2:
        raise ValueError(f"factor {name!r} has {(size < 2).sum()} value(s) with a single row, and this metric compares "
                         "rows that share a value: give more rows or merge values")
    return size


def _varying(classes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str], list[str], list[int]]:
    """Drops factors that have one value: (classes of the rest, their names, names of the dropped, their positions)."""
    varies = (classes != classes[:1]).any(axis=0)
    if not varies.any():
        raise ValueError(f"no factor varies: {', '.join(names)} has a single value, so there is nothing to measure")
    keep = [int(k) for k in np.flatnonzero(varies)]
    return classes[:, keep], [names[k] for k in keep], [n for n, v in zip(names, varies) if not v], keep
