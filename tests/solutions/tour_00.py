"""Answers to the exercises of 00_tour: per exercise one right, then typical wrong ones. Each replaces the stub."""

EXERCISES = {
    "vertical": [
        # found by looking: the latent that follows y
        "my_latent = max(run.stats, key=lambda s: (s['correlation'] or 0) * (s['factor'] == 'y'))['name']",
        "my_latent = max(run.stats, key=lambda s: (s['correlation'] or 0) * (s['factor'] == 'x'))['name']",
        "my_latent = 'z99'",
    ],
    "write": [
        "def my_write(c, name, value):\n    c = c.clone()\n    c[:, int(name[1:])] = value\n    return c",
        # the row instead of the column
        "def my_write(c, name, value):\n    c = c.clone()\n    c[int(name[1:])] = value\n    return c",
        # adds instead of setting
        "def my_write(c, name, value):\n    c = c.clone()\n    c[:, int(name[1:])] += value\n    return c",
    ],
    "active": [
        "def my_count(stats):\n    return sum(s['importance'] > 0.1 for s in stats)",
        "def my_count(stats):\n    return len(stats)",
        # the indices of the active ones instead of how many there are
        "def my_count(stats):\n    return [i for i, s in enumerate(stats) if s['importance'] > 0.1]",
    ],
}
