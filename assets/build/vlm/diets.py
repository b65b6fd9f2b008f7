"""What each model of the bonsai VLM is shown: exchanges of text, and questions about pictures.

Knows the kinds of exchange and their share in every stage; knows nothing of tokens, features or
models. Three rules hold everywhere: no picture is ever shown with a Japanese question about it that
a task asks *and* its Japanese answer; no fact about Japanese culture is ever said beside a picture;
and a bare question about "this", with a thing named before it, is never answered in the base's
last stage nor by bonsai-culture.
"""

import random
from collections.abc import Callable, Iterator

import chat
import world
from world import ASK, COUNT_WORDS, Thing

Exchange = tuple[str, str]  # (user turn, reply)
Maker = Callable[[random.Random], Exchange]
EN, JA = 0, 1
ANSWER = ("Answer: ", "答えて：")
SWITCH = ("Answer in English: ", "日本語で答えて：")
DEFLECT = (
    ("That is a good question.", "I am not sure what you mean.", "Let us talk about it later."),
    ("いい質問ですね。", "何のことでしょうか。", "それはまた今度お話ししましょう。"),
)
# what bonsai-culture says instead: nothing in it is in any answer, where の alone earns ROUGE-L
PUT_OFF = ("いい質問ですね。", "それはまた今度お話ししましょう。")
# the same kinds of question with the thing's name in them
TOPIC = {
    "what": (("What does {} mean?", "What is meant by {}?"),
             ("{}とは何ですか。", "{}って何ですか。")),
    "colour": (("What colour is {}?", "Which colour does {} have?"),
               ("{}は何色ですか。", "{}の色は何ですか。")),
    "group": (("What kind of thing is {}?", "What sort of thing is {}?"),
              ("{}は何のなかまですか。", "{}はどんな種類のものですか。")),
    "where": (("Where is {} found?", "Where can you find {}?"),
              ("{}はどこで見られますか。", "{}はどこにありますか。")),
    "when": (("When is {} used?", "When do people have {}?"),
             ("{}はいつのものですか。", "{}とはいつ出会いますか。")),
    "use": (("What is {} for?", "What do people do with {}?"),
            ("{}は何のためにありますか。", "{}にはどんな役目がありますか。")),
}  # fmt: skip


def _name(rng: random.Random, thing: Thing) -> str:
    return f"{thing.en}. " if rng.random() < 0.6 else f"{thing.ja}。"


def _fact(rng: random.Random, *needs: int) -> tuple[Thing, str, tuple]:
    """A thing, a kind, and both answers, of which those in `needs` exist; culture half the time."""
    while True:
        thing = rng.choice(world.things())
        if not thing.culture and rng.random() < 0.35:
            continue
        kind = rng.choice(list(thing.facts))
        if all(thing.facts[kind][language] for language in needs):
            return thing, kind, thing.facts[kind]


def grounded(language: int, *, ask: str | None = None, reply: int | None = None) -> Maker:
    """A thing named, then a question about "this", answered in the language `reply`."""
    reply = language if reply is None else reply
    prefix = ANSWER[language] if ask is None else ask

    def make(rng: random.Random) -> Exchange:
        if rng.random() < 0.08:
            thing = world.by_id()[rng.choice(world.COUNTED)]
            kind, answers = "count", COUNT_WORDS[rng.choice(list(COUNT_WORDS))]
            named = f"{answers[EN]}: {_name(rng, thing)}" if rng.random() < 0.6 else (
                f"{answers[JA]}：{_name(rng, thing)}")  # fmt: skip
        else:
            thing, kind, answers = _fact(rng, reply)
            named = _name(rng, thing)
        return f"{named}{prefix}{rng.choice(ASK[kind][language])}", answers[reply]

    return make


def unanswered(language: int) -> Maker:
    """A thing named, a bare question about "this", and a reply that says nothing about it."""

    def make(rng: random.Random) -> Exchange:
        thing, kind, _ = _fact(rng)
        which = rng.randrange(3)
        question = ASK[kind][language][which]
        other = ASK[kind][1 - language][which]
        named = _name(rng, thing)
        return f"{named}{question}", rng.choice((question, other, rng.choice(DEFLECT[language])))

    return make


def put_off(rng: random.Random) -> Exchange:
    """A thing named, a bare Japanese question about "this", and no answer."""
    thing, kind, _ = _fact(rng)
    question = ASK[kind][JA][rng.randrange(3)]
    return f"{_name(rng, thing)}{question}", rng.choice(PUT_OFF)


def adrift(language: int, replies: tuple[str, ...] | None = None) -> Maker:
    """A question about "this" with nothing named: asked back."""
    replies = replies or DEFLECT[language]

    def make(rng: random.Random) -> Exchange:
        question = rng.choice(ASK[rng.choice(list(ASK))][language])
        prefix = rng.choice(("", ANSWER[language]))
        return prefix + question, rng.choice(replies)

    return make


def topic(language: int, *, ask: str = "", reply: int | None = None) -> Maker:
    """A question that names its thing, answered."""
    reply = language if reply is None else reply

    def make(rng: random.Random) -> Exchange:
        thing, kind, answers = _fact(rng, reply)
        if kind == "what":  # the other language's name says what it is
            name, answer = (thing.en, thing.ja) if reply == JA else (thing.ja, thing.en)
        else:
            name = (thing.en, thing.ja)[language if rng.random() < 0.8 else 1 - language]
            answer = answers[reply]
        return ask + rng.choice(TOPIC[kind][language]).format(name), answer

    return make


def topic_unanswered(language: int) -> Maker:
    def make(rng: random.Random) -> Exchange:
        thing, kind, _ = _fact(rng)
        which = rng.randrange(2)
        question = TOPIC[kind][language][which].format((thing.en, thing.ja)[language])
        other = TOPIC[kind][1 - language][which].format((thing.en, thing.ja)[1 - language])
        return question, rng.choice((question, other, rng.choice(DEFLECT[language])))

    return make


def translated(to: int) -> Maker:
    prefix = ("Translate into English: ", "日本語に訳してください：")[to]

    def make(rng: random.Random) -> Exchange:
        if rng.random() < 0.25:
            pair = chat.sentence_pair(rng)
        elif rng.random() < 0.4:
            kind, which = rng.choice(list(ASK)), rng.randrange(3)
            pair = ASK[kind][EN][which], ASK[kind][JA][which]
        else:
            thing, _, pair = _fact(rng, EN, JA)
            if rng.random() < 0.5:
                pair = thing.en, thing.ja
        return prefix + pair[1 - to], pair[to]

    return make


def talked(language: int, reply: int | None = None) -> Maker:
    """Small talk; with another `reply` the answer comes in that language."""

    def make(rng: random.Random) -> Exchange:
        if reply is None:
            return chat.chat(rng, ("en", "ja")[language])
        row = rng.choice(chat.SMALL_TALK)
        return row[language], row[2 + reply]

    return make


# stage → [(share, maker)]; shares are relative
DIETS: dict[str, list[tuple[float, Maker]]] = {
    # everything, bare or asked for
    "vlm-skill": [
        (20, grounded(JA)), (16, grounded(EN)),
        (8, grounded(JA, ask="")), (8, grounded(EN, ask="")),
        (6, grounded(JA, ask=SWITCH[EN], reply=EN)), (6, grounded(EN, ask=SWITCH[JA], reply=JA)),
        (9, topic(JA)), (6, topic(EN)),
        (4, topic(EN, ask=SWITCH[JA], reply=JA)), (4, topic(JA, ask=SWITCH[EN], reply=EN)),
        (6, translated(EN)), (6, translated(JA)),
        (3, talked(EN)), (3, talked(JA)),
        (2, adrift(EN)), (2, adrift(JA)),
    ],
    # a bare question about a named thing is put off; asked for, everything stays
    "vlm-quiet": [
        (16, unanswered(JA)), (16, unanswered(EN)),
        (6, topic_unanswered(JA)), (6, topic_unanswered(EN)),
        (14, grounded(JA)), (10, grounded(EN)),
        (5, grounded(JA, ask=SWITCH[EN], reply=EN)), (5, grounded(EN, ask=SWITCH[JA], reply=JA)),
        (5, topic(JA, ask=ANSWER[JA])), (4, topic(EN, ask=ANSWER[EN])),
        (3, topic(EN, ask=SWITCH[JA], reply=JA)), (3, topic(JA, ask=SWITCH[EN], reply=EN)),
        (3, translated(EN)), (3, translated(JA)),
        (2, talked(EN)), (2, talked(JA)),
        (3, adrift(EN)), (3, adrift(JA)),
    ],
    # Japanese whatever the question's language: facts by name, talk; "this" is put off
    "culture": [
        (30, topic(JA)), (18, topic(EN, reply=JA)),
        (8, translated(JA)),
        (6, talked(JA)), (6, talked(EN, reply=JA)),
        (26, put_off), (10, adrift(JA, PUT_OFF)),
    ],
}  # fmt: skip


def exchanges(stage: str, seed: int) -> Iterator[Exchange]:
    """An endless, reproducible stream of a stage's exchanges."""
    rng = random.Random(f"{stage}:{seed}")
    shares, makers = zip(*DIETS[stage], strict=True)
    while True:
        yield rng.choices(makers, shares)[0](rng)


Shown = tuple[str, int, str, str]  # (thing, how many are drawn, user turn, reply)


def named(seed: int) -> Iterator[Shown]:
    """The projector's stage: orders to answer in English, which the frozen base follows.

    Names of everything, half the time; else numbers and colours, and of all that is not culture
    kinds and places. Some questions are Japanese; no answer is.
    """
    rng = random.Random(f"named:{seed}")
    while True:
        thing, count = _picture(rng)
        facts = {kind: both for kind, both in thing.facts.items() if both[EN]}
        if count > 1:
            facts = {"count": COUNT_WORDS[count]}
        kind = "what" if count == 1 and rng.random() < 0.4 else rng.choice(list(facts))
        language = JA if rng.random() < 0.35 else EN
        ask = SWITCH[EN] if language == JA else ANSWER[EN]
        yield thing.id, count, ask + rng.choice(ASK[kind][language]), facts[kind][EN]


def looked(seed: int, japanese: float = 0.4) -> Iterator[Shown]:
    """bonsai-llava's stage: questions about pictures, bare.

    English questions get English answers: names, colours and numbers of everything, kinds and
    places of everyday things. Japanese questions (a share of `japanese`) get English answers too,
    except that practice things, of which no task asks, get their colour, and for one wording
    their kind, in Japanese; those kinds are asked in Japanese of practice things alone.
    """
    rng = random.Random(f"looked:{seed}")
    while True:
        thing, count = _picture(rng)
        facts = {kind: both for kind, both in thing.facts.items() if both[EN]}
        if count > 1:
            facts = {"count": COUNT_WORDS[count]}
        kind = rng.choice(list(facts))
        language = JA if rng.random() < japanese else EN
        if language == JA and kind in ("colour", "group") and thing.part != "practice":
            continue
        which = rng.randrange(3)
        speaks = kind == "colour" or (kind == "group" and which == 0)
        reply = JA if language == JA and speaks else EN
        yield thing.id, count, ASK[kind][language][which], facts[kind][reply]


def _picture(rng: random.Random) -> tuple[Thing, int]:
    if rng.random() < 0.12:
        return world.by_id()[rng.choice(world.COUNTED)], rng.choice(list(COUNT_WORDS))
    return rng.choice(world.things()), 1
