"""Post-hoc calibrators: one file each, one line each here."""

from calbench.calibrators.beta import Beta
from calbench.calibrators.calibration_net import CalibrationNet
from calbench.calibrators.calibrator import Calibrator, NotFitted
from calbench.calibrators.dirichlet import Dirichlet
from calbench.calibrators.ensemble_temperature import EnsembleTemperature
from calbench.calibrators.histogram_binning import HistogramBinning
from calbench.calibrators.identity import Identity
from calbench.calibrators.isotonic import Isotonic
from calbench.calibrators.local_temperature import LocalTemperature
from calbench.calibrators.matrix import Matrix
from calbench.calibrators.meta_cal import MetaCal
from calbench.calibrators.platt import Platt
from calbench.calibrators.selective import SelectiveScaling
from calbench.calibrators.stochastic_spatial import StochasticSpatial
from calbench.calibrators.storage import load_calibrator, save_calibrator
from calbench.calibrators.temperature import Temperature
from calbench.calibrators.vector import Vector

CALIBRATORS: dict[str, type[Calibrator]] = {
    kind.name: kind
    for kind in (
        Identity,
        Temperature,
        EnsembleTemperature,
        Platt,
        Beta,
        HistogramBinning,
        Isotonic,
        Vector,
        Matrix,
        Dirichlet,
        MetaCal,
        SelectiveScaling,
        LocalTemperature,
        StochasticSpatial,
        CalibrationNet,
    )
}
"""Every calibrator by name, in the order of the documentation."""

__all__ = ["CALIBRATORS", "Calibrator", "NotFitted", "load_calibrator", "save_calibrator"]
