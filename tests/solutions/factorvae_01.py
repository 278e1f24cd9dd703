"""Answers to the exercises of 01_factorvae: per exercise one right, then typical wrong ones. Each replaces the stub."""

EXERCISES = {
    "invariant": [
        "def my_keep(followed, nuisance):\n    return followed[nuisance] < 0.3",
        # only the latent that follows it best goes
        "def my_keep(followed, nuisance):\n    return followed.index != followed[nuisance].idxmax()",
        # only latents that follow nothing else more closely go
        "def my_keep(followed, nuisance):\n    return followed.idxmax(axis=1) != nuisance",
    ],
    "gaussian": [
        "def my_gaussian_tc(cov):\n    return 0.5 * (cov.diagonal().log().sum() - cov.logdet())",
        # the joint entropy alone: right only where all variances are 1
        "def my_gaussian_tc(cov):\n    return -0.5 * cov.logdet()",
        # without the half
        "def my_gaussian_tc(cov):\n    return cov.diagonal().log().sum() - cov.logdet()",
    ],
    "best": [
        "def my_best_loss(ratio, ratio_perm):\n"
        "    return -0.5 * (F.logsigmoid(ratio).mean() + F.logsigmoid(-ratio_perm).mean())",
        # both clouds want D to be large
        "def my_best_loss(ratio, ratio_perm):\n"
        "    return -0.5 * (F.logsigmoid(ratio).mean() + F.logsigmoid(ratio_perm).mean())",
        # the ratio q / prod taken for D
        "def my_best_loss(ratio, ratio_perm):\n    return -0.5 * (ratio.mean() - ratio_perm.mean())",
    ],
    "chance": [
        "def my_chance_loss():\n    return 0.6931",
        # the accuracy, not the loss
        "def my_chance_loss():\n    return 0.5",
        # the two halves added instead of averaged
        "def my_chance_loss():\n    return 1.3863",
    ],
    "rotate": [
        "def my_rotation(codes, i, j):\n"
        "    a, b = codes[:, i].clone(), codes[:, j].clone()\n"
        "    codes[:, i], codes[:, j] = (a - b) / 2**0.5, (a + b) / 2**0.5\n"
        "    return codes",
        # swaps the two latents, which entangles nothing
        "def my_rotation(codes, i, j):\n"
        "    a, b = codes[:, i].clone(), codes[:, j].clone()\n"
        "    codes[:, i], codes[:, j] = b, a\n"
        "    return codes",
        # overwrites the first before the second is computed
        "def my_rotation(codes, i, j):\n"
        "    codes[:, i] = (codes[:, i] - codes[:, j]) / 2**0.5\n"
        "    codes[:, j] = (codes[:, i] + codes[:, j]) / 2**0.5\n"
        "    return codes",
    ],
    "votes": [
        "def my_score(V):\n    return V.max(dim=1).values.sum() / V.sum()",
        # asks the factors, not the latents
        "def my_score(V):\n    return V.max(dim=0).values.sum() / V.sum()",
        # every latent counts the same, however few votes it has
        "def my_score(V):\n    return (V.max(dim=1).values / V.sum(dim=1).clamp(min=1)).mean()",
    ],
    "living": [
        "def my_living(mu, logvar):\n    return (0.5 * (mu**2 + logvar.exp() - logvar - 1)).mean(dim=0) > 0.1",
        # every latent whose mean trembles
        "def my_living(mu, logvar):\n    return mu.std(dim=0) > 0.1",
        # summed over the pictures
        "def my_living(mu, logvar):\n    return (0.5 * (mu**2 + logvar.exp() - logvar - 1)).sum(dim=0) > 0.1",
    ],
}
