import keras_mpt
from tests import tiny
from tests.marks import only_torch


def config(**fields):
    return keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, **fields)


@only_torch
def test_a_config_shows_what_was_set():
    given = config(task_type="SEQ_CLS", num_tasks=2, task_names=["tone", "topic"])
    name = "MultitaskPromptTuningConfig"
    assert repr(given) == (
        f"{name}(task_type='SEQ_CLS', num_virtual_tokens=3, num_tasks=2, "
        "task_names=['tone', 'topic'])"
    )
    assert eval(repr(given), {name: getattr(keras_mpt, name)}) == given
    many = config(num_tasks=1000, task_names=[f"task {k}" for k in range(1000)])
    assert len(repr(many)) < 500
    one = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, prompt_tuning_init="SAMPLE_VOCAB")
    assert repr(one) == (
        "PromptTuningConfig(num_virtual_tokens=3, prompt_tuning_init='SAMPLE_VOCAB')"
    )


@only_torch
def test_a_model_and_a_mix_say_what_they_are(capsys):
    names = [f"task {k}" for k in range(7)]
    backbone = tiny.backbone("plain", name="base")
    model = keras_mpt.prompt_tune(
        backbone,
        config(task_type="SEQ_CLS", num_tasks=7, task_names=names, num_ranks=2),
        num_classes=[2] * 7,
        pooling="mean",
        name="model",
    )
    # P 3·16; seven tasks' factors (3 + 16)·2 and heads of 16·2 + 2.
    trained = 3 * 16 + 7 * (19 * 2 + 34)
    assert repr(model) == (
        f"<PromptTunedTextClassifier 'model' on Functional, 7 tasks, {trained} numbers trained>"
    )
    lines = str(model).splitlines()
    assert lines[0] == "PromptTunedTextClassifier("
    assert "3 virtual tokens of width 16" in lines[2]
    assert lines[3] == ("  7 tasks of rank 2: 'task 0', 'task 1', 'task 2', 'task 3', 'task 4', …")
    assert lines[4] == "  a head per task, classes: 2, 2, 2, 2, 2, …"
    model.print_trainable_parameters()
    whole = sum(int(v.value.numel()) for v in model.variables)
    printed = capsys.readouterr().out
    assert printed.startswith(f"trained: {trained} of {whole:,} numbers (")
    assert lines[5].strip() + "\n" == printed
    one = keras_mpt.prompt_tune(backbone, keras_mpt.PromptTuningConfig(num_virtual_tokens=3))
    assert "one prompt, 48 numbers trained" in repr(one) and "tasks" not in str(one)
    mix = keras_mpt.TaskMix({"tone": (["a", "b", "c"], [0, 1, 0])}, batch_size=2)
    assert repr(mix) == "<TaskMix of 1 tasks ('tone': 3 rows), 2 batches of 2 in an epoch>"
