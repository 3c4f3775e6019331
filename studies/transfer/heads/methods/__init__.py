"""The methods, in the page's order."""

from studies.transfer.heads.methods import full, head, mpt, peft_mpt, prompt
from studies.transfer.job import Method

_IN_ORDER = (
    head.HEAD,
    prompt.PROMPT,
    mpt.PLAIN,
    mpt.MPT,
    mpt.NAMED,
    peft_mpt.PEFT,
    full.FULL,
)
METHODS: dict[str, Method] = {method.name: method for method in _IN_ORDER}
