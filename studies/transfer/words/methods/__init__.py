"""The methods, in the page's order."""

from studies.transfer.job import Method
from studies.transfer.words.methods import mpt, peft_mpt, prompt, whole

_IN_ORDER = (
    whole.ZERO,
    prompt.PROMPT,
    prompt.RANDOM,
    prompt.TEXT,
    prompt.LONG,
    prompt.AFTER,
    prompt.PROMPT.longer(3),
    prompt.FACTORED,
    mpt.ONE_SPEED,
    mpt.PLAIN,
    mpt.PLAIN.longer(3),
    mpt.MPT,
    mpt.NEAREST,
    mpt.LOWEST,
    mpt.FROZEN,
    mpt.FROZEN_LOWEST,
    mpt.FROZEN_4,
    mpt.PLAIN.with_more_sources(3),
    mpt.NEAREST.with_more_sources(3),
    mpt.FROZEN.with_more_sources(3),
    mpt.FROZEN_4.with_more_sources(3),
    mpt.LONG,
    mpt.AFTER,
    peft_mpt.PEFT,
    whole.LORA,
    whole.FULL,
)
METHODS: dict[str, Method] = {method.name: method for method in _IN_ORDER}
