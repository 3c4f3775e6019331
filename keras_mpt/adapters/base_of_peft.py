"""The base that PEFT trained an adapter on, where its folder is at hand."""

from __future__ import annotations

import warnings
from pathlib import Path

from keras_mpt.hugging_face.agreement import disagreement
from keras_mpt.hugging_face.checkpoint_config import CONFIG_NAME
from keras_mpt.types import Backbone


def warn_of_other_base(backbone: Backbone, noted: str | None) -> None:
    """Warns where a backbone does not compute with what the adapter's base says.

    Args:
        backbone: a backbone.
        noted: string. What PEFT notes of the base: a folder, or a name that tells nothing here.
    """
    if not isinstance(noted, str) or not noted:
        return
    try:
        folder = Path(noted)
        difference = disagreement(backbone, folder) if (folder / CONFIG_NAME).is_file() else None
    # It is advice alone: a folder of that name may be anything.
    except (OSError, ValueError, TypeError, AttributeError):
        return
    if difference is not None:
        warnings.warn(
            f"The adapter was trained on {noted!r}, whose {difference}, so logits differ from "
            f"PEFT's. `keras_mpt.backbone_from_pretrained({noted!r})` gives the same.",
            stacklevel=5,
        )
