"""Tokens matched by what they stand for: which rows a merge mixes, which it keeps, what it says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.merge.live import LiveModel
from studio.merge.parameter_space import ParameterSpace
from studio.models import Checkpoint, Model, check_compatible
from studio.models.tokens import Spelling, Token, Tokens
from studio.models.union import NewToken, _segmented, extended
from studio.models.vocabulary import Aligned, align, token_tensors, vocabulary_of
from tests.conftest import make_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ENGLISH = [
    "the cat sat on the mat and the cat ate the rat",
    "the weather is better than the other weather, they said in the north",
    "a better letter, a bitter litter: the father of the mother and the brother",
]
OTHER = [
    "the dog dug in the fog; a log in the bog, a frog on the log",
    "太郎はりんごを買いました。りんごは太郎のものです。太郎のりんご。",
    "naïve café déjà vu, the café of the dog, déjà vu in the fog",
]
TEXTS = [*ENGLISH, *OTHER, "x = [1, 2]\n\n\tthe end  ", "🧬 ﷺ ő\r\n"]
TEMPLATE = "{% for m in messages %}{{ mark }}{{ m['content'] }}{{ eos_token }}{% endfor %}"


# ── tokenizers and models that overlap partly ─────────────────────────────────────────────────


def byte_level(corpus, size, special=("<pad>", "<s>", "</s>"), **changes):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return fast(tokenizer, special, **changes)


def sentencepiece(corpus, size, special=("<unk>", "<s>", "</s>"), **changes):
    """As Llama's: ▁ for spaces, bytes for characters that no piece has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(list(special))
    return fast(tokenizer, special, **changes)


def unigram(corpus, size):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return fast(tokenizer, special)


def fast(tokenizer, special, template=None, **roles):
    from transformers import PreTrainedTokenizerFast

    roles = {"bos_token": special[1], "eos_token": special[2]} | roles
    result = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
    result.chat_template = template
    return result


def save(folder: Path, tokenizer, *, seed, rows=None, tied=False, **config) -> Checkpoint:
    """A random model over a tokenizer, whose ends are the tokenizer's."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    settings = {"vocab_size": rows or len(tokenizer), "pad_token_id": None} | ends | config
    model = make_model(seed=seed, tied=tied, layers=1, architecture="llama", **settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Checkpoint.open(folder)


ENGLISH_BYTES = byte_level(ENGLISH, 900)
OTHER_BYTES = byte_level(
    OTHER,
    900,
    special=("<s>", "<pad>", "<|end|>", "</s>", "<|user|>"),
    bos_token="<s>",
    template=TEMPLATE.replace("mark", "'<|user|>'"),
)
COUNT = len(ENGLISH_BYTES)
ENGLISH_PIECES = sentencepiece(ENGLISH, 100)
OTHER_PIECES = sentencepiece(OTHER, 140, special=("<unk>", "<s>", "<|end|>", "</s>"))
PAIRS = {
    "byte-level": (ENGLISH_BYTES, OTHER_BYTES),
    "sentencepiece": (ENGLISH_PIECES, OTHER_PIECES),
    "into bytes": (ENGLISH_BYTES, OTHER_PIECES),
    "into pieces": (ENGLISH_PIECES, OTHER_BYTES),
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, tmp_path_factory):
    """Base and source with an English vocabulary, a source with another: base, a, b."""
    root = tmp_path_factory.mktemp("pair")
    one, two = PAIRS[request.param]
    return (
        save(root / "base", one, seed=0),
        save(root / "a", one, seed=1),
        save(root / "b", two, seed=2),
    )


@pytest.fixture(scope="module")
def bytes_pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("bytes")
    return (
        save(root / "base", ENGLISH_BYTES, seed=0),
        save(root / "a", ENGLISH_BYTES, seed=1),
        save(root / "b", OTHER_BYTES, seed=2),
    )


def shared(one, two) -> dict[int, int]:
    """id → id of tokens that both have: those with one string, or of ASCII once spaces are."""

    def plain(tokenizer):
        marks = str.maketrans("▁", "Ġ")
        vocabulary = tokenizer.get_vocab().items()
        return {piece.translate(marks): number for piece, number in vocabulary}

    same = plain(two)
    found = {number: same[piece] for piece, number in plain(one).items() if piece in same}
    alike = one.get_vocab().keys() & {"<0x0A>"} == two.get_vocab().keys() & {"<0x0A>"}
    texts = {number for piece, number in plain(one).items() if alike or piece.isascii() or piece[
        :1] == "Ġ" and piece[1:].isascii()}  # fmt: skip
    return {number: theirs for number, theirs in found.items() if number in texts}


def merged(base, sources, method, choice="union", **options) -> tuple[LiveModel, ParameterSpace]:
    """A live model of aligned models, as `build_space` makes them."""
    check_compatible(base, sources, choice)
    base, sources = align(base, sources, choice, with_base=base is not None)
    space = ParameterSpace(base, sources, method=method, layer_granularity="all", **options)
    return LiveModel(space, device="cpu"), space


def table(live, name=EMBEDDING) -> torch.Tensor:
    return live.state_dict()[name]


# ── what a piece stands for ───────────────────────────────────────────────────────────────────


def test_pieces_of_both_styles_stand_for_the_same():
    letters, pieces = Tokens.of(ENGLISH_BYTES), Tokens.of(ENGLISH_PIECES)
    assert letters.spelling == Spelling(byte_level=True)
    assert pieces.spelling == Spelling(marked=True, fallback=True)
    vocabulary = ENGLISH_BYTES.get_vocab()
    assert letters.by_id[vocabulary["Ġthe"]] == Token("text", b" the")
    assert pieces.by_id[ENGLISH_PIECES.get_vocab()["▁the"]] == Token("text", b" the")
    newline = pieces.find(letters.by_id[vocabulary["Ċ"]], letters.spelling)
    assert pieces.pieces[newline] == "<0x0A>"
    high = pieces.find(letters.by_id[vocabulary["ã"]], letters.spelling)
    assert pieces.pieces[high] == "<0xE3>"
    end = pieces.find(letters.by_id[vocabulary["</s>"]], letters.spelling)
    assert pieces.pieces[end] == "</s>"
    # within one style a byte and its character are two tokens
    assert pieces.pieces[pieces.find(Token("byte", b"a"), pieces.spelling)] == "<0x61>"
    assert pieces.pieces[pieces.find(Token("text", b"a"), pieces.spelling)] == "a"
    assert pieces.find(Token("text", b"\n"), pieces.spelling) is None


@pytest.mark.parametrize(
    ("normalizer", "decoder", "spelling"),
    [
        (
            {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            Spelling(marked=True),
        ),
        (None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                "use_regex": True}, Spelling(byte_level=True)),
        (None, None, Spelling()),
    ],
)  # fmt: skip
def test_how_a_tokenizer_spells_is_read_from_its_parts(normalizer, decoder, spelling):
    from tokenizers import Tokenizer, models

    spec = json.loads(Tokenizer(models.BPE({"a": 0, "b": 1}, [])).to_str())
    spec |= {"normalizer": normalizer, "decoder": decoder}
    tokenizer = fast(Tokenizer.from_str(json.dumps(spec)), (None, None, None))
    assert Tokens.of(tokenizer).spelling == spelling


SPELLINGS = st.sampled_from(
    [
        Spelling(byte_level=True),
        Spelling(marked=True, fallback=True),
        Spelling(marked=True),
        Spelling(fallback=True),
        Spelling(),
        Spelling(affixes=True),
    ]
)
PIECES = st.text(st.sampled_from("ab▁ Ġã<0xA1>\n日é"), max_size=6) | st.text(max_size=4)


@given(SPELLINGS, PIECES, PIECES)
def test_different_pieces_are_different_tokens(spelling, one, two):
    assert (spelling.read(one) == spelling.read(two)) == (one == two)


@given(SPELLINGS, PIECES)
def test_what_is_written_is_read_as_meant(spelling, piece):
    token = spelling.read(piece)
    assert spelling.write(token) in (None, piece)
    if token.kind != "literal":
        assert spelling.write(token) == piece


@given(SPELLINGS, SPELLINGS, PIECES)
def test_a_piece_written_in_another_style_means_the_same(one, two, piece):
    token = one.read(piece)
    written = two.write(token)
    if written is not None:
        meant = two.read(written)
        assert meant == token or meant == token.across()


@given(st.text("abct ", min_size=1, max_size=12))
def test_pieces_are_segmented_as_the_tokenizer_does(text):
    spec = json.loads(ENGLISH_PIECES.backend_tokenizer.to_str())
    ranks = {tuple(pair): rank for rank, pair in enumerate(spec["model"]["merges"])}
    piece = text.replace(" ", "▁")
    theirs = ENGLISH_PIECES.backend_tokenizer.model.tokenize(piece)
    assert _segmented(piece, ranks) == [token.value for token in theirs]


# ── which row is whose ────────────────────────────────────────────────────────────────────────


class Rows(Model):
    """An embedding of two numbers a row, over a vocabulary of whole pieces."""

    def __init__(self, name: str, pieces: list[str], length: int):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig

        self.name, self.path = name, Path(name)
        self.architecture, self.licence, self.dtype = "none", None, torch.float32
        self.config = LlamaConfig(vocab_size=length, eos_token_id=None, bos_token_id=None)
        ids = {piece: number for number, piece in enumerate(pieces)}
        inner = Tokenizer(models.BPE(ids, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer = fast(inner, (None, None, None))
        self._rows = torch.randn(length, 2, generator=torch.Generator().manual_seed(len(name)))

    def names(self):
        return [EMBEDDING]

    def shape(self, name):
        return tuple(self._rows.shape)

    def get(self, name):
        return self._rows

    def fingerprint(self):
        return self.name

    def tokenizer(self):
        return self._tokenizer

    def generation_config(self):
        from transformers import GenerationConfig

        return GenerationConfig()


VOCABULARIES = st.lists(st.sampled_from("abcdefghĠ"), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(VOCABULARIES, st.integers(0, 3)), min_size=2, max_size=4),
    st.sampled_from(["base", "union", "source"]),
    st.booleans(),
)
def test_every_row_is_who_has_the_tokens(drawn, choice, with_base):
    """Against the rules said in words: its own row, else the base's, else the sources' mean."""
    pieces = [vocabulary for vocabulary, _ in drawn]
    models = [
        Rows("m" * (n + 1), vocabulary, len(vocabulary) + padding)
        for n, (vocabulary, padding) in enumerate(drawn)
    ]
    base, sources = models[0], models[1:]
    members = list(range(len(models)))[0 if with_base else 1 :]
    giver = {"base": 0, "union": members[0], "source": len(models) - 1}[choice]
    below, aligned = align(
        base, sources, sources[-1].name if choice == "source" else choice, with_base=with_base
    )
    if not with_base:
        assert below is base
    target = list(pieces[giver])
    size = len(target) + drawn[giver][1]
    if choice == "union":
        for number in members:
            target += [piece for piece in pieces[number] if piece not in target]
        size = max(size, len(target))
    given = [*([below] if with_base else []), *aligned]
    for number, model in zip(members, given, strict=True):
        got = model.get(EMBEDDING)
        assert got.shape == (size, 2)
        for row, piece in enumerate(target):
            have = {
                n: models[n].get("")[pieces[n].index(piece)] for n in members if piece in pieces[n]
            }
            if number in have:
                expected = have[number]
            elif with_base and 0 in have:
                expected = have[0]
            elif have:
                expected = torch.stack(list(have.values())).mean(0)
            else:  # the base's, which is not merged, gives the vocabulary
                expected = models[giver].get("")[row]
            torch.testing.assert_close(got[row], expected)
        if pieces[number] != pieces[giver]:
            for row in range(len(target), size):
                others = [n for n in members if pieces[n] == pieces[giver]]
                if others in ([], [giver]):
                    assert got[row].equal(models[giver].get("")[row])


# ── what a merge does with rows ───────────────────────────────────────────────────────────────


def new_rows(live, space, b) -> tuple[list[int], list[int]]:
    """Ids of the tokens that only b has, and their rows there."""
    new = space.sources[-1].vocabulary.new
    assert len(new) > 20
    assert [token.number for token in new] == [
        number for number in range(len(space.sources[-1].tokenizer())) if number >= new[0].number
    ]
    return [token.number for token in new], [token.theirs for token in new]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties", "dare_linear"])
def test_differences_from_a_base(pair, method):
    """Shared tokens mix, and what one source alone has survives whatever the weights."""
    base, a, b = pair
    live, space = merged(base, [a, b], method)
    new, theirs = new_rows(live, space, b)
    mine = shared(base.tokenizer(), b.tokenizer())
    assert 20 < len(mine) < base.config.vocab_size
    ours, at = list(mine), list(mine.values())
    genome = np.random.default_rng(1).uniform(space.lower, space.upper)
    for index, gene in enumerate(space.genes):
        if gene.kind == "density":
            genome[index] = 1.0
    live.apply(genome)
    weights = space.settings(genome)[EMBEDDING].weights
    for name in (EMBEDDING, HEAD):
        rows = table(live, name)
        assert rows[new].equal(b.get(name)[theirs])
        root = base.get(name)[ours]
        deltas = [a.get(name)[ours] - root, b.get(name)[at] - root]
        if method in ("task_arithmetic", "dare_linear"):
            expected = root + weights[0] * deltas[0] + weights[1] * deltas[1]
            torch.testing.assert_close(rows[ours], expected, rtol=1e-5, atol=1e-6)
        else:  # where both sources go the same way, both are added
            agree = deltas[0].sign() == deltas[1].sign()
            expected = root + weights[0] * deltas[0] + weights[1] * deltas[1]
            assert 0.3 < agree.float().mean() < 0.7
            torch.testing.assert_close(rows[ours][agree], expected[agree], rtol=1e-5, atol=1e-6)
    # of the base's tokens that b lacks, b says nothing
    alone = sorted(set(range(len(base.tokenizer()))) - {
        number for number in range(len(base.tokenizer()))
        if space.sources[1].vocabulary.rows[2][number] >= 0
    })  # fmt: skip
    assert len(alone) > 10
    expected = base.get(EMBEDDING)[alone] + weights[0] * (
        a.get(EMBEDDING)[alone] - base.get(EMBEDDING)[alone]
    )
    torch.testing.assert_close(table(live)[alone], expected, rtol=1e-5, atol=1e-6)


def test_sparse_masks_do_not_touch_new_rows(bytes_pair):
    base, a, b = bytes_pair
    live, space = merged(base, [a, b], "dare_ties")
    new, theirs = new_rows(live, space, b)
    for seed in range(3):
        live.apply(np.random.default_rng(seed).uniform(space.lower, space.upper))
        assert table(live)[new].equal(b.get(EMBEDDING)[theirs])


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_without_a_base(pair, method):
    _, a, b = pair
    live, space = merged(
        None, [a, b], method, **({"normalize": True} if method == "linear" else {})
    )
    new, theirs = new_rows(live, space, b)
    genome = space.initial * [0.6] if method == "slerp" else np.array([0.9, 0.3])
    live.apply(genome)
    rows = table(live)
    mine = shared(a.tokenizer(), b.tokenizer())
    ours, at = list(mine), list(mine.values())
    if method == "linear":
        one, two = 0.75, 0.25
        torch.testing.assert_close(rows[new], b.get(EMBEDDING)[theirs], rtol=1e-5, atol=1e-6)
    else:
        first, second = (source.get(EMBEDDING).flatten() for source in space.sources)
        angle = torch.arccos(torch.nn.functional.cosine_similarity(first, second, dim=0))
        one, two = torch.sin(0.7 * angle) / torch.sin(angle), torch.sin(0.3 * angle) / torch.sin(
            angle)  # fmt: skip
        torch.testing.assert_close(
            rows[new], (one + two) * b.get(EMBEDDING)[theirs], rtol=1e-4, atol=1e-5
        )
    expected = one * a.get(EMBEDDING)[ours] + two * b.get(EMBEDDING)[at]
    torch.testing.assert_close(rows[ours], expected, rtol=1e-4, atol=1e-5)


def test_what_several_sources_have_and_the_base_lacks_starts_from_their_mean(tmp_path, bytes_pair):
    base, a, b = bytes_pair
    c = save(tmp_path / "c", OTHER_BYTES, seed=3)
    live, space = merged(base, [a, b, c], "task_arithmetic")
    new, theirs = [], []
    for token in space.sources[1].vocabulary.new:
        new.append(token.number)
        theirs.append(token.theirs)
    live.apply(np.array([1.7, 0.5, 1.0]))
    rows = [model.get(EMBEDDING)[theirs] for model in (b, c)]
    mean = (rows[0] + rows[1]) / 2
    expected = mean + 0.5 * (rows[0] - mean) + 1.0 * (rows[1] - mean)
    torch.testing.assert_close(table(live)[new], expected, rtol=1e-5, atol=1e-6)


def test_the_vocabulary_of_the_base_or_of_a_source(bytes_pair):
    base, a, b = bytes_pair
    live, space = merged(base, [a, b], "task_arithmetic", "base")
    assert space.base is base and space.sources[0] is a
    assert live.tokenizer.get_vocab() == base.tokenizer().get_vocab()
    live.apply(np.array([0.0, 1.0]))
    mine = shared(base.tokenizer(), b.tokenizer())
    torch.testing.assert_close(table(live)[list(mine)], b.get(EMBEDDING)[list(mine.values())])
    alone = sorted(set(range(len(base.tokenizer()))) - set(mine))
    assert table(live)[alone].equal(base.get(EMBEDDING)[alone])

    live, space = merged(base, [a, b], "task_arithmetic", b.name)
    assert space.sources[1] is b
    assert live.model.config.vocab_size == len(OTHER_BYTES)
    live.apply(np.array([0.0, 1.0]))
    torch.testing.assert_close(table(live), b.get(EMBEDDING))
    live.apply(np.array([1.0, 0.0]))
    torch.testing.assert_close(table(live)[list(mine.values())], a.get(EMBEDDING)[list(mine)])


def test_the_vocabulary_of_a_base_that_is_not_merged(bytes_pair):
    base, a, b = bytes_pair
    known = Tokens.of(a.tokenizer()).ids
    _, sources = align(b, [a, base], "base", with_base=False)
    rows = [source.get(EMBEDDING) for source in sources]
    alone = [n for n, token in Tokens.of(b.tokenizer()).by_id.items() if token not in known]
    for row in rows:  # what neither source has is as the giver has it
        assert row[alone].equal(b.get(EMBEDDING)[alone])


# ── as a model like any other ─────────────────────────────────────────────────────────────────


def test_an_aligned_model_reads_as_it_gets(pair):
    base, a, b = pair
    _, sources = align(base, [a, b], "union")
    aligned = sources[1]
    assert isinstance(aligned, Aligned) and aligned.name == b.name and aligned.path == b.path
    assert aligned.names() == b.names()
    for name in (EMBEDDING, HEAD, "model.norm.weight"):
        whole = aligned.get(name)
        assert whole.shape == aligned.shape(name)
        assert torch.cat(list(aligned.pieces(name))).equal(whole.flatten())
        read, count = aligned.reader(name), whole.numel()
        for start, stop in [(0, 1), (0, count), (3, 9), (13, 13 + 64), (count - 70, count)]:
            if 0 <= start <= stop <= count:
                assert read(start, stop).equal(whole.flatten()[start:stop])
    assert aligned.parameters == sum(aligned.get(name).numel() for name in aligned.names())
    loaded = aligned.load()
    assert loaded.get_input_embeddings().weight.equal(aligned.get(EMBEDDING))


def test_fingerprints_know_the_vocabulary(bytes_pair):
    base, a, b = bytes_pair
    seen = {b.fingerprint()}
    for choice, others in [("union", [a, b]), ("base", [a, b]), ("union", [b])]:
        _, sources = align(base, others, choice)
        seen.add(sources[-1].fingerprint())
        assert align(base, others, choice)[1][-1].fingerprint() in seen
    assert len(seen) == 4


def test_nothing_is_wrapped_where_nothing_differs(tiny_family):
    base, *sources = (Checkpoint.open(tiny_family[name]) for name in ("base", "ja", "math"))
    for choice in ("same", "base", "union", sources[1].name):
        aligned = align(base, sources, choice)
        assert aligned[0] is base
        assert all(one is two for one, two in zip(aligned[1], sources, strict=True))
        assert vocabulary_of([aligned[0], *aligned[1]]) is None


@pytest.mark.parametrize("choice", ["same", "base", "union"])
def test_padding_of_embeddings_may_differ(tmp_path, bytes_pair, choice):
    base, a, _ = bytes_pair
    padded = save(tmp_path / "padded", ENGLISH_BYTES, seed=5, rows=384)
    live, space = merged(base, [a, padded], "task_arithmetic", choice)
    assert space.tensors[EMBEDDING][0] == COUNT and space.sources[0] is a
    live.apply(np.array([0.0, 1.0]))
    torch.testing.assert_close(table(live), padded.get(EMBEDDING)[:COUNT])
    live, space = merged(padded, [a, base], "task_arithmetic", choice)
    assert space.tensors[EMBEDDING][0] == 384 and space.base is padded
    live.apply(np.array([1.0, 0.0]))
    torch.testing.assert_close(table(live)[:COUNT], a.get(EMBEDDING))
    assert table(live)[COUNT:].equal(padded.get(EMBEDDING)[COUNT:])
    assert live.tokenizer.get_vocab() == base.tokenizer().get_vocab()


def test_a_union_fills_padding_first(tmp_path, bytes_pair):
    _, _, b = bytes_pair
    padded = save(tmp_path / "padded", ENGLISH_BYTES, seed=5, rows=512)
    live, space = merged(padded, [b], "task_arithmetic")
    assert space.tensors[EMBEDDING][0] == 512
    new = space.sources[0].vocabulary.new
    assert new[0].number == COUNT
    live.apply(np.array([0.3]))
    ids, theirs = zip(*((token.number, token.theirs) for token in new), strict=True)
    assert table(live)[list(ids)].equal(b.get(EMBEDDING)[list(theirs)])
    after = ids[-1] + 1
    assert table(live)[after:].equal(padded.get(EMBEDDING)[after:])


@pytest.mark.parametrize("untied", ["base", "b", None])
def test_tied_and_untied_heads(tmp_path, untied):
    """An untied model among tied ones makes the merge untied; the others' head is their embedding.
    Both matrices are re-indexed."""
    base, b = (
        save(tmp_path / name, tokenizer, seed=seed, tied=name != untied)
        for seed, (name, tokenizer) in enumerate((("base", ENGLISH_BYTES), ("b", OTHER_BYTES)))
    )
    live, space = merged(base, [b], "task_arithmetic")
    assert space.tied == (untied is None)
    assert live.model.config.tie_word_embeddings == space.tied
    live.apply(np.array([0.5]))
    mine = shared(base.tokenizer(), b.tokenizer())
    new, theirs = new_rows(live, space, b)
    head = live.model.get_output_embeddings().weight.detach()
    for rows, name in ((table(live), EMBEDDING), (head, HEAD)):
        expected = 0.5 * base.get(name)[list(mine)] + 0.5 * b.get(name)[list(mine.values())]
        torch.testing.assert_close(rows[list(mine)], expected, rtol=1e-5, atol=1e-6)
        assert rows[new].equal(b.get(name)[theirs])
    assert head.equal(table(live)) == space.tied


# ── the tokenizer of the merge ────────────────────────────────────────────────────────────────


def test_a_union_reads_and_writes_the_texts_of_both(pair):
    base, a, b = pair
    live, space = merged(base, [a, b], "task_arithmetic")
    union, vocabulary = live.tokenizer, space.sources[1].vocabulary
    own, theirs = base.tokenizer(), b.tokenizer()
    assert len(union) == vocabulary.count == len(own) + len(vocabulary.new)
    new = {token.number for token in vocabulary.new}
    for text in TEXTS:
        assert union.decode(union(text)["input_ids"]) == own.decode(own(text)["input_ids"]) == text
        assert union.decode(own(text)["input_ids"]) == text  # the base's ids mean what they did
    used = {number for text in OTHER for number in union(text)["input_ids"]}
    assert len(used & new) > 8
    # and it comes to about as few tokens as the source's own
    length, before, best = (
        sum(len(t(text, add_special_tokens=False)["input_ids"]) for text in OTHER)
        for t in (union, own, theirs)
    )
    assert length < before and length <= 2 * best
    for text in ENGLISH:
        assert len(union(text)["input_ids"]) <= len(own(text)["input_ids"])
    assert union.convert_tokens_to_ids("<|end|>") in new
    assert union.decode(union("a<|end|>b")["input_ids"], skip_special_tokens=True) == "ab"


def test_a_union_of_unigrams(tmp_path):
    one, two = unigram(ENGLISH, 60), unigram(OTHER, 70)
    base, b = save(tmp_path / "one", one, seed=0), save(tmp_path / "two", two, seed=1)
    live, space = merged(base, [b], "task_arithmetic")
    new, theirs = new_rows(live, space, b)
    live.apply(np.array([0.5]))
    assert table(live)[new].equal(b.get(EMBEDDING)[theirs])
    for text in [*ENGLISH, *OTHER]:
        assert live.tokenizer.decode(live.tokenizer(text)["input_ids"]) == text
    ids = live.tokenizer(OTHER[1])["input_ids"]
    assert set(ids) & set(new) and base.tokenizer().unk_token_id not in ids


@pytest.mark.parametrize("first", [unigram(ENGLISH, 60), ENGLISH_BYTES, ENGLISH_PIECES])
@pytest.mark.parametrize("second", [unigram(OTHER, 70), OTHER_BYTES, OTHER_PIECES])
def test_every_id_of_a_union_is_what_it_was_settled_to_be(tmp_path, first, second):
    base, b = save(tmp_path / "one", first, seed=0), save(tmp_path / "two", second, seed=1)
    _, (aligned, *_) = align(base, [b], "union")
    union = aligned.tokenizer()
    union.save_pretrained(tmp_path / "union")
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path / "union")
    assert again.get_vocab() == union.get_vocab()
    assert sorted(union.get_vocab().values()) == list(range(len(union)))
    for token, number in base.tokenizer().get_vocab().items():
        assert union.convert_tokens_to_ids(token) == number
    for text in [*ENGLISH, *OTHER]:
        assert again(text)["input_ids"] == union(text)["input_ids"]


def test_added_tokens_keep_their_flags(tmp_path):
    from tokenizers import AddedToken

    two = byte_level(OTHER, 900)
    flags = {"lstrip": True, "single_word": True, "normalized": False, "special": False}
    two.add_tokens([AddedToken("[tool]", **flags), AddedToken("<|x|>", special=True)])
    base = save(tmp_path / "one", ENGLISH_BYTES, seed=0)
    b = save(tmp_path / "two", two, seed=1)
    union = align(base, [b], "union")[1][0].tokenizer()
    number = union.convert_tokens_to_ids("[tool]")
    entered = union.added_tokens_decoder[number]
    assert {name: getattr(entered, name) for name in flags} == flags
    assert union.added_tokens_decoder[union.convert_tokens_to_ids("<|x|>")].special


def test_a_string_that_is_text_here_and_special_there_is_one_token(tmp_path):
    one = byte_level(ENGLISH, 900)
    one.backend_tokenizer.pre_tokenizer = __import__("tokenizers").pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    spec = json.loads(one.backend_tokenizer.to_str())
    spec["model"]["vocab"]["<|end|>"] = COUNT
    one._tokenizer = type(one.backend_tokenizer).from_str(json.dumps(spec))
    base = save(tmp_path / "one", one, seed=0, rows=COUNT + 1)
    b = save(tmp_path / "two", OTHER_BYTES, seed=1)
    live, space = merged(base, [b], "task_arithmetic")
    live.apply(np.array([1.0]))
    theirs = b.tokenizer().convert_tokens_to_ids("<|end|>")
    torch.testing.assert_close(table(live)[COUNT], b.get(EMBEDDING)[theirs])


# ── ends of text ──────────────────────────────────────────────────────────────────────────────


def test_special_ids_are_those_of_the_vocabulary(bytes_pair):
    base, a, b = bytes_pair
    live, space = merged(base, [a, b], "task_arithmetic")
    own = b.tokenizer()
    assert live.tokenizer.chat_template == own.chat_template  # b is the one that can speak
    assert live.tokenizer.eos_token == own.eos_token == "<|end|>"
    end = live.tokenizer.convert_tokens_to_ids("<|end|>")
    assert end >= COUNT and own.eos_token_id == 2
    assert live.model.generation_config.eos_token_id == end
    assert live.model.generation_config.bos_token_id == live.tokenizer.bos_token_id == 1
    assert space.sources[1].config.eos_token_id == end
    assert base.config.eos_token_id == space.template.config.eos_token_id == 2
    prompt = live.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert prompt == "<|user|>hi<|end|>"


def test_lists_of_ids_and_ids_that_the_vocabulary_lacks(tmp_path, bytes_pair):
    base, _, _ = bytes_pair
    b = save(tmp_path / "b", OTHER_BYTES, seed=2)
    folder = tmp_path / "b"
    text = json.loads((folder / "generation_config.json").read_text())
    text |= {"eos_token_id": [2, 3], "bad_words_ids": [[3, 0], [2]], "pad_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(text))
    for choice, ends, bad in [("base", [2], [[2, 1]]), ("union", [COUNT, 2], [[2, 1], [COUNT]])]:
        aligned = align(base, [b], choice)[1][0]
        config = aligned.generation_config()
        assert config.eos_token_id == ends and config.bad_words_ids == bad
        assert config.pad_token_id == 0
        aligned.check_end()


def test_a_speaker_that_could_not_end_is_refused(bytes_pair):
    base, a, b = bytes_pair
    aligned = align(base, [a, b], "base")[1][1]
    with pytest.raises(StudioError, match="ends its answers with '<\\|end\\|>', which the vocab"):
        aligned.check_end()
    # but it may be merged into one that speaks: it then has the giver's end
    assert aligned.generation_config().eos_token_id == aligned.config.eos_token_id == 2


# ── what is refused ───────────────────────────────────────────────────────────────────────────


def test_different_vocabularies_are_refused_unless_a_choice_is_made(bytes_pair):
    base, a, b = bytes_pair
    with pytest.raises(StudioError, match=r"'vocabulary: union' \(or base\) in the recipe"):
        check_compatible(base, [a, b])
    with pytest.raises(StudioError, match=r"'vocabulary: union' \(or the name of a source\)"):
        check_compatible(None, [a, b])
    check_compatible(base, [a, b], "union")
    with pytest.raises(StudioError, match="no source nobody"):
        align(base, [a, b], "nobody")
    with pytest.raises(StudioError, match="no base"):
        align(None, [a, b], "base")


def test_a_tokenizer_that_cannot_be_extended(bytes_pair, monkeypatch):
    from studio.models import vocabulary

    base, _, b = bytes_pair
    aligned = align(base, [b], "union")[1][0]
    aligned.vocabulary._own = replace(aligned.vocabulary._own, description=None)
    with pytest.raises(StudioError, match="no fast form of it"):
        aligned.tokenizer()

    def refuse(*_):
        raise ValueError("3 tokens have another id than they should")

    del aligned
    monkeypatch.setattr(vocabulary, "extended", refuse)
    with pytest.raises(StudioError, match=r"extended by the tokens of the others \(3 tokens have"):
        align(base, [b], "union")[1][0].tokenizer()


def test_ids_that_are_not_as_settled_are_noticed():
    own, other = Tokens.of(ENGLISH_BYTES), Tokens.of(OTHER_BYTES)
    theirs = OTHER_BYTES.convert_tokens_to_ids("<|end|>")
    assert extended(own, [other], [NewToken(COUNT, "<|end|>", 0, theirs)])
    with pytest.raises(ValueError, match="another id"):
        extended(own, [other], [NewToken(COUNT, "the", 0, theirs)])
    own = Tokens.of(unigram(ENGLISH, 60))
    with pytest.raises(ValueError, match="no piece has the id"):
        extended(own, [other], [NewToken(900, "<|end|>", 0, theirs)])


def test_only_rows_of_tokens_may_differ_in_number(tmp_path, bytes_pair):
    base, _, _ = bytes_pair
    wide = save(tmp_path / "wide", ENGLISH_BYTES, seed=0, hidden_size=128)
    with pytest.raises(StudioError, match="hidden size"):
        check_compatible(base, [wide], "union")
    assert token_tensors(base) >= {EMBEDDING, HEAD}


# ── written to disk, and in mergekit ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "precision"), [("dare_ties", "bf16"), ("slerp", "fp32")])
def test_the_export_is_the_live_model(pair, tmp_path, method, precision):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from studio.merge.card import model_card
    from studio.merge.export import export

    base, a, b = pair
    _, space = merged(base if method != "slerp" else None, [a, b], method)
    genome = np.random.default_rng(0).uniform(space.lower, space.upper)
    live = LiveModel(space, precision=precision, device="cpu")
    live.apply(genome)
    card = model_card(title="t", recipe="r", space=space, genome=genome)
    assert "Its vocabulary is the union of its models" in card and "b has besides" in card
    checkpoint = space.checkpoint(genome, precision, "merge")
    assert {model.path for model in checkpoint.models} == {model.path for model in space.models}
    out = export(checkpoint, tmp_path / "out", card=card, recipe_yaml="r")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == live.tokenizer.get_vocab()
    assert tokenizer.chat_template == live.tokenizer.chat_template
    assert tokenizer.eos_token_id == loaded.generation_config.eos_token_id
    assert loaded.generation_config.eos_token_id == live.model.generation_config.eos_token_id
    for name, parameter in loaded.named_parameters():
        assert parameter.equal(live.state_dict()[name]), name
    ids = tokenizer(OTHER[1] + ENGLISH[0], return_tensors="pt")["input_ids"]
    assert ids.max() < loaded.config.vocab_size
    with torch.no_grad():
        assert loaded(ids).logits.equal(live.model(ids).logits)
    assert not (out / "mergekit.yaml").exists()
    assert "other ids" in card
    again = Checkpoint.open(out)  # and is a source like any other
    assert again.generation_config().eos_token_id == live.model.generation_config.eos_token_id


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantized_live_model(bytes_pair, precision):
    base, a, b = bytes_pair
    _, space = merged(base, [a, b], "task_arithmetic")
    live = LiveModel(space, precision=precision, device="cpu")
    live.apply(np.array([0.5, 0.5]))
    new, theirs = new_rows(live, space, b)
    rows = live.state_dict()[EMBEDDING][new].float()
    torch.testing.assert_close(rows, b.get(EMBEDDING)[theirs], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "slerp"])
@pytest.mark.parametrize("choice", ["giver", "b"])
def test_mergekit_merges_a_base_vocabulary_the_same(bytes_pair, tmp_path, method, choice):
    from studio.merge.mergekit_config import mergekit_obstacle, mergekit_yaml
    from tests.merge.test_mergekit import run_mergekit

    base, a, b = bytes_pair
    with_base = method == "task_arithmetic"
    choice = b.name if choice == "b" else "base" if with_base else a.name
    live, space = merged(base if with_base else None, [a, b], method, choice)
    genome = np.random.default_rng(0).uniform(space.lower, space.upper)
    live.apply(genome)
    assert mergekit_obstacle(space) is None
    theirs = run_mergekit(mergekit_yaml(space, genome, "float32"), tmp_path / "mergekit")
    assert set(theirs) == set(live.state_dict())
    for name, tensor in live.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-5, msg=name)
    saved = json.loads((tmp_path / "mergekit" / "tokenizer.json").read_text())
    assert saved["model"]["vocab"] == json.loads(live.tokenizer.backend_tokenizer.to_str())[
        "model"]["vocab"]  # fmt: skip


@pytest.mark.parametrize("wide", ["base", "source"])
def test_mergekit_leaves_padding_out(bytes_pair, tmp_path, wide):
    from studio.merge.mergekit_config import mergekit_yaml
    from tests.merge.test_mergekit import run_mergekit

    base, a, _ = bytes_pair
    padded = save(tmp_path / "padded", ENGLISH_BYTES, seed=5, rows=384)
    models = (padded, a) if wide == "base" else (base, padded)
    live, space = merged(models[0], [models[1]], "task_arithmetic", "same")
    live.apply(np.array([0.7]))
    text = mergekit_yaml(space, np.array([0.7]), "float32")
    assert "none of padding" in text
    theirs = run_mergekit(text, tmp_path / "mergekit")[EMBEDDING]
    assert theirs.shape[0] == COUNT <= table(live).shape[0]
    torch.testing.assert_close(table(live)[:COUNT], theirs)


def test_what_mergekit_cannot_align(pair, tmp_path):
    from studio.merge.mergekit_config import mergekit_obstacle

    base, a, b = pair
    mixed = Tokens.of(base.tokenizer()).spelling != Tokens.of(b.tokenizer()).spelling
    _, space = merged(base, [a, b], "ties", "base")
    assert ("written alike" in (mergekit_obstacle(space) or "")) == mixed
    c = save(tmp_path / "c", b.tokenizer(), seed=9)
    _, space = merged(None, [a, b, c], "linear", b.name)
    assert mergekit_obstacle(space)
