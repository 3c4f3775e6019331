"""The files of an adapter's directory, which belong together.

The weights' file is the adapter: beside the weights it holds the text of both configs, under one
checksum, and is replaced in one step. The two JSON files are for PEFT and for people. Where one of
them is another than that text, it was not replaced yet (the weights name those that they replace),
or somebody has edited it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from keras_mpt.files.atomic import Steps, write_steps
from keras_mpt.files.card_file import CARD_NAME, may_be_replaced
from keras_mpt.files.config_files import CONFIG_NAME, OWN_CONFIG_NAME, config_bytes, json_object
from keras_mpt.files.sealed import digest, is_sealed, sealed
from keras_mpt.files.state_dict import BIN_NAME, SAFETENSORS_NAME, state_and_texts

_T = TypeVar("_T")

# What the weights' file says of the others stands in it by this name.
_ABOUT = "keras_mpt.adapter"

# In our config: a checksum of the weights that it belongs to.
CHECKSUM = "weights_sha256"

# What may be edited by hand: nothing that a loaded adapter is depends on it.
_FREE = {
    CONFIG_NAME: (
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "modules_to_save",
        "num_attention_heads",
        "num_layers",
        "peft_version",
        "prompt_tuning_init",
        "prompt_tuning_init_state_dict_path",
        "prompt_tuning_init_task",
        "prompt_tuning_init_text",
        "revision",
        "tokenizer_kwargs",
        "tokenizer_name_or_path",
    ),
    OWN_CONFIG_NAME: ("seed", "task_init", "train_shared"),
}
# What may be taken out by hand, as errors say: it only guards.
_GUARDS = (CHECKSUM, "backbone")

# A reader starts again where a writer was at work meanwhile.
_ATTEMPTS = 1000


def write_adapter(
    directory: str | os.PathLike[str],
    peft_fields: dict[str, Any],
    own_fields: dict[str, Any],
    state: Mapping[str, np.ndarray],
    overwrite: bool = False,
    card: bytes | None = None,
) -> None:
    """Writes an adapter, whole or not at all; a reader finds the old one or the new one.

    Args:
        directory: string. Made where it is missing.
        peft_fields: dict of JSON values, for PEFT's config.
        own_fields: dict of JSON values, for ours.
        state: mapping of name to array.
        overwrite: bool. Whether an adapter may be there. Defaults to `False`.
        card: bytes. A card beside it, where no other page than a card of ours is. Defaults to
            `None`.

    Raises:
        ValueError: an adapter is there, and `overwrite` is `False`.
    """
    configs = config_bytes(peft_fields, {**own_fields, CHECKSUM: digest(state)})
    texts = {name: content.decode() for name, content in configs.items()}

    def weights(replaces: Mapping[str, str | None]) -> bytes:
        about = {"files": texts, **({"replaces": replaces} if replaces else {})}
        return sealed(state, _ABOUT, json.dumps(about, sort_keys=True))

    def plan(target: Path) -> Steps:
        names = (CONFIG_NAME, OWN_CONFIG_NAME, SAFETENSORS_NAME, BIN_NAME)
        existing = [name for name in names if (target / name).exists()]
        if existing and not overwrite:
            raise ValueError(
                "`directory` should hold no adapter yet, or `overwrite` be True. Received: "
                f"directory={str(target)!r} with {existing}"
            )
        there = {name: _content(target / name) for name in configs}
        replaces = {n: _checksum(there[n]) for n in configs if there[n] != configs[n]}
        # From the first step on the new adapter is there. The last takes out what readers need
        # meanwhile, so that an adapter's bytes do not tell what was there before it.
        last = [(SAFETENSORS_NAME, weights({}))] if replaces else []
        writes_card = card is not None and may_be_replaced(target / CARD_NAME)
        page = [(CARD_NAME, card or b"")] if writes_card else []
        return [(SAFETENSORS_NAME, weights(replaces)), *configs.items(), *page, *last]

    write_steps(directory, plan, remove=[BIN_NAME])


@dataclasses.dataclass(frozen=True)
class AdapterFiles:
    """The files of a directory, each as it was read, once.

    Attributes:
        directory: the directory's path.
        contents: dict of file name to bytes, or `None` where there is no such file.
    """

    directory: Path
    contents: dict[str, bytes | None]

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Self:
        """The files of a directory as they are now."""
        if not isinstance(directory, (str, os.PathLike)):
            raise ValueError(
                f"`directory` should be an adapter's directory. Received: directory={directory!r}"
            )
        path = Path(directory)
        contents = {n: _content(path / n) for n in (SAFETENSORS_NAME, CONFIG_NAME, OWN_CONFIG_NAME)}
        needs_bin = contents[SAFETENSORS_NAME] is None
        return cls(path, {**contents, BIN_NAME: _content(path / BIN_NAME) if needs_bin else None})

    @property
    def weights_name(self) -> str | None:
        """The file that holds the weights, if there is one."""
        names = (SAFETENSORS_NAME, BIN_NAME)
        return next((name for name in names if self.contents[name] is not None), None)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The weights by name."""
        return self._weights[0]

    @property
    def has_config(self) -> bool:
        """Whether there is a config for PEFT."""
        return self._json(CONFIG_NAME) is not None

    @property
    def own_fields(self) -> dict[str, Any] | None:
        """Our fields, `None` where PEFT wrote the directory."""
        return self._json(OWN_CONFIG_NAME)

    def fields(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """PEFT's fields, and ours (`None` where PEFT wrote the directory)."""
        peft_fields = self._json(CONFIG_NAME)
        if peft_fields is None:
            raise ValueError(
                f"`{CONFIG_NAME}` should be a file in the adapter's directory. Received: no such "
                f"file: {str(self.directory / CONFIG_NAME)!r}{_named_adapters(self.directory)}"
            )
        return peft_fields, self.own_fields

    def check_tied(self) -> None:
        """Refuses configs that do not belong to the weights beside them.

        Raises:
            ValueError: another adapter's file, or one in which somebody has changed what the
                weights mean.
        """
        if self.weights_name is None:
            return
        if not self._kept:
            checksum = (self.own_fields or {}).get(CHECKSUM)
            if checksum is not None and checksum != digest(self.state):
                raise ValueError(
                    f"`{self.weights_name}` should be the weights that {OWN_CONFIG_NAME} was saved "
                    f"with. Received: {str(self.directory)!r} with other weights. Where these are "
                    f"right, take `{CHECKSUM}` out of {OWN_CONFIG_NAME}, or remove that file if "
                    "PEFT trained them"
                )
            return
        for name in (CONFIG_NAME, OWN_CONFIG_NAME):
            kept, found = json.loads(self._kept["files"][name]), self._json(name)
            if found is None:
                continue
            fields = {*kept, *(found if name == OWN_CONFIG_NAME else ())}
            # What only guards comes last: another field says more of what is the matter.
            for field in sorted(fields, key=lambda field: (field in _GUARDS, field)):
                is_left_out = field in _GUARDS and field not in found
                if field in _FREE[name] or is_left_out:
                    continue
                if kept.get(field) != found.get(field):
                    raise ValueError(
                        f"`{field}` in {name} should be what it was when the weights beside it "
                        f"were saved, {_short(kept.get(field))}; put it back, or save the adapter "
                        f"anew. Received: {field}={_short(found.get(field))} in "
                        f"{str(self.directory)!r}"
                    )

    @functools.cached_property
    def _weights(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        name = self.weights_name
        if name is None:
            raise ValueError(
                f"`path` should be a directory with {SAFETENSORS_NAME} or {BIN_NAME}. Received: "
                f"path={str(self.directory)!r}, which has neither"
            )
        return state_and_texts(self.contents[name] or b"", self.directory / name)

    @functools.cached_property
    def _kept(self) -> dict[str, Any]:
        """What the weights' file says of the others: their texts, and what these replace."""
        if self.contents[SAFETENSORS_NAME] is None or _ABOUT not in self._weights[1]:
            return {}
        path = self.directory / SAFETENSORS_NAME
        kept = json_object(self._weights[1][_ABOUT].encode(), path)
        texts, replaces = kept.get("files"), kept.get("replaces", {})
        if not isinstance(texts, dict) or not isinstance(replaces, dict):
            raise _not_ours(path)
        if not is_sealed(self._weights[1], _ABOUT):
            raise _not_ours(path)
        for name in (CONFIG_NAME, OWN_CONFIG_NAME):
            if not isinstance(texts.get(name), str):
                raise _not_ours(path)
            json_object(texts[name].encode(), path)
        return kept

    def _json(self, name: str) -> dict[str, Any] | None:
        """A config: the file's, or what the weights' file says where it is not there yet."""
        content = self.contents[name]
        kept = self._kept.get("files", {}).get(name)
        replaces = self._kept.get("replaces", {})
        is_older = name in replaces and replaces[name] == _checksum(content)
        if kept is not None and (is_older or (content is None and name == OWN_CONFIG_NAME)):
            content = kept.encode()
        return None if content is None else json_object(content, self.directory / name)


def read_steadily(directory: str | os.PathLike[str], parse: Callable[[AdapterFiles], _T]) -> _T:
    """What a function makes of a directory's files, none of which changed while they were read.

    Args:
        directory: string. An adapter's directory.
        parse: function of `AdapterFiles`.

    Returns:
        What `parse` returns. Its errors are raised where the files are still the same; else a
        writer was at work, and they are read anew.
    """
    files = AdapterFiles.read(directory)
    for _ in range(_ATTEMPTS):
        try:
            return parse(files)
        except ValueError:
            again = AdapterFiles.read(directory)
            if again == files:
                raise
            files = again
    return parse(files)


def _content(path: Path) -> bytes | None:
    """A file's bytes; `None` where there is none, or it is no file, such as a pipe."""
    # It does not raise where a path cannot be one.
    if not os.path.isfile(path):
        return None
    try:
        return path.read_bytes()
    except FileNotFoundError:  # It was there a moment ago.
        return None


def _checksum(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _not_ours(path: Path) -> ValueError:
    return ValueError(
        f"`{_ABOUT}` in {path.name} should be what keras_mpt writes there. Received: another thing "
        f"in {str(path)!r}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _named_adapters(directory: Path) -> str:
    """PEFT puts an adapter that is not called "default" into a folder of its name."""
    if not os.path.isdir(directory):
        return ""
    names = sorted(p.parent.name for p in directory.glob(f"*/{CONFIG_NAME}"))
    if not names:
        return ""
    return f". Adapters in folders of their own are there: {names[:8]}; give one of these folders"
