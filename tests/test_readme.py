"""The README is short, its examples and the guide's run, and links lead somewhere."""

import re
import string
from pathlib import Path

import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests.marks import only_eager

ROOT = Path(__file__).parents[1]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
BUILT = ROOT / "docs" / "_build"
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not page.is_relative_to(BUILT)
)
MOST_WORDS = 700

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Of a link or a picture: what stands in its round brackets.
TARGET = re.compile(r"\]\(([^)\s]+)\)")


def words_before_the_first_table(text):
    """Words of prose and code up to the first line that begins with `|`, or all of them."""
    return re.split(r"^\|", text, maxsplit=1, flags=re.MULTILINE)[0].split()


def links(text):
    """The relative links of a page, code left out."""
    prose = re.sub(r"`[^`]*`", "", FENCE.sub("", text))
    return [target for target in TARGET.findall(prose) if not re.match(r"\w+:", target)]


def addresses(page):
    """The links of a page to elsewhere."""
    return {link for link in TARGET.findall(page.read_text(encoding="utf-8")) if "://" in link}


def anchors(text):
    """What a page's headings are called in links, by GitHub's rule."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return found


def broken_links(page):
    """The links of a page that lead to no file, or to no heading of it."""
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        found = target.exists() and target.is_relative_to(ROOT)
        if found and anchor:
            found = anchor in anchors(target.read_text(encoding="utf-8"))
        if not found:
            broken.append(link)
    return broken


def test_the_readme_is_short():
    assert len(words_before_the_first_table(README.read_text(encoding="utf-8"))) <= MOST_WORDS


def test_the_readme_begins_with_what_to_type():
    top = README.read_text(encoding="utf-8").splitlines()[:40]
    for command in ("make quickstart", "make test"):
        assert any(line.startswith(command) for line in top), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# One, `two`: three\n```\n# no heading\n```\n", encoding="utf-8")
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#one-two-three) [c](#here) [d](https://keras.io)\n"
        "![e](gone.svg) [f](other.md#no-heading) [g](#gone) [h](../out.md) `[i](gone.md)`\n",
        encoding="utf-8",
    )
    (tmp_path.parent / "out.md").touch()
    assert broken_links(page) == ["gone.svg", "other.md#no-heading", "#gone", "../out.md"]


def test_the_site_has_every_address_of_the_readme():
    """So that `make links`, which asks those of the site, asks all."""
    of_others = {link for page in PAGES if page != README for link in addresses(page)}
    assert addresses(README)
    assert addresses(README) <= of_others


def test_the_citation_is_of_this_version():
    assert f"\nversion: {keras_mpt.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_words_are_counted_up_to_the_table():
    assert len(words_before_the_first_table("one two\n```\nx = 1 | 2\n```\n| three |\nfour\n")) == 9
    assert len(words_before_the_first_table("one\ntwo")) == 2


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_names_in_prose_and_examples_exist(page):
    for dotted in set(re.findall(r"\bkeras_mpt((?:\.[A-Za-z_]\w*)+)", page.read_text())):
        item = keras_mpt
        for name in dotted[1:].split("."):
            item = getattr(item, name)


# Stand-ins, so that the examples run in seconds and without a download: a preset is a tiny backbone
# of the same class with random weights and a tokenizer of letters, and names that the guide takes
# as given are a few rows.


def tiny_bert(preset):
    return keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )


def bert_preprocessor(preset, sequence_length):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "joy", "dull", "goal", "shares"]
    words += [f"word{i}" for i in range(50 - len(words))]
    tokenizer = keras_hub.tokenizers.BertTokenizer(words, lowercase=True)
    return keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length)


def tiny_gpt2(preset):
    letters = [*string.printable[:94], "Ġ", "<|endoftext|>", "Th", "Ġb", "Ġg"]
    merges = ["T h", "Ġ b", "Ġ g"]
    tokenizer = keras_hub.models.GPT2Tokenizer({x: i for i, x in enumerate(letters)}, merges)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(letters), num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer)
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor)


def rows(classes, each):
    return (
        [f"a word{5 * k + i}" for k in range(classes) for i in range(each)],
        np.repeat(np.arange(classes), each),
    )


GIVEN = dict(
    zip(
        ("tone_texts", "tone_labels", "topic_texts", "topic_labels"),
        (*rows(2, 4), *rows(5, 2)),
        strict=True,
    )
)


@pytest.fixture
def presets(monkeypatch):
    """No preset is fetched."""
    models = keras_hub.models
    for cls, stand_in in (
        (models.BertBackbone, tiny_bert),
        (models.BertTextClassifierPreprocessor, bert_preprocessor),
        (models.GPT2CausalLM, tiny_gpt2),
    ):
        monkeypatch.setattr(cls, "from_preset", stand_in)


def run_examples(page):
    """The page's examples, one after another; what they leave behind."""
    scope = dict(GIVEN) if page == GUIDE else {}
    for code in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(code, f"<example of {page.name}>", "exec"), scope)
    return scope


@only_eager
def test_the_readme_s_examples_run(presets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left = run_examples(README)
    assert left["labels"][1] in ["bad", "good"]
    assert isinstance(left["model"], keras_mpt.models.PromptTunedCausalLM)
    assert (tmp_path / "adapter" / "adapter_config.json").exists()


@only_eager
def test_the_guide_s_examples_run(presets, tmp_path, monkeypatch):
    pytest.importorskip("grain", reason="batches of several tasks are mixed by it")
    monkeypatch.chdir(tmp_path)
    left = run_examples(GUIDE)
    assert isinstance(left["filling"], keras_mpt.models.PromptTunedMaskedLM)
    assert set(left["labels"]) <= {"dull", "joy", "goal", "shares"}
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
