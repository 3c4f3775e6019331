"""PEFT's own MULTITASK_PROMPT_TUNING on transformers' model of the same weights, both stages.

PEFT computes logits of all positions. Here transformers is told which positions are wanted, as a
user of PEFT can, so that the seconds are those of the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from studies.transfer import peft_source
from studies.transfer.job import Job, Method, SourceJob, Trained
from studies.transfer.rows import Inputs, Rows, by_length
from studies.transfer.tasks import Task
from studies.transfer.torch_loop import as_bert, device
from studies.transfer.words.methods import whole
from studies.transfer.words.methods.common import Predict, batches, texts_after, with_task
from studies.transfer.words.methods.mpt import source_batches
from studies.transfer.words.workbench import MAX_ANSWER, Workbench


def train_source(job: SourceJob) -> Trained:
    """Trains the sources together, and saves PEFT's adapter in `job.folder`."""
    model = _open(job, len(job.tasks), prompt_tuning_init="RANDOM")
    mix = source_batches(job)
    parameters = _train(model, (mix[step] for step in range(job.steps)), job)
    peft_source.save(model, job.folder)

    def predict(rows: Rows, place: int) -> np.ndarray:
        return _predictor(job.bench, model, job.tasks[place], place, job.virtual_tokens)(rows)

    return Trained(predict, parameters)


def train(job: Job) -> Trained:
    """Starts from the source's P and the average of its factors."""
    assert job.source is not None
    model = _open(
        job,
        1,
        prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(job.source / peft_source.WEIGHTS),
    )
    predict = _predictor(job.bench, model, job.task, 0, job.virtual_tokens)
    job.watch.begin(predict)
    given = ((with_task(x, 0), y, weights) for x, y, weights in batches(job))
    return Trained(predict, _train(model, given, job))


def _open(job: Any, tasks: int, **start: Any) -> Any:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(job.seed)
    base = AutoModelForCausalLM.from_pretrained(
        job.bench.model.folder, dtype=getattr(torch, job.bench.model.dtype)
    )
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=job.virtual_tokens, num_tasks=tasks, **start
    )
    return peft.get_peft_model(base, config).to(device())


def _train(model: Any, given: Any, job: Any) -> int:
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    whole.train([(parameters, job.rate)], _logits_of(model, job.virtual_tokens), given, job)
    model.eval()
    return sum(p.numel() for p in parameters)


def _logits_of(model: Any, virtual_tokens: int) -> Callable[[Inputs, np.ndarray, np.ndarray], Any]:
    import torch

    def logits_at(x: Inputs, rows: np.ndarray, places: np.ndarray) -> Any:
        kept, which = np.unique(places, return_inverse=True)
        wanted = torch.as_tensor(kept + virtual_tokens, device=device())
        return model(**as_bert(x), logits_to_keep=wanted).logits[rows, which]

    return logits_at


def _predictor(
    bench: Workbench, model: Any, task: Task, place: int, virtual_tokens: int
) -> Predict:
    if task.is_text:
        return lambda rows: _generated(bench, model, rows, place)
    logits_at = _logits_of(model, virtual_tokens)

    def of_task(x: Inputs, rows: np.ndarray, places: np.ndarray) -> Any:
        return logits_at(with_task(x, place), rows, places)

    return whole.labels_by(of_task, task.answers or [], bench)


def _generated(bench: Workbench, model: Any, rows: Rows, place: int) -> np.ndarray:
    """PEFT generates after padding on the left."""

    def texts(x: Inputs) -> np.ndarray:
        lengths = x["padding_mask"].sum(axis=1)
        width = int(lengths.max())
        left = {name: np.zeros_like(value) for name, value in x.items()}
        for name, value in x.items():
            for row, length in enumerate(lengths):
                left[name][row, width - length :] = value[row, :length]
        ids = model.generate(
            **as_bert(with_task(left, place)), max_new_tokens=MAX_ANSWER, do_sample=False,
            eos_token_id=bench.model.end, pad_token_id=bench.model.end,
        ).cpu().numpy()  # fmt: skip
        return texts_after(bench, ids, np.ones_like(ids), np.full(len(ids), width))

    return by_length(texts, rows, bench.predict_rows)


PEFT = Method(
    "peft_mpt",
    "PEFT's MPT",
    "PEFT's MULTITASK_PROMPT_TUNING: RANDOM start, the sources on the same batches, then "
    "AVERAGE_SOURCE_TASKS on the target",
    "learning rate of the prompt and the factors",
    (0.003, 0.01, 0.03, 0.1),
    train,
    train_source,
)
