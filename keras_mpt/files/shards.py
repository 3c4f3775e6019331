"""The index of a checkpoint whose weights are in several files."""

from __future__ import annotations

from pathlib import Path

from keras_mpt.files.config_files import read_json
from keras_mpt.files.paths import is_file_name


def read_index(index: Path) -> dict[str, str]:
    """Which file holds each weight, by the weight's name.

    Args:
        index: path of a `.index.json`.

    Raises:
        ValueError: what is no such index, or names a file that is not of the same folder.
    """
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(map(is_file_name, shards.values())):
        raise ValueError(
            f"`weight_map` should be a mapping of each weight to a file of the folder. Received: "
            f"{str(index)!r}, whose weight_map is another thing"
        )
    return shards
