"""The methods on a tiny model, against transformers' logits of it."""

import json

import numpy as np
import pytest

from studies.transfer import execute, running
from studies.transfer.command import RUNS, main
from studies.transfer.job import Job
from studies.transfer.rows import Rows
from studies.transfer.watch import Watch
from studies.transfer.words import table
from studies.transfer.words.methods import METHODS, common, peft_mpt, whole
from studies.transfer.words.methods.common import predictor, texts_after
from studies.transfer.words.workbench import MAX_TOKENS

torch = pytest.importorskip("torch")
ROWS, PLACES = np.array([0, 1, 1, 2]), np.array([3, 0, 5, 9])


def job(bench, task, **more):
    task = bench.task(task)
    given = {"rate": 0.01, "steps": 2, "seed": 0, "virtual_tokens": 3, "batch_size": 4, **more}
    return Job(bench=bench, task=task, rows=Rows(task.train.split, np.arange(8)), **given)


@pytest.fixture(scope="module")
def theirs(tiny_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits_of(theirs, x):
    ids, mask = (torch.as_tensor(x[name]).long() for name in ("token_ids", "padding_mask"))
    return theirs(input_ids=ids, attention_mask=mask).logits.numpy()


def test_logits_where_they_are_wanted_are_transformers(bench, theirs):
    x = bench.task("cr").test.x
    found = whole.logits_of(bench.model.backbone)(x, ROWS, PLACES)
    expected = logits_of(theirs, x)[ROWS, PLACES]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


def test_zero_shot_is_the_likeliest_word_after_the_prompt(bench, theirs):
    given = job(bench, "trec")
    said = whole.zero_shot(given).predict(given.task.test)
    x, words = given.task.test.x, [int(word[0]) for word in given.task.answers]
    last = logits_of(theirs, x)[np.arange(len(said)), x["padding_mask"].sum(axis=1) - 1]
    np.testing.assert_array_equal(said, last[:, words].argmax(axis=1))


def test_pefts_logits_are_those_of_a_call_that_gives_all(bench):
    given = job(bench, "cr")
    model = peft_mpt._open(given, 2, prompt_tuning_init="RANDOM").eval()
    x = {**given.task.test.x, "task_ids": np.arange(16) % 2}
    with torch.no_grad():
        found = peft_mpt._logits_of(model, 3)(x, ROWS, PLACES)
        everything = model(**peft_mpt.as_bert(x)).logits
    np.testing.assert_allclose(found, everything[ROWS, PLACES + 3], atol=1e-5)


def test_prompts_hold_the_texts_under_their_names_and_are_cut_on_the_left(bench):
    task = bench.task("rte")
    ids, mask = task.train.split.x["token_ids"], task.train.split.x["padding_mask"]
    text = bench.model.decode(ids[1][mask[1] > 0])
    assert text == "Premise: so row 1\nHypothesis: so row 1\nAnswer:"
    cut = bench._split("cr", (["a" * 300],), np.zeros(1, "int32")).x
    assert cut["padding_mask"].sum() == MAX_TOKENS
    assert bench.model.decode(cut["token_ids"][0]).endswith("aaa\nAnswer:")
    assert bench.model.decode(task.answers[1]) == " no"


def test_every_task_has_words_that_differ(bench):
    for words in table.WORDS.values():
        first = [int(tokens[0]) for tokens in bench.model.encode(words)]
        assert len(set(first)) == len(words) == len(first)


def test_a_free_text_ends_with_the_end_token_and_is_scored_word_for_word(bench):
    task = bench.task("disfl_qa")
    assert task.is_text and all(answer[-1] == bench.model.end for answer in task.answers)
    rows = task.test
    first = [task.answers[label][:-1] for label in rows.y]
    ids = np.zeros((len(rows), 20), "int32")
    for row, own in enumerate(first):
        ids[row, 4 : 4 + len(own)] = own
        ids[row, 4 + len(own)] = bench.model.end
    texts = texts_after(bench, ids, np.ones_like(ids), np.full(len(rows), 4))
    assert texts.tolist() == ["0", "1", "2"]
    assert task.measure(rows.y, texts)["score"] == 1.0
    assert task.measure(rows.y, np.array(["0", "2", "x"]))["exact_match"] == pytest.approx(1 / 3)


def test_texts_of_both_libraries_are_alike(bench):
    """keras-hub's `generate` and PEFT's, which pads on the left, of one prompt."""
    import keras_mpt

    given = job(bench, "disfl_qa")
    model = peft_mpt._open(given, 2, prompt_tuning_init="RANDOM").eval()
    values = {name: p.detach().numpy() for name, p in model.prompt_encoder.named_parameters()}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2
    )
    ours = keras_mpt.prompt_tune(bench.model.backbone, config)
    ours.prompt.set_peft_state_dict(
        {
            "prompt_embeddings": values["default.embedding.weight"],
            "prefix_task_cols": values["default.prefix_task_cols"],
            "prefix_task_rows": values["default.prefix_task_rows"],
        },
        "peft",
    )
    rows = given.task.test
    expected = peft_mpt._generated(bench, model, rows, 1)
    np.testing.assert_array_equal(predictor(bench, ours, given.task, 1)(rows), expected)


@pytest.mark.parametrize("name", ["prompt", "factored", "lora", "full"])
def test_training_is_watched_and_lowers_the_loss(bench, name):
    rate = {"lora": 0.1, "full": 0.003}.get(name, 0.3)
    watch = Watch(12, lambda predict: float(np.mean(predict(rows) == rows.y)))
    given = job(bench, "cr", rate=rate, steps=12, watch=watch)
    rows = given.task.test
    trained = METHODS[name].train(given)
    assert sorted(watch.scores) == [0, 2, 4, 8]
    assert sorted(watch.losses) == [2, 4, 8, 12]
    assert watch.losses[12] < watch.losses[2]
    numbers = sum(int(np.prod(v.shape)) for v in bench.model.backbone.weights)
    expected = {"prompt": 3 * 32, "factored": 3 * 32 + 3 + 32, "full": numbers}
    assert trained.parameters == expected.get(name, trained.parameters) < numbers + 1


def test_the_whole_part_runs_small(tasks_folder, tiny_folder, tmp_path, monkeypatch):
    """Sources with and without teachers, then targets; the page tells of all of them."""
    # After each run of a model of real size; here it would take longer than the runs.
    monkeypatch.setattr(running.gc, "collect", lambda: 0)
    monkeypatch.setattr(common, "MAX_ANSWER", 4)
    methods = ["zero_shot", "prompt", "prompt_3", "mpt_plain", "mpt", "mpt_nearest", "mpt_frozen_1"]
    methods.append("peft_mpt")
    main(
        ["--quick", "--part", "words", "--data", str(tasks_folder), "--model", str(tiny_folder),
         "--dtype", "float32", "--folder", str(tmp_path), "--work", str(tmp_path / "work"),
         "--targets", "cr", "--methods", *methods]
    )  # fmt: skip
    entries = [json.loads(line) for line in (tmp_path / RUNS).read_text().splitlines()]
    targets = {e["method"]: e for e in entries if e["stage"] == "targets"}
    assert list(targets) == methods
    assert [targets[name]["losses"][-1][0] for name in ("prompt", "prompt_3")] == [6, 18]
    # What is kept beside the log goes to other machines: it names no folder of this one.
    kept = [file for file in (tmp_path / "sources").rglob("*") if file.is_file()]
    assert any(file.parent.name.startswith("peft_mpt-") for file in kept)
    assert not [file for file in kept if str(tiny_folder).encode() in file.read_bytes()]
    assert targets["mpt_nearest"]["from"] in ("sst2", "trec", "e2e_nlg")
    assert targets["mpt_frozen_1"]["parameters"] == 4 + 32
    # P and the average of the factors: where the frozen one starts too.
    assert targets["mpt_frozen_1"]["losses"][0] == targets["mpt_plain"]["losses"][0]
    sources = {e["method"]: e for e in entries if e["stage"] == "sources"}
    assert set(sources) == {"mpt_plain", "mpt", "peft_mpt"}
    assert set(sources["mpt"]["teacher_scores"]) == {"sst2", "trec"}
    text = (tmp_path / "README.md").read_text()
    assert "## Words" in text and "MPT from the nearest source" in text


def test_sources_leave_out_long_rows_and_count_their_answers(bench):
    task = bench.task("e2e_nlg")
    lengths = task.train.x["padding_mask"].sum(axis=1)
    whole = lengths + np.array([len(task.answers[label]) for label in task.train.y])
    most = int(whole.max()) - 1
    found = execute._with_rows(task, None, most).train
    np.testing.assert_array_equal(found.index, task.train.index[whole <= most])
    assert 0 < len(found) < len(task.train)
    assert len(execute._with_rows(task, 5, most).train) == 5
    assert execute._with_rows(task, None, None).train.index.tolist() == task.train.index.tolist()
    assert len(execute.to_choose_by(task, {"tuning_rows": 7})) == 7
    assert len(execute.to_choose_by(task, {})) == len(task.validation)
