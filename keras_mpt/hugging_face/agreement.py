"""Whether a backbone's layers compute with what a folder's configuration says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from keras_mpt.hugging_face.checkpoint_config import read_checkpoint_config, sides
from keras_mpt.hugging_face.mends import activation_of, epsilon_of, text_layers
from keras_mpt.layer_settings import activation_name
from keras_mpt.types import Backbone


def disagreement(backbone: Backbone, folder: Path) -> str | None:
    """Which field of a folder's configuration a backbone's layers do not follow, or `None`.

    Epsilons and activations: what keras-hub's own `from_preset` drops most, and what shows on the
    layers.

    Args:
        backbone: a backbone.
        folder: path. A folder in Hugging Face's layout.

    Raises:
        ValueError: no configuration, or a broken one.
    """
    config = read_checkpoint_config(folder)
    for side, part in sides(config).items():
        layers = text_layers(backbone, side)
        field, wanted = epsilon_of(part) or ("", math.nan)
        epsilons = {vars(x)["epsilon"] for x in layers if type(vars(x).get("epsilon")) is float}
        others: list[Any] = sorted(e for e in epsilons if field and not math.isclose(e, wanted))
        if others:
            return f"`{field}` is {wanted}, where layers of the backbone have {others}"
        field, activation = activation_of(config["model_type"], part) or ("", "")
        names = [activation_name(vars(x).get("activation")) for x in layers]
        others = sorted({n for n in names if n is not None and field and n != activation})
        if others:
            return f"`{field}` is {activation!r}, where layers of the backbone have {others}"
    return None
