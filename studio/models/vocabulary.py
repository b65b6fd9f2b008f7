"""One vocabulary for models that have several: the rows of their embeddings and heads, matched.

A row belongs to a token, and tokens are the same if they stand for the same text (`tokens`). Over
the models of a merge a `Vocabulary` settles which tokens the merge has and, for every model, which
of its rows is each token's; an `Aligned` model is a model with its rows in that order. A token that
a model lacks has the same row in all that lack it: the base's, or the mean over the sources that
have it. So differences from the base are zero where nobody knows better, and a token that only one
source has comes out as that source has it. Refuses to know how models are merged.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from studio.errors import StudioError
from studio.models.model import HEAD, Model, Reader
from studio.models.tokens import Token, Tokens
from studio.models.union import NewToken, extended

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import GenerationConfig, PreTrainedTokenizerBase

#: What a recipe may write for its vocabulary, beside the name of a source.
SAME, BASE, UNION = "same", "base", "union"

#: Rows made at a time.
_ROWS = 1 << 12
#: Lists of token ids in a generation config, beside everything that ends in _token_id.
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


def align(
    base: Model | None,
    sources: Sequence[Model],
    choice: str = SAME,
    *,
    with_base: bool = True,
) -> tuple[Model | None, list[Model]]:
    """The models of a merge with the rows of their embeddings and heads in one order.

    A model in which nothing changes is given back as it is.

    Args:
        base: the common ancestor, if there is one.
        choice: "same", all have one vocabulary (see `check_compatible`), and at most the padding of
            their embeddings differs; "base", the base's; "union", the base's and after it what the
            sources have besides, in their order; or a source's name, for that source's.
        with_base: whether the base takes part in the merge; if not, at most its vocabulary does.

    Raises:
        StudioError: a tokenizer cannot be read, or not be extended to the union.
    """
    members = [base, *sources] if base is not None and with_base else list(sources)
    seeing = next((model for model in members if model.frame is not None), None)
    if choice == BASE:
        if base is None:
            raise StudioError("There is no base whose vocabulary to take; name the base, or union.")
        giver = base
    elif choice in (SAME, UNION):
        # a picture's tokens keep the ids that its processor puts there
        giver = (seeing if choice == UNION else None) or members[0]
    else:
        giver = next((source for source in sources if source.name == choice), None)
        if giver is None:
            raise StudioError(
                f"There is no source {choice} whose vocabulary to take; name one of "
                f"{', '.join(source.name for source in sources)}, or base, or union."
            )
    has_base = members[0] is base
    key = (*map(id, members), id(giver), choice, has_base)
    vocabulary = _IN_USE.get(key)  # which holds its models: no others have their ids
    if vocabulary is None:
        vocabulary = _IN_USE[key] = Vocabulary(members, giver, choice, has_base=has_base)
    aligned = [vocabulary.aligned(number) for number in range(len(members))]
    if has_base:
        return aligned[0], aligned[1:]
    return base, aligned


def with_pictures(choice: str, base: Model | None, sources: Sequence[Model]) -> str:
    """The choice to `align` by where a vision-language model is among the models.

    Its vocabulary has tokens that stand for pictures, and a language model's often has not. If they
    differ in nothing else, "same" means the vision-language model's.

    Raises:
        StudioError: the vocabulary chosen lacks the tokens that stand for pictures.
    """
    seeing = next((source for source in sources if source.frame is not None), None)
    if seeing is None or choice in (UNION, seeing.name):
        return choice
    own = seeing.tokenizer().get_vocab()
    others = [
        model.tokenizer().get_vocab() for model in (base, *sources) if model not in (None, seeing)
    ]
    if choice == SAME:
        fewer = any(other != own for other in others)
        return seeing.name if fewer and all(o.items() <= own.items() for o in others) else SAME
    giver = base if choice == BASE else next((s for s in sources if s.name == choice), None)
    if giver is not None and not own.items() <= giver.tokenizer().get_vocab().items():
        raise StudioError(
            f"The vocabulary of {giver.name} lacks tokens of {seeing.name}, which needs them for "
            f"its pictures; write vocabulary: union, or vocabulary: {seeing.name}."
        )
    return choice


def unaligned(model: Model) -> Model:
    """The model as it is without anybody's vocabulary but its own."""
    return model.model if isinstance(model, Aligned) else model


def vocabulary_of(models: Sequence[Model]) -> "Vocabulary | None":
    """The vocabulary that models were aligned to, None where all are as they were."""
    return next((model.vocabulary for model in models if isinstance(model, Aligned)), None)


def token_tensors(model: Model) -> set[str]:
    """The names of the tensors that have a row per token."""
    return {model.names()[0], HEAD, "lm_head.bias"}


#: A run lays out its spaces over the same models again and again, and matching takes seconds.
_IN_USE: "WeakValueDictionary[tuple, Vocabulary]" = WeakValueDictionary()


class Vocabulary:
    """The tokens of a merge, and which row each model has for them.

    Make it with `align`.

    Args:
        members: the models that are merged, the base, if it is one of them, first.
        giver: whose vocabulary it is, or is extended; it need not be merged.
        choice: as in `align`.
        has_base: whether the first member is the base of the others.

    Attributes:
        count: how many ids tokens have; of "same", how many rows.
        size: how many rows the merge has: the giver's, or more if that has no room for the union.
        rows: int64 ``[size]`` per member, its row for each id, or -1.
        new: the tokens of a union that the giver lacks.
    """

    def __init__(self, members: Sequence[Model], giver: Model, choice: str, *, has_base: bool):
        import torch

        self.members, self.giver, self.choice = list(members), giver, choice
        self._has_base = has_base
        self.new: list[NewToken] = []
        lengths = [model.shape(model.names()[0])[0] for model in self.members]
        own_length = giver.shape(giver.names()[0])[0]
        place = next((n for n, model in enumerate(self.members) if model is giver), None)
        if choice == SAME:
            self.count = self.size = own_length
            self.rows = [_identity(self.size, length) for length in lengths]
        else:
            self._tokens = [Tokens.of(model.tokenizer()) for model in self.members]
            self._own = Tokens.of(giver.tokenizer()) if place is None else self._tokens[place]
            matched = self._match(lengths)
            self.size = max(own_length, self.count) if choice == UNION else own_length
            self.rows = [
                self._rows(number, matched[number], length) for number, length in enumerate(lengths)
            ]
        #: What nobody who is merged has, where the giver is not merged: its own rows.
        self._outside = torch.full((self.size,), -1)
        if place is None:
            self._outside = _identity(self.size, own_length)

    # ── which row is whose ───────────────────────────────────────────────────────────────────────

    def _match(self, lengths: Sequence[int]) -> list[dict[int, int]]:
        """Settle the tokens; per member the rows of the tokens that it has."""
        own = self._own
        entries = [(number, token, own) for number, token in own.by_id.items()]
        self.count = max(own.by_id, default=-1) + 1
        matched: list[dict[int, int]] = [{} for _ in self.members]
        if self.choice == UNION:
            known: dict[Token, tuple[int, Tokens]] = {t: (n, own) for n, t in own.by_id.items()}
            pieces = {piece: number for number, piece in own.pieces.items()}
            for member, tokens in enumerate(self._tokens):
                for theirs, token in tokens.by_id.items():
                    if theirs >= lengths[member] or _known(token, tokens, known) is not None:
                        continue
                    piece = _piece(theirs, token, tokens, own)
                    if piece is None:  # a part of a character, that only bytes can spell
                        continue
                    if piece in pieces:  # one string cannot be two tokens
                        matched[member][pieces[piece]] = theirs
                        continue
                    pieces[piece] = self.count
                    known[token] = self.count, tokens
                    entries.append((self.count, token, tokens))
                    self.new.append(NewToken(self.count, piece, member, theirs))
                    self.count += 1
        for member, tokens in enumerate(self._tokens):
            for number, token, origin in entries:
                row = tokens.find(token, origin.spelling)
                if row is not None and row < lengths[member]:
                    matched[member][number] = row
        return matched

    def _rows(self, member: int, matched: dict[int, int], length: int) -> "Tensor":
        """A member's row for every id. What follows the tokens is the giver's, and whoever's
        tokens are just the giver's."""
        import torch

        rows = torch.full((self.size,), -1)
        if self._tokens[member].by_id == self._own.by_id:
            rows[:length] = torch.arange(self.size)[:length]
            ids = [token.number for token in self.new if token.number < self.size]
            rows[ids] = -1
        if inside := [(number, row) for number, row in matched.items() if number < self.size]:
            ids, values = zip(*inside, strict=True)
            rows[list(ids)] = torch.tensor(values)
        return rows

    def aligned(self, member: int) -> Model:
        """A member with its rows in the order of the ids; itself where that changes nothing."""
        model, rows = self.members[member], self.rows[member]
        length = model.shape(model.names()[0])[0]
        if length == self.size and not self.new and rows.equal(_identity(length, length)):
            return model
        return Aligned(model, self, member)

    # ── what follows from that ───────────────────────────────────────────────────────────────────

    def read(
        self, name: str, member: int, start: int, stop: int, readers: "dict[int, Reader]"
    ) -> "Tensor":
        """Rows of a member's tensor for ids from ``start`` until ``stop``, float32.

        Args:
            readers: what was opened for this tensor before, by member; -1 is the giver.
        """
        import torch

        model = self.members[member]
        out = torch.zeros(stop - start, math.prod(model.shape(name)[1:]))
        own = self.rows[member][start:stop]
        self._fill(out, own, name, member, readers)
        lacking = own < 0
        if lacking.any():
            ids = torch.arange(start, stop)[lacking]
            out[lacking] = self._defaults(name, ids, out.shape[1], readers)
        return out

    def _defaults(self, name: str, ids: "Tensor", width: int, readers: dict) -> "Tensor":
        """The rows of ids in the models that have none for them."""
        import torch

        out = torch.zeros(len(ids), width)
        open_ = torch.ones(len(ids), dtype=torch.bool)
        sources = range(len(self.members))
        if self._has_base:
            rows = self.rows[0][ids]
            self._fill(out, rows, name, 0, readers)
            open_ &= rows < 0
            sources = sources[1:]
        counts = torch.zeros(len(ids), 1)
        for member in sources:
            rows = torch.where(open_, self.rows[member][ids], -1)
            self._fill(out, rows, name, member, readers, add=True)
            counts += (rows >= 0)[:, None]
        out /= counts.clamp(min=1)
        open_ &= counts[:, 0] == 0
        self._fill(out, torch.where(open_, self._outside[ids], -1), name, -1, readers)
        return out

    def _fill(
        self, out: "Tensor", rows: "Tensor", name: str, member: int, readers: dict, add=False
    ) -> None:
        """Write, or add, a member's rows to where ``rows`` names one."""
        import torch

        places = (rows >= 0).nonzero()[:, 0]
        if not len(places):
            return
        if member not in readers:
            readers[member] = (self.members[member] if member >= 0 else self.giver).reader(name)
        read, width = readers[member], out.shape[1]
        wanted = rows[places]
        # neighbours are read at once: most vocabularies differ in few places
        ends = ((wanted[1:] - wanted[:-1]) != 1).nonzero()[:, 0] + 1
        edges = [0, *ends.tolist(), len(wanted)]
        found = torch.empty(len(wanted), width)
        for begin, end in zip(edges, edges[1:], strict=False):
            first, last = int(wanted[begin]), int(wanted[end - 1]) + 1
            found[begin:end] = read(first * width, last * width).view(-1, width)
        out[places] = out[places] + found if add else found

    def number(self, member: int, row: int) -> int | None:
        """The id of what is a member's row, or None where the vocabulary does not have it."""
        places = (self.rows[member] == row).nonzero()[:, 0]
        return int(places[0]) if len(places) and row >= 0 else None

    def matches_strings(self) -> bool:
        """Whether just the tokens are matched that are written alike: those of one style."""
        if self.choice == SAME:
            return True
        for tokens, rows in zip(self._tokens, self.rows, strict=True):
            theirs = {piece: row for row, piece in tokens.pieces.items()}
            own = {n: piece for n, piece in self._own.pieces.items() if n < self.size}
            if any(theirs.get(piece, -1) != int(rows[n]) for n, piece in own.items()):
                return False
        return True

    def fills_from_several_sources(self) -> bool:
        """Whether, without a base, a row that some lack is a mean of others."""
        import torch

        have = (torch.stack(self.rows) >= 0).sum(0)
        return not self._has_base and bool(((have > 1) & (have < len(self.members))).any())

    def tokenizer(self, speaker: Model) -> "PreTrainedTokenizerBase":
        """The tokenizer of this vocabulary, with a model's chat template and its ends of text.

        Raises:
            StudioError: the giver's tokenizer cannot be read, or not be extended.
        """
        voice = speaker.tokenizer()
        target = self._extended if self.new else self.giver.tokenizer()
        target = copy.deepcopy(target)
        target.chat_template = voice.chat_template
        backend = getattr(target, "backend_tokenizer", None)
        known = backend.token_to_id if backend is not None else target.get_vocab().get
        for role in target.SPECIAL_TOKENS_ATTRIBUTES:
            token = getattr(voice, role, None)
            if isinstance(token, str) and known(token) is not None:
                setattr(target, role, token)
        return target

    @cached_property
    def _extended(self) -> "PreTrainedTokenizerBase":
        from transformers import PreTrainedTokenizerFast

        if self._own.description is None:
            raise StudioError(
                f"The tokenizer of {self.giver.name} cannot be extended, since transformers has no "
                "fast form of it; choose another vocabulary than union."
            )
        own = self.giver.tokenizer()
        try:
            backend = extended(self._own, self._tokens, self.new)
        except Exception as error:  # strangers' tokenizers: whatever tokenizers raises
            raise StudioError(
                f"The tokenizer of {self.giver.name} cannot be extended by the tokens of the "
                f"others ({str(error)[:200]}); choose another vocabulary than union."
            ) from error
        kept = {role: getattr(own, role, None) for role in own.SPECIAL_TOKENS_ATTRIBUTES}
        # not of its own class, which would build more than it is given when it is opened again
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            **{role: token for role, token in kept.items() if isinstance(token, str)},
            extra_special_tokens=list(getattr(own, "extra_special_tokens", None) or ()),
            clean_up_tokenization_spaces=getattr(own, "clean_up_tokenization_spaces", False),
            model_max_length=own.model_max_length,
            padding_side=own.padding_side,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Changes when a row does, or which model has it."""
        parts = [self.choice, self.giver.fingerprint(), *(m.fingerprint() for m in self.members)]
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16)
        for rows in self.rows:
            digest.update(rows.numpy().tobytes())
        return digest.hexdigest()

    def sentence(self) -> str | None:
        """What a card says of it; None where the models had one vocabulary to begin with."""
        if self.choice == SAME or all(t.by_id == self._own.by_id for t in self._tokens):
            return None
        if self.choice == UNION:
            others = [m.name for n, m in enumerate(self.members) if any(
                token.origin == n for token in self.new)]  # fmt: skip
            if not others:
                return f"It has the vocabulary of {self.giver.name}, which has every token."
            return (
                f"Its vocabulary is the union of its models': {self.count - len(self.new)} tokens "
                f"of {self.giver.name} and {len(self.new)} that {' and '.join(others)} "
                f"{'has' if len(others) == 1 else 'have'} besides."
            )
        return (
            f"Its models had different vocabularies; it has that of {self.giver.name} "
            f"({self.count} tokens), and what the others know of other tokens is not in it."
        )


class Aligned(Model):
    """A model with the rows of its embedding and head in the order of another vocabulary.

    Those are float32, so that a row which others lend is the same number in every model; all else
    is the model's own. The head of a tied model is its embedding but for rows that it lacks: heads
    of others lend those.
    """

    def __init__(self, model: Model, vocabulary: Vocabulary, member: int):
        self.model, self.vocabulary, self._member = model, vocabulary, member
        self.name, self.path, self.licence = model.name, model.path, model.licence
        self.architecture, self.dtype = model.architecture, model.dtype
        self.frame = model.frame
        self._rowed = token_tensors(model)
        self.config = self._translated(model.config)
        self.config.vocab_size = vocabulary.size
        if getattr(self.config, "eos_token_id", ()) in (None, []):
            self.config.eos_token_id = self._giver_end()

    def __repr__(self) -> str:
        return f"Aligned({self.model!r}, {self.vocabulary.size} rows)"

    @property
    def stored(self) -> "torch.dtype":
        return self.model.stored

    def names(self) -> list[str]:
        return self.model.names()

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self.model.shape(name)
        return (self.vocabulary.size, *shape[1:]) if name in self._rowed else shape

    def get(self, name: str) -> "Tensor":
        import torch

        if name not in self._rowed:
            return self.model.get(name)
        shape, readers = self.shape(name), {}
        whole = torch.empty(shape)
        for start, stop in self._chunks():
            rows = self.vocabulary.read(name, self._member, start, stop, readers)
            whole[start:stop] = rows.view(-1, *shape[1:])
        return whole

    def reader(self, name: str) -> Reader:
        if name not in self._rowed:
            return self.model.reader(name)
        width = math.prod(self.shape(name)[1:])
        readers: dict[int, Reader] = {}

        def read(start: int, stop: int) -> "torch.Tensor":
            first = start // width
            last = max(first, -(-stop // width))
            rows = self.vocabulary.read(name, self._member, first, last, readers)
            return rows.flatten()[start - first * width : stop - first * width]

        return read

    def pieces(self, name: str) -> "Iterator[torch.Tensor]":
        if name not in self._rowed:
            yield from self.model.pieces(name)
            return
        readers: dict[int, Reader] = {}
        for start, stop in self._chunks():
            yield self.vocabulary.read(name, self._member, start, stop, readers).flatten()

    def _chunks(self) -> Iterator[tuple[int, int]]:
        size = self.vocabulary.size
        return ((start, min(start + _ROWS, size)) for start in range(0, size, _ROWS))

    def fingerprint(self) -> str:
        text = f"{self.model.fingerprint()} {self.vocabulary.fingerprint} {self._member}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        return self.vocabulary.tokenizer(self.model)

    def generation_config(self) -> "GenerationConfig":
        """The model's own with the ids of the vocabulary; where none is left that ends an answer,
        the end of whoever gives the vocabulary."""
        config = self._translated(self.model.generation_config())
        if config.eos_token_id in (None, []):
            config.eos_token_id = self._giver_end()
        return config

    def check_end(self) -> None:
        """Check that the model can end its answers, which it must if the merge speaks as it does.

        Raises:
            StudioError: none of the tokens that end its answers is in the vocabulary.
        """
        ends = self.model.generation_config().eos_token_id
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        if ends and self._ids(ends) == []:
            token = self.model.tokenizer().convert_ids_to_tokens(ends[0])
            raise StudioError(
                f"{self.name} ends its answers with {token!r:.60}, which the vocabulary of "
                f"{self.vocabulary.giver.name} does not have; write vocabulary: union, or "
                f"vocabulary: {self.name}."
            )

    def _translated(self, config: Any) -> Any:
        """A copy of a configuration whose token ids are the vocabulary's."""
        config = copy.deepcopy(config)
        for key, value in list(vars(config).items()):
            if value is not None and (key.endswith("_token_id") or key in _ID_LISTS):
                setattr(config, key, self._ids(value))
        return config

    def _ids(self, value: Any) -> Any:
        """Ids in the vocabulary; of lists, what it does not have is left out."""
        if not isinstance(value, list | tuple):
            return self.vocabulary.number(self._member, int(value))
        if value and isinstance(value[0], list | tuple):
            return [ids for entry in value if len(ids := self._ids(entry)) == len(entry)]
        found = (self.vocabulary.number(self._member, int(number)) for number in value)
        return [number for number in found if number is not None]

    def _giver_end(self) -> int | list[int] | None:
        """The end of text of who gives the vocabulary, whose ids are its."""
        return getattr(self.vocabulary.giver.config, "eos_token_id", None)


def _identity(size: int, length: int) -> "Tensor":
    """``[size]``: every id's row is its own where there are so many rows."""
    import torch

    rows = torch.arange(size)
    rows[length:] = -1
    return rows


def _known(token: Token, tokens: Tokens, known: dict[Token, tuple[int, Tokens]]) -> int | None:
    """The id of what is already in a union, as `Tokens.find` finds it."""
    for equal in token.equals():
        if equal in known:
            return known[equal][0]
    other = token.across()
    if other in known and known[other][1].spelling != tokens.spelling:
        return known[other][0]
    return None


def _piece(number: int, token: Token, tokens: Tokens, own: Tokens) -> str | None:
    """How a token of another tokenizer is written in one that it is entered into."""
    if tokens.spelling == own.spelling:
        return tokens.pieces[number]
    return own.spelling.write(token)
