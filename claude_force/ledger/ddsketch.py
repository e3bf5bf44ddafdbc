"""How values are distributed: exactly while there are few, within 1 % when there are many, in bounded memory.

The sketch is DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019): a value x counts in the bucket
ceil(log(x) / log(g)) with g = (1 + e) / (1 - e), whose middle 2 g^i / (g + 1) is nowhere farther from x than
e x. Counts add up, so that two sketches merge into that of all their values.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Dict, Optional, Sequence, Tuple

RELATIVE_ERROR = 0.01
EXACT_UP_TO = 10_000
# Below this a value counts as 0; a thousandth of a millisecond is the finest that an entry has.
_SMALLEST = 1e-6
# These span a factor of 10^17; beyond it the lowest are thrown together, as the paper does.
_MOST_BUCKETS = 2048

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)


class Distribution:
    """Of values from 0 up.

    Attributes:
        count, total, most: how many there are, their sum, and the largest (0 for none).
    """

    def __init__(self, values: Sequence[float] = (), exact_up_to: int = EXACT_UP_TO) -> None:
        self._exact_up_to = exact_up_to
        self._values: Optional[array[float]] = array("d", values)
        self._as_counted: Optional[Tuple[int, Dict[int, int]]] = None
        self._zeros = 0
        self._buckets: Dict[int, int] = {}
        self.count = len(values)
        self.total = math.fsum(values)
        self.most = max(values, default=0.0)
        self._settle()

    @property
    def is_exact(self) -> bool:
        return self._values is not None

    @property
    def mean(self) -> Optional[float]:
        """None where there is nothing."""
        return self.total / self.count if self.count else None

    def merge(self, other: Distribution) -> None:
        """Takes the values of `other` in."""
        self.count += other.count
        self.total += other.total
        self.most = max(self.most, other.most)
        if self._values is not None and other._values is not None:
            self._values.extend(other._values)
            self._as_counted = None
        else:
            self._to_buckets()
            self._take(other)
        self._settle()

    def quantile(self, share: float) -> Optional[float]:
        """The smallest value that at least `share` of all do not exceed (nearest rank); None for nothing."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        if self._values is not None:
            return sorted(self._values)[rank - 1]
        return min(self._estimate(rank), self.most)

    def _estimate(self, rank: int) -> float:
        seen = self._zeros
        for bucket in sorted(self._buckets) if seen < rank else ():
            seen += self._buckets[bucket]
            if seen >= rank:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return 0.0

    def _settle(self) -> None:
        if self._values is not None and self.count > self._exact_up_to:
            self._to_buckets()
        if len(self._buckets) > _MOST_BUCKETS:
            self._throw_lowest_together()

    def _to_buckets(self) -> None:
        if self._values is not None:
            self._zeros, buckets = self._counted()
            self._buckets, self._values, self._as_counted = dict(buckets), None, None

    def _take(self, other: Distribution) -> None:
        zeros, buckets = other._counted()
        self._zeros += zeros
        for bucket, count in buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count

    def _counted(self) -> Tuple[int, Dict[int, int]]:
        """How many are 0, and how many are in each bucket."""
        if self._values is None:
            return self._zeros, self._buckets
        if self._as_counted is None:
            # Kept, because the same part is merged into more than one whole.
            ceil, log = math.ceil, math.log
            above = [value for value in self._values if value > _SMALLEST]
            buckets = Counter([ceil(log(value) * _PER_LOG) for value in above])
            self._as_counted = len(self._values) - len(above), buckets
        return self._as_counted

    def _throw_lowest_together(self) -> None:
        order = sorted(self._buckets)
        lowest = order[: len(order) - _MOST_BUCKETS + 1]
        together = sum(self._buckets.pop(bucket) for bucket in lowest)
        self._buckets[lowest[-1]] = together
