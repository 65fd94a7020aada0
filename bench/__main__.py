"""Every comparison with a peer in one table: ``python -m minivit bench``."""
import os
import platform

import torch

from bench import augment, knn, moco_v3_step, monitors, nt_xent, pairs, simclr_step, swin_step, vit_step

COMPARISONS = (vit_step, swin_step, augment, knn, nt_xent, simclr_step, moco_v3_step, monitors)


def main() -> None:
    """Print the table, each comparison as soon as it is there."""
    machine = f"{platform.machine()} CPU with {os.cpu_count()} cores, {pairs.CORES} threads, torch {torch.__version__}"
    print(f"{machine}; a minute or two on an idle machine")
    print(pairs.HEADER)
    for comparison in COMPARISONS:
        print(*map(pairs.line, comparison.main()), sep="\n", flush=True)
    print("speed: the peer's time over ours in the same round, median of 9 rounds in turn. A model against itself scatters by about ±4 %.")


if __name__ == "__main__":
    main()
