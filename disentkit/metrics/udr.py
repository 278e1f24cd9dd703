"""UDR, the unsupervised disentanglement ranking (Duan et al. 2020): do models trained apart find the same code numbers?

No factor is needed. Models that differ in their seed only are trained on the same data; disentangled ones are expected
to find the same numbers, up to order and sign, and entangled ones each a mixture of its own. For models i and j,
R[a, b] >= 0 says how strongly number a of i goes with number b of j, over the same pictures, and

    pair(i, j) = 1/2 ( mean_b max_a R[a, b]^2 / sum_a R[a, b] + mean_a max_b R[a, b]^2 / sum_b R[a, b] ) :

near max R where every number has one partner. A model's score is the median of its pairs with all the others. Numbers
that collapsed to the prior (mean KL of 0.01 nats or less) are left out first, in both models.

The formula is disentanglement_lib's. Where the two models keep different numbers of latents, the sum over all rows and
columns divided by how many there are, which is published too, gives another number.
"""
import numpy as np
import torch

from disentkit.codes import KL_DEAD, Block, gaussian_kl
from disentkit.metrics.arrays import CHUNK, table, whole
from disentkit.metrics.readout import fitted
from disentkit.models import can_encode, encode, posterior

METHODS = ("lasso", "spearman")
ALPHA = 0.1  # the lasso's penalty, as in disentanglement_lib


def udr(codes, kl=None, *, method: str = "lasso", points: int = 1000, seed: int = 0) -> dict:
    """A score per model, of two models or more. Call it with arrays, `udr([codes, ...], [kl, ...])`, or as
    `udr([model, ...], data)`.

    codes   a list of tables (N, d_i), numpy or torch: row n of each is the same picture. Or a list of models that can
            encode; their inferred blocks of size 1 are compared, the others are named in `left_out`
    kl      a list of mean KL(q(z_j|x) || N(0, 1)) in nats per column, (d_i,) each, or None where there are none; then
            only constant numbers are left out. Or the data, with or without factors: the KLs are those of each
            model's posterior
    method  "lasso": R holds the absolute coefficients of a lasso with penalty 0.1 that predicts the standardised
            numbers of j from those of i, so two equal codes reach 0.9, not 1, and the pairs (i, j) and (j, i) differ;
            "spearman": absolute rank correlations, which reach 1
    points  pictures to encode, for models; arrays are used whole
    seed    draws the pictures; with arrays nothing is drawn

    Returns a dict ready for JSON: `scores` (one per model: over the others i, the median of pair(i, it), in which it is
    predicted), `best` (the position of the highest), `pairs` (pair(i, j), rows i; None on the diagonal), `active` (the
    columns compared, per model), `dims`, `columns`, `left_out` (lists, one entry per model), `note` (None, or what to
    know), `settings`. A model without an active number scores 0.
    Raises ValueError (one line) for bad shapes, NaN, tables of different length, fewer than two models.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    points, seed = whole("points", points, least=2), whole("seed", seed, least=0)
    if not isinstance(codes, (list, tuple)) or len(codes) < 2:
        raise ValueError("this metric compares models: give a list of two or more tables of codes, or of models")
    if hasattr(kl, "sample"):
        tables, kls, columns, left_out = _encoded(codes, kl, points, seed)
    else:
        tables, kls, columns, left_out = _given(codes, kl)
    still = [(t == t[:1]).all(axis=0) for t in tables]
    alive = [~s if k is None else ~s & (k > KL_DEAD) for s, k in zip(still, kls)]
    tables = [t[:, a] for t, a in zip(tables, alive)]
    S, early = len(tables), 0
    pairs = np.full((S, S), np.nan)
    for i in range(S):
        for j in range(S):
            if i != j:
                R, converged = relations(tables[i], tables[j], method)
                pairs[i, j] = agreement(R)
                early += not converged
    scores = [float(np.median(np.delete(column, j))) for j, column in enumerate(pairs.T)]
    dead = [i for i, a in enumerate(alive) if not a.any()]
    notes = [f"model {i} has no active number" for i in dead]
    notes += [f"{early} of {S * (S - 1)} lassos had not converged"] * (early > 0)
    return {
        "scores": scores, "best": int(np.argmax(scores)),
        "pairs": [[None if i == j else float(p) for j, p in enumerate(row)] for i, row in enumerate(pairs)],
        "active": [[c for c, a in zip(names, keep) if a] for names, keep in zip(columns, alive)],
        "dims": [len(names) for names in columns], "columns": columns, "left_out": left_out,
        "note": "; ".join(notes) or None,
        "settings": {"method": method + (f", penalty {ALPHA}" if method == "lasso" else ""), "seed": seed,
                     "dead": "constant" if all(k is None for k in kls) else f"mean KL <= {KL_DEAD:g} nats or constant",
                     "protocol": "model" if hasattr(kl, "sample") else "arrays", "points": len(tables[0])},
    }


def relations(a: np.ndarray, b: np.ndarray, method: str = "lasso") -> tuple[np.ndarray, bool]:
    """(R (d_a, d_b), True where the lasso converged): how strongly each column of a (N, d_a) goes with each of b."""
    if not (a.shape[1] and b.shape[1]):
        return np.zeros((a.shape[1], b.shape[1])), True
    if method == "spearman":
        from scipy.stats import rankdata  # here, since importing it takes half a second

        a, b = rankdata(a, axis=0), rankdata(b, axis=0)
    a, b = _standardised(a), _standardised(b)
    if method == "spearman":
        return np.abs(a.T @ b) / len(a), True
    from sklearn.linear_model import Lasso  # here, since importing it takes a second

    lasso = Lasso(alpha=ALPHA, max_iter=10_000)
    converged = fitted(lasso, a, b)
    return np.abs(lasso.coef_.reshape(b.shape[1], -1).T), converged


def agreement(R: np.ndarray) -> float:
    """The pair's score from R (d_a, d_b); a row or column of zeros counts 0, and so does an empty table."""
    if not R.size:
        return 0.0
    parts = []
    for rows in (R, R.T):
        total = rows.sum(axis=1)
        parts.append(np.divide(rows.max(axis=1) ** 2, total, out=np.zeros_like(total), where=total > 0).mean())
    return float(np.mean(parts))


def _standardised(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and spread 1 (N, d), none of them constant."""
    return (x - x.mean(axis=0)) / x.std(axis=0)


def _given(codes, kl):
    """(tables, KLs, columns, left out) of arrays, checked."""
    if any(hasattr(table_, "decode") for table_ in codes):
        raise ValueError("models are compared on pictures: call udr([model, ...], data)")
    tables = [table(c, f"codes {i}") for i, c in enumerate(codes)]
    if len({len(t) for t in tables}) > 1:
        raise ValueError("the tables have " + ", ".join(str(len(t)) for t in tables)
                         + " rows: row n of each must belong to the same picture")
    if not (kl is None or isinstance(kl, (list, tuple))):
        raise ValueError("kl must be a list of KLs per column, one entry for each table of codes, or the models' data; "
                         f"got {type(kl).__name__}")
    kl = [None] * len(tables) if kl is None else kl
    if len(kl) != len(tables):
        raise ValueError(f"kl has {len(kl)} entries for {len(tables)} tables of codes")
    kls = []
    for i, (t, k) in enumerate(zip(tables, kl)):
        k = None if k is None else np.asarray(k.detach().cpu() if isinstance(k, torch.Tensor) else k, dtype=float)
        if k is not None and (k.shape != (t.shape[1],) or not np.isfinite(k).all()):
            raise ValueError(f"kl {i} must hold {t.shape[1]} finite numbers, one per column of codes {i}")
        kls.append(k)
    return tables, kls, [[f"z{j}" for j in range(t.shape[1])] for t in tables], [{} for _ in tables]


def _encoded(models, data, points: int, seed: int):
    """(tables, KLs, columns, left out) of models, over the same pictures."""
    scored, left_out = [], []
    for i, model in enumerate(models):
        if not (hasattr(model, "codes") and can_encode(model)):
            raise ValueError(f"entry {i}, {type(model).__name__}, is no model that can encode: give a list of models "
                             "and their data, or a list of tables of codes and a list of KLs")
        scored.append([b for b in model.codes if b.inferred and b.scalar])
        left_out.append({b.name: "not inferred" if not b.inferred else b.kind if b.kind in ("onehot", "map") else
                         f"{b.size} numbers wide" for b in model.codes if not (b.inferred and b.scalar)})
        if not scored[i]:
            raise ValueError(f"model {i}, {type(model).__name__}, has no inferred block of size 1 to compare")
    rng = torch.Generator(device=data.device).manual_seed(seed)
    codes, kls = [[] for _ in models], [[] for _ in models]
    for start in range(0, points, CHUNK):
        x = data.sample(min(CHUNK, points - start), rng)["x"]
        for i, (model, blocks) in enumerate(zip(models, scored)):
            z = encode(model, x)
            codes[i].append(torch.cat([model.codes.read(z, b.name) for b in blocks], dim=1).double())  # (n, d)
            if callable(getattr(model, "posterior", None)) and all(type(b) is Block and b.kind == "gaussian"
                                                                   for b in blocks):
                nats = gaussian_kl(*(part.double() for part in posterior(model, x)))  # (n, D)
                kls[i].append(nats[:, [b.at[0] for b in blocks]])
    tables = [table(torch.cat(parts), f"the codes of model {i}") for i, parts in enumerate(codes)]
    kls = [torch.cat(parts).mean(dim=0).numpy() if parts else None for parts in kls]
    return tables, kls, [[b.name for b in blocks] for blocks in scored], left_out
