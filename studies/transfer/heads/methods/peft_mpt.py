"""PEFT's own MULTITASK_PROMPT_TUNING, both stages, under heads like ours.

PEFT's classifier of sequences reads BERT's pooler. Its classifier of tokens is a linear layer on
each token, and the mean of linear functions is the linear function of the mean: its logits averaged
over the user's tokens are those of a head on mean-pooled features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from studies.transfer import peft_source
from studies.transfer.heads.methods.mpt import source_batches
from studies.transfer.job import HEAD_RATE, Job, Method, SourceJob, Trained
from studies.transfer.rows import Inputs, Rows, by_length, training_batches
from studies.transfer.torch_loop import as_bert, device, fit, mean_over_tokens

# A logit that no row is given for.
_NO_CLASS = -1e9


def train_source(job: SourceJob) -> Trained:
    """Trains the sources together, and saves PEFT's adapter in `job.folder`."""
    classes = [task.num_classes for task in job.tasks]
    model = _open(job, classes, prompt_tuning_init="RANDOM")
    mix = source_batches(job)
    batches = (mix[step] for step in range(job.steps))
    trained = _train(job, model, classes, batches)
    peft_source.save(model, job.folder)
    return trained


def train(job: Job) -> Trained:
    """Starts from the source's P and the average of its factors."""
    classes = [job.task.num_classes]
    assert job.source is not None
    model = _open(
        job,
        classes,
        prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(job.source / peft_source.WEIGHTS),
    )
    batches = training_batches(job.rows, job.batch_size, job.steps, job.seed)
    of_one_task = ((_with_task(x, 0), y) for x, y in batches)
    trained = _train(job, model, classes, of_one_task)
    return Trained(lambda rows: trained.predict(rows, 0), trained.parameters)


def _open(job: Any, classes: Sequence[int], **start: Any) -> Any:
    import peft
    import torch
    from transformers import BertForTokenClassification

    torch.manual_seed(job.seed)
    # A head in keras_mpt under mean pooling has no dropout of its own.
    base = BertForTokenClassification.from_pretrained(
        job.bench.preset,
        num_labels=sum(classes),
        classifier_dropout=0.0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config = peft.MultitaskPromptTuningConfig(
        task_type="TOKEN_CLS",
        num_virtual_tokens=job.virtual_tokens,
        num_tasks=len(classes),
        **start,
    )
    return peft.get_peft_model(base, config).to(device())


def _train(job: Any, model: Any, classes: Sequence[int], batches: Iterable[Any]) -> Trained:
    import torch

    offsets = np.cumsum([0, *classes])
    columns = np.arange(sum(classes))
    own = (columns >= offsets[:-1, None]) & (columns < offsets[1:, None])
    is_own = torch.as_tensor(own, device=device())
    first = offsets

    def logits_of(x: Inputs) -> torch.Tensor:
        inputs = as_bert(x)
        tokens = model(**inputs).logits[:, job.virtual_tokens :]
        logits = mean_over_tokens(tokens, inputs["attention_mask"])
        return logits.masked_fill(~is_own[inputs["task_ids"]], _NO_CLASS)

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    head = [p for name, p in named if "classifier" in name]
    prompt = [p for name, p in named if "classifier" not in name]
    labelled = ((x, y + offsets[x["task_ids"]]) for x, y in batches)
    model.train()
    fit([(prompt, job.rate), (head, HEAD_RATE)], logits_of, labelled, job.steps)
    model.eval()

    @torch.no_grad()
    def predict(rows: Rows, task: int) -> np.ndarray:
        def labels(x: Inputs) -> np.ndarray:
            return logits_of(_with_task(x, task)).argmax(dim=1).cpu().numpy() - first[task]

        return by_length(labels, rows, job.bench.batch_size)

    return Trained(predict, sum(p.numel() for _, p in named))


def _with_task(x: Inputs, task: int) -> Inputs:
    return {**x, "task_ids": np.full(len(x["token_ids"]), task, "int32")}


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
