"""Answers to the exercises of 01_factorvae: per exercise one right, then typical wrong ones. Each replaces the stub."""

EXERCISES = {
    "kl": [
        "def my_kl(mu, logvar):\n    return 0.5 * (mu**2 + logvar.exp() - logvar - 1).mean(0)",
        # summed over latents as well
        "def my_kl(mu, logvar):\n    return 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()",
        # log sigma taken for log sigma^2
        "def my_kl(mu, logvar):\n    return 0.5 * (mu**2 + (2 * logvar).exp() - 2 * logvar - 1).mean(0)",
    ],
    "tc": [
        "def my_tc(probability):\n    return (probability.log() - (1 - probability).log()).mean()",
        # the sign of a swapped label
        "def my_tc(probability):\n    return ((1 - probability).log() - probability.log()).mean()",
        # the log of the probability alone
        "def my_tc(probability):\n    return probability.log().mean()",
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
}
