"""The FactorVAE score (Kim & Mnih 2018, Figure 2): which code number stands still when one factor does?

One vote: pick a factor k, fix it to a random value, look at L codes of pictures that share it, divide each code number
by its spread s_j over all data, and name the number with the smallest variance,

    a = argmin_j Var_L[z_j] / s_j^2 ,        the vote is (a, k).

V[j, k] counts the votes of the training set; the classifier answers C(j) = argmax_k V[j, k], and the score is the share
of votes it gets right. A code that tells nothing scores 1/K, whatever its size.

A column of category numbers c (an inferred one-hot block, say) has the Gini variance in place of the variance,

    1 / (2 n (n - 1)) sum_ij 1[c_i != c_j] ,

the share of pairs that differ, halved: for a column of two numbers 0 and 1 it is the ordinary variance.

Dead latents, which hardly move, have to be dropped before the argmin, or they win votes: three ideal latents for three
of five factors score 0.60 pruned, and up to 0.8 with seven dead ones left in. So both are returned, with the rule and
the number of survivors; a score without them cannot be compared with another one.
"""
import numpy as np

from disentkit.codes import KL_DEAD
from disentkit.metrics.arrays import shares, source, whole


def factorvae_score(codes, factors, *, L: int = 100, votes: int = 800, prune: float = 0.05, seed: int = 0,
                    names=None, categorical=()) -> dict:
    """Majority-vote score in [0, 1]; chance is 1/K. Call it with arrays, or as `factorvae_score(model, data, ...)`.

    codes, factors  (N, d) and (N, K), numpy or torch; row i of both belongs to the same picture. Every factor value
                    needs L rows (the rarest has `settings["smallest_group"]`).
                    Or a model that can encode and data with factors: the spread comes from 10,000 pictures, and every
                    vote encodes L new ones, 2 * votes * L in all (160,000; in a hurry, encode 10,000 pictures and
                    give arrays). Inferred blocks of size 1 are scored, and inferred one-hot blocks as one categorical
                    column (the number of the largest entry); the others are named in `left_out`.
    L               rows per vote, 2 or more
    votes           votes that train the classifier; as many fresh ones evaluate it
    prune           a code number with a standard deviation below this is dead; where the model has a posterior, so is
                    one with a mean KL below 0.01 nats. The paper prunes what collapsed to the prior; both numbers are
                    ours.
    names           the K factors' names, for arrays
    categorical     the positions of the columns that hold category numbers, for arrays

    Returns a dict ready for JSON: `pruned`, `unpruned` (share of right answers on the fresh votes), `pruned_train`,
    `unpruned_train` (the same on the votes that trained the classifier, too good by a few hundredths), `surviving` of
    `dims` code numbers, `kept` (their names), `columns` (all names), `std`, `kl` (None without a posterior), `votes`
    (V of the pruned score, d x K; rows of dead numbers are zero), `factors` (the K names), `left_out`, `note` (None, or
    what to know), `settings`.

    Decided here: the factors take equal shares of the votes (the paper draws each one). Equal variances or counts go to
    the lower index; so a number without a training vote answers the first factor. When nothing survives, the classifier
    always answers the factor most frequent in training, which scores chance. A number that is exactly constant has no
    spread to divide by and never takes part, not even unpruned. Factors with one value are left out of K and named in
    `settings["constant_factors"]`.
    Raises ValueError (one line) for bad shapes, NaN, real-valued factors in arrays, values with fewer than L rows,
    data without factors, K < 2.
    """
    L, votes = whole("L", L, least=2), whole("votes", votes)
    if not (isinstance(prune, (int, float)) and 0 <= prune < np.inf):
        raise ValueError(f"prune must be a standard deviation of 0 or more, got {prune!r}")
    src = source(codes, factors, names, seed, onehot=True, categorical=categorical)
    K = len(src.factors)
    if K < 2:
        raise ValueError(f"this metric needs at least two factors that vary, got one ({src.factors[0]})")

    discrete = np.array(src.discrete)
    std = _variance(src.codes, discrete) ** 0.5  # (d,)
    moving = src.codes.max(axis=0) > src.codes.min(axis=0)
    alive = moving & (std >= prune)
    kl = src.mean_kl()
    if kl is not None:
        alive &= kl >= KL_DEAD
    train, test = (_variances(src, L, votes, np.where(moving, std, 1.0), discrete) for _ in range(2))

    pruned, pruned_train, table = _classify(train, test, np.flatnonzero(alive), len(std), K)
    unpruned, unpruned_train, _ = _classify(train, test, np.flatnonzero(moving), len(std), K)
    rule = f"std < {prune:g}" + (f" or mean KL < {KL_DEAD:g} nats" if kl is not None else "")
    return {
        "pruned": pruned, "unpruned": unpruned, "pruned_train": pruned_train, "unpruned_train": unpruned_train,
        "surviving": int(alive.sum()), "dims": len(std), "kept": [c for c, a in zip(src.columns, alive) if a],
        "columns": src.columns, "std": std.tolist(), "kl": None if kl is None else kl.tolist(),
        "votes": table.tolist(), "factors": src.factors, "left_out": src.left_out,
        "note": None if alive.any() else "no code number survives pruning, so the score is chance",
        "settings": {"L": L, "votes": votes, "eval_votes": votes, "prune": rule, "seed": int(seed),
                     "protocol": src.protocol, "points": len(src.codes), "smallest_group": src.smallest_group,
                     "constant_factors": src.constant},
    }


def gini_variance(column: np.ndarray) -> float:
    """1 / (2 n (n - 1)) sum_ij 1[c_i != c_j] of category numbers (n,); n is 2 or more."""
    n, counts = len(column), np.unique(column, return_counts=True)[1]
    return float((n * n - (counts**2).sum()) / (2 * n * (n - 1)))


def _variance(codes: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """The variance (d,) of codes (n, d), Gini's where a column holds category numbers."""
    variance = codes.var(axis=0, ddof=1)
    for j in np.flatnonzero(discrete):
        variance[j] = gini_variance(codes[:, j])
    return variance


def _variances(src, L: int, votes: int, std: np.ndarray, discrete: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(normalised variances (votes, d), the factor fixed in each vote (votes,))."""
    counts = shares(src.rng, votes, len(src.factors))
    groups = (group for k, count in enumerate(counts) for group in src.groups(k, L, count))
    rows = [_variance(group, discrete) / std**2 for group in groups]
    return np.stack(rows), np.repeat(np.arange(len(counts)), counts)


def _classify(train, test, dims: np.ndarray, d: int, K: int) -> tuple[float, float, np.ndarray]:
    """(score on fresh votes, score on training votes, V (d, K)) with only the code numbers `dims` in the argmin."""
    (train_var, train_label), (test_var, test_label) = train, test
    V = np.zeros((d, K), dtype=np.int64)
    if not len(dims):
        most_frequent = np.bincount(train_label, minlength=K).argmax()
        return float((test_label == most_frequent).mean()), float((train_label == most_frequent).mean()), V
    train_dim, test_dim = (dims[var[:, dims].argmin(axis=1)] for var in (train_var, test_var))  # (votes,)
    np.add.at(V, (train_dim, train_label), 1)
    answer = V.argmax(axis=1)  # (d,)
    return float((answer[test_dim] == test_label).mean()), float((answer[train_dim] == train_label).mean()), V
