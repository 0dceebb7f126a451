"""Maximum mean calibration error: confidences and correctness compared in a kernel space."""

from __future__ import annotations

import torch
from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Loss, Pixels, check_choice, check_range

WIDTH = 0.4
"""Of the Laplacian kernel, in confidence."""
FORMS = ("paper", "code")


class MMCE(Loss):
    """Cross-entropy plus the maximum mean calibration error of a sample of the pixels.

    L = CE + λ·sqrt(M + 1e-10), M = (1/n²) Σ_ij (a_i − c_i)(a_j − c_j) exp(−|c_i − c_j| / 0.4); form "code": L = CE + λ·M.

    c is the largest probability of a pixel, with gradient; a its target probability of the predicted class: 1 or 0 for labels.
    M includes i = j, which adds the mean of (a − c)², divided by n. The root is that of the paper, which minimises
    CE + λ·sqrt(MMCE²); the authors' code and that of MbLS have none.

    All pairs of a batch are too many, so M is computed on `sample` pixels, drawn without replacement from the valid pixels of
    the batch: about 16 MB of memory at 1024. CE is that of all pixels. M is no mean over pixels: the value on two halves of a
    batch is not that on the whole.

    Args:
        weight: λ, >= 0.
        sample: pixels of a batch that M is computed on; all of them where there are no more.
        form: "paper" or "code".
    Raises:
        OptionError: an option outside its range.
        UnknownName: another form.

    Reference: Kumar, Sarawagi & Jain, ICML 2018 (proceedings.mlr.press/v80/kumar18a.html).

    >>> z, y = torch.full((1, 1, 8, 9), 2.0), torch.ones(1, 1, 8, 9)
    >>> confidence = torch.sigmoid(torch.tensor(2.0))
    >>> torch.isclose(MMCE(form="code")(z, y), -confidence.log() + (1 - confidence) ** 2)
    tensor(True)
    """

    name = "mmce"
    definition = "CE + λ·sqrt((1/n²) Σ_ij (a_i − c_i)(a_j − c_j) exp(−|c_i − c_j| / 0.4)), n sampled pixels"
    source = "Kumar, Sarawagi & Jain, ICML 2018 (proceedings.mlr.press/v80/kumar18a.html)"

    def __init__(self, *, weight: float = 1.0, sample: int = 1024, form: str = "paper") -> None:
        super().__init__()
        check_range("weight", weight, 0)
        check_range("sample", sample, 1)
        check_choice("form of MMCE", form, FORMS)
        self.weight = weight
        self.sample = sample
        self.form = form

    def _compute(self, pixels: Pixels) -> Tensor:
        p, q = pixels.sample(self.sample)
        confidence, predicted = p.max(1)
        correct = q.gather(1, predicted[:, None]).squeeze(1)
        return pixels.mean(cross_entropy(pixels)) + self.weight * self.error(confidence, correct)

    def error(self, confidence: Tensor, correct: Tensor) -> Tensor:
        """The calibration error of sampled pixels, `(n,)` each; 0 of none."""
        squared = _norm((correct - confidence) / len(confidence), confidence)
        return _root(squared) if self.form == "paper" else squared


class WeightedMMCE(MMCE):
    """MMCE in which the right and the wrong pixels weigh the same, however few are wrong.

    L = CE + λ·sqrt(M + 1e-10), M = S_rr / m² + S_ww / n² − 2 S_rw / (mn), with m right and n wrong pixels in the sample,
    S_rr = Σ (1 − c_i)(1 − c_j) k_ij over pairs of right ones, S_ww = Σ c_i c_j k_ij over pairs of wrong ones,
    S_rw = Σ (1 − c_i) c_j k_ij over mixed pairs, and k_ij = exp(−|c_i − c_j| / 0.4).

    Under soft labels a pixel is right for its share a, and wrong for 1 − a. Without a right or without a wrong pixel M is 0,
    as in the official code. That of the authors and of MbLS divides twice, S_rr by m⁴ and so on (form "code"), which makes the
    penalty shrink with the size of the sample; the 1e-5 that it adds to the denominators m², n² and mn, at most 1e-5 of the
    value, is left out here.

    Args:
        weight: λ, >= 0.
        sample: pixels of a batch that M is computed on; all of them where there are no more.
        form: "paper" or "code".
    Raises:
        OptionError: an option outside its range.
        UnknownName: another form.

    Reference: Kumar, Sarawagi & Jain, ICML 2018 (proceedings.mlr.press/v80/kumar18a.html).

    >>> z = torch.full((1, 1, 1, 2), 2.0)  # one pixel right, one wrong, confidence c: M = (1 − c − c)²
    >>> gap = WeightedMMCE()(z, torch.tensor([[[[1.0, 0.0]]]])) - WeightedMMCE(weight=0)(z, torch.tensor([[[[1.0, 0.0]]]]))
    >>> torch.isclose(gap, 2 * torch.sigmoid(torch.tensor(2.0)) - 1)
    tensor(True)
    """

    name = "mmce_weighted"
    definition = "CE + λ·sqrt(S_rr / m² + S_ww / n² − 2 S_rw / (mn)), m right and n wrong of the sampled pixels"

    def error(self, confidence: Tensor, correct: Tensor) -> Tensor:
        """The weighted calibration error of sampled pixels, `(n,)` each; 0 where all are right or all wrong."""
        n_right, n_wrong = correct.sum(), (1 - correct).sum()
        power = 1 if self.form == "paper" else 2
        least = torch.finfo(correct.dtype).eps
        right = correct * (1 - confidence) / n_right.clamp(min=least) ** power
        wrong = (1 - correct) * confidence / n_wrong.clamp(min=least) ** power
        return _root(_norm(right - wrong, confidence) * ((n_right > 0) & (n_wrong > 0)))


def _norm(weights: Tensor, confidence: Tensor) -> Tensor:
    """Σ_ij w_i w_j exp(−|c_i − c_j| / width): the squared norm of the weighted sum in the kernel's space."""
    kernel = torch.exp(-(confidence[:, None] - confidence).abs() / WIDTH)
    return (weights[:, None] * weights * kernel).sum()


def _root(squared: Tensor) -> Tensor:
    """The square root as in the official code, but 0 at 0."""
    return torch.where(squared > 0, (squared + 1e-10).sqrt(), torch.zeros_like(squared))
