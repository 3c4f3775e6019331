"""A mix that begins where another run stopped: its batches, in `fit` too, and its fingerprint."""

import json
import warnings

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.data.mixes import MORE, datasets, next_epoch
from tests.marks import only_eager

STEPS, EPOCHS = 5, 3
SAMPLINGS = [{}, {"max_tasks_per_batch": 3}]


def mix(**kwargs):
    """Epochs of `STEPS` batches."""
    return keras_mpt.TaskMix(datasets(MORE), 4, steps=STEPS, **{"seed": 1, **kwargs})


def in_order(batches):
    """The rows of each batch."""
    return [y.tolist() for _, y in batches]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["mixed", "sampled"])
def test_it_goes_on_with_the_batches_of_an_unbroken_run(sampling):
    unbroken = mix(**sampling)
    expected = [in_order(next_epoch(unbroken)) for _ in range(EPOCHS)]
    # Backwards too: one mix, started at each place after every other.
    resumed = mix(**sampling)
    for epoch in reversed(range(EPOCHS)):
        for step in range(STEPS):
            resumed.start_at(epoch, step)
            assert (resumed.epoch, resumed.first_step) == (epoch, step)
            rest = [in_order(next_epoch(resumed)) for _ in range(epoch, EPOCHS)]
            assert rest == [expected[epoch][step:], *expected[epoch + 1 :]]


def test_its_length_is_the_rest_within_the_epoch_alone():
    resumed = mix()
    resumed.start_at(0, 3)
    lengths = [len(resumed)]
    for event in ("begin", "end", "begin", "end"):
        getattr(resumed, f"on_epoch_{event}")()
        lengths.append(len(resumed))
    assert lengths == [5, 2, 5, 5, 5]


def test_it_may_start_over_after_an_epoch_that_broke_off():
    resumed = mix()
    expected = in_order(next_epoch(mix()))
    resumed.on_epoch_begin()
    resumed.start_at(0, 2)
    assert len(resumed) == STEPS
    assert in_order(next_epoch(resumed)) == expected[2:]


@pytest.mark.parametrize(
    ("epoch", "step", "error"),
    [
        *((e, 0, f"`epoch` should be an integer, 0 or more. Received: epoch={e!r}")
          for e in (-1, 1.0, None, True)),
        *((0, s, "`step` should be an integer from 0 to 4, an epoch having 5 batches. Received: "
           f"step={s!r}") for s in (-1, 5, 1.0, None, True)),
    ],
)  # fmt: skip
def test_a_place_that_is_none(epoch, step, error):
    resumed = mix()
    resumed.start_at(1, 2)
    with pytest.raises(ValueError) as raised:
        resumed.start_at(epoch, step)
    assert str(raised.value) == error
    assert (resumed.epoch, resumed.first_step) == (1, 2)


def classifier():
    """A classifier of the tasks below."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=3
    )
    return keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[2, 2, 2])


@pytest.fixture(scope="module")
def recording():
    """A model that notes the rows of each batch that it trains on."""
    model = classifier()
    # Step by step in Python, so that a step's data are values and not symbols.
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    train_step = model.train_step

    def noting(*state_and_data):
        x = state_and_data[-1][0]
        model.seen[-1].append(keras.ops.convert_to_numpy(x["token_ids"]).tolist())
        return train_step(*state_and_data)

    model.train_step = noting
    return model


def classified():
    """Rows of two classes, whose two tokens tell them apart."""
    tasks = {}
    for name, (_, y) in datasets(MORE).items():
        ids = 2 + np.stack([y // 10, y % 10], axis=1)
        tasks[name] = ({"token_ids": ids, "padding_mask": np.ones_like(ids)}, y % 2)
    return tasks


def tokens(batches):
    """The token ids of each batch; they name the rows."""
    return [x["token_ids"].tolist() for x, _ in batches]


@pytest.mark.parametrize("when", ["before fit", "on_train_begin"])
@pytest.mark.parametrize(
    ("workers", "step"),
    [
        *((1, 2), (2, STEPS - 1)),
        *(pytest.param(1, step, marks=only_eager) for step in (0, STEPS - 1)),
    ],
)
def test_fit_reads_the_rest_of_an_epoch_and_then_whole_ones(recording, workers, when, step):
    settings = {"steps": STEPS, "max_tasks_per_batch": 3, "workers": workers}
    unbroken, resumed = (keras_mpt.TaskMix(classified(), 4, **settings) for _ in range(2))
    expected = [tokens(next_epoch(unbroken)) for _ in range(4)]
    recording.seen = []
    batches, callbacks = [], []
    if when == "before fit":
        resumed.start_at(1, step)
    else:
        callbacks.append(
            keras.callbacks.LambdaCallback(on_train_begin=lambda logs: resumed.start_at(1, step))
        )
    callbacks.append(
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: recording.seen.append([]),
            on_train_batch_end=lambda batch, logs: batches.append(batch),
        )
    )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fitted = recording.fit(resumed, initial_epoch=1, epochs=4, callbacks=callbacks, verbose=0)
    assert recording.seen == [expected[1][step:], *expected[2:]]
    assert batches == [*range(STEPS - step), *range(STEPS), *range(STEPS)]
    assert fitted.epoch == [1, 2, 3]
    assert (resumed.epoch, resumed.first_step) == (4, 0)
    out_of_data = [w for w in warned if "Your input ran out of data" in str(w.message)]
    assert len(out_of_data) == (step > 0)


def test_fit_leaves_the_batches_in_their_order(recording):
    data, again = (keras_mpt.TaskMix(classified(), 4, steps=16) for _ in range(2))
    recording.seen = [[]]
    recording.fit(data, verbose=0)
    assert recording.seen[0] == tokens(next_epoch(again))
    with pytest.raises(ValueError) as raised:
        recording.fit(data, shuffle=True, verbose=0)
    assert str(raised.value) == (
        "`shuffle` should be left out or False: a `TaskMix` shuffles its rows itself, by its seed. "
        "Received: shuffle=True"
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_second_fit_may_start_elsewhere(recording):
    data = keras_mpt.TaskMix(classified(), 4, steps=STEPS)
    whole = keras_mpt.TaskMix(classified(), 4, steps=STEPS)
    expected = tokens(next_epoch(whole))
    recording.seen = [[]]
    recording.fit(data, verbose=0)
    data.start_at(0, STEPS - 1)
    recording.fit(data, verbose=0)
    assert recording.seen == [[*expected, expected[-1]]]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_compiled_model_ends_where_an_unbroken_run_does():
    model = classifier()
    model.compile(keras.optimizers.SGD(0.5))
    start = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    unbroken, resumed = (keras_mpt.TaskMix(classified(), 4, steps=STEPS) for _ in range(2))
    first = [unbroken[i] for i in range(3)]
    model.fit(unbroken, epochs=2, verbose=0)
    expected = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)
    model.fit((batch for batch in first), steps_per_epoch=3, shuffle=False, verbose=0)
    resumed.start_at(0, 3)
    model.fit(resumed, epochs=2, verbose=0)
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_workers_that_counted_before_the_epoch_began_get_nothing_past_its_end():
    resumed = mix()
    resumed.start_at(0, 3)
    assert all(resumed[i] is not None for i in range(STEPS))  # Keras looks at the first batches.
    resumed.on_epoch_end()  # Keras does so before the first epoch, once it has counted.
    assert [resumed[i] is None for i in range(STEPS)] == [False, False, True, True, True]


def test_the_fingerprint_by_hand():
    found = mix(weights="proportional", max_tasks_per_batch=2).fingerprint()
    checksums = found.pop("checksums")
    assert found == {
        "task_names": ["tone", "topic", "intent"],
        "rows": [60, 90, 70],
        "batch_size": 4,
        "steps": 5,
        "weights": [60.0, 90.0, 70.0],
        "shuffle": True,
        "seed": 1,
        "max_tasks_per_batch": 2,
    }
    assert len(set(checksums)) == 3


@pytest.mark.parametrize("integer", [int, np.int32, np.int64], ids=["int", "int32", "int64"])
def test_the_fingerprint_is_the_same_after_json_and_in_another_mix(integer):
    kwargs = {"seed": integer(3), "max_tasks_per_batch": integer(2), "shuffle": np.bool_(True)}
    found = mix(weights="temperature", **kwargs).fingerprint()
    assert json.loads(json.dumps(found)) == found
    again = mix(weights="temperature", seed=3, max_tasks_per_batch=2)
    next_epoch(again)
    assert again.fingerprint() == found


def texts(*words, labels=(0, 1)):
    """A mix of one task."""
    return keras_mpt.TaskMix({"a": (list(words), list(labels))}, 2)


def test_other_data_or_settings_have_another_fingerprint():
    changed = datasets(MORE)
    changed["topic"][0]["token_ids"][17, 1] += 1
    mixes = [
        mix(),
        *(mix(**kwargs) for kwargs in ({"seed": 2}, {"shuffle": False}, {"weights": [1, 1, 2]},
                                       {"weights": "temperature"}, {"max_tasks_per_batch": 2},
                                       {"max_tasks_per_batch": 3})),
        keras_mpt.TaskMix(datasets(MORE), 5, steps=5, seed=1),
        keras_mpt.TaskMix(datasets(MORE), 4, steps=6, seed=1),
        keras_mpt.TaskMix(dict(reversed(datasets(MORE).items())), 4, steps=5, seed=1),
        keras_mpt.TaskMix(changed, 4, steps=5, seed=1),
        texts("fine", "awful"),
        texts("awful", "fine"),
        texts("fine", "awful!"),
        texts("fine", "awful", labels=(1, 0)),
        keras_mpt.TaskMix({"b": (["fine", "awful"], [0, 1])}, 2),
        keras_mpt.TaskMix({"a": (["fine", "awful"],)}, 2),
    ]  # fmt: skip
    found = [json.dumps(one.fingerprint()) for one in mixes]
    assert len(set(found)) == len(found)


def test_the_checksum_of_objects_is_that_of_their_values():
    """As strings come from a data frame: an array of addresses, other ones in each run."""
    first, second, other = (
        keras_mpt.TaskMix({"a": (np.array(["".join(w) for w in words], object), [0, 1])}, 2)
        for words in (["fi ne", "aw ful"], ["fi ne", "aw ful"], ["fi ne", "aw fuls"])
    )
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != other.fingerprint()
