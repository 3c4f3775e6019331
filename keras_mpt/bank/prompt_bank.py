"""Many adapters on one frozen backbone, each row of a batch under its own."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.adapters.reading import Adapter, read_adapter
from keras_mpt.bank.adapter import BankAdapter, bank_adapter, check_backbone
from keras_mpt.bank.call import Call
from keras_mpt.bank.kind import Kind, kind_key, task_type_of
from keras_mpt.bank.language import Decoders
from keras_mpt.bank.request import Request, check_count, without_adapter
from keras_mpt.bank.room import Room
from keras_mpt.bank.shelf import Shelf, absolute
from keras_mpt.checks import check_count as check_whole
from keras_mpt.checks import check_flag, check_keywords, check_size, received
from keras_mpt.config_values import TaskType
from keras_mpt.decoding import generate as generating
from keras_mpt.decoding.calibration import answers
from keras_mpt.decoding.kept_prompts import MAX_BYTES
from keras_mpt.decoding.score_inputs import has_responses, refuse_responses
from keras_mpt.decoding.scoring import Options
from keras_mpt.models.language_model import LanguageModel
from keras_mpt.splicing.locks import lock_of
from keras_mpt.splicing.virtual_ids import VirtualIds
from keras_mpt.types import Backbone, Task


class PromptBank:
    """Adapters that were trained apart, on one frozen backbone, in one batch.

    A row names the adapter that answers it, and where that has several tasks one of them, as
    "adapter/task". Each adapter, PEFT's or ours, has its own P, length, rank, head and label words;
    a row's answer is that of the adapter's own model. One model answers for all: a row's prompt
    stands among its tokens, so prompts of any length run together, and to load, replace or drop an
    adapter compiles nothing anew. (In language models prompts as long as the first one, longer ones
    and shorter ones are compiled each when they first come, unless `cache_bytes` is 0.)

    Args:
        base: as in `keras_mpt.prompt_tune`.
        directory: path of a folder in which each adapter has a directory of its name, which is read
            when a row names it. Defaults to `None`.
        preprocessor: keras-hub preprocessor, for text as inputs. A task's own by default. Defaults
            to `None`.
        task_type: `TaskType` or its string, of all adapters. Defaults to `None`: that of `base`, or
            of the first adapter.
        max_bytes: int. How much memory adapters may take: those asked for longest ago leave it, and
            are read again when they are named. Defaults to `None`: no limit.
        cache_bytes: int. The same of prompts' keys and values, which causal models keep. With 0
            they keep none, run each prompt in each call, and compile one way for all lengths.
            Defaults to `536870912`, 512 MiB.
        num_virtual_tokens: int. The longest prompt that there will be. A longer one is taken too,
            but what was compiled has to be compiled again for it. Defaults to `None`: that of the
            adapters so far.
        sampler: a `keras_hub.samplers.Sampler` or its name, for `generate`. Defaults to `"top_k"`.
        **kwargs: of language models, `truncation_side` and `add_end_token`. Prompts are cut for the
            longest prompt in the batch.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        for name, length in (("tone", 4), ("news", 6)):
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=length, num_tasks=2, task_names=["a", "b"]
            )
            keras_mpt.prompt_tune(backbone, config).save_adapter(tmp_path / "bank" / name)
        bank = keras_mpt.PromptBank(backbone, tmp_path / "bank")
        ids = np.array([[5, 6, 7], [5, 6, 7]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "adapter": ["tone/a", "news/b"]}
        assert bank.predict(x).shape == (2, 3, 100)
        bank.load("tone", tmp_path / "bank" / "news")
        same = bank.predict({**x, "adapter": ["tone/b", "news/b"]})
        np.testing.assert_allclose(same[0], same[1], atol=1e-6)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3, for the prompts; vLLM's multi-LoRA
    serving, for rows that name their adapter.
    """

    def __init__(
        self,
        base: Backbone | Task,
        directory: str | os.PathLike[str] | None = None,
        *,
        preprocessor: Any = None,
        task_type: TaskType | str | None = None,
        max_bytes: int | None = None,
        cache_bytes: int = MAX_BYTES,
        num_virtual_tokens: int | None = None,
        sampler: Any = "top_k",
        **kwargs: Any,
    ) -> None:
        folder = None if directory is None else absolute("directory", directory)
        if folder is not None and not folder.is_dir():
            raise ValueError(
                "`directory` should be a folder with an adapter's directory under each name. "
                f"Received: directory={str(directory)!r}"
            )
        known = {*inspect.signature(PromptBank).parameters} - {"kwargs"}
        check_keywords("PromptBank", kwargs, {*known, "truncation_side", "add_end_token"})
        self._max_bytes = None if max_bytes is None else check_size("max_bytes", max_bytes)
        self._cache_bytes = check_whole("cache_bytes", cache_bytes)
        self._room = Room()
        if num_virtual_tokens is not None:
            self._room.longest = check_size("num_virtual_tokens", num_virtual_tokens)
        self.sampler = generating.sampler_of(sampler)
        self._base, self._task_type = base, task_type_of(base, task_type)
        self._splice = VirtualIds(getattr(base, "backbone", base))
        given = {} if preprocessor is None else {"preprocessor": preprocessor}
        self._arguments = {**kwargs, **given}
        self._lock = threading.Lock()
        self._kinds: dict[str, Kind] = {}
        self._decoders: dict[Kind, Decoders] = {}
        self._shelf = Shelf(self._read, self._accept, folder, self._max_bytes)

    @property
    def names(self) -> list[str]:
        """The adapters in memory, the one asked for last at the end."""
        return self._shelf.names

    @property
    def nbytes(self) -> int:
        """How much memory their numbers take."""
        return self._shelf.nbytes

    def load(self, name: str, directory: str | os.PathLike[str]) -> None:
        """Reads an adapter, which rows may name from now on.

        One that has the name is replaced: calls that run go on with the old one, later ones get the
        new one.

        Args:
            name: string. A word without a slash.
            directory: string. The adapter's directory, PEFT's or ours.

        Raises:
            ValueError: a missing or broken file; an adapter of another backbone, width or task
                type; or one that is larger than the budget. All stays as it was.
        """
        self._shelf.load(name, directory)

    def drop(self, name: str) -> None:
        """Forgets an adapter; its files stay.

        Args:
            name: string. Its name.

        Raises:
            ValueError: a name that no adapter has.
        """
        self._shelf.drop(name)

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = 0, *, adapter: Any = None
    ) -> Any:
        """Each row's outputs, as its adapter's own model predicts them.

        Args:
            x: dict of the backbone's inputs, each (N, S) integer, or with a preprocessor of text,
                as the model's `predict` takes them, and `"adapter"`: N names. In memory.
            batch_size: int. Rows that run at once. Defaults to `None`: 32.
            verbose: bool or int. Whether to show progress. Defaults to 0.
            adapter: string, or list of N strings, where `x` has none. Defaults to `None`.

        Returns:
            Logits (N, C), for tokens (N, S, C), of a language model (N, S, V); C is the most
            classes of a row, −1e9 stands for those that a row's task has not. Of text whose tasks
            have label words, their scores, as in `score`. Of features a dict of arrays.

        Raises:
            ValueError: wrong inputs, or a row whose adapter is unknown or cannot be read.
        """
        size = 32 if batch_size is None else check_size("batch_size", batch_size)
        with self._call(x, adapter) as call:
            if call.answers_in_words:
                return call.scores(None, Options(batch_size=batch_size))[0]
            return call.outputs(size, bool(verbose))

    def predict_labels(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        adapter: Any = None,
        normalize: str = "sum",
        use_cache: bool = True,
        calibrate: Any = False,
        return_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """Each row's likeliest class among those of its own task, by its name.

        Args:
            inputs: as in `predict`; text may also be one string, or a list of them.
            candidates: of language models, as in their `predict_labels`. Defaults to `None`: the
                tasks' `label_words`.
            adapter: as in `predict`. Defaults to `None`.
            normalize, use_cache, calibrate: of language models, as in their `predict_labels`, with
                its defaults.
            return_probabilities: bool. Whether to give probabilities too. Defaults to `False`.
            batch_size: int. Rows that run at once. Defaults to `None`: 32.

        Returns:
            As the models' `predict_labels`.

        Raises:
            ValueError: as in the models' `predict_labels` and in `predict`.
        """
        with_p = check_flag("return_probabilities", return_probabilities)
        size = 32 if batch_size is None else check_size("batch_size", batch_size)
        with self._call(inputs, adapter) as call:
            if call.is_language:
                refuse_responses(inputs)
                options = Options(normalize, use_cache, batch_size, calibrate)
                scores, given = call.scores(candidates, options)
                return answers(given, scores, with_p)
            if candidates is not None:
                raise ValueError(
                    "`candidates` should be left out: these adapters have classes of their own. "
                    f"Received: candidates={received(candidates)}"
                )
            return call.labels(size, with_p)

    def score(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        adapter: Any = None,
        normalize: str = "sum",
        use_cache: bool = True,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """How likely each candidate is as the continuation of each row, under its own adapter.

        Args:
            inputs, candidates, normalize, use_cache, batch_size: as in a language model's `score`,
                with its defaults; `inputs` may hold `"adapter"`.
            adapter: string, or list of strings with one per row. Defaults to `None`.

        Returns:
            A float32 array (B, C); of responses (B,).

        Raises:
            ValueError: as in the model's `score` and in `predict`, or adapters of no language
                model.
        """
        with self._call(inputs, adapter) as call:
            call.check_language()
            scores = call.scores(candidates, Options(normalize, use_cache, batch_size))[0]
            return scores[:, 0] if has_responses(inputs) else scores

    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        strip_prompt: bool = False,
        *,
        adapter: Any = None,
        use_cache: bool = True,
    ) -> Any:
        """Continues each row's text under its own adapter.

        Args:
            inputs, max_length, stop_token_ids, strip_prompt, use_cache: as in a language model's
                `generate`, with its defaults; a dict of `inputs` may hold `"adapter"`.
            adapter: string, or list of strings with one per row. Defaults to `None`.

        Returns:
            As the model's `generate`.

        Raises:
            ValueError: as in the model's `generate` and in `predict`, or adapters of no language
                model.
        """
        with self._call(inputs, adapter) as call:
            call.check_language()
            return call.generated(
                self.sampler,
                max_length=max_length,
                stop_token_ids=stop_token_ids,
                strip_prompt=strip_prompt,
                use_cache=use_cache,
            )

    @contextlib.contextmanager
    def _call(self, inputs: Any, adapter: Any) -> Iterator[Call]:
        """What rows ask for, while nobody else computes on the backbone."""
        inputs, adapter = without_adapter(inputs, adapter)
        check_count(inputs, adapter)
        request = Request(self._shelf, adapter)
        kind = request.served[0].adapter.kind
        with lock_of(self._splice.backbone):
            for known in self._kinds.values():
                known.forget_if_changed()
            yield Call(request, inputs, self._room, self._decoders_of(kind))

    def _decoders_of(self, kind: Kind) -> Decoders | None:
        if not isinstance(kind.model, LanguageModel):
            return None
        if kind not in self._decoders:
            self._decoders[kind] = Decoders(kind, self._room, self._cache_bytes)
        return self._decoders[kind]

    def _kind(self, adapter: Adapter, task_type: TaskType) -> Kind:
        key = kind_key(adapter, task_type)
        with lock_of(self._splice.backbone):
            if key not in self._kinds:
                given = self._base, self._splice, task_type, adapter
                self._kinds[key] = Kind(*given, **self._arguments)
            return self._kinds[key]

    def _read(self, name: str, directory: Path) -> BankAdapter:
        """An adapter from its files, with what it needs beside them."""
        adapter = read_adapter(directory)
        found = TaskType(adapter.config.task_type or TaskType.FEATURE_EXTRACTION)
        self._check_task_type(found, str(directory))
        check_backbone(adapter, self._splice)
        return bank_adapter(name, adapter, self._kind(adapter, found))

    def _accept(self, adapter: BankAdapter) -> None:
        """Makes room for an adapter that is about to be kept; one that is not decides nothing."""
        found = TaskType(adapter.config.task_type or TaskType.FEATURE_EXTRACTION)
        with self._lock:
            self._check_task_type(found, adapter.name)
            self._task_type = found
            self._room.make(adapter.length)

    def _check_task_type(self, found: TaskType, source: str) -> None:
        if self._task_type not in (None, found):
            raise ValueError(
                f"`task_type` of an adapter should be the bank's, {str(self._task_type)!r}. "
                f"Received: task_type={str(found)!r} in {source!r}"
            )
