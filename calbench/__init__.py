"""calbench: the calibration of dense classification models, measured right.

>>> import numpy as np, calbench
>>> image = calbench.Sample("a", np.array([[10, 240, 250]], np.uint8), np.array([[0, 1, 0]]))
>>> table = calbench.evaluate(calbench.collect([image]), metrics=["ece", "mae"])
>>> table[["metric", "average", "value"]].round(4)
  metric average   value
0    ece  pixels  0.2941
1    ece  images  0.2941
2    mae  images  0.3472
"""

from calbench import errors
from calbench.collect import collect
from calbench.evaluate import Settings
from calbench.io.sample import Sample
from calbench.metrics import METRICS, Metric
from calbench.profiles import PROFILES
from calbench.results import Results, evaluate
from calbench.statistics import Run, Statistics
from calbench.statistics.storage import load_run, save_run

__version__ = "0.1.0"

__all__ = [
    "METRICS",
    "PROFILES",
    "Metric",
    "Results",
    "Run",
    "Sample",
    "Settings",
    "Statistics",
    "collect",
    "errors",
    "evaluate",
    "load_run",
    "save_run",
]
