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
    """The answers of a batch, watched token by token.

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

    def closed(self, tokens: np.ndarray) -> np.ndarray:
        """Which rows repeat themselves, bool ``[rows]``, given the next token of each."""
        self._repeated = (self._repeated + 1) * (self._last == tokens[:, None])
        self._last = np.concatenate([tokens[:, None], self._last[:, :-1]], axis=1)
        return (self._repeated >= self._needed).any(axis=1)

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the rows; ``rows`` is an index or a mask."""
        self._last, self._repeated = self._last[rows], self._repeated[rows]
