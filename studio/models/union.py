"""A tokenizer that knows the tokens of others besides its own, at ids that were settled before.

What it had keeps its id and is found as before; where text came out in pieces, those pieces may now
come together in a token of the others. Knows tokenizer.json and how its kinds of models find
tokens; refuses to know models and their rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.models.tokens import Spelling, Tokens

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

#: Longer pieces are not segmented, which takes the square of their length.
_LONGEST = 256


@dataclass(frozen=True)
class NewToken:
    """A token to be entered.

    Attributes:
        number: its id.
        piece: how the extended tokenizer writes it.
        origin: position of the tokenizer that it comes from.
        theirs: its id there.
    """

    number: int
    piece: str
    origin: int
    theirs: int


def extended(own: Tokens, others: Sequence[Tokens], new: Sequence[NewToken]) -> "Tokenizer":
    """The backend of a tokenizer with more tokens.

    Added tokens are added with their flags. A piece of text is entered where the model finds it: of
    a BPE by the merges of its own tokenizer, appended after the existing ones, or by one that joins
    the two pieces it came out as; of a Unigram by its score. What no merge leads to and could only
    be spelled in bytes is found as it stands in a text; anything else that no merge leads to is
    there and never found, since cutting it out of texts would cut words that have it inside.

    Args:
        own: of the tokenizer to extend, which has a `description`.
        others: of the tokenizers that the new tokens come from.

    Raises:
        ValueError: an id would not be the one that was settled.
        Exception: what the tokenizers package raises of a description that it cannot read.
    """
    from tokenizers import Tokenizer

    spec = json.loads(own.description)
    model = spec["model"]
    theirs = [json.loads(other.description or "{}").get("model", {}) for other in others]
    added = {entry["id"]: entry for entry in spec["added_tokens"]}
    texts = []
    for token in new:
        flags = others[token.origin].added.get(token.theirs)
        if flags is None:
            texts.append(token)
        else:
            added[token.number] = _entry(token.number, token.piece, flags)
    # every token stands in the model too: ids of added ones that do not are counted, not read
    pieces = {entry["content"]: number for number, entry in added.items()}
    pieces |= {token.piece: token.number for token in texts}
    if isinstance(model["vocab"], list):
        _enter_scored(model, pieces, texts, theirs)
    elif model["type"] == "BPE" and not own.spelling.affixes:
        known = set(model["vocab"])
        model["vocab"] |= pieces
        spellings = [other.spelling for other in others]
        merges = [(s, m.get("merges") or ()) for s, m in zip(spellings, theirs, strict=True)]
        for token in _enter_merges(model, known, own.spelling, merges, texts):
            text = own.spelling.read(token.piece).data.decode("utf-8")
            if token.piece == text or text not in model["vocab"]:
                del model["vocab"][token.piece]
                model["vocab"][text] = token.number
                added[token.number] = _entry(token.number, text)
    else:
        model["vocab"] |= pieces
    spec["added_tokens"] = [added[number] for number in sorted(added)]
    backend = Tokenizer.from_str(json.dumps(spec))
    settled = {number: piece for piece, number in backend.get_vocab().items()}
    wrong = [piece for number, piece in own.pieces.items() if settled.get(number) != piece]
    wrong += [token.piece for token in new if token.number not in settled]
    if wrong or len(settled) != len(own.pieces) + len(new):
        raise ValueError(f"{len(wrong)} tokens have another id than they should")
    return backend


def _entry(number: int, content: str, flags: "AddedToken | None" = None) -> dict[str, Any]:
    """An added token as tokenizer.json lists it; without flags, found anywhere as it stands."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content} | {
        name: bool(flags is not None and getattr(flags, name)) for name in names
    }


def _enter_scored(
    model: dict[str, Any],
    pieces: dict[str, int],
    texts: list[NewToken],
    theirs: Sequence[dict[str, Any]],
) -> None:
    """Enter pieces into a Unigram, whose ids are positions."""
    vocabulary = model["vocab"]
    lowest = min((score for _, score in vocabulary), default=0.0)
    scores = {}
    for token in texts:
        scored = theirs[token.origin].get("vocab")
        listed = isinstance(scored, list) and token.theirs < len(scored)
        scores[token.number] = scored[token.theirs][1] if listed else lowest
    known = {piece for piece, _ in vocabulary}
    for piece, number in sorted(pieces.items(), key=lambda item: item[1]):
        if piece not in known:
            if number != len(vocabulary):
                raise ValueError(f"no piece has the id {len(vocabulary)}")
            vocabulary.append([piece, scores.get(number, lowest)])


def _enter_merges(
    model: dict[str, Any],
    known: set[str],
    spelling: Spelling,
    theirs: Sequence[tuple[Spelling, Sequence]],
    texts: list[NewToken],
) -> list[NewToken]:
    """Give a BPE the merges that lead to new pieces.

    Args:
        known: the pieces that it had.
        spelling: how they are written.
        theirs: merges of others, and how those write their pieces.

    Returns:
        tokens that none leads to, of texts that it could only spell in bytes.
    """
    merges = [_pair(merge) for merge in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    meant = {token.number: spelling.read(token.piece) for token in texts}
    # a byte and a single character are where a text begins to be merged
    texts = [token for token in texts if meant[token.number].kind == "text"]
    reached = known | {token.piece for token in texts if len(token.piece) == 1}
    wanted = {token.piece for token in texts}

    def append(one: str, two: str) -> None:
        reached.add(one + two)
        if (one, two) not in ranks:
            ranks[one, two] = len(merges)
            merges.append((one, two))

    for other, pairs in theirs:
        for one, two in map(_pair, pairs):
            if other != spelling:
                one, two = (spelling.write(other.read(part)) for part in (one, two))
            if one in reached and two in reached and one + two in wanted:
                append(one, two)
    unreached = []
    short = (token for token in texts if len(token.piece) <= _LONGEST)
    for token in sorted(short, key=lambda token: (len(token.piece), token.number)):
        parts = _segmented(token.piece, ranks)
        if len(parts) == 2 and reached.issuperset(parts):
            append(*parts)
        elif token.piece not in reached and _in_bytes(parts, reached, meant[token.number].data):
            unreached.append(token)
    model["merges"] = [list(pair) for pair in merges]
    return unreached


def _in_bytes(parts: list[str], known: set[str], data: bytes) -> bool:
    """Whether more tokens than characters spell a text; False of bytes that are no text."""
    try:
        characters = len(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False
    return sum(1 if part in known else len(part.encode("utf-8")) for part in parts) > characters


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """A merge as tokenizer.json lists it, in its old form or its new one."""
    one, two = merge.split(" ") if isinstance(merge, str) else merge
    return one, two


def _segmented(piece: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """What a BPE makes of a piece: of all neighbours the pair of lowest rank is joined, again and
    again."""
    parts = list(piece)
    while len(parts) > 1:
        rank, place = min(
            (ranks.get((parts[i], parts[i + 1]), len(ranks)), i) for i in range(len(parts) - 1)
        )
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
