"""ja_vg_vqa_500 and ja_vlm_bench: the two benchmarks on which the paper measures VLMs.

Data: https://huggingface.co/datasets/SakanaAI/JA-VG-VQA-500 (CC BY 4.0; pictures of Visual Genome,
questions of Yahoo Japan's ja-vg-vqa) and
https://huggingface.co/datasets/SakanaAI/JA-VLM-Bench-In-the-Wild (50 questions about 42 pictures of
Japan, from Unsplash). Parquet with the pictures in it; rows have these forms:

    {"image_id": …, "url": …, "image": {"bytes": …, "path": …},
     "qas": [{"qa_id": …, "question": …, "answer": …}, …]}

    {"page_url": …, "image_url": …, "image": {"bytes": …, "path": …},
     "question": …, "answer": …}

Of a picture's several questions the first counts, as in the paper's evaluation. The first set has
a train split of a thousand pictures, too, which is the dev split here: what a search may see. The
second has a test split only. Scored as there, see `vlm.vqa`. Knows nothing of models.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.tasks.base import Example, check_split
from studio.tasks.csv import check_max_new_tokens
from vlm.vqa import VisualQuestions


class Published(VisualQuestions):
    """A data set on the hub, or in a folder laid out like it (``path``), as a clone would be.

    ``max_new_tokens`` is the paper's by default. Each adds ``example``: what a row of its table is,
    without the picture; KeyError and the like where it is none.
    """

    name: str
    dataset: str
    #: Our split → the hub's.
    splits: dict[str, str] = {"test": "test"}
    columns: tuple[str, ...]

    def __init__(self, path: str | Path | None = None, max_new_tokens: int = 512):
        if path is not None and not isinstance(path, str | Path):
            raise StudioError(f"path is {path!r}; write the name of a folder.")
        check_max_new_tokens(max_new_tokens)
        self.path = None if path is None else Path(path).expanduser()
        self.max_new_tokens = max_new_tokens
        self._known: dict[str, list[Example]] = {}

    def examples(self, split: str) -> list[Example]:
        hint = "" if "dev" in self.splits else "; search on another task's dev split"
        check_split(self.name, split, self.splits, hint)
        if split not in self._known:  # pictures are held encoded, 140 MB of the largest split
            file = f"data/{self.splits[split]}-00000-of-00001.parquet"
            path = _fetch(self.dataset, file) if self.path is None else self._copied(file)
            self._known[split] = list(self._read(path))
        return list(self._known[split])

    def _read(self, path: Path) -> Iterator[Example]:
        import pyarrow.parquet

        try:
            rows = pyarrow.parquet.read_table(path, columns=list(self.columns)).to_pylist()
            for index, row in enumerate(rows):
                data = row["image"]["bytes"]
                if not isinstance(data, bytes):
                    raise TypeError("no picture")
                yield dataclasses.replace(self.example(index, row), picture=data)
        except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as e:
            raise StudioError(
                f"{path.name} is not {self.dataset}'s Parquet file of pictures and questions; "
                "download the data set again."
            ) from e

    def _copied(self, file: str) -> Path:
        if not (self.path / file).is_file():
            raise StudioError(
                f"The folder {self.path.name} has no {file}; give {self.name} the path of a copy "
                f"of the data set {self.dataset}, or leave the path out."
            )
        return self.path / file


class JaVGVQA500(Published):
    """JA-VG-VQA-500: everyday pictures, short answers. Splits: dev (1000), test (500)."""

    name = "ja_vg_vqa_500"
    dataset = "SakanaAI/JA-VG-VQA-500"
    splits = {"dev": "train", "test": "test"}
    columns = ("image_id", "image", "qas")

    @staticmethod
    def example(index: int, row: dict[str, Any]) -> Example:
        first = row["qas"][0]
        meta = {"image_id": row["image_id"], "qa_id": first["qa_id"]}
        return Example(str(row["image_id"]), first["question"], first["answer"], meta)


class JaVLMBench(Published):
    """JA-VLM-Bench-In-the-Wild: pictures of Japan, answers of a sentence or more. Split: test."""

    name = "ja_vlm_bench"
    dataset = "SakanaAI/JA-VLM-Bench-In-the-Wild"
    columns = ("page_url", "image", "question", "answer")

    @staticmethod
    def example(index: int, row: dict[str, Any]) -> Example:
        meta = {"page_url": row["page_url"]}
        return Example(f"{index:02d}", row["question"], row["answer"], meta)


def _fetch(name: str, file: str) -> Path:
    """A file of a data set, from the hub or, when offline, the local cache."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, repo_type="dataset"))
    except errors.GatedRepoError as error:
        raise StudioError(
            f"The data set {name} is gated: accept its terms at "
            f"https://huggingface.co/datasets/{name} and set HF_TOKEN to a token of that account."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise StudioError(
            f"The hub has no {file} of the data set {name}; give the task the path of a copy."
        ) from error
    except Exception as error:  # whatever the transport raises: connection, timeout, proxy, disk
        raise StudioError(
            f"The data set {name} could not be had from the hub; connect to the internet (and "
            "unset HF_HUB_OFFLINE), or give the task the path of a copy."
        ) from error
