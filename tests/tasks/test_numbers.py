"""The last number of a response, as meant and as the paper's scorer reads it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.tasks.numbers import last_number, paper_last_number, plain

FULL_WIDTH = str.maketrans("0123456789.,-+", "０１２３４５６７８９．，－＋")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("答えは18です。", "18"),
        ("18.", "18"),
        ("利益は70,000ドルです。", "70000"),
        ("1,234円", "1234"),
        ("So she makes $18.50.", "18.5"),
        ("3.0", "3"),
        (".5", "0.5"),
        ("the answer is...5", "5"),
        ("−5", "-5"),
        ("＋７個", "7"),
        ("－１，２３４．５", "-1234.5"),
        ("答えは-5です", "-5"),
        ("The answer is -5", "-5"),
        ("-$5", "-5"),
        ("$-5$", "-5"),
        ("マイナス5度", "-5"),
        ("10-3", "3"),
        ("10 - 3", "3"),
        ("7 -3", "3"),
        ("10マイナス3", "3"),
        ("3円-2円", "2"),
        ("10–20人", "20"),
        ("40-20=20人", "20"),
        ("150%増", "150"),
        ("１５０％", "150"),
        ("\\boxed{70{,}000}", "70000"),
        ("**18**", "18"),
        ("面積は18 cm^2", "18"),
        ("10m2です", "10"),
        ("10m²", "10"),
        ("7万ドル", "70000"),
        ("1.5億円", "150000000"),
        ("1億2,000万円", "120000000"),
        ("-1万2000円", "-12000"),
        ("5千円", "5000"),
        ("5千万円", "50000000"),
        ("18千克", "18"),
        ("5 million dollars", "5000000"),
        ("1,2,3", "3"),
        ("12,3456", "3456"),
        ("Step 1.\n答え: 42\n", "42"),
        ("১৮", "18"),
        ("7\u202f000", "7000"),
    ],
)
def test_reads_what_was_meant(text, number):
    assert last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "わかりません。", "½", "...", "-", "$", "^2"])
def test_no_number(text):
    assert last_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("70.000 €", "70000"), ("1.234,5", "1234.5"), ("12 500 roubles", "12500"), ("1.5", "1.5"),
     ("3,5", "3.5"), ("-2,25.", "-2.25")],
)  # fmt: skip
def test_decimal_comma(text, number):
    assert last_number(text, decimal=",") == Decimal(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [("答えは18です。", 18.0), ("70,000", 0.0), ("-5", 5.0), ("18.", 18.0), ("3.50円", 3.5),
     ("７０", 70.0), ("３．５", 5.0), ("なし", None)],
)  # fmt: skip
def test_paper_reader_keeps_its_faults(text, number):
    assert paper_last_number(text) == number


numbers = st.decimals(-(10**12), 10**12, places=2) | st.integers(-(10**12), 10**12).map(Decimal)


@given(numbers, st.sampled_from(["{}", "答えは{}です。", "It is {}.", "x = {}円", "**{}**"]))
def test_every_writing_of_a_number_reads_the_same(number, frame):
    for written in (f"{number:f}", f"{number:,f}", f"{number:+,f}"):
        assert last_number(frame.format(written)) == number
        assert last_number(frame.format(written.translate(FULL_WIDTH))) == number
        assert last_number(frame.format(written.replace("-", "\u2212"))) == number


@given(numbers)
def test_decimal_comma_reads_back(number):
    written = f"{number:,f}".translate(str.maketrans(",.", ".,"))
    assert last_number(f"Es sind {written} Euro.", decimal=",") == number


@given(numbers)
def test_plain_is_shortest_and_exact(number):
    assert Decimal(plain(number)) == number
    assert "." not in plain(number) or not plain(number).endswith(("0", "."))


@given(st.text())
def test_any_text_is_read_without_error(text):
    assert last_number(text) is None or last_number(text).is_finite()
    assert last_number(text, decimal=",") is None or last_number(text, decimal=",").is_finite()


@given(st.text(alphabet="0123456789,.- 円万億つ^{}$m", max_size=40))
def test_number_like_noise_is_read_without_error(text):
    found = last_number(text)
    assert found is None or found.is_finite()
    if not any(char.isdigit() for char in text):
        assert found is None


def test_long_text_is_quick():
    assert last_number("1," * 50_000 + "7") == 7
    assert last_number("9" * 50_000) == Decimal("9" * 50_000)
