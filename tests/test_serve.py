"""The server to copy, started as its command line starts it, on a preset of a few words."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras_hub
import pytest

import keras_mpt
from tests import tiny
from tests.bank.adapters import randomized
from tests.marks import only_eager

pytest.importorskip("litserve", reason="the server is LitServe's: pip install keras-mpt[serve]")

ROOT = Path(__file__).parents[1]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "goal", "vote", "the", "is"]
LABELS = {"tone": ["negative", "positive"], "topic": ["sports", "politics", "tech"]}


@pytest.fixture
def base(tmp_path):
    """A tiny model with its preprocessor, saved as a preset; the server cuts text as it does."""
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(WORDS),
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=64,
    )
    tiny.with_large_weights(backbone)
    tokenizer = keras_hub.tokenizers.BertTokenizer(WORDS, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=32)
    backbone.save_to_preset(tmp_path / "preset")
    preprocessor.save_to_preset(tmp_path / "preset")
    return backbone, preprocessor


@pytest.fixture
def adapters(base, tmp_path):
    """Two adapters, a spare one to replace the first with, and one whose files are broken."""
    backbone, preprocessor = base
    for seed, (name, labels) in enumerate({**LABELS, "spare": LABELS["tone"]}.items()):
        config = keras_mpt.PromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=3 + seed, label_names=labels
        )
        model = keras_mpt.prompt_tune(
            backbone, config, num_classes=len(labels), pooling="mean", preprocessor=preprocessor
        )
        randomized(model, seed).save_adapter(tmp_path / "adapters" / name)
    (tmp_path / "adapters" / "broken").mkdir()
    shutil.move(tmp_path / "adapters" / "spare", tmp_path / "spare")
    return tmp_path / "adapters"


@pytest.fixture
def ask(adapters, tmp_path):
    """A function that asks the server, which runs as long as the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ask(body, method="POST", path="/predict"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        text = body if isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or "null") if method == "POST" else None

    log = tmp_path / "log"
    with log.open("w") as written:
        server = subprocess.Popen(
            [
                *[sys.executable, "-W", "ignore", "examples/serve.py", "--port", str(port)],
                *["--preset", str(tmp_path / "preset"), "--adapters", str(adapters)],
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=written,
            stderr=written,
        )
    try:
        while True:
            try:
                if ask("", "GET", "/health")[0] == 200:
                    break
            except OSError:
                assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        yield ask
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


@only_eager
def test_mixed_tasks_are_answered_together_and_bad_requests_alone(base, adapters, ask, tmp_path):
    bank = keras_mpt.PromptBank(base[0], adapters, preprocessor=base[1], task_type="SEQ_CLS")
    good = [
        {"text": f"the {a} is {b}", "adapter": name}
        for a in WORDS[5:9]
        for b in WORDS[5:8]
        for name in LABELS
    ]
    bad = {
        "missing": (400, "Received: 'missing' in row 0; the bank has"),
        "broken": (400, "that can be read in each row. Received: 'broken'"),
        "../spare": (400, "Received: '../spare'"),
        "a\0" + "b" * 300: (400, "`adapter` should name an adapter of the bank"),
    }
    asked = [*good, *({"text": "the goal", "adapter": name} for name in bad)]
    asked += [{"text": 3, "adapter": "tone"}, {"text": "no adapter"}, "no json"]
    asked = asked[::2] + asked[1::2]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(ask, asked))

    def expected(questions):
        labels, p = bank.predict_labels(
            [q["text"] for q in questions],
            adapter=[q["adapter"] for q in questions],
            return_probabilities=True,
        )
        return list(zip(labels, p.max(axis=-1), strict=True))

    for question, answer in zip(good, expected(good), strict=True):
        status, body = found[asked.index(question)]
        assert (status, body["label"]) == (200, answer[0])
        assert body["probability"] == pytest.approx(answer[1], abs=1e-5)
    assert len({body["label"] for _, body in found if "label" in body}) > 2
    for question, (status, body) in zip(asked, found, strict=True):
        if isinstance(question, dict) and question.get("adapter") in bad:
            wanted, words = bad[question["adapter"]]
            assert status == wanted and words in body["detail"]
        elif question not in good:
            assert status == 422

    # An adapter that is written anew is read anew.
    before = expected(good[:1])
    bank.load("tone", tmp_path / "spare")
    shutil.copytree(tmp_path / "spare", adapters / "tone", dirs_exist_ok=True)
    os.utime(adapters / "tone" / "adapter_model.safetensors")
    (label, p), (_, body) = expected(good[:1])[0], ask(good[0])
    assert body == {"label": label, "probability": pytest.approx(p, abs=1e-5)}
    assert p != pytest.approx(before[0][1], abs=1e-3)
