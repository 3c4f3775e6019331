"""A step of training with a long prompt, beside PEFT and beside the bare backbone.

KERAS_BACKEND=jax python -m benchmarks.long_prompts [--quick]
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks import training
from benchmarks.cases import Case
from benchmarks.part import Results, run_part, sized

CASES = (Case("GPT-2", 512, 16, 64),)


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    return {"rows": [training.row(sized(case, quick), quick) for case in CASES]}


if __name__ == "__main__":
    np.random.seed(0)
    sys.exit(run_part(measure))
