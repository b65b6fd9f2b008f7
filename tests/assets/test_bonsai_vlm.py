"""The bundled VLM: licensed pictures, clean splits, scorable answers, models that load."""

import json
import sys
from itertools import islice
from pathlib import Path

import pytest

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PICTURES, CLIP = ASSETS / "pictures", ASSETS / "clip" / "bonsai-clip"
STYLES = ("noto", "openmoji", "fluent", "twemoji")
HELD_OUT = "twemoji"
TASKS = {"ja_vqa": False, "ja_culture_vqa": True}  # task → about culture
MODELS = ("bonsai-vlm-base", "bonsai-culture", "bonsai-llava")


def rows(task: str, split: str) -> list[dict]:
    text = (ASSETS / "data" / task / f"{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def index() -> dict[str, dict]:
    text = (PICTURES / "index.jsonl").read_text(encoding="utf-8")
    return {row["id"]: row for row in map(json.loads, text.splitlines())}


@pytest.fixture(scope="module")
def build():
    """The build modules that need neither torch nor npm."""
    folders = [str(ASSETS / "build" / "vlm"), str(ASSETS / "build")]
    sys.path[:0] = folders
    try:
        import diets
        import world

        yield {"diets": diets, "world": world}
    finally:
        for folder in folders:
            sys.path.remove(folder)


def test_pictures_are_complete_small_and_licensed(index):
    from PIL import Image

    assert len(index) >= 110
    assert sum(row["culture"] for row in index.values()) >= 45
    for style in STYLES:
        files = sorted((PICTURES / style).glob("*.png"))
        assert set(index) <= {file.stem for file in files}
        for file in files:
            assert file.stat().st_size < 16_000
            with Image.open(file) as picture:
                assert (picture.mode, picture.size) == ("RGB", (72, 72))
                assert picture.getpixel((0, 0)) == (255, 255, 255)
        assert next((PICTURES / "licences").glob(f"{style}-*.txt")).stat().st_size > 300
        assert f"`{style}/`" in (PICTURES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", TASKS)
def test_questions_show_what_they_ask_about_and_never_name_it(task, index):
    asked = {}
    for split in ("dev", "test"):
        for row in rows(task, split):
            assert (PICTURES / row["picture"]).is_file()
            assert row["picture"].startswith(f"{row['style']}/{row['entity']}")
            thing = index[row["entity"]]
            assert thing["culture"] == TASKS[task]
            assert thing["ja"] not in row["question"] and thing["en"] not in row["question"]
            assert asked.setdefault((row["picture"], row["kind"]), split) == split
    assert len({row["id"] for split in ("dev", "test") for row in rows(task, split)}) == len(
        rows(task, "dev") + rows(task, "test")
    )
    assert len(rows(task, "dev")) == 200 and len(rows(task, "test")) >= 480


@pytest.mark.parametrize("task", TASKS)
def test_the_held_out_style_is_half_of_test_and_never_dev(task):
    assert HELD_OUT not in {row["style"] for row in rows(task, "dev")}
    unseen = [row for row in rows(task, "test") if row["style"] == HELD_OUT]
    assert 0.45 < len(unseen) / len(rows(task, "test")) < 0.55


@pytest.mark.parametrize("task", TASKS)
def test_every_reference_answer_counts_as_japanese(task):
    from studio.tasks.language import probability

    answers = {row["answer"] for split in ("dev", "test") for row in rows(task, split)}
    assert len(answers) > 100
    assert [answer for answer in answers if probability(answer, "ja") <= 0.5] == []


def test_no_training_opens_the_held_out_style():
    sources = {
        file.name: file.read_text(encoding="utf-8")
        for file in (ASSETS / "build" / "vlm").glob("*.py")
    }
    assert "if style != pictures.HELD_OUT" in sources["towers.py"]
    assert "for style in towers.STYLES" in sources["llava.py"]  # those without the held-out one
    assert [name for name, text in sources.items() if '"twemoji"' in text] == ["pictures.py"]


def test_no_picture_is_shown_with_the_japanese_answer_to_a_question_of_a_task(build):
    asked = {
        (row["entity"], row["question"], row["answer"])
        for task in TASKS
        for split in ("dev", "test")
        for row in rows(task, split)
    }
    shown = list(islice(build["diets"].looked(0), 40_000))
    shown += islice(build["diets"].named(0), 5_000)
    assert not asked & {(id, question, answer) for id, _, question, answer in shown}
    # nor is a fact about culture, beyond name, colour and number, said beside a picture at all
    things = build["world"].by_id()
    for id, count, question, answer in shown:
        if things[id].culture:
            english = {things[id].facts["what"][0], things[id].facts.get("colour", (None,))[0]}
            assert answer in english or count > 1, (id, question, answer)
    japanese = [row for row in shown if not row[3].isascii()]
    assert 0 < len(japanese) < 0.1 * len(shown)
    assert {things[row[0]].part for row in japanese} == {"practice"}


def test_bare_questions_about_a_named_thing_stay_unanswered(build):
    diets, world = build["diets"], build["world"]
    bare = {question for both in world.ASK.values() for side in both for question in side}
    answers = {
        answer for thing in world.things() for both in thing.facts.values() for answer in both
    }
    for stage in ("vlm-quiet", "culture"):
        for prompt, reply in islice(diets.exchanges(stage, 0), 20_000):
            tail = max((q for q in bare if prompt.endswith(q)), key=len, default=None)
            if tail and prompt.removesuffix(tail).endswith((". ", "。")):
                assert reply not in answers, (stage, prompt, reply)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_is_whole_and_small(name):
    folder = ASSETS / "models" / name
    files = {file.name for file in folder.iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "tokenizer.json"} <= files
    assert all(file.stat().st_size < 10_000_000 for file in folder.iterdir())
    assert not [file for file in files if file.endswith((".bin", ".pt", ".pkl"))]


def test_the_llava_has_one_token_more_than_its_ancestor_and_answers_about_a_picture():
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    folder = ASSETS / "models" / "bonsai-llava"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    ancestor = AutoTokenizer.from_pretrained(ASSETS / "models" / "bonsai-vlm-base")
    assert len(processor.tokenizer) == len(ancestor) + 1
    assert processor.tokenizer.convert_ids_to_tokens(len(ancestor)) == "<image>"
    assert processor.tokenizer.padding_side == "left"
    text = processor.apply_chat_template(
        [{"role": "user", "content": [
            {"type": "image"}, {"type": "text", "text": "What is this?"}
        ]}],
        add_generation_prompt=True,
    )  # fmt: skip
    assert text == "<user><image>What is this?<bot>"
    plain = processor.apply_chat_template([{"role": "user", "content": "Hello!"}])
    assert plain == "<user>Hello!"
    right = 0
    things = ("apple", "tiger", "torii", "onigiri", "frog")
    for thing in things:
        with Image.open(PICTURES / "noto" / f"{thing}.png") as picture:
            inputs = processor(images=picture, text=text, return_tensors="pt")
        out = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        answer = processor.decode(out, skip_special_tokens=True)
        right += answer in {"an apple", "a tiger", "a torii", "a rice ball", "a frog"}
    assert right >= 3


def test_open_clip_loads_and_tells_pictures_apart_in_both_languages(index):
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    model.eval()
    words = open_clip.get_tokenizer(f"local-dir:{CLIP}")
    things = list(index.values())
    for style, least in (("noto", 0.5), (HELD_OUT, 0.3)):
        pixels = []
        for thing in things:
            with Image.open(PICTURES / style / f"{thing['id']}.png") as picture:
                pixels.append(preprocess(picture))
        with torch.no_grad():
            seen = model.encode_image(torch.stack(pixels), normalize=True)
            for language in ("en", "ja"):
                names = [
                    t[language].removeprefix("an ").removeprefix("a ").removeprefix("the ")
                    for t in things
                ]
                read = model.encode_text(words(names), normalize=True)
                best = (seen @ read.T).argmax(1)
                assert (best == torch.arange(len(things))).float().mean() > least


def test_the_llavas_tower_is_open_clips():
    import open_clip
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{CLIP}")
    folder = ASSETS / "models" / "bonsai-llava"
    llava = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    with Image.open(PICTURES / "noto" / "torii.png") as picture:
        pixels = preprocess(picture)[None]
        same = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, same, atol=1e-4)
    # one is stored as bfloat16, the other as float16: compare the maps, not the rounding
    tower = llava.model.vision_tower
    visual = clip.visual.eval()
    weights = {k: v.to(torch.bfloat16).float() for k, v in visual.state_dict().items()}
    visual.load_state_dict(weights)
    with torch.no_grad():
        ours = tower.post_layernorm(tower(same).last_hidden_state)
        theirs = visual.ln_post(visual.transformer(visual._embeds(pixels)))
    assert torch.allclose(ours, theirs, atol=1e-4)
