"""One FactorVAE step against pythae's, with the same networks on the same CPU: ratios of steps/s.

    python tests/benchmarks/step.py [--threads 1 2] [--rounds 9] [--steps 6]

64x64 pictures, batch 64, discriminator 6x1000 (the paper's). Pictures are drawn beforehand, so that on both sides only
the step counts. The contenders take turns, and a ratio is the median over rounds of the ratio within a round, so that
other work on the machine hurts all of them alike. See README.md in this folder for how to get pythae.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from disentkit import machine, training
from disentkit.data.base import Spec
from disentkit.data.dsprites import DSprites
from disentkit.methods.factorvae import FactorVAE, Settings
from disentkit.nets import factorvae as nets

PYTHAE = Path(__file__).resolve().parents[2] / "build" / "pythae"
HOW = """\
pythae is not installed, so only our own numbers are shown. To compare, in the checkout:
  .venv/bin/python -m pip install --target build/pythae pydantic
  .venv/bin/python -m pip install --target build/pythae --no-deps pythae imageio"""
SETTINGS = Settings(gamma=10.0)  # gamma is a factor in a sum: it costs nothing


def pictures(n: int, count: int = 4) -> list[Tensor]:
    """`count` batches (n, 1, 64, 64)."""
    data, rng = DSprites(64), torch.Generator().manual_seed(0)
    return [data.sample(n, rng)["x"] for _ in range(count)]


def ours(dtype: torch.dtype, batches: list[Tensor]) -> Callable[[int], None]:
    """A function that does `steps` steps just as `fit` does them: layout, precision, the learner's own step."""
    with machine.seeded(0):
        learner = FactorVAE(SETTINGS, Spec((1, 64, 64)))
    device = torch.device("cpu")
    learner.to(device=device, memory_format=torch.channels_last).train()
    learner.rng = torch.Generator().manual_seed(1)
    opt = learner.optimizers()
    pairs = [[{"x": training._channels_last(half)} for half in batch.chunk(2)] for batch in batches]

    def run(steps: int) -> None:
        with training._inside_networks(learner, device, dtype):
            for i in range(steps):
                learner.t.fill_(i)
                learner.step(opt, *pairs[i % len(pairs)])

    return run


def pythae(batches: list[Tensor]) -> Callable[[int], None] | None:
    """The same for pythae: the body of its AdversarialTrainer's training loop. None where it is not installed."""
    sys.path.append(str(PYTHAE))  # at the end: our own versions come first
    try:
        from pythae.data.datasets import BaseDataset, DatasetOutput
        from pythae.models import FactorVAE as Theirs
        from pythae.models import FactorVAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
        from pythae.trainers import AdversarialTrainer, AdversarialTrainerConfig
    except ImportError:
        return None

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = nets.encoder((1, 64, 64), SETTINGS.d, SETTINGS.fc)

        def forward(self, x):
            mu, logvar = self.net(x).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = nets.decoder((1, 64, 64), SETTINGS.d, SETTINGS.fc)

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    class Discriminator(BaseDiscriminator):
        def __init__(self):
            super().__init__()
            self.net = nets.discriminator(SETTINGS.d, SETTINGS.width, SETTINGS.layers)

        def forward(self, z):
            return self.net(z)

    logging.getLogger("pythae").setLevel(logging.ERROR)
    for name in ("base_trainer.base_trainer", "adversarial_trainer.adversarial_trainer"):  # these set their own level
        logging.getLogger(f"pythae.trainers.{name}").setLevel(logging.ERROR)
    config = FactorVAEConfig(
        input_dim=(1, 64, 64), latent_dim=SETTINGS.d, reconstruction_loss="bce", gamma=SETTINGS.gamma
    )
    with machine.seeded(0):
        model = Theirs(config, Encoder(), Decoder())
        model.set_discriminator(Discriminator())
    trainer = AdversarialTrainer(
        model,
        BaseDataset(batches[0], torch.zeros(len(batches[0]))),
        training_config=AdversarialTrainerConfig(
            no_cuda=True, per_device_train_batch_size=len(batches[0]), autoencoder_learning_rate=SETTINGS.lr,
            discriminator_learning_rate=SETTINGS.lr_D, discriminator_optimizer_params={"betas": (0.5, 0.9)},
        ),
    )  # fmt: skip
    trainer.set_autoencoder_optimizer()
    trainer.set_discriminator_optimizer()
    trainer.model.train()
    inputs = [DatasetOutput(data=batch, labels=torch.zeros(len(batch))) for batch in batches]

    def run(steps: int) -> None:
        for i in range(steps):
            output = trainer.model(inputs[i % len(inputs)], epoch=1, dataset_size=len(batches[0]), uses_ddp=False)
            trainer._optimizers_step(output)
            output.autoencoder_loss.item(), output.discriminator_loss.item(), output.loss.item()

    return run


def measure(contenders: dict[str, Callable[[int], None]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps/s of every contender, one number per round; within a round they take turns in changing order."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name in contenders:
        contenders[name](3)  # warms up
    for turn in range(rounds):
        order = list(contenders) if turn % 2 else list(contenders)[::-1]
        for name in order:
            start = time.perf_counter()
            contenders[name](steps)
            rates[name].append(steps / (time.perf_counter() - start))
    return rates


def ratio(rates: dict[str, list[float]], a: str, b: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio a / b over the rounds."""
    within = [x / y for x, y in zip(rates[a], rates[b])]
    return statistics.median(within), min(within), max(within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps of each contender in a round")
    args = parser.parse_args()

    batches = pictures(2 * SETTINGS.batch)
    contenders = {"ours, float32": ours(torch.float32, batches)}
    if machine.has_bf16(torch.device("cpu")):
        contenders["ours, bf16"] = ours(torch.bfloat16, batches)
    else:
        print("this CPU has no bf16 instructions: float32 only")
    theirs = pythae(batches)
    if theirs:
        contenders["pythae"] = theirs
    else:
        print(HOW)

    print(f"\n{'threads':>7}  {'':14}  {'steps/s':>8}  {'against pythae (lowest, highest round)'}")
    for threads in args.threads:
        torch.set_num_threads(threads)
        rates = measure(contenders, args.rounds, args.steps)
        for name, found in rates.items():
            line = f"{threads:7}  {name:14}  {statistics.median(found):8.2f}"
            if theirs and name != "pythae":
                line += "  {:.2f} ({:.2f}, {:.2f})".format(*ratio(rates, name, "pythae"))
            print(line, flush=True)


if __name__ == "__main__":
    main()
