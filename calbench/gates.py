"""Gates: limits that a result must keep, such as `ece > 0.05`, so that a comparison can stop a pipeline."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import asdict, dataclass
from typing import Any

from calbench.errors import OptionError, UnknownName
from calbench.metrics import METRICS

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_SYNTAX = re.compile(r"\s*(?:delta\(\s*(?P<delta>\w+)\s*\)|(?P<value>\w+))\s*(?P<operator>[<>]=?)\s*(?P<limit>\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """What must not be: a metric, or its difference, beyond a limit.

    Attributes:
        metric: name.
        delta: whether the difference B − A is held against the limit, rather than the value of B.
        operator: ">", ">=", "<" or "<=".
        limit: number.
    """

    metric: str
    delta: bool
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """A gate from `METRIC OP NUMBER` or `delta(METRIC) OP NUMBER`.

        Raises:
            OptionError: the text is neither.
            UnknownName: there is no such metric, or it takes an out-of-distribution set.

        >>> str(Gate.parse("delta(ece)>0.002"))
        'delta(ece) > 0.002'
        """
        found = _SYNTAX.fullmatch(text)
        limit = _number(found["limit"]) if found else math.nan
        if found is None or not math.isfinite(limit):
            raise OptionError(
                f"the gate {text!r} is not METRIC OP NUMBER or delta(METRIC) OP NUMBER with one of > >= < <=, "
                "such as 'ece > 0.05' or 'delta(ece) > 0.002'"
            )
        metric = found["delta"] or found["value"]
        known = [name for name in METRICS if METRICS[name].scope == "id"]
        if metric not in known:
            raise UnknownName("metric", metric, known)
        return cls(metric, found["delta"] is not None, found["operator"], limit)

    @property
    def subject(self) -> str:
        """What is held against the limit."""
        return f"delta({self.metric})" if self.delta else self.metric

    def __str__(self) -> str:
        return f"{self.subject} {self.operator} {self.limit:g}"

    def broken(self, value: float, delta: float = math.nan) -> bool:
        """Whether the value of B, or B − A, is beyond the limit; one that is undefined keeps no limit.

        >>> Gate.parse("ece > 0.05").broken(0.0812), Gate.parse("ece > 0.05").broken(float("nan"))
        (True, True)
        """
        number = delta if self.delta else value
        return not math.isfinite(number) or bool(_OPERATORS[self.operator](number, self.limit))


@dataclass(frozen=True)
class Outcome:
    """What a gate found on one data set.

    Attributes:
        gate: it.
        dataset: name.
        first, second: the methods compared; "" and the method for a gate on a value.
        number: what was held against the limit.
        broken: whether it is beyond.
    """

    gate: Gate
    dataset: str
    first: str
    second: str
    number: float
    broken: bool

    @property
    def text(self) -> str:
        """The number and the limit that it is beyond, in one line."""
        where = f"on {self.dataset}, {self.second}" + (f" against {self.first}" if self.first else "")
        if not math.isfinite(self.number):
            return f"gate: {self.gate.subject} is undefined {where}; it cannot be held against {self.gate}"
        shown = f"{self.number:.4f}"
        if not self.gate.broken(float(shown), float(shown)):  # four decimals would hide that it is beyond
            shown = repr(self.number)
        return f"gate: {self.gate.subject} {shown} {self.gate.operator} {self.gate.limit:g} {where}"

    def to_json(self) -> dict[str, Any]:
        """The outcome with its gate as text."""
        return asdict(self) | {"gate": str(self.gate)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
