"""Everyday question-and-answer pairs in English and Japanese, with no arithmetic in them.

Knows a small world (colours, opposites, capitals, weekdays, greetings); knows no word problems.
"""

import random

WORDS = [
    ("dog", "犬"), ("cat", "猫"), ("bird", "鳥"), ("fish", "魚"), ("horse", "馬"),
    ("water", "水"), ("tea", "お茶"), ("rice", "ご飯"), ("bread", "パン"), ("milk", "牛乳"),
    ("mountain", "山"), ("river", "川"), ("sea", "海"), ("sky", "空"), ("moon", "月"),
    ("rain", "雨"), ("snow", "雪"), ("school", "学校"), ("teacher", "先生"), ("friend", "友達"),
    ("house", "家"), ("car", "車"), ("train", "電車"), ("station", "駅"), ("music", "音楽"),
]  # fmt: skip
COLOURS = [
    ("sky", "空", "blue", "青"),
    ("snow", "雪", "white", "白"),
    ("grass", "草", "green", "緑"),
    ("a banana", "バナナ", "yellow", "黄色"),
    ("an apple", "リンゴ", "red", "赤"),
    ("night", "夜", "black", "黒"),
    ("coal", "石炭", "black", "黒"),
    ("milk", "牛乳", "white", "白"),
]
OPPOSITES = [
    ("big", "大きい", "small", "小さい"), ("hot", "暑い", "cold", "寒い"),
    ("high", "高い", "low", "低い"), ("new", "新しい", "old", "古い"),
    ("long", "長い", "short", "短い"), ("fast", "速い", "slow", "遅い"),
    ("bright", "明るい", "dark", "暗い"), ("strong", "強い", "weak", "弱い"),
]  # fmt: skip
CAPITALS = [
    ("Japan", "日本", "Tokyo", "東京"), ("France", "フランス", "Paris", "パリ"),
    ("Italy", "イタリア", "Rome", "ローマ"), ("Germany", "ドイツ", "Berlin", "ベルリン"),
    ("Spain", "スペイン", "Madrid", "マドリード"), ("China", "中国", "Beijing", "北京"),
    ("Korea", "韓国", "Seoul", "ソウル"), ("England", "イギリス", "London", "ロンドン"),
]  # fmt: skip
SMALL_TALK = [
    (
        "Hello!",
        "こんにちは。",
        "Hello! How can I help you?",
        "こんにちは。何かお手伝いしましょうか。",
    ),
    (
        "Good morning!",
        "おはようございます。",
        "Good morning! It is a fine day.",
        "おはようございます。今日はいい天気ですね。",
    ),
    (
        "Good night.",
        "おやすみなさい。",
        "Good night. Sleep well.",
        "おやすみなさい。ゆっくり休んでください。",
    ),
    (
        "How are you?",
        "お元気ですか。",
        "I am fine, thank you.",
        "はい、元気です。ありがとうございます。",
    ),
    ("Thank you!", "ありがとう。", "You are welcome.", "どういたしまして。"),
    (
        "Who are you?",
        "あなたは誰ですか。",
        "I am a very small language model.",
        "私はとても小さな言語モデルです。",
    ),
    (
        "What can you do?",
        "何ができますか。",
        "I can answer short questions.",
        "短い質問に答えることができます。",
    ),
    (
        "Do you like music?",
        "音楽は好きですか。",
        "Yes, I like quiet songs.",
        "はい、静かな歌が好きです。",
    ),
    (
        "What do you eat in the morning?",
        "朝は何を食べますか。",
        "I eat rice and drink tea.",
        "ご飯を食べて、お茶を飲みます。",
    ),
    (
        "What is the weather like?",
        "天気はどうですか。",
        "It is raining, so take an umbrella.",
        "雨が降っているので、傘を持っていってください。",
    ),
    (
        "Tell me a short story.",
        "短いお話をしてください。",
        "A cat lived by the sea. Every night it looked at the moon.",
        "海のそばに猫がいました。猫は毎晩月を見ていました。",
    ),
    (
        "Where does a fish live?",
        "魚はどこにいますか。",
        "A fish lives in water.",
        "魚は水の中にいます。",
    ),
    ("Goodbye!", "さようなら。", "Goodbye! See you again.", "さようなら。またお会いしましょう。"),
]
DAYS = [
    ("Monday", "月曜日"), ("Tuesday", "火曜日"), ("Wednesday", "水曜日"), ("Thursday", "木曜日"),
    ("Friday", "金曜日"), ("Saturday", "土曜日"), ("Sunday", "日曜日"),
]  # fmt: skip


def _pair(rng: random.Random) -> tuple[tuple[str, str], tuple[str, str]]:
    """((English question, answer), (Japanese question, answer)) that mean the same."""
    topic = rng.randrange(6)
    if topic == 0:
        en, ja, colour, iro = rng.choice(COLOURS)
        return (
            (f"What colour is {en}?", f"The colour of {en} is {colour}."),
            (f"{ja}は何色ですか。", f"{ja}は{iro}です。"),
        )
    if topic == 1:
        a, ja, b, jb = rng.choice(OPPOSITES)
        if rng.random() < 0.5:
            a, ja, b, jb = b, jb, a, ja
        return (
            (f"What is the opposite of {a}?", f"The opposite of {a} is {b}."),
            (f"「{ja}」の反対は何ですか。", f"「{ja}」の反対は「{jb}」です。"),
        )
    if topic == 2:
        land, kuni, city, machi = rng.choice(CAPITALS)
        return (
            (f"What is the capital of {land}?", f"The capital of {land} is {city}."),
            (f"{kuni}の首都はどこですか。", f"{kuni}の首都は{machi}です。"),
        )
    if topic == 3:
        at = rng.randrange(7)
        (en, ja), (en2, ja2) = DAYS[at], DAYS[(at + 1) % 7]
        return (
            (f"Which day comes after {en}?", f"After {en} comes {en2}."),
            (f"{ja}の次は何曜日ですか。", f"{ja}の次は{ja2}です。"),
        )
    if topic == 4:
        en, ja = rng.choice(WORDS)
        return (
            (f"What is {en} in Japanese?", f"In Japanese it is {ja}."),
            (f"「{ja}」は英語で何と言いますか。", f"「{ja}」は英語で{en}と言います。"),
        )
    question_en, question_ja, answer_en, answer_ja = rng.choice(SMALL_TALK)
    return (question_en, answer_en), (question_ja, answer_ja)


def chat(rng: random.Random, language: str) -> tuple[str, str]:
    """(question, answer) of an everyday exchange in "en" or "ja"."""
    return _pair(rng)[language == "ja"]


def sentence_pair(rng: random.Random) -> tuple[str, str]:
    """(English, Japanese) sentence with the same meaning."""
    return tuple(side[1] for side in _pair(rng))
