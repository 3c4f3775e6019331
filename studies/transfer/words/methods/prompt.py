"""From scratch on the target: a prompt, plain or in factors."""

from __future__ import annotations

import functools
from typing import Any

from studies.transfer.job import Job, Method, Trained, decay
from studies.transfer.words.methods.common import adam, compile_with, fit
from studies.transfer.words.table import INSTRUCTION

# Factors start where P is the prompt; a step of the same weight for the prompt is larger there.
FACTORS_OVER_SHARED = 10.0


def start(job_seed: int, tokens: int, kind: str, **more: Any) -> dict[str, Any]:
    """A config's arguments for a prompt that starts in one of the three ways."""
    return {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": tokens,
        "prompt_tuning_init": kind,
        "prompt_tuning_init_text": INSTRUCTION if kind == "TEXT" else None,
        "seed": job_seed,
        **more,
    }


def train(job: Job, kind: str, position: str = "before") -> Trained:
    """An ordinary prompt."""
    model = new_prompt(job, kind, position)
    return Trained(fit(model, job), model.parameter_count())


def new_prompt(job: Job, kind: str, position: str = "before") -> Any:
    """A model with one prompt, compiled for the job's steps."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    given = start(job.seed, job.virtual_tokens, kind, prompt_position=position)
    config = keras_mpt.PromptTuningConfig(**given)
    bench = job.bench
    model = keras_mpt.prompt_tune(bench.model.backbone, config, tokenizer=bench.model.tokenizer)
    compile_with(model, adam(job.rate, job.steps))
    return model


def train_factored(job: Job) -> Trained:
    """P and the factors of one task."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    config = keras_mpt.MultitaskPromptTuningConfig(
        **start(job.seed, job.virtual_tokens, "SAMPLE_VOCAB", num_tasks=1)
    )
    bench = job.bench
    model = keras_mpt.prompt_tune(bench.model.backbone, config, tokenizer=bench.model.tokenizer)
    compile_with(model, two_speeds(job.rate, job.steps))
    return Trained(fit(model, job, task_ids=0), model.parameter_count())


def two_speeds(
    rate: float, steps: int, shared: bool = True, factors_over_shared: float = FACTORS_OVER_SHARED
) -> Any:
    """Adam for P and for the factors, whose rate is the tuned one where P is frozen."""
    import keras_mpt

    factors = factors_over_shared * rate if shared else rate
    return keras_mpt.two_speed_optimizer(
        shared=decay(rate, steps) if shared else None, factors=decay(factors, steps), head=None
    )


def _prompt(
    name: str,
    label: str,
    about: str,
    kind: str,
    tokens: int | None = None,
    position: str = "before",
) -> Method:
    rates = (0.003, 0.01, 0.03, 0.1)
    own = functools.partial(train, kind=kind, position=position)
    return Method(name, label, about, "learning rate of the prompt", rates, own,
                  virtual_tokens=tokens)  # fmt: skip


PROMPT = _prompt(
    "prompt",
    "prompt tuning",
    "a prompt of its own, from scratch, starting from tokens of the vocabulary (`SAMPLE_VOCAB`)",
    "SAMPLE_VOCAB",
)
RANDOM = _prompt(
    "prompt_random",
    "prompt tuning, RANDOM start",
    "the same from numbers at the scale of the token embeddings",
    "RANDOM",
)
TEXT = _prompt(
    "prompt_text", "prompt tuning, TEXT start", "the same from an instruction in words", "TEXT"
)
LONG = _prompt(
    "prompt_100", "prompt tuning, L = 100", "the same with 100 virtual tokens", "SAMPLE_VOCAB", 100
)
AFTER = _prompt(
    "prompt_after",
    "prompt tuning, after the text",
    "the same with the prompt after the text, before its last token "
    '(`prompt_position="after"`): the text can be read once for many tasks',
    "SAMPLE_VOCAB",
    position="after",
)
FACTORED = Method(
    "factored",
    "factored from scratch",
    "P and the factors of one task, from scratch: MPT without sources, which learns otherwise than "
    "a plain prompt and must not be taken for transfer",
    f"learning rate of P; the factors' is {FACTORS_OVER_SHARED:g} times that",
    (0.001, 0.003, 0.01, 0.03),
    train_factored,
)
