"""Answers to the exercises of 00_tour: per exercise one right, then typical wrong ones. Each replaces the stub."""

# The latent of the shipped run that follows a factor best, and where the unlabelled panel has put it.
LATENT = "max(run.stats, key=lambda s: (s['correlation'] or 0) * (s['factor'] == '{}'))['name']"
MOVED = "my_latent = 'z' + str(int(order[int({}[1:])]))"

EXERCISES = {
    "vertical": [
        MOVED.format(LATENT.format("y")),
        # across instead of up and down
        MOVED.format(LATENT.format("x")),
        # the name that the labelled panel of section 3 gives
        f"my_latent = {LATENT.format('y')}",
    ],
    "write": [
        "def my_write(c, name, value):\n    c = c.clone()\n    c[:, int(name[1:])] = value\n    return c",
        # obeys neither argument: right for the first latent it is tried with, and for no other
        "def my_write(c, name, value):\n    c = c.clone()\n    c[:, 2] = 1.0\n    return c",
        # the row instead of the column
        "def my_write(c, name, value):\n    c = c.clone()\n    c[int(name[1:])] = value\n    return c",
    ],
    "active": [
        "def my_count(stats):\n    return sum(s['importance'] > 0.1 for s in stats)",
        "def my_count(stats):\n    return len(stats)",
        # the indices of the active ones instead of how many there are
        "def my_count(stats):\n    return [i for i, s in enumerate(stats) if s['importance'] > 0.1]",
    ],
}
