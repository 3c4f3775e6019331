"""A distribution that spreads a backbone's weights over devices, whatever family it is of."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_mpt.checks import check_size, received

# What is trained, and its optimizer's variables, by their paths.
_PROMPTS = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")


class BackboneParallel(keras.distribution.ModelParallel):
    """`keras.distribution.ModelParallel` for any keras-hub backbone; prompts are on every device.

    Of each variable with two axes or more and at least `min_size` numbers, the longest axis that
    the devices of `model_dim_name` divide is split among them; all others, prompts, their factors
    and heads among these, are whole on each. So it is a rule by shapes, where a
    `keras.distribution.LayoutMap` is one by names, and differs per family: it gives what the
    `get_layout_map` of keras-hub's Llama and Gemma does on its model axis, but for the attention's
    output, which that splits by heads. Those maps, and any of your own, serve `ModelParallel` as
    well: prompts are in none of them, and so on every device.

    It is JAX's, as all of `keras.distribution`. Set it before the backbone is made.

    Args:
        device_mesh: a `keras.distribution.DeviceMesh`.
        batch_dim_name: string. The axis of the mesh that a batch's rows are spread over. Defaults
            to `"batch"`.
        model_dim_name: string. The axis that weights are spread over. Defaults to `"model"`.
        min_size: int. Smaller variables are on every device. Defaults to `1048576`.
        auto_shard_dataset: as in `ModelParallel`. `False` where several processes read a `TaskMix`
            with a `shard`. Defaults to `True`.

    Raises:
        ValueError: something else than a mesh, or one without these axes.

    Example:
        ```python
        devices = ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]  # Or keras.distribution.list_devices().
        mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
        distribution = keras_mpt.BackboneParallel(mesh)
        assert distribution.num_model_replicas == 2
        # keras.distribution.set_distribution(distribution), then make the backbone.
        ```

    Source: Shoeybi et al. 2019 (arXiv 1909.08053), section 3, for splitting the wide axis of a
    feed-forward layer's two kernels.
    """

    def __init__(
        self,
        device_mesh: Any,
        batch_dim_name: str = "batch",
        model_dim_name: str = "model",
        min_size: int = 1 << 20,
        auto_shard_dataset: bool = True,
    ) -> None:
        if not isinstance(device_mesh, keras.distribution.DeviceMesh):
            raise ValueError(
                "`device_mesh` should be a keras.distribution.DeviceMesh. Received: device_mesh="
                f"{received(device_mesh)}"
            )
        axes = {"batch_dim_name": batch_dim_name, "model_dim_name": model_dim_name}
        for argument, name in axes.items():
            if name not in device_mesh.axis_names:
                raise ValueError(
                    f"`{argument}` should be an axis of the mesh, one of "
                    f"{list(device_mesh.axis_names)}. Received: {argument}={name!r}"
                )
        self.model_dim_name = model_dim_name
        self.min_size = check_size("min_size", min_size)
        super().__init__(
            layout_map=keras.distribution.LayoutMap(device_mesh),
            batch_dim_name=batch_dim_name,
            auto_shard_dataset=auto_shard_dataset,
        )

    def get_variable_layout(self, variable: Any) -> Any:
        """The longest axis of a large variable is split."""
        shape = tuple(variable.shape)
        is_prompt = any(name in variable.path for name in _PROMPTS)
        if is_prompt or len(shape) < 2 or math.prod(shape) < self.min_size:
            return super().get_variable_layout(variable)
        mesh = self.device_mesh
        parts = mesh.shape[mesh.axis_names.index(self.model_dim_name)]
        axes = [axis for axis, size in enumerate(shape) if size % parts == 0]
        if not axes:
            return super().get_variable_layout(variable)
        split = max(axes, key=lambda axis: shape[axis])
        names = [self.model_dim_name if axis == split else None for axis in range(len(shape))]
        return keras.distribution.TensorLayout(names, mesh)
