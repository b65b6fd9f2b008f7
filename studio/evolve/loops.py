"""Answers that only repeat themselves, seen while they are being said.

Knows token ids and nothing else: not what they mean, nor what becomes of an answer that is cut.
The rule is strict, for a cut answer cannot come to anything any more: the same block of at most
`LONGEST` tokens, `REPEATS` times in a row and over `LEAST` tokens at least.
"""

import numpy as np

#: Tokens of the longest block whose repetition is noticed.
LONGEST = 32
#: How often in a row a block has to be said.
REPEATS = 3
#: How many tokens that has to take: "no, no, no" and 1000000 are no loops.
LEAST = 24


class Loops:
    """Answers, watched token by token.

    Example:
        >>> loops = Loops(1)
        >>> [n for n in range(40) if loops.closed(np.array([n % 10]))][0]  # 10 tokens, three times
        29
    """

    def __init__(self, rows: int):
        periods = np.arange(1, LONGEST + 1)
        # of a run of n tokens with period p, n − p repeat what stands p before them
        self._needed = np.maximum(REPEATS * periods, LEAST) - periods
        self._last = np.full((rows, LONGEST), -1)  # newest first
        self._repeated = np.zeros((rows, LONGEST), dtype=np.int64)  # in a row, by period

    def closed(self, tokens: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Which answers repeat themselves, bool ``[tokens]``, given the next token of each.

        Args:
            tokens: int ``[tokens]``.
            rows: whose they are, each once; default all, in order.
        """
        rows = np.arange(len(self._last)) if rows is None else rows
        last = self._last[rows]
        repeated = (self._repeated[rows] + 1) * (last == tokens[:, None])
        self._last[rows] = np.concatenate([tokens[:, None], last[:, :-1]], axis=1)
        self._repeated[rows] = repeated
        return (repeated >= self._needed).any(axis=1)
