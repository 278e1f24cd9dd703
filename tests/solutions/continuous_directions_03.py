"""Answers to the exercises of 03_continuous_directions: per exercise one right, then typical wrong ones, each in place
of the stub."""

# Step 3 of the method by hand, far targets of x only, then the mean of step 5; {} is what comes back.
FOLLOWED = (
    "def my_direction(model):\n"
    "    start = model.prior(80, torch.Generator().manual_seed(0))\n"
    "    with torch.no_grad():\n"
    "        pictures = model.decode(start)\n"
    "    u = torch.zeros(start.shape[1])\n"
    "    for t in (-0.15, 0.15):\n"
    "        target, mask = TRANSFORMS['{}'](pictures, torch.full((80,), t))\n"
    "        z = start.clone().requires_grad_()\n"
    "        for _ in range(30):\n"
    "            (slope,) = torch.autograd.grad(filtered_error(model.decode(z), target, mask, 0.75).sum(), z)\n"
    "            z = (z - 0.03 * F.normalize(slope, dim=1)).detach().requires_grad_()\n"
    "        u = u + t * (z - start).detach().mean(0)\n"
    "    return {}"
)

# The right answer, with {} as the padding and what is done before and after the blur.
SPECTRUM = (
    "def my_filtered_error(x, target, mask, sigma):\n"
    "    room = {}\n"
    "    off = F.pad({} * (x - target), (0, room, 0, room))\n"
    "    high, wide = off.shape[2:]\n"
    "    f = torch.hypot(torch.fft.fftfreq(high)[:, None], torch.fft.rfftfreq(wide))\n"
    "    soft = torch.fft.irfft2(torch.fft.rfft2(off) * torch.exp(-2 * (math.pi * sigma * f) ** 2), s=(high, wide))\n"
    "    soft = mask * soft[..., : x.shape[2], : x.shape[3]]\n"
    "    return soft.square().mean((1, 2, 3)){}"
)

UNIFORM = (
    "def my_uniform(direction, codes, low, high):\n"
    "    s = direction.projection(codes)\n"
    "    t = low + (high - low) * {}\n"
    "    return codes + {}[:, None] * torch.tensor(direction.u)"
)

EXERCISES = {
    "direction": [
        FOLLOWED.format("x", "u / u.norm()"),
        # the other way: to the left
        FOLLOWED.format("x", "-u / u.norm()"),
        # along the other axis
        FOLLOWED.format("y", "u / u.norm()"),
        # a vector, but no direction that anybody found
        "def my_direction(model):\n    return torch.ones(model.codes.size)",
    ],
    "filtered": [
        SPECTRUM.format("4 * math.ceil(sigma)", "mask", " / mask.mean((1, 2, 3))"),
        # no room: what leaves on one side comes in on the other
        SPECTRUM.format("0", "mask", " / mask.mean((1, 2, 3))"),
        # undefined pixels leak in
        SPECTRUM.format("4 * math.ceil(sigma)", "1", " / mask.mean((1, 2, 3))"),
        # a mean over all pixels, also those that are not defined
        SPECTRUM.format("4 * math.ceil(sigma)", "mask", ""),
    ],
    "ball": [
        "def my_code(u):\n    return math.sqrt(len(u)) * u",
        # of length 1: the prior draws that every day
        "def my_code(u):\n    return u",
        # the ball holds it back
        "def my_code(u):\n    return len(u) * u",
        # on the ball, but somewhere
        "def my_code(u):\n    return torch.ones(len(u))",
    ],
    "uniform": [
        UNIFORM.format("torch.special.ndtr(s)", "(direction.inverse(t) - s)"),
        # uniform <z,u>, not uniform t
        UNIFORM.format("torch.special.ndtr(s)", "(t - s)"),
        # the old projection is left in
        UNIFORM.format("torch.special.ndtr(s)", "direction.inverse(t)"),
        # any uniform numbers: the order of the codes is lost
        UNIFORM.format("torch.rand(len(s))", "(direction.inverse(t) - s)"),
    ],
}
