"""The language model without a prompt: as it is, with LoRA, or trained whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from studies.transfer.job import Job, Method, Trained
from studies.transfer.rows import Inputs, Rows, by_length
from studies.transfer.torch_loop import fit
from studies.transfer.words.answers import Arrays, first_words, last_positions
from studies.transfer.words.methods.common import Predict, batches, generated
from studies.transfer.words.workbench import Workbench

RANK = 8
# A batch's inputs, and where in them logits are wanted: a row and a position for each of N.
LogitsAt = Callable[[Inputs, np.ndarray, np.ndarray], Any]


def zero_shot(job: Job) -> Trained:
    """The likeliest of the words, without any training: the same for every seed."""
    predict, said = predictor(job, job.bench.model.backbone), job.bench.said

    def once(rows: Rows) -> np.ndarray:
        place = job.task.name, id(rows.split), rows.index.tobytes()
        if place not in said:
            said[place] = predict(rows)
        return said[place]

    job.watch.begin(once)
    return Trained(once, 0)


def lora(job: Job) -> Trained:
    """keras-hub's `enable_lora`: two thin matrices beside queries and values."""
    backbone = job.bench.model.fresh_backbone()
    backbone.enable_lora(RANK)
    return _trained(job, backbone)


def full(job: Job) -> Trained:
    """Every weight, in float32 beside whatever is computed with."""
    return _trained(job, job.bench.model.fresh_backbone())


def _trained(job: Job, backbone: Any) -> Trained:
    import keras

    keras.utils.set_random_seed(job.seed)
    logits_at, predict = logits_of(backbone), predictor(job, backbone)
    weights = [variable.value for variable in backbone.trainable_variables]
    job.watch.begin(predict)
    train([(weights, job.rate)], logits_at, batches(job), job)
    return Trained(predict, sum(weight.numel() for weight in weights))


def train(
    groups: list[tuple[list[Any], float]], logits_at: LogitsAt, given: Iterator[Arrays], job: Any
) -> None:
    """`job.steps` steps of the plain loop, on the tokens that are answers."""

    def counted() -> Iterator[tuple[Inputs, np.ndarray, np.ndarray]]:
        for x, y, weights in given:
            rows, places = np.nonzero(weights)
            yield {**x, "rows": rows, "places": places}, y[rows, places], weights[rows, places]

    def logits(x: Inputs) -> Any:
        x = dict(x)
        rows, places = x.pop("rows"), x.pop("places")
        return logits_at(x, rows, places)

    fit(groups, logits, counted(), job.steps, getattr(job, "watch", None))


def logits_of(backbone: Any) -> LogitsAt:
    """Of a keras-hub backbone whose output embedding is its input embedding."""

    def logits_at(x: Inputs, rows: np.ndarray, places: np.ndarray) -> Any:
        states = backbone({name: x[name] for name in ("token_ids", "padding_mask")})
        return backbone.token_embedding(states[rows, places], reverse=True)

    return logits_at


def predictor(job: Job, backbone: Any) -> Predict:
    """Labels of rows, or texts where the task's answers are texts."""
    task, bench = job.task, job.bench
    if task.is_text:
        return lambda rows: generated(bench, GreedyLM(backbone), rows, None)
    return labels_by(logits_of(backbone), task.answers or [], bench)


def labels_by(logits_at: LogitsAt, answers: list[np.ndarray], bench: Workbench) -> Predict:
    """The classes whose words are likeliest where a row's prompt ends."""
    import torch

    @torch.no_grad()
    def labels(x: Inputs) -> np.ndarray:
        logits = logits_at(x, np.arange(len(x["token_ids"])), last_positions(x))
        return first_words(logits.float().cpu().numpy(), answers)

    return lambda rows: by_length(labels, rows, bench.predict_rows)


class GreedyLM:
    """keras-hub's `CausalLM` under the names that `generated` asks a model of ours by."""

    def __init__(self, backbone: Any) -> None:
        import keras_hub

        self.model = keras_hub.models.Llama3CausalLM(backbone, preprocessor=None)

    def set_sampler(self, sampler: str) -> None:
        self.model.compile(sampler=sampler)

    def generate(self, inputs: Inputs, stop_token_ids: list[int]) -> Any:
        return self.model.generate(inputs, stop_token_ids=stop_token_ids)


ZERO = Method(
    "zero_shot",
    "zero-shot",
    "the likeliest of the task's words, without a prompt or any training",
    "nothing",
    (0.0,),
    zero_shot,
)
LORA = Method(
    "lora",
    f"LoRA, r = {RANK}",
    "keras-hub's `enable_lora` on queries and values",
    "learning rate",
    (3e-4, 1e-3, 3e-3, 1e-2),
    lora,
)
FULL = Method(
    "full",
    "full fine-tuning",
    "every weight of the model, in float32",
    "learning rate",
    (3e-6, 1e-5, 3e-5, 1e-4),
    full,
)
