"""What tokens mean, whatever a tokenizer writes for them, so that two tokenizers can be compared.

A byte-level BPE writes ` the` as `Ġthe`, a sentencepiece model as `▁the`; a newline is `Ċ` there
and `<0x0A>` here. Both are read as the same token: text or a byte, in bytes. Tokens that were
added beside the learned ones (`<|user|>`, the end of a turn) mean nothing but themselves and are
equal only to one another. Knows tokenizers; refuses to know models and their rows.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from transformers import AddedToken, PreTrainedTokenizerBase

_SPACE = "▁"  # what sentencepiece writes for a space
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's letter for every byte: what can be printed is itself, the rest follows 255."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + number) for number, byte in enumerate(rest)
    }


_LETTER = _byte_alphabet()
_BYTE_OF = {letter: byte for byte, letter in _LETTER.items()}


class Token(NamedTuple):
    """What a token stands for.

    Attributes:
        kind: "text"; "byte", a single one that is no character by itself; "special" and "added",
            set apart from text with and without being hidden in answers; "literal", a piece that
            no text is ever split into, or that this module cannot read.
        data: the bytes; of the last three kinds, of what it is written as.
    """

    kind: Literal["text", "byte", "special", "added", "literal"]
    data: bytes

    def equals(self) -> "Iterator[Token]":
        """What it may be called in another tokenizer, the likeliest first."""
        yield self
        if self.kind == "special":
            yield Token("added", self.data)
        elif self.kind == "added":
            yield Token("special", self.data)
            yield Token("text", self.data)
        elif self.kind == "text":
            yield Token("added", self.data)

    def across(self) -> "Token | None":
        """What a byte is called where pieces are written another way: Ċ is <0x0A>, which is no
        text."""
        if len(self.data) == 1 and self.kind in ("text", "byte"):
            return Token("byte" if self.kind == "text" else "text", self.data)
        return None


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer writes pieces of text.

    Attributes:
        byte_level: in GPT-2's letters for bytes.
        marked: with ▁ for a space.
        fallback: with <0x0A> for a byte of what no piece covers.
        affixes: with marks for the inside or the end of words (WordPiece's ##), which are
            compared as they are written.
    """

    byte_level: bool = False
    marked: bool = False
    fallback: bool = False
    affixes: bool = False

    def read(self, piece: str) -> Token:
        """What a piece stands for; different pieces stand for different tokens."""
        if self.affixes:
            return Token("literal", piece.encode("utf-8", "surrogatepass"))
        if self.byte_level:
            if not all(letter in _BYTE_OF for letter in piece):
                return Token("literal", piece.encode("utf-8", "surrogatepass"))
            data = bytes(_BYTE_OF[letter] for letter in piece)
            return Token("byte" if len(data) == 1 and data[0] > 0x7F else "text", data)
        if self.fallback and (found := _BYTE.fullmatch(piece)):
            return Token("byte", bytes([int(found[1], 16)]))
        if self.marked:
            if " " in piece:  # every space of a text is marked before pieces are looked up
                return Token("literal", piece.encode("utf-8", "surrogatepass"))
            piece = piece.replace(_SPACE, " ")
        return Token("text", piece.encode("utf-8", "surrogatepass"))

    def write(self, token: Token) -> str | None:
        """The piece that stands for a token, None where there can be none."""
        if token.kind in ("special", "added"):
            return token.data.decode("utf-8", "surrogatepass")
        if token.kind == "literal" or self.affixes:
            return None
        if self.byte_level:
            return "".join(_LETTER[byte] for byte in token.data)
        if token.kind == "byte":
            return f"<0x{token.data[0]:02X}>" if self.fallback else None
        try:
            piece = token.data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if self.marked:
            if _SPACE in piece:
                return None
            piece = piece.replace(" ", _SPACE)
        return piece if self.read(piece) == token else None


@dataclass(frozen=True)
class Tokens:
    """The tokens of one tokenizer by id, and what else is needed to write them elsewhere.

    Attributes:
        by_id: what each id stands for.
        pieces: how it is written.
        added: those set apart from text, with their flags.
        spelling: of the others.
        description: the tokenizer's own (tokenizer.json), or None where there is none.
    """

    by_id: Mapping[int, Token]
    pieces: Mapping[int, str]
    added: "Mapping[int, AddedToken]"
    spelling: Spelling
    description: str | None = field(repr=False)

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "Tokens":
        """Those of a tokenizer that transformers opened."""
        inner = getattr(tokenizer, "backend_tokenizer", None)
        description = None if inner is None else inner.to_str()
        listed = sorted((number, piece) for piece, number in tokenizer.get_vocab().items())
        pieces = dict(listed)
        spelling = (
            _guess(pieces.values()) if description is None else _spelling(json.loads(description))
        )
        added = dict(tokenizer.added_tokens_decoder)
        hidden = set(tokenizer.all_special_tokens)
        by_id = {}
        for number, piece in pieces.items():
            data = piece.encode("utf-8", "surrogatepass")
            if piece in hidden or (number in added and added[number].special):
                by_id[number] = Token("special", data)
            elif number in added:
                by_id[number] = Token("added", data)
            else:
                by_id[number] = spelling.read(piece)
        return cls(by_id, pieces, added, spelling, description)

    @cached_property
    def ids(self) -> dict[Token, int]:
        return {token: number for number, token in self.by_id.items()}

    def find(self, token: Token, spelling: Spelling) -> int | None:
        """The id that stands for a token of a tokenizer with that spelling, or None."""
        ids = self.ids
        if token in ids:
            return ids[token]
        for equal in token.equals():
            if equal in ids:
                return ids[equal]
        # within one spelling a byte and the character of that byte are two tokens
        other = token.across() if spelling != self.spelling else None
        return None if other is None else self.ids.get(other)


def _spelling(description: Mapping[str, Any]) -> Spelling:
    model = description["model"]
    steps = [
        step
        for room in ("normalizer", "pre_tokenizer", "decoder")
        for step in _steps(description.get(room))
    ]
    kinds = {step.get("type") for step in steps}
    affixes = model.get("type") not in ("BPE", "Unigram") or bool(
        model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    )
    if "ByteLevel" in kinds and not affixes:
        return Spelling(byte_level=True)
    marked = "Metaspace" in kinds or any(
        step.get("type") == "Replace"
        and (step.get("content") == _SPACE or step.get("pattern") == {"String": _SPACE})
        for step in steps
    )
    return Spelling(marked=marked, fallback=bool(model.get("byte_fallback")), affixes=affixes)


def _steps(component: Any) -> Iterator[Mapping[str, Any]]:
    """A component of tokenizer.json, or those that it is a sequence of."""
    if isinstance(component, Mapping):
        yield component
        for key in ("normalizers", "pretokenizers", "decoders"):
            for inner in component.get(key) or ():
                yield from _steps(inner)


def _guess(pieces) -> Spelling:
    """The spelling of a tokenizer that does not describe itself: sentencepiece's, by its marks."""
    pieces = set(pieces)
    marked = any(piece.startswith(_SPACE) for piece in pieces)
    return Spelling(marked=marked, fallback="<0x0A>" in pieces)
