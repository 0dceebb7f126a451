"""Training losses: one file each, one line each here. Importing this package imports torch."""

from calbench.losses.brier import Brier
from calbench.losses.cross_entropy import CrossEntropy
from calbench.losses.entropy_penalty import EntropyPenalty
from calbench.losses.focal import Focal, ScheduledFocal
from calbench.losses.l1_penalty import L1Penalty
from calbench.losses.label_smoothing import LabelSmoothing
from calbench.losses.logit_norm import LogitNorm
from calbench.losses.loss import Loss, one_hot
from calbench.losses.margin import Margin
from calbench.losses.mdca import MDCA
from calbench.losses.mixup import Mixed, mixup
from calbench.losses.mmce import MMCE, WeightedMMCE
from calbench.losses.perturbation import LabelPerturbation
from calbench.losses.self_calibrating import SelfCalibrating

LOSSES: dict[str, type[Loss]] = {
    kind.name: kind
    for kind in (
        CrossEntropy,
        SelfCalibrating,
        LabelSmoothing,
        Brier,
        Focal,
        ScheduledFocal,
        MMCE,
        WeightedMMCE,
        EntropyPenalty,
        L1Penalty,
        Margin,
        MDCA,
        LogitNorm,
    )
}
"""Every loss by name, in the order of the documentation."""

__all__ = ["LOSSES", "LabelPerturbation", "Loss", "Mixed", "mixup", "one_hot"]
