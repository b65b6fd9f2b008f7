"""The whole prompt of a question for models without a chat template (Alpaca style).

Knows wording only. Models with a chat template get the bare question as the user's turn.
"""

from studio.tasks.base import Example

_NAMES = {
    "bn": "Bengali", "de": "German", "en": "English", "es": "Spanish", "fr": "French",
    "ja": "Japanese", "ko": "Korean", "ru": "Russian", "sw": "Swahili", "te": "Telugu",
    "th": "Thai", "zh": "Chinese",
}  # fmt: skip

_JAPANESE = """以下に、ある課題についての指示があります。指示に合った応答を書いてください。

### 指示:
次の問題に日本語で答えてください。考え方を一歩ずつ示し、最後に答えを書いてください。

{question}

### 応答:
"""
_ENGLISH = """Here is an instruction for a task. Write a response that does what it asks.

### Instruction:
Answer the following question{language}. Show your reasoning step by step and end with the answer.

{question}

### Response:
"""


def instruct(question: str, language: str | None) -> str:
    """An instruction block around ``question`` that asks for steps, in ``language`` if given."""
    if language == "ja":
        return _JAPANESE.format(question=question)
    wish = f" in {_NAMES.get(language, language)}" if language else ""
    return _ENGLISH.format(question=question, language=wish)


def prompt(example: Example, chat: bool, language: str | None) -> str:
    """The bare question for a chat model, the whole instruction block for any other."""
    return example.question if chat else instruct(example.question, language)
