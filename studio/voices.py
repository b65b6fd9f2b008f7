"""Live models for talking, and the line of those who wait for one to speak.

Knows how many models are held, how much memory is free, and whose turn is next. Refuses to know
what is said, and how a model is loaded: whoever loads one says how many bytes it takes. A voice is
never a run's (DESIGN.md, contract 6): each speaks one turn at a time, turns are taken in the order
in which they were asked for, and the least recently used voice leaves when another needs the room.
"""

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    Speaker = tuple[PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin | None]

#: Voices held at most, whatever memory there is.
MOST = 4
#: Turns at a time, of different voices: more of them would only make each slower.
AT_ONCE = 2
#: Seconds after which a voice that nobody spoke to leaves: a run may want its memory.
IDLE = 600.0


@dataclass(frozen=True)
class Waiting:
    """Why there are no words yet.

    Attributes:
        before: how many turns come first.
        run: the run at work that holds the memory this turn needs, '' if that is not why.
    """

    before: int
    run: str = ""


class Voice:
    """A place in the pool: a model once it is loaded, and when it last spoke."""

    def __init__(self) -> None:
        self.used = time.monotonic()
        self.let_go()

    def let_go(self) -> None:
        """Forget the model, if there is one."""
        self.model: PreTrainedModel | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.processor: ProcessorMixin | None = None

    def take(self, speaker: "Speaker") -> None:
        """Speak with this model from now on."""
        self.model, self.tokenizer, self.processor = speaker


@dataclass(eq=False)
class Turn:
    """A place in the line; ``speaking`` once it is at its head."""

    key: object
    speaking: bool = False
    voice: Voice = field(default_factory=Voice)


class Pool:
    """Voices by key, the least recently used first, and the line before them."""

    def __init__(self, most: int = MOST, at_once: int = AT_ONCE):
        self._most, self._at_once = most, at_once
        self._voices: OrderedDict[object, Voice] = OrderedDict()
        self._line: list[Turn] = []
        self._moved = threading.Condition()
        self._sweeper: threading.Timer | None = None
        #: Held while a model is loaded: two at once would both count on the same free memory.
        self.loading = threading.Lock()

    # ── the line ──────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def turn(self, key: object) -> Iterator[Turn]:
        """A place at the end of the line, left at the end of the block however it ends."""
        turn = Turn(key)
        with self._moved:
            self._line.append(turn)
            self._advance()
        try:
            yield turn
        finally:
            with self._moved:
                self._line.remove(turn)
                turn.voice.used = time.monotonic()
                self._advance()
                self._sweep_later(IDLE)

    def before(self, turn: Turn, patience: float = 0.0) -> int:
        """How many turns come before this one, 0 once it speaks; waits ``patience`` seconds."""
        with self._moved:
            if not turn.speaking and patience:
                self._moved.wait_for(lambda: turn.speaking, patience)
            return 0 if turn.speaking else self._line.index(turn)

    def _advance(self) -> None:
        """Have those speak whose turn it is: none overtakes another that wants the same voice."""
        busy = {turn.key for turn in self._line if turn.speaking}
        for turn in self._line:
            if len(busy) >= self._at_once:
                break
            if turn.key not in busy:
                turn.voice, turn.speaking = self._voice(turn.key), True
                busy.add(turn.key)
        self._moved.notify_all()

    def _voice(self, key: object) -> Voice:
        voice = self._voices.setdefault(key, Voice())
        self._voices.move_to_end(key)
        return voice

    # ── memory ────────────────────────────────────────────────────────────────────────────────

    def make_room(self, needed: int) -> bool:
        """Let silent models go until ``needed`` bytes are free and a place is.

        Returns:
            whether that many bytes are free now.
        """
        for key, _ in self.loaded():
            if len(self.loaded()) < self._most and available() >= needed:
                return True
            self._leave(key)
        return available() >= needed

    def loaded(self) -> list[tuple[object, Voice]]:
        """The voices that hold a model, the least recently used first."""
        with self._moved:
            return [(k, voice) for k, voice in self._voices.items() if voice.model is not None]

    def clear(self, idle: float = 0.0) -> None:
        """Let every model go that has been silent for ``idle`` seconds."""
        until = time.monotonic() - idle
        for key, voice in self.loaded():
            if voice.used <= until:
                self._leave(key)

    def _leave(self, key: object) -> None:
        with self._moved:
            if any(turn.speaking and turn.key == key for turn in self._line):
                return
            if voice := self._voices.pop(key, None):
                voice.let_go()
        _collect()

    def _sweep_later(self, seconds: float) -> None:
        """See to it that what nobody speaks to any more leaves, with one timer for all."""
        if self._sweeper is None:
            self._sweeper = threading.Timer(seconds + 1, self._sweep)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep(self) -> None:
        self.clear(IDLE)
        with self._moved:
            self._sweeper = None
            if self._voices:
                self._sweep_later(IDLE / 2)


def available() -> int:
    """Bytes free on the device that models are loaded to."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available


def _collect() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
