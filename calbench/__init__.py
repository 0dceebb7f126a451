"""calbench: the calibration of dense classification models, measured right.

>>> import numpy as np, calbench
>>> image = calbench.Sample("a", np.array([[10, 240, 250]], np.uint8), np.array([[0, 1, 0]]))
>>> table = calbench.evaluate(calbench.collect([image]), metrics=["ece", "mae"])
>>> table[["metric", "average", "value"]].round(4)
  metric average   value
0    ece  pixels  0.2941
1    ece  images  0.2941
2    mae  images  0.3472

Calibrators load scikit-learn when they are first asked for: `calbench.calibrate`, `calbench.CALIBRATORS`,
`calbench.load_calibrator`.
"""

from typing import TYPE_CHECKING, Any

from calbench import errors
from calbench.collect import collect
from calbench.evaluate import Settings
from calbench.io.sample import Sample
from calbench.metrics import METRICS, Metric
from calbench.profiles import PROFILES
from calbench.results import Results, evaluate
from calbench.statistics import Run, Statistics
from calbench.statistics.storage import load_run, save_run

if TYPE_CHECKING:
    from calbench.calibration import calibrate
    from calbench.calibrators import CALIBRATORS, Calibrator, load_calibrator, save_calibrator
    from calbench.comparison import compare
    from calbench.leaderboard import Calibration
    from calbench.report.build import write_report
    from calbench.report.display import ReliabilityDisplay
    from calbench.saved import load_results

__version__ = "0.1.0"

_LATER = {
    "CALIBRATORS": "calbench.calibrators",
    "Calibration": "calbench.leaderboard",
    "Calibrator": "calbench.calibrators",
    "ReliabilityDisplay": "calbench.report.display",
    "calibrate": "calbench.calibration",
    "compare": "calbench.comparison",
    "load_calibrator": "calbench.calibrators",
    "load_results": "calbench.saved",
    "save_calibrator": "calbench.calibrators",
    "write_report": "calbench.report.build",
}
"""Public names whose modules are loaded when they are first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'calbench' has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "CALIBRATORS",
    "METRICS",
    "PROFILES",
    "Calibration",
    "Calibrator",
    "Metric",
    "ReliabilityDisplay",
    "Results",
    "Run",
    "Sample",
    "Settings",
    "Statistics",
    "calibrate",
    "collect",
    "compare",
    "errors",
    "evaluate",
    "load_calibrator",
    "load_results",
    "load_run",
    "save_calibrator",
    "save_run",
    "write_report",
]
