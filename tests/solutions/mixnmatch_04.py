"""Answers to the exercises of 04_mixnmatch: per exercise one right, then typical wrong ones. Each replaces the stub."""

# The map of a box; {} are the ends that rows and columns come from, and which boxes count.
VALID = (
    "def my_valid(box, side, field, stride):\n"
    "    first = stride * torch.arange((side - field) // stride + 1)\n"
    "    x1, y1, x2, y2 = box.T[:, :, None]\n"
    "    columns = (first <= x2) & (first + field >= x1)\n"
    "    rows = (first <= y2) & (first + field >= y1)\n"
    "    there = {}\n"
    "    touched = {}\n"
    "    return (~(touched & there[:, :, None])).float()[:, None]"
)
BOTH = "rows[:, :, None] & columns[:, None, :]"

TIED = (
    "def my_tied(n, parents, children, rng):\n"
    "    {}\n"
    "    c = torch.randint(children, (n,), generator=rng)\n"
    "    p = {}\n"
    "    return torch.eye(children)[c], torch.eye(parents)[p], torch.eye(children)[c]"
)
EVENLY = "torch.arange(n) % children"
CHECKED = "if children % parents:\n        raise ValueError('children must be a multiple of parents')"

STOP = (
    "def my_prediction_loss(G, E, z, b, p, c):\n"
    "    x = G(z, b, z, p, c){}\n"
    "    found = E(x)\n"
    "    loss = 5 * F.l1_loss(found['z'], z)\n"
    "    for k, weight, code in zip('bpc', {}, (b, p, c)):\n"
    "        loss = loss + weight * F.cross_entropy(found[k], code)\n"
    "    return loss{}"
)

EXERCISES = {
    "layers": [
        "def my_weights(P_m, C_m):\n    return (1 - C_m) * (1 - P_m), (1 - C_m) * P_m, C_m",
        # the child does not cover the parent
        "def my_weights(P_m, C_m):\n    return (1 - C_m) * (1 - P_m), P_m, C_m",
        # the parent lies over the child
        "def my_weights(P_m, C_m):\n    return (1 - C_m) * (1 - P_m), P_m, C_m * (1 - P_m)",
    ],
    "valid": [
        VALID.format("(x2 > x1) & (y2 > y1)", BOTH),
        # rows from x, columns from y
        VALID.format("(x2 > x1) & (y2 > y1)", "columns[:, :, None] & rows[:, None, :]"),
        # an object outside the view still hides patches
        VALID.format("x2 >= x1", BOTH),
        # a box without height is taken for an object
        VALID.format("x2 > x1", BOTH),
        # a patch that the box only touches counts as clear of it
        VALID.replace("<=", "<").replace(">=", ">").format("(x2 > x1) & (y2 > y1)", BOTH),
        # a patch that shares a row or a column with the box is no patch of the box
        VALID.format("(x2 > x1) & (y2 > y1)", "rows[:, :, None] | columns[:, None, :]"),
    ],
    "tied": [
        TIED.format(CHECKED, "c * parents // children"),
        # any children for any parents: nothing is refused
        TIED.format("pass", "c * parents // children"),
        # nothing is drawn
        TIED.format(CHECKED, "c * parents // children").replace("torch.randint(children, (n,), generator=rng)", EVENLY),
        # drawn, but not with rng
        TIED.format(CHECKED, "c * parents // children").replace(", generator=rng", ""),
        # every other child has another parent: children of one parent are no neighbours
        TIED.format(CHECKED, "c % parents"),
        # parents drawn by themselves: that is free, not tied
        TIED.format(CHECKED, "torch.randint(parents, (n,), generator=rng)"),
    ],
    "stop": [
        STOP.format(".detach()", "(5, 10, 10)", ""),
        # nothing stops: G learns to be read
        STOP.format("", "(5, 10, 10)", ""),
        # stopped too late: nobody learns
        STOP.format("", "(5, 10, 10)", ".detach()"),
        # one weight for all
        STOP.format(".detach()", "(5, 5, 5)", ""),
    ],
}
