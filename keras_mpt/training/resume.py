"""A callback that lets an interrupted `fit` go on at the step where it stopped."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt._keras import set_first_epoch
from keras_mpt.checks import is_integer
from keras_mpt.data.task_mix import TaskMix
from keras_mpt.files.paths import check_target
from keras_mpt.processes import gathered, is_writer
from keras_mpt.training import run_state
from keras_mpt.training.callback_states import (
    Resumable,
    callback_states,
    check_callback_states,
    checked_callbacks,
    set_callback_states,
)
from keras_mpt.training.of_all_processes import added_up_metrics, metrics_of_one
from keras_mpt.types import Logs


class ResumeTraining(keras.callbacks.Callback):
    """Saves a run of `fit` as it goes; the same script, started again, goes on from there.

    A run that was killed and resumed equals one that was not, bit for bit on the same backend and
    machine: weights, optimizer, and the logged loss and metrics of each epoch. Saved are the
    trained variables, the optimizer's, the metrics' means of the running epoch, every random seed,
    the place in the data and what was logged; of the frozen backbone nothing. The file
    `training_state.safetensors` is replaced in one step, so that it is whole at any time.

    When training ends, the state stays. The same script then restores the trained weights, or those
    that `EarlyStopping` took back as the best, runs no epoch and returns; with more `epochs` it
    goes on from the last step, unless another callback stopped the run, such as `EarlyStopping`.
    Remove the directory to start anew.

    Of several processes, each of which has the callback, the first one writes, and all read: give a
    directory that all of them see. All go on with the first one's random generators.

    Put it last in `callbacks`. Other callbacks start anew in a resumed run, and count the batches
    of its first epoch from 0; but those that are given here, too, go on with what they know. On
    PyTorch, each epoch begins with the random generator as the last step left it, whatever a
    validation drew in between.

    How this differs from `keras.callbacks.BackupAndRestore`: that one writes the whole model with
    its frozen backbone, and begins an interrupted epoch at its first batch, with later weights. It
    deletes its state when training ends, so that a finished script, started again, trains again.

    Args:
        directory: string. Where the state is kept; made where it is missing. Of one run alone.
        mix: the `keras_mpt.TaskMix` that `fit` reads. Other data tell no place to go on from.
        save_freq: `"epoch"`, or int: how many steps apart states are saved, beside those at the end
            of each epoch. Defaults to `"epoch"`.
        callbacks: list of those of `fit`'s callbacks whose own state is kept with the run's:
            `keras_mpt.recipes.BestWeights`, `StopWhenLearned`, or any with `run_state` and
            `set_run_state` (`keras_mpt.training.callback_states.Resumable`). Defaults to `()`.

    Raises:
        ValueError: wrong arguments. In `fit`, before the first step and with nothing changed: a
            state of another run (by the names of what differs: backend, config, backbone,
            what is trained, `compile`'s arguments or the mix), a broken file, processes that find
            different states, or a `fit` that does not read `mix`.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        ids = np.arange(24).reshape(4, 6)
        rows = {"token_ids": ids, "padding_mask": ids >= 0, "segment_ids": ids * 0}
        mix = keras_mpt.TaskMix(
            {"task_0": (rows, [0, 1, 1, 0]), "task_1": (rows, [1, 1, 0, 0])}, batch_size=4
        )
        model.compile("adam")
        resume = keras_mpt.ResumeTraining(tmp_path / "run", mix, save_freq=1)
        model.fit(mix, epochs=2, callbacks=[resume])
        ```
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        mix: Any,
        save_freq: str | int = "epoch",
        callbacks: Sequence[Resumable] = (),
    ) -> None:
        super().__init__()
        is_path = isinstance(directory, (str, os.PathLike))
        if is_path and (not os.fspath(directory) or os.path.isfile(directory)):
            raise ValueError(
                f"`directory` should be a directory. Received: directory={str(directory)!r}"
            )
        self.directory = check_target("directory", directory)
        if not isinstance(mix, TaskMix):
            raise ValueError(
                "`mix` should be the TaskMix that `fit` reads: other data cannot be read from the "
                f"middle of an epoch. Received: mix of type {type(mix).__name__}"
            )
        if save_freq != "epoch" and not is_integer(save_freq, least=1):
            raise ValueError(
                "`save_freq` should be 'epoch' or a positive integer. Received: "
                f"save_freq={save_freq!r}"
            )
        self.mix = mix
        self.save_freq = save_freq
        self.callbacks = checked_callbacks(callbacks)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Checks the state that is there, if any, and goes on from it."""
        # Kept, as `self.model` brings all variables up to date on JAX each time that it is asked.
        self._trained = model = self.model
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if self.params.get("steps") != self.mix.steps:
            raise ValueError(
                f"`fit` should read `mix`, whose epochs have {self.mix.steps} batches, with "
                f"`steps_per_epoch` left out. Received: epochs of {self.params.get('steps')}"
            )
        self._fingerprint = run_state.run_fingerprint(model, self.mix)
        self._about: dict[str, Any] = {"stopped": False, "logs": []}
        self._kept_values: dict[str, np.ndarray] = {}
        self._generators: dict[str, np.ndarray] = {}
        self._is_resumed, self._begun, self._was_cut = False, False, False
        self._quiet = contextlib.ExitStack()
        state = run_state.read_state(self.directory)
        self._check_all_see(state)
        if state is not None:
            self._restore(*state)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Puts back the metrics of an epoch that goes on; Keras has just reset them."""
        set_first_epoch(self._trained, None)
        self._first = 0
        if not self._begun:
            if self._is_resumed:
                self._put_back(epoch)
            self._begun = True
            self._mix_offset = self.mix.epoch - epoch
        self._epoch, self._at_step = epoch, self._first

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Lets the epoch's draws go on where the last step's ended."""
        if batch:
            return
        if not self.mix.within_epoch:
            raise ValueError("`fit` should read `mix`. Received: other data")
        # Only now: PyTorch's loaders have drawn from the generator too.
        run_state.set_generator_states(self._generators)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Saves, where it is time to."""
        before, steps = self._at_step, self.mix.steps
        self._at_step = min(self._first + batch + 1, steps)
        if self._at_step == steps:
            self._generators = run_state.generator_states()
            if self._first:  # To Keras, the data of an epoch that was gone on with run out.
                self._quiet.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", message="Your input ran out of data")
                self._keep_last_step()
            return
        counts = [self._epoch * steps + step for step in (before, self._at_step)]
        freq = steps if self.save_freq == "epoch" else int(self.save_freq)
        if counts[0] // freq < counts[1] // freq or self._trained.stop_training:
            self._generators = run_state.generator_states()
            self._save_at(self._epoch, self._at_step)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before a validation: the epoch's steps are done."""
        self._quiet.close()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Saves, unless another callback cut the epoch short: then the last state stands."""
        self._quiet.close()
        left = self.mix.steps - self._at_step
        self._was_cut = self._trained.stop_training and left >= self._trained.steps_per_execution
        if not self._was_cut:
            values = {name: np.asarray(value).tolist() for name, value in (logs or {}).items()}
            self._about["logs"].append([epoch, values])
            self._save_at(epoch + 1, 0)

    def on_train_end(self, logs: Logs = None) -> None:
        """Notes that another callback stopped the run, or gave it other weights at its end."""
        set_first_epoch(self._trained, None)
        trained = {"final": list(self._trained.trainable_variables)}
        if not self._begun:
            self._put_back_history()
            if "final/0" in self._kept_values:
                run_state.assign(self._kept_values, trained)
        elif self._was_cut:
            return
        elif self._trained.stop_training:
            self._about["stopped"] = True
            self._save_at(self._epoch + 1, 0)
        else:
            self._save_final(run_state.values_of(trained))

    def _save_final(self, final: dict[str, np.ndarray]) -> None:
        """Saves what training ended with beside what its last step left, where the two differ.

        `EarlyStopping(restore_best_weights=True)` puts the best weights back at the end, also where
        it stopped nothing. With more epochs a run goes on from its last step all the same.
        """
        if not is_writer():
            return
        state = run_state.read_state(self.directory)
        assert state is not None, "the last epoch saved it"
        about, values = state
        names = {name: name.replace("final", "trained") for name in final}
        if any(not np.array_equal(final[name], values[names[name]]) for name in final):
            run_state.write_state(self.directory, about, {**values, **final})

    def _keep_last_step(self) -> None:
        """Undoes what TensorFlow does of the step that finds no data.

        It counts that step, draws a seed and decays weights, as none of these waits for the data.
        """
        if keras.backend.backend() == "tensorflow":
            variables = run_state.moving_variables(self.model)
            del variables["metrics"]
            self._quiet.callback(run_state.assign, run_state.values_of(variables), variables)

    def _save_at(self, epoch: int, step: int) -> None:
        """Writes the state in which the next step is `step` of `epoch`."""
        variables = run_state.moving_variables(self.model)
        if not step:
            del variables["metrics"]
        place = {"epoch": epoch, "step": step, "mix_epoch": epoch + self._mix_offset}
        of_callbacks, kept = callback_states(self.callbacks)
        values = added_up_metrics(run_state.values_of(variables))
        if is_writer():
            run_state.write_state(
                self.directory,
                {**self._about, **place, **of_callbacks, "run": self._fingerprint},
                {**values, **self._generators, **kept},
            )

    def _check_all_see(self, state: Any) -> None:
        """Refuses processes of which some go on and others do not."""
        places = gathered(repr(None if state is None else (state[0]["epoch"], state[0]["step"])))
        if len(set(places)) > 1:
            raise ValueError(
                "`directory` should be one that all processes see, as the first one writes for "
                f"all. Received: {str(self.directory)!r}, in which they find states at (epoch, "
                f"step) {', '.join(places)}"
            )

    def _restore(self, about: dict[str, Any], values: dict[str, np.ndarray]) -> None:
        """Takes the state on, all of it being checked before anything is changed."""
        model, file = self._trained, str(self.directory / run_state.FILE_NAME)
        run_state.check_same_run(about.pop("run"), self._fingerprint, file)
        if about["step"] >= self.mix.steps:
            raise ValueError(
                f"`directory` should hold a state of this run, whose epochs have {self.mix.steps} "
                f"batches. Received: {file!r}, which is at step {about['step']}"
            )
        metrics = [name for name in values if name.startswith("metrics/")]
        if len(metrics) > len(model.metrics_variables):
            # TensorFlow makes some metrics' variables in the first step. No weight is changed.
            model.test_on_batch(*keras.utils.unpack_x_y_sample_weight(self.mix[0]))
        variables = run_state.moving_variables(model)
        if not about["step"]:
            del variables["metrics"]
        final = any(name.startswith("final/") for name in values)
        ended = {"final": list(model.trainable_variables)} if final else {}
        run_state.check_values(values, {**variables, **ended}, file)
        run_state.check_generator_states(values, file)
        check_callback_states(self.callbacks, about, values, model.trainable_variables, file)
        self._kept_metrics = {"metrics": variables.pop("metrics", [])}
        values = values | metrics_of_one(values)
        run_state.assign(values, variables)
        set_callback_states(self.callbacks, about, values)
        self._about, self._kept_values, self._is_resumed = about, values, True
        self._generators = {n: v for n, v in values.items() if n.startswith("generator/")}
        self.mix.start_at(about["mix_epoch"], about["step"])
        epochs = self.params.get("epochs", 1)
        set_first_epoch(model, max(epochs, about["epoch"]) if about["stopped"] else about["epoch"])

    def _put_back(self, epoch: int) -> None:
        """What Keras forgets between `on_train_begin` and the first epoch."""
        if epoch != self._about["epoch"]:
            raise ValueError(
                "`initial_epoch` should be left out where a run is resumed: it goes on in epoch "
                f"{self._about['epoch']}. Received: initial_epoch={epoch}"
            )
        self._first = self._about["step"]
        run_state.assign(self._kept_values, self._kept_metrics)
        self._kept_values = {}
        self._put_back_history()

    def _put_back_history(self) -> None:
        """The log of the epochs before the interruption, in what `fit` returns."""
        history: Any = getattr(self._trained, "history", None)
        for epoch, logs in [] if history is None else self._about["logs"]:
            history.epoch.append(epoch)
            for name, value in logs.items():
                history.history.setdefault(name, []).append(value)
