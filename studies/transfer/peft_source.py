"""What PEFT's sources leave for their targets: the weights alone.

`save_pretrained` would write down where the base model lay on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

WEIGHTS = "adapter_model.safetensors"


def save(model: Any, folder: Path) -> None:
    """Saves a `PeftModel`'s trained weights, as PEFT's source starts read them."""
    import peft
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = peft.get_peft_model_state_dict(model)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
