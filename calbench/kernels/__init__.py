"""Per-image kernels: the only code that touches pixels."""

from calbench.kernels.aslp import measure_aslp
from calbench.kernels.binary import IMAGE_SCORES, ImageMeasure, measure
from calbench.kernels.decisions import measure_decisions
from calbench.kernels.floats import measure_float_map, saliency_levels
from calbench.kernels.levels import measure_levels
from calbench.kernels.multiclass import measure_class_rows, measure_classes
from calbench.kernels.regions import added, region_codes

__all__ = [
    "IMAGE_SCORES",
    "ImageMeasure",
    "added",
    "measure",
    "measure_aslp",
    "measure_class_rows",
    "measure_classes",
    "measure_decisions",
    "measure_float_map",
    "measure_levels",
    "region_codes",
    "saliency_levels",
]
