"""Keras's `save` and `save_weights`, of files that are replaced whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_mpt import _keras
from keras_mpt.files.atomic import replacing

_H5 = (".h5", ".hdf5")


def save(
    self: keras.Model,
    filepath: Any,
    overwrite: bool = True,
    zipped: bool | None = None,
    **kwargs: Any,
) -> None:
    """`keras.Model.save`; an older `.keras` file stays whole until the new one takes its place.

    Keras empties the older file first: of a process that is killed amid that, neither is left. So
    it is here with `zipped=False`, with remote paths, and where `keras.saving.save_model` is called
    instead.

    Args:
        filepath: string or path, which ends in `.keras`.
        overwrite: bool. Whether to replace a file that is there, or to ask. Defaults to `True`.
        zipped: as in `keras.Model.save`. Defaults to `None`.
        **kwargs: the other arguments of `keras.Model.save`.

    Raises:
        ValueError: a path that ends in `.h5`: what Keras writes there could not be loaded again.
    """
    if str(filepath).endswith(_H5):
        raise not_h5(filepath)

    def write(path: Any, overwrite: bool) -> None:
        keras.Model.save(self, path, overwrite=overwrite, zipped=zipped, **kwargs)

    _write_whole(filepath, overwrite, write, zipped is not False and _ends(filepath, ".keras"))


def save_weights(
    self: keras.Model, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None
) -> None:
    """`keras.Model.save_weights`; an older file stays whole until the new one takes its place.

    Args:
        filepath: string or path, which ends in `.weights.h5`.
        overwrite: bool. Whether to replace a file that is there, or to ask. Defaults to `True`.
        max_shard_size: as in `keras.Model.save_weights`; shards are written as Keras writes them.
            Defaults to `None`.
    """

    def write(path: Any, overwrite: bool) -> None:
        keras.Model.save_weights(self, path, overwrite=overwrite, max_shard_size=max_shard_size)

    _write_whole(
        filepath, overwrite, write, max_shard_size is None and _ends(filepath, ".weights.h5")
    )


def not_h5(filepath: Any) -> ValueError:
    """The error for a model that is saved as `.h5`."""
    return ValueError(
        "`filepath` should end in .keras: Keras could not load a model of this library from an .h5 "
        "file. `save_weights` writes .weights.h5, the weights alone. Received: "
        f"filepath={filepath!r}"
    )


def _ends(filepath: Any, suffix: str) -> bool:
    """Whether it is a local path with a suffix."""
    is_path = isinstance(filepath, (str, os.PathLike))
    return is_path and "://" not in str(filepath) and str(filepath).endswith(suffix)


def _write_whole(
    filepath: Any, overwrite: bool, write: Callable[[Any, bool], None], is_one_file: bool
) -> None:
    """Has Keras write a file in a hidden directory beside its place, and moves it there."""
    path = Path(os.path.realpath(filepath)) if is_one_file else None
    # Where it cannot be written, Keras says so.
    if path is None or path.is_dir() or not path.parent.is_dir():
        write(filepath, overwrite)
    elif overwrite or not path.exists() or _keras.may_overwrite(filepath):
        with replacing(path) as staged:
            write(staged, True)
