"""Answers to the exercises of 05_gzsnet: per exercise one right, then typical wrong ones. Each replaces the stub."""

# A codec whose decoder draws another held-out tuple for each one; {} says which one.
SHUFFLED = (
    "def my_codec(held):\n"
    "    order = held[space.flat_of(held).argsort()]\n"
    "    places = space.flat_of(order)\n\n"
    "    def moved(v, by):\n"
    "        v = v.clone()\n"
    "        at = ~unseen.law.rule(v)\n"
    "        v[at] = order[(torch.searchsorted(places, space.flat_of(v[at])) + by) % len(order)]\n"
    "        return v\n\n"
    "    return lambda v: moved(v, {})[:, :, None], lambda z: moved(z[:, :, 0], 1)"
)

EXERCISES = {
    "partner": [
        "def my_partners(values, i, j):\n    same = values == values[i]\n    return same[:, j] & (same.sum(1) == 1)",
        # whoever shares the attribute, whatever else it shares
        "def my_partners(values, i, j):\n    return values[:, j] == values[i, j]",
        # exactly one attribute shared, but any
        "def my_partners(values, i, j):\n    return (values == values[i]).sum(1) == 1",
    ],
    "cover": [
        "def my_cover(values, i):\n"
        "    from itertools import combinations\n\n"
        "    others = [k for k in range(len(values)) if k != i]\n"
        "    for size in range(1, len(values)):\n"
        "        for members in combinations(others, size):\n"
        "            if (values[list(members)] == values[i]).any(0).all():\n"
        "                return members",
        # the partners: a cover, but not the least
        "def my_cover(values, i):\n    return [1, 2, 3, 4, 5]",
        # the picture itself
        "def my_cover(values, i):\n    return [i]",
    ],
    "psnr": [
        "def my_psnr(made, truth):\n    return (-10 * (made - truth).square().flatten(1).mean(1).log10()).mean()",
        # the PSNR of the mean error
        "def my_psnr(made, truth):\n    return -10 * (made - truth).square().mean().log10()",
        # as if pictures lay in -1 ... 1
        "def my_psnr(made, truth):\n    return (10 * (4 / (made - truth).square().flatten(1).mean(1)).log10()).mean()",
    ],
    "reader": [
        "def my_reader(values, i, j):\n"
        "    right = 0\n"
        "    for a in values[:, i].unique():\n"
        "        right += values[values[:, i] == a, j].unique(return_counts=True)[1].max().item()\n"
        "    return right / len(values)",
        # chance
        "def my_reader(values, i, j):\n    return 1 / len(values[:, j].unique())",
        # the most frequent value, without looking at the block
        "def my_reader(values, i, j):\n"
        "    return values[:, j].unique(return_counts=True)[1].max().item() / len(values)",
    ],
    "cheat": [
        SHUFFLED.format(-1),
        # the encoder reads wrong pictures as they are: no way back
        SHUFFLED.format(0),
        # honest: every synthesis is right
        "def my_codec(held):\n    return lambda v: v[:, :, None], lambda z: z[:, :, 0]",
    ],
}
