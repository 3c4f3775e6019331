"""A program of `torch.export`'s, which PyTorch runs without Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keras_mpt._keras import let_torch_count_open_sizes
from keras_mpt.exporting.plain_call import plain_call
from keras_mpt.exporting.signature import Signature
from keras_mpt.types import Tensor

# Sizes at which a model is traced, none of them 1: PyTorch would take that for fixed.
_TRACED = {"batch": 2, "places": 3, "sequence": 5, "decoder_sequence": 4}


def torch_program(model: Any, signature: Signature) -> Any:
    """A `torch.export.ExportedProgram` of a dict of int32 tensors.

    Args:
        model: a prompt-tuned model.
        signature: its signature.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    forward = plain_call(model)

    class Forward(torch.nn.Module):
        """The forward pass, with the weights where PyTorch looks for them."""

        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList([w.value for w in model.weights])

        def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            return forward(inputs)

    class Gathering(TorchFunctionMode):
        """`take_along_dim`, for which PyTorch fixes all sizes, as a `gather`, for which it not."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if function is not torch.take_along_dim:
                return function(*args, **kwargs)
            tensor, index = args
            shape = list(tensor.shape)
            shape[kwargs["dim"]] = index.shape[kwargs["dim"]]
            return torch.gather(tensor, kwargs["dim"], index.expand(shape))

    dims: dict[str, Any] = {}
    dynamic: dict[str, dict[int, Any]] = {}
    sample = {}
    device = model.weights[0].value.device
    for name, shape in signature.shapes.items():
        dynamic[name] = {}
        sizes = []
        for axis, (d, size) in enumerate(zip(signature.dimensions[name], shape, strict=True)):
            if size is None:
                dims.setdefault(d, torch.export.Dim(d, max=signature.most.get(d)))
                dynamic[name][axis] = dims[d]
            sizes.append(_traced(d, signature) if size is None else size)
        sample[name] = torch.ones(sizes, dtype=torch.int32, device=device)
    let_torch_count_open_sizes()
    with torch.no_grad(), Gathering():
        return torch.export.export(
            Forward().eval(),
            (sample,),
            dynamic_shapes=(dynamic,),
            strict=False,
            # Else two tokens, or as many in the decoder as in the encoder, would be refused.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _traced(dimension: str, signature: Signature) -> int:
    size = _TRACED.get(dimension, _TRACED["sequence"])
    return min(size, signature.most.get(dimension, size))


def write_torch(model: Any, signature: Signature, path: Path) -> None:
    """Writes a `.pt2` file.

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: where to.
    """
    import torch

    torch.export.save(torch_program(model, signature), path)
