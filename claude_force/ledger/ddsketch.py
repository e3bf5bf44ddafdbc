"""Distributions of values in bounded memory: exact up to 10,000 values, within 1 % above.

The sketch is DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019). A value x counts in the bucket
ceil(log(x) / log(g)) with g = (1 + e) / (1 - e), and the bucket's midpoint 2 g^i / (g + 1) differs from x by
at most e x. The counts of two sketches add up to the sketch of all their values.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from typing import Dict, Optional, Sequence, Tuple

RELATIVE_ERROR = 0.01
EXACT_UP_TO = 10_000
# Smaller values count as 0: the ledger's resolution is a thousandth of a millisecond.
_MIN_VALUE = 1e-6
# These span a factor of 10^17. Beyond it the lowest are merged, as the paper does.
_MAX_BUCKETS = 2048

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_GAMMA)


class Distribution:
    """A distribution of values that are not negative.

    Attributes:
        count, total, maximum: the number of values, their sum, and the largest (0 without values).
    """

    def __init__(self, values: Sequence[float] = (), exact_up_to: int = EXACT_UP_TO) -> None:
        self._exact_up_to = exact_up_to
        self._values: Optional[array[float]] = array("d", values)
        self._bucketed: Optional[Tuple[int, Dict[int, int]]] = None
        self._zeros = 0
        self._buckets: Dict[int, int] = {}
        self.count = len(values)
        self.total = math.fsum(values)
        self.maximum = max(values, default=0.0)
        self._limit_memory()

    @property
    def is_exact(self) -> bool:
        """Whether quantiles are exact."""
        return self._values is not None

    @property
    def mean(self) -> Optional[float]:
        """The arithmetic mean; None without values."""
        return self.total / self.count if self.count else None

    def merge(self, other: Distribution) -> None:
        """Adds the values of `other`."""
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        if self._values is not None and other._values is not None:
            self._values.extend(other._values)
            self._bucketed = None
        else:
            self._to_buckets()
            zeros, buckets = other._in_buckets()
            self._zeros += zeros
            for bucket, count in buckets.items():
                self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._limit_memory()

    def quantile(self, share: float) -> Optional[float]:
        """Returns the smallest value that at least `share` of all values don't exceed (nearest rank).

        None without values.
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        if self._values is not None:
            return sorted(self._values)[rank - 1]
        return min(self._estimate(rank), self.maximum)

    def _estimate(self, rank: int) -> float:
        seen = self._zeros
        for bucket in sorted(self._buckets) if seen < rank else ():
            seen += self._buckets[bucket]
            if seen >= rank:
                return float(2 * _GAMMA**bucket / (_GAMMA + 1))
        return 0.0

    def _limit_memory(self) -> None:
        if self._values is not None and self.count > self._exact_up_to:
            self._to_buckets()
        if len(self._buckets) > _MAX_BUCKETS:
            order = sorted(self._buckets)
            lowest = order[: len(order) - _MAX_BUCKETS + 1]
            self._buckets[lowest[-1]] = sum(self._buckets.pop(bucket) for bucket in lowest)

    def _to_buckets(self) -> None:
        if self._values is not None:
            self._zeros, buckets = self._in_buckets()
            self._buckets, self._values, self._bucketed = dict(buckets), None, None

    def _in_buckets(self) -> Tuple[int, Dict[int, int]]:
        """Returns the number of zeros, and the number of values in each bucket."""
        if self._values is None:
            return self._zeros, self._buckets
        if self._bucketed is None:
            # Cached, because the same part is merged into several wholes.
            ceil, log = math.ceil, math.log
            positive = [value for value in self._values if value > _MIN_VALUE]
            buckets = Counter([ceil(log(value) * _PER_LOG) for value in positive])
            self._bucketed = len(self._values) - len(positive), buckets
        return self._bucketed
