"""How each task is put to the model: fields of the prompt, and a word for each class."""

from __future__ import annotations

from tools.markdown import table

# The first tokens of a task's words differ, and each word is one token of SmolLM2's.
_YES_NO, _NO_YES = (" yes", " no"), (" no", " yes")
WORDS: dict[str, tuple[str, ...]] = {
    "sst2": (" negative", " positive"),
    "cr": (" negative", " positive"),
    "subj": (" fact", " opinion"),
    "trec": (" abbreviation", " description", " thing", " person", " place", " number"),
    "ag_news": (" World", " Sports", " Business", " Technology"),
    "mnli": (" yes", " maybe", " no"),
    "qnli": _YES_NO,
    "rte": _YES_NO,
    "qqp": _NO_YES,
    "mrpc": _NO_YES,
    "cola": (" incorrect", " correct"),
    "tweet_irony": (" serious", " irony"),
    "snips": (" playlist", " restaurant", " weather", " music", " rating", " title", " cinema"),
}
# What stands before a row's texts; a task that is not here has one text, without a name.
FIELDS: dict[str, tuple[str, ...]] = {
    "mnli": ("Premise: ", "Hypothesis: "),
    "rte": ("Premise: ", "Hypothesis: "),
    "qnli": ("Question: ", "Sentence: "),
    "qqp": ("Question 1: ", "Question 2: "),
    "mrpc": ("Sentence 1: ", "Sentence 2: "),
}
# Free text, and no classes.
TEXTS = ("e2e_nlg", "disfl_qa")
ASKED = "\nAnswer:"
INSTRUCTION = "Read the text and give the answer that fits it best:"


def prompt(task: str, *texts: str) -> str:
    """A row as the model reads it; the answer follows it at once."""
    fields = FIELDS.get(task, ("",) * len(texts))
    return "\n".join(f + t for f, t in zip(fields, texts, strict=True)) + ASKED


def as_markdown() -> str:
    """Each task's fields and words, as the page shows them."""
    lines = []
    for task in (*WORDS, *TEXTS):
        fields = " / ".join(field.strip() for field in FIELDS.get(task, ()))
        words = ", ".join(word.strip() for word in WORDS.get(task, ()))
        lines.append([task, fields, words or "free text"])
    return table(["task", "names of its texts", "answers"], lines).rstrip("\n")
