"""How many Fonts pictures are drawn per second, and how long its table takes. Run: python tests/benchmarks/fonts.py"""

import time

import torch
from render import rate

from disentkit.data import glyphs
from disentkit.data.fonts import EXTRAS, SIZES, Fonts

OPTIONS = {
    "letters": {},
    "words": {"words": True},
    "rotated": {"extra": "rotation"},
    "all extras": {"extra": ",".join(EXTRAS)},
}

if __name__ == "__main__":
    print(f"{'pixels':>6} {'table, s of one core':>20} {'MB':>5}")
    for size in SIZES:
        glyphs.masks.cache_clear()
        start = time.process_time()
        table = glyphs.masks(*Fonts(size)._glyphs)
        print(f"{size:6} {time.process_time() - start:20.2f} {table.numel() / 1e6:5.1f}", flush=True)
    print(f"\n{'threads':>7} {'pictures':>10} {'pixels':>6} {'batch':>5} {'images/s':>9}")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, options in OPTIONS.items():
            for size in SIZES:
                for batch in (64, 256):
                    speed = rate(Fonts(size, **options), batch)
                    print(f"{threads:7} {name:>10} {size:6} {batch:5} {speed:9,.0f}", flush=True)
