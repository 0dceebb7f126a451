"""Draw the pictures that figures are held against: all, or those named. Look at them before they are committed.

python tests/make_baselines.py [NAME ...]
"""

from __future__ import annotations

import sys
from importlib import import_module

from figure_baselines import BASELINES, save_baseline

MODULES = ("test_figures_reliability", "test_figures_curves")

if __name__ == "__main__":
    BASELINES.mkdir(exist_ok=True)
    figures = {name: draw for module in MODULES for name, draw in import_module(module).FIGURES.items()}
    for name in sys.argv[1:] or figures:
        save_baseline(figures[name](), BASELINES / f"{name}.png")
        print(BASELINES / f"{name}.png")
