"""The beta sweep of the KMNIST repair experiment: 17 short runs, beta 2.00 to 6.00, and a table of them.

    python examples/beta_sweep.py kmnist runs/betas                 as the preset says, 5 epochs each
    python examples/beta_sweep.py kmnist runs/betas --epochs 20 --sigma 0.5
    python examples/beta_sweep.py kmnist runs/betas --betas 1 2 4   other weights

The folder holds KMNIST or MNIST; without the training images the test images are split. A sweep that was stopped goes
on where it was when it is started again.
"""

import argparse
import json
from pathlib import Path

from lowlight.workflows.training.beta_sweep import BETAS, sweep_betas, sweep_table
from lowlight.workflows.training.train import load_config


def main() -> None:
    """Run the sweep, print the table, and write the rows beside the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with KMNIST or MNIST")
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sigma", type=float, default=0.25, help="standard deviation of the noise")
    parser.add_argument("--preset", default="kmnist/beta-vae")
    arguments = parser.parse_args()
    data = {"path": str(arguments.data), "options": {"sigma": arguments.sigma}}
    config = load_config(None, {"data": data, "run": {"epochs": arguments.epochs}}, arguments.preset)
    rows = sweep_betas(config, arguments.folder, arguments.betas)
    (arguments.folder / "sweep.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    table = sweep_table(rows)
    for cells in ([title for title, _ in table.columns], *table.rows):
        print("  ".join(f"{cell:>9}" for cell in cells))
    print(table.note)


if __name__ == "__main__":
    main()
