"""Shared fixtures: families of tiny random models, made in seconds and loaded like real ones.

The models mean nothing; what is real is their form: `save_pretrained` folders with safetensors, a
byte-level BPE tokenizer with a chat template, sources that are a base plus small deltas.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never reaches for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models gain nothing from threads, and lose much where several processes share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "Tom has 12 apples and buys 30 more. How many apples does he have now? The answer is 42.",
    "太郎はりんごを12個持っていて、さらに30個買いました。全部で何個ですか。答えは42です。",
]


def make_tokenizer(vocabulary: int = 320):
    """A byte-level BPE with any text in its reach: 256 bytes, 5 special tokens, a few merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(
    *, seed: int = 0, tied: bool = False, layers: int = 3, architecture: str = "mistral", **config
):
    """A random fp32 Mistral or Llama: hidden 64, 4 heads, 2 key-value heads, 320 tokens."""
    import torch
    import transformers

    prefix = {"mistral": "Mistral", "llama": "Llama"}[architecture]
    settings = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.08,
    } | config
    configuration = getattr(transformers, f"{prefix}Config")(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, f"{prefix}ForCausalLM")(configuration).eval()


def perturb(model, *, seed: int, scale: float = 0.05) -> None:
    """Add to every parameter, in place, Gaussian noise of `scale` times its root mean square."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise * scale * parameter.pow(2).mean().sqrt())


def save_model(
    model,
    folder: Path,
    *,
    dtype: str = "float32",
    licence: str | None = "apache-2.0",
    max_shard_size: str = "4GB",
) -> Path:
    """`save_pretrained` with tokenizer and, unless `licence` is None, a card that names it."""
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    make_tokenizer(model.config.vocab_size).save_pretrained(folder)
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# {folder.name}\n")
    return folder


def make_family(
    root: Path,
    *,
    tied: bool = False,
    layers: int = 3,
    dtype: str = "float32",
    architecture: str = "mistral",
    scale: float = 0.05,
    **config,
) -> dict[str, Path]:
    """Folders `base`, `ja`, `math`, `abel` under `root`: a base and three small steps from it.

    `config` goes to `make_model`: sizes and the like.
    """
    folders = {}
    for seed, name in enumerate(("base", "ja", "math", "abel")):
        model = make_model(seed=0, tied=tied, layers=layers, architecture=architecture, **config)
        if name != "base":
            perturb(model, seed=seed, scale=scale)
        folders[name] = save_model(model, root / name, dtype=dtype)
    return folders


@pytest.fixture(autouse=True)
def own_workspace(tmp_path_factory, monkeypatch) -> Path:
    """No test touches the user's workspace; nor does a process that a test starts."""
    folder = tmp_path_factory.mktemp("workspace")
    monkeypatch.setenv("STUDIO_WORKSPACE", str(folder))
    return folder


@pytest.fixture(scope="session")
def family_factory(tmp_path_factory) -> Callable[..., dict[str, Path]]:
    """`family_factory(tied=True, layers=4, dtype="bfloat16")` → folders; made once per options.

    Read-only: a test that damages a model copies its folder first.
    """
    made: dict[tuple, dict[str, Path]] = {}

    def factory(**options) -> dict[str, Path]:
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = make_family(tmp_path_factory.mktemp("family"), **options)
        return made[key]

    return factory


@pytest.fixture(scope="session")
def tiny_family(family_factory) -> dict[str, Path]:
    """The default family: Mistral, untied, three layers, float32. Read-only."""
    return family_factory()


#: What a random model's babble holds now and then (a broken UTF-8 byte): scores differ.
SYMBOL = "�"


@pytest.fixture(scope="session")
def questions(tmp_path_factory) -> Path:
    """A user's file: eight dev and six test questions that random models answer now and then."""
    lines = ["question,answer,split"]
    for number in range(14):
        split = "dev" if number < 8 else "test"
        question = f"Tom has {3 * number + 2} apples and buys {number} more. How many?"
        lines.append(f"{question},{SYMBOL},{split}")
    path = tmp_path_factory.mktemp("questions") / "questions.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def store(tmp_path):
    """An empty run store."""
    from studio.runs import Store

    store = Store(tmp_path / "runs.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="session")
def tiny_recipe(family_factory, questions) -> Callable:
    """`tiny_recipe(seed=3, space={…}, …)`: a recipe whose whole evolution takes a second or two.

    Sources differ by more than half of a weight's size: every genome answers differently.
    """
    from studio.recipe import Recipe

    def make(**changes) -> Recipe:
        family = family_factory(layers=2, scale=0.6)
        options = {"path": str(questions), "match": "contains", "max_new_tokens": 2}
        document = {
            "name": "tiny",
            "base": str(family["base"]),
            "sources": [str(family["ja"]), str(family["math"])],
            "space": {"method": "ties", "layer_granularity": "all"},
            "objectives": [{"task": "csv", "options": options, "examples": 5}],
            "search": {"population": 4, "finalists": 2},
            "budget": {"candidates": 14},
            "batch_size": 8,
        }
        return Recipe.from_dict(document | changes)

    return make
