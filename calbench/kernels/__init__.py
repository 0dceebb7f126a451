"""Per-image kernels: the only code that touches pixels."""

from calbench.kernels.aslp import measure_aslp
from calbench.kernels.binary import IMAGE_SCORES, ImageMeasure, measure

__all__ = ["IMAGE_SCORES", "ImageMeasure", "measure", "measure_aslp"]
