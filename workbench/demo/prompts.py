"""The 200 held-out prompts: `python -m workbench.demo.prompts` writes data/prompts/held-out.txt.

Balanced: every digit with every direction at every moving speed once (160), every digit standing still four times (40), colours
dealt out evenly, all 200 different. Their order is drawn with a fixed seed. Held out means that clip i is generated from noise of
seed i, which no training step used; every word of a prompt is one that training knows.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np

from analysis.metrics.moving_digits_factors import COLOURS, DIRECTIONS, SPEEDS, Factors
from pare.files import write_bytes

SEED = 20264
STILL_PER_DIGIT = 4
HELD_OUT = Path(__file__).parents[2] / "data" / "prompts" / "held-out.txt"


def held_out_prompts(seed: int = SEED) -> list[str]:
    """The 200 prompts, a function of the seed alone.

    >>> prompts = held_out_prompts()
    >>> len(prompts), len(set(prompts))
    (200, 200)
    """
    rng = np.random.default_rng(seed)
    colours, motions = list(COLOURS), list(product(DIRECTIONS, SPEEDS[1:]))
    prompts = []
    # Still prompts go on in the row of colours where the moving ones end, so that all colours come out even.
    moving, still = 0, 10 * len(motions)
    for digit in range(10):
        for choice in rng.permutation(len(motions)):
            colour = colours[moving % len(colours)]
            prompts.append(Factors(digit, colour, *motions[choice]).caption)
            moving += 1
        for _ in range(STILL_PER_DIGIT):
            # Consecutive colours, so that the still prompts of one digit differ.
            prompts.append(Factors(digit, colours[still % len(colours)], None, "still").caption)
            still += 1
    return [prompts[i] for i in rng.permutation(len(prompts))]


def main() -> None:
    """The command line: writes the file that `workbench.demo.evaluate` reads."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.demo.prompts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=HELD_OUT)
    arguments = parser.parse_args()
    write_bytes(arguments.out, "".join(f"{prompt}\n" for prompt in held_out_prompts()).encode())


if __name__ == "__main__":
    main()
