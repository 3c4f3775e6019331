"""What all prompt-tuned models share."""

from __future__ import annotations

import abc
import dataclasses
import os
from typing import Any, ClassVar, Self

import keras
from keras import ops

from keras_mpt import _keras
from keras_mpt.adapters import directory as adapter
from keras_mpt.adapters.embedding_scale import embedding_scale
from keras_mpt.adapters.reading import read_adapter
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.exporting.export import export
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.fitting.frozen import check_frozen, freeze, refuse_lora
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.targets import Targets
from keras_mpt.heads.head import Head
from keras_mpt.models import frozen_tasks, shown, tasks
from keras_mpt.models.arguments import adapter_parts, rebuilt, saved_arguments
from keras_mpt.models.fitted import config_for_task, fitted, prompt_layer, start_prompt
from keras_mpt.models.label_fields import check_label_fields
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.serving import export as serving
from keras_mpt.types import Backbone, Config, Preprocessor, Tensor, Tensors, Tokenizer


class PromptTunedModel(Fitting):
    """A frozen backbone, a prompt, and how the two meet; the base of every prompt-tuned model.

    The backbone is frozen: only the prompt, and a head where a subclass has one, are trained. Where
    anybody thaws it, or gives it LoRA, training and saving are refused.

    Args:
        backbone: a `keras_hub.models.Backbone`, or a functional model with the same input names.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        preprocessor: keras-hub preprocessor, for text as inputs. Defaults to `None`.
        tokenizer: keras-hub tokenizer for a TEXT start without a preprocessor. Defaults to `None`.
        initialize: bool. Whether to make the config's start. Defaults to `True`.
        head: what stands after the backbone; a subclass gives it.
        targets: the kind of targets that the model is trained towards; a subclass gives it.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: a config that does not fit the backbone, or a backbone with LoRA.
    """

    # What the model is for; `None` leaves it to the config.
    task_type: ClassVar[TaskType | None] = None
    export = export
    export_prompt_embeds = serving.export_prompt_embeds
    export_prompt_table = serving.export_prompt_table
    summary, print_trainable_parameters = shown.summary, shown.print_trainable_parameters
    __repr__, __str__ = shown.model_in_a_line, shown.model_in_words

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        preprocessor: Preprocessor | None = None,
        tokenizer: Tokenizer | None = None,
        initialize: bool = True,
        *,
        head: Head,
        targets: Targets,
        **kwargs: Any,
    ) -> None:
        refuse_lora(backbone.variables)
        config, splice = fitted(config_for_task(config, self.task_type), backbone, self.task_type)
        model_inputs = ModelInputs(config, splice, preprocessor)
        check_label_fields(model_inputs, head, head.num_classes)
        super().__init__(model_inputs, targets, **kwargs)
        self.splice = splice
        self.head = head
        self.embedding_scale = embedding_scale(splice, backbone)
        self.backbone = backbone
        freeze(backbone)
        self.preprocessor = preprocessor
        self.prompt = prompt_layer(config, backbone)
        if initialize:
            tokenizer = tokenizer or getattr(preprocessor, "tokenizer", None)
            start_prompt(self.prompt, config, splice, self.embedding_scale, tokenizer)
        self.prompt.trainable = not config.inference_mode
        self.kept: frozen_tasks.FrozenTasks = frozen_tasks.FrozenTasks(self, config)

    @abc.abstractmethod
    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensors:
        """The model's outputs from the backbone's.

        Args:
            outputs: what `run_backbone` gave.
            inputs: dict of a call's inputs.
            training: bool. Defaults to `None`.

        Returns:
            What a call returns.
        """

    @abc.abstractmethod
    def own_arguments(self) -> Config:
        """The constructor's arguments that not every model has, as JSON values."""

    @property
    def config(self) -> PromptTuningConfig:
        """The model's config, as its tasks and `train_shared` are now."""
        self.kept.settle()
        return self.kept.config

    @property
    def train_shared(self) -> bool:
        """Whether P is trained, with tasks the factors beside it; it can be set at any time.

        The next `fit` goes by it. The optimizer is then fresh, as after `add_task`. It is the same
        to set it on `model.prompt` or `model.config`. `True` also thaws the tasks that
        `add_task(…, train_shared=False)` froze.
        """
        return bool(getattr(self.prompt, "train_shared", True))

    @train_shared.setter
    def train_shared(self, value: bool) -> None:
        frozen_tasks.set_train_shared(self, value)

    def head_settings(self) -> Config:
        """Those of them that an adapter notes, as `load_adapter` needs them to build the head."""
        return self.own_arguments() if self.head.has_classes else {}

    @property
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The layers that nothing trains, whatever `trainable` is set to."""
        # Models with a `FrozenHead` set it; on PyTorch a class's own `None` would hide it.
        of_head = getattr(self, "frozen_head", None)
        return [self.backbone, *([] if of_head is None else [of_head])]

    @property
    def run_settings(self) -> Config:
        """What makes a training with this model another than one with other settings."""
        return {
            "config": {**self.config.to_dict(), **self.head_settings()},
            "backbone": self.backbone,
            "preprocessor": self.preprocessor,
        }

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensors:
        """The model's outputs."""
        return self.call_with_states(inputs, (), training=training)[0]

    def call_with_states(
        self,
        inputs: dict[str, Tensor],
        layers: tuple[int, ...],
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Prompt | None = None,
    ) -> tuple[Tensors, list[Tensor]]:
        """A call's outputs, and the hidden states after some of the backbone's layers.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: tuple of ints. Which of the `len(model.splice.hidden_states)` states; the last
                is the backbone's own output. An encoder-decoder's are its decoder's.
            prompt_positions: bool. Whether the states keep the prompt's. Defaults to `False`.
            training: bool. Defaults to `None`.
            prompt: a prompt layer of the same sizes, in the place of the model's own. Defaults to
                `None`.

        Returns:
            The outputs, and a list of float tensors (B, S, d), or (B, L + S, d).
        """
        outputs, states = self.run_backbone(inputs, layers, prompt_positions, training, prompt)
        return self.after_backbone(outputs, inputs, training), states

    def run_backbone(
        self,
        inputs: dict[str, Tensor],
        layers: tuple[int, ...] = (),
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Prompt | None = None,
    ) -> tuple[Tensors, list[Tensor]]:
        """The backbone on `[prompts; tokens]`.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: as in `call_with_states`. Defaults to `()`.
            prompt_positions: as in `call_with_states`. Defaults to `False`.
            training: bool. Defaults to `None`.
            prompt: as in `call_with_states`. Defaults to `None`.

        Returns:
            Its outputs, a tensor (B, L + S, …) or a dict of them, with prompt positions, and a list
            of hidden states.
        """
        inputs = dict(inputs)
        task_ids = inputs.pop("task_ids", None)
        rows = ops.shape(inputs[self.splice.token_inputs[0].name])[0]
        prompts = (prompt or self.prompt).for_rows(task_ids, rows)
        outputs, states = self.splice.with_states(inputs, prompts, layers, training)
        if not prompt_positions:
            states = [self.splice.user_states(s, inputs) for s in states]
        return outputs, states

    def parameter_count(self) -> int:
        """How many numbers are trained, an int."""
        return frozen_tasks.trained_numbers(self.trainable_variables, self.kept.parts())

    def add_task(
        self,
        name: str,
        from_: str | int | None = tasks.AVERAGE,
        num_classes: int | None = None,
        *,
        train_shared: bool | None = None,
        label_words: list[str] | None = None,
        label_names: list[str] | None = None,
    ) -> int:
        """Adds a task, in place, as the last one: before or after training.

        Every other task's prompt and head keep their bits, and with them its logits: until the next
        `fit`, which trains P for all of them, or with `train_shared=False` through training too.
        The optimizer is fresh: the state of the old one is of another size. Its class and settings,
        the learning rate among them, and the loss and the metrics stay, so `fit` goes on at once; a
        learning rate schedule begins anew.

        Args:
            name: string. The new task's name.
            from_: where its factors start. `"average"`: cols and rows are each the mean of the
                other tasks' cols and rows, which is how PEFT averages source tasks (the mean of
                factors, not of prompts). A task's name or id: a copy of that task's. `"shared"` or
                `None`: cols · rows = 1, so that its prompt starts as P. A task that is itself named
                "average" or "shared" is given by its id. Defaults to `"average"`.
            num_classes: int. For a model with a head per task: its number of classes, for a fresh
                head. `None` copies the head too, where `from_` is one task. Defaults to `None`.
            train_shared: bool. `False` freezes the other tasks: `fit` leaves their factors and
                heads as they are, to the bit, whatever the optimizer and whichever rows it sees,
                and with them all that tasks share: P, a head for all, and a classifier's layers
                below its heads. So it stays, also in files, until `model.train_shared = True`.
                `True` ends it. `None` leaves it as it is. Defaults to `None`.
            label_words: list of strings, as in the config's, of the new task. Defaults to `None`.
            label_names: the same; with a copied head `None` copies them too. Defaults to `None`.

        Returns:
            An int, the new task's id.

        Raises:
            ValueError: a name that is empty or some task's, an unknown `from_`, a `num_classes` or
                labels that are missing or out of place, or a model without tasks.

        Example:
            ```python
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
            )
            model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
            model.add_task("c", from_="a", num_classes=4)
            model.remove_task("b")
            model.rename_task("c", "topic")
            assert model.config.task_names == ["a", "topic"]
            ```

        Source: Wang et al. 2023 (arXiv 2303.02861), section 3.3; PEFT `AVERAGE_SOURCE_TASKS`.
        """
        labels = {"label_words": label_words, "label_names": label_names}
        return tasks.add_task(self, name, from_, num_classes, train_shared, labels)

    def remove_task(self, task: str | int) -> None:
        """Removes a task, in place; the ids of those after it fall by one, names stay.

        The other tasks and the compile settings are kept as `add_task` keeps them.

        Args:
            task: string or int. Its name or id.

        Raises:
            ValueError: a task that the model does not have, its last task, or a model without
                tasks.
        """
        tasks.remove_task(self, task)

    def rename_task(self, old: str | int, new: str) -> None:
        """Renames a task, in place; the optimizer keeps its state.

        Args:
            old: string or int. The task's name or id.
            new: string. Its new name.

        Raises:
            ValueError: a task that the model does not have, a name that is empty or some task's, or
                a model without tasks.
        """
        tasks.rename_task(self, old, new)

    def fold(self, task: str | int) -> Self:
        """A model of one task: its prompt P ∘ (cols · rows) as one ordinary prompt, and its head.

        The new model has the same class and the same backbone, shared, not copied; its weights are
        its own. Its adapter is PEFT's PROMPT_TUNING.

        Args:
            task: string or int. The task's name or id.

        Returns:
            A model that takes no `task_ids`, with that task's logits. Of a head per task it has
            that task's alone, so its logits are (B, C_k).

        Raises:
            ValueError: a task that the model does not have, or a model without tasks.

        Example:
            ```python
            backbone = keras_hub.models.GPT2Backbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
            )
            model = keras_mpt.prompt_tune(backbone, config).fold(1)
            ids = np.array([[5, 6, 7]])
            assert model({"token_ids": ids, "padding_mask": np.ones_like(ids)}).shape == (1, 3, 100)
            ```
        """
        return tasks.fold(self, task)

    def save_adapter(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Saves what was trained as a PEFT adapter: `adapter_config.json`, the weights, and a card.

        It is written whole or not at all: whoever is killed or reads finds the old or the new one.
        PEFT opens it; keras_mpt's own fields stand in a file of their own. What it reads
        differently, such as another `prompt_position` than `"before"`, is warned of once. Of
        several processes the first one writes, and the others return. The card, `README.md`, has
        what the last `evaluate` gave, of these weights; a page that somebody wrote or edited stays.

        Args:
            directory: string. Where to; made where it is missing.
            overwrite: bool. Whether to replace an adapter that is there. Defaults to `False`.

        Raises:
            ValueError: an adapter is there and `overwrite` is `False`, or the backbone is not
                frozen: an adapter holds the prompt and the head alone.
        """
        check_frozen(self)
        adapter.save(adapter_parts(self), directory, overwrite=overwrite)

    def load_adapter(self, directory: str | os.PathLike[str]) -> None:
        """Loads the weights of an adapter that PEFT or keras_mpt saved; it can be trained on.

        Everything is checked before anything is changed.

        Args:
            directory: string. The adapter's directory.

        Raises:
            ValueError: a missing or broken file, or an adapter that does not fit this model.
        """
        adapter.load(adapter_parts(self), read_adapter(directory))

    def quantize(
        self, mode: str | None = None, config: Any = None, filters: Any = None, **kwargs: Any
    ) -> None:
        """`keras.Model.quantize` of the backbone; what is trained stays as it is.

        Args:
            mode: string, as in Keras. Defaults to `None`.
            config: a `keras.quantizers.QuantizationConfig`. Defaults to `None`.
            filters: which layers, as in Keras. Defaults to `None`.
            **kwargs: as in Keras.
        """
        self.backbone.quantize(mode, config=config, filters=filters, **kwargs)

    def finish(self) -> None:
        """Says that all variables are there: the last step of a subclass's constructor."""
        self.built = True
        _keras.list_torch_parameters(self)
        for layer in self.kept.layers():
            freeze(layer)

    def set_config(self, config: PromptTuningConfig) -> None:
        """Gives the model another config, after its tasks have changed."""
        frozen_tasks.follow_config(self, config)
        self.model_inputs = dataclasses.replace(self.model_inputs, config=config)

    def get_config(self) -> Config:
        """The constructor's arguments; the start itself is in the weights."""
        return {**super().get_config(), **saved_arguments(self), **self.own_arguments()}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> Self:
        """Rebuilds the model; its weights are loaded afterwards."""
        return rebuilt(cls, config, custom_objects)
