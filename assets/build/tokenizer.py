"""The family's one tokenizer: byte-level BPE, single digits, three chat tokens.

Any text can be encoded (bytes are the fallback). Knows the chat template; knows no model.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import corpus

VOCABULARY = 1536
PAD, USER, BOT, END = "<pad>", "<user>", "<bot>", "<end>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<bot>' + message['content'] + '<end>' }}"
    "{% else %}{{ '<user>' + message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)
# digits and signs stand alone; Japanese text is cut where its script changes, so that a word is
# the same tokens wherever it stands
CUTS = (
    r"\p{N}",
    r"[+\-×÷=]",
    r"[\x{3040}-\x{309F}]+|[\x{30A0}-\x{30FF}]+|[\x{4E00}-\x{9FFF}]+",
)


def build(
    out: Path, samples: int = 60_000, stream: Iterable[tuple[str, str]] | None = None
) -> None:
    """Train on a stream of exchanges (the base diet) and save in `save_pretrained` form."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(cut), "isolated") for cut in CUTS]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, USER, BOT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        text for pair in islice(stream or corpus.exchanges("base", 1), samples) for text in pair
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END,
        additional_special_tokens=[USER, BOT], padding_side="left", model_max_length=512,
    )  # fmt: skip
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(out)
