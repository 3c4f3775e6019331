"""The quickstart on a user's own preset and files: everything but the real model and text."""

import subprocess
import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_eager

pytest.importorskip("matplotlib", reason="the quickstart draws: pip install keras-mpt[examples]")

ROOT = Path(__file__).parents[1]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "goal", "vote", "the", "is"]


def write_tsv(path, words, pairs=False):
    """Forty rows whose label is which word they hold."""
    rng = np.random.default_rng(0)
    lines = ["text_a\ttext_b\tlabel" if pairs else "text\tlabel"]
    for i in range(40):
        label = words[i % len(words)]
        text = f"the {'the ' * int(rng.integers(3))}{label} is {i}"
        lines.append(f"{text}\t{'the is' if pairs else label}" + (f"\t{label}" if pairs else ""))
    path.write_text("\n".join(lines) + "\n")


@only_eager
def test_quickstart_on_own_preset_and_files(tmp_path):
    tokenizer = keras_hub.tokenizers.BertTokenizer(WORDS, lowercase=True)
    tiny.backbone("bert").save_to_preset(tmp_path / "preset")
    keras_hub.models.BertTextClassifierPreprocessor(tokenizer).save_to_preset(tmp_path / "preset")
    write_tsv(tmp_path / "tone.tsv", ["good", "bad"])
    write_tsv(tmp_path / "pairs.tsv", ["goal", "vote", "good"], pairs=True)
    write_tsv(tmp_path / "new.tsv", ["good", "bad"])
    files = [str(tmp_path / name) for name in ("tone.tsv", "pairs.tsv")]
    done = subprocess.run(
        [
            *[sys.executable, "-W", "ignore", "examples/quickstart.py", "--epochs", "2"],
            *["--preset", str(tmp_path / "preset"), "--sequence-length", "12"],
            *["--data", *files, "--target", str(tmp_path / "new.tsv"), "--shots", "4"],
            *["--backend", keras.backend.backend(), "--output", str(tmp_path / "output")],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "100.0% of" in done.stdout, done.stdout[-1000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" |")[0][2:] for line in lines if line[2:6] != "task"] == [
        "tone",
        "pairs",
        "new (4 per class)",
    ]
    assert "new starts from the head and the prompt of tone" in done.stdout
    adapter = keras_mpt.read_state_dict(tmp_path / "output" / "adapter")
    assert adapter["prefix_task_rows"].shape == (2, 1, tiny.WIDTH)
    assert (tmp_path / "output" / "quickstart.png").read_bytes()[:4] == b"\x89PNG"
