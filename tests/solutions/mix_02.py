"""Answers to the exercises of 02_mix: per exercise one right, then typical wrong ones. Each replaces the stub."""

HAIR = "my_block = letter[swaps.follows.drop(index=['all', 'chance'])['hair'].{}()]"

EXERCISES = {
    "hair": [
        HAIR.format("idxmax"),
        # the block that leaves the hair alone
        HAIR.format("idxmin"),
        # a number instead of a name
        "my_block = 0",
    ],
    "unmix": [
        "def my_unmix(f1, f2, f3, m):\n"
        "    wide = m.repeat_interleave(f1.shape[1] // m.shape[1], dim=1)\n"
        "    return wide * f3 + (1 - wide) * f1, (1 - wide) * f3 + wide * f2",
        # the mask of x1 for x2 as well
        "def my_unmix(f1, f2, f3, m):\n"
        "    wide = m.repeat_interleave(f1.shape[1] // m.shape[1], dim=1)\n"
        "    return wide * f3 + (1 - wide) * f1, wide * f3 + (1 - wide) * f2",
        # the bits laid side by side, instead of each over its own block
        "def my_unmix(f1, f2, f3, m):\n"
        "    wide = m.repeat(1, f1.shape[1] // m.shape[1])\n"
        "    return wide * f3 + (1 - wide) * f1, (1 - wide) * f3 + wide * f2",
    ],
    "shortcut": [
        "def my_coder(n, shape):\n"
        "    def encode(x):\n"
        "        return x.flatten(1).repeat(1, n)\n\n"
        "    def decode(f):\n"
        "        return f.chunk(n, dim=1)[-1].reshape(len(f), *shape)\n\n"
        "    return encode, decode",
        # the shortcut of section 4: the other blocks know nothing
        "def my_coder(n, shape):\n    return copies(n, shape)",
        # every block knows, and every block has a say: a blend of two pictures
        "def my_coder(n, shape):\n"
        "    def encode(x):\n"
        "        return x.flatten(1).repeat(1, n)\n\n"
        "    def decode(f):\n"
        "        return f.reshape(len(f), n, -1).mean(1).reshape(len(f), *shape)\n\n"
        "    return encode, decode",
    ],
    "least": [
        "def my_least_loss(p):\n    return (p**2).sum() * math.log(2)",
        # the accuracy, not the loss
        "def my_least_loss(p):\n    return 1 - (p**2).sum() / 2",
        # where they differ, instead of where they are equal
        "def my_least_loss(p):\n    return (1 - (p**2).sum()) * math.log(2)",
    ],
}
