"""From measurements to docs/serving.md. `tools/serving.py` makes them and writes the page."""

from __future__ import annotations

from typing import Any

from keras_mpt.exporting.formats import FORMATS
from tools.backends import NAMES
from tools.machine import in_words
from tools.markdown import table

BACKENDS = ("tensorflow", "jax", "torch")

_HEAD = """# Serving

One process with many adapters, and a server to copy: [PromptBank](prompt_bank.md). Prompts for
vLLM, SGLang, TensorRT-LLM and others: [other servers](other_servers.md). Here: `model.export`.

Made by `make serving` from what `tests/exporting/` measures; do not edit by hand. A quick test
checks that this page and the numbers in `serving.json` belong together.

`model.export(path, format)` writes what its runtime opens without Keras and without keras_mpt: the
forward pass, from the model's inputs by name, each int32 (also the mask and `task_ids`), to
outputs by name: "logits", or a `PromptTunedBackbone`'s own names. Rows of several tasks go in one
batch. No signature is asked for.

    pip install 'keras-mpt[export]'

```
model.export("classifier")                                    # a TensorFlow SavedModel
model.export("classifier.onnx", "onnx")
model.export("classifier.xml", "openvino")
model.export("classifier.tflite", "litert", sequence_length=128)
model.export("classifier.pt2", "torch")
```

- **Checks.** An artifact does not check its inputs. A row whose task id is that of no task gives
  NaN, and no other row does: each case below is measured with one.
- **Sizes.** The numbers of rows and tokens stay open where the table says so, up to the backbone's
  positions less the prompt's. `batch_size`, `sequence_length` or `input_signature` fix them.
- **Files.** A path that is there is refused; with `overwrite=True` it is replaced once the new
  artifact is whole.
- **Dtypes.** A quantized backbone is refused: quantize the artifact with its runtime's own tool. A
  backbone in bfloat16 or float16 goes into a SavedModel or a `.pt2` file; for the other formats
  open it with `dtype="float32"`.
- **Causal models** have a prompt in each row here; which prompts the rows of a batch share, a
  runtime cannot be told.

"""

_CELLS = """Each cell: the sizes that stay open, and the largest difference to `predict`, as a share
of the largest output where that is above 1; — is not measured. Each artifact is opened by its
runtime, a SavedModel in a process without Keras, and run on rows of three tasks, odd ones padded on
the right, in sizes that the export has not seen. Models have one layer and random weights.

"""

_RUNTIMES = """
## How each is opened

```
loaded = tf.saved_model.load("classifier")
loaded.signatures["serving_default"](token_ids=..., padding_mask=..., task_ids=...)["logits"]

session = onnxruntime.InferenceSession("classifier.onnx")
session.run(["logits"], {"token_ids": ..., "padding_mask": ..., "task_ids": ...})

hint = {"INFERENCE_PRECISION_HINT": "f32"}  # Else OpenVINO takes bfloat16 where it is faster.
compiled = openvino.compile_model("classifier.xml", "CPU", hint)
compiled({"token_ids": ..., "padding_mask": ..., "task_ids": ...})

run = ai_edge_litert.interpreter.Interpreter("classifier.tflite").get_signature_runner()
run(token_ids=..., padding_mask=..., task_ids=...)["logits"]

module = torch.export.load("classifier.pt2").module()
module({"token_ids": ..., "padding_mask": ..., "task_ids": ...})["logits"]
```

**From text to labels.** A text classifier with a preprocessor, on TensorFlow, is written with
`model.export("classifier", text_to_labels=True)`. The SavedModel then has a second signature,
"text_to_labels", from "text" and "task_ids" to "labels" (names, "" for the id of no task),
"classes" (−1) and "probabilities" (NaN). Who opens it imports `tensorflow_text` first, as the
tokenizer's operations are that package's.

## What cannot be had, and in whose words

A model that one backend cannot write is written on another: a `.keras` file opens on all three.

"""

_REASONS = """- **A SavedModel on PyTorch.** Keras goes through torch_xla, whose newest release,
  2.9.0, does not load beside PyTorch 2.13:
  "ImportError: _XLAC.cpython-311-x86_64-linux-gnu.so: undefined symbol".
- **ONNX on JAX.** jax2onnx 0.17.1: "Error interpreting argument to jax.numpy.arange as a JAX value.
  The problematic value is of type <class 'NoneType'>", as Keras calls it with one argument.
- **OpenVINO on JAX.** From a SavedModel: "No conversion rule found for operations: XlaCallModule".
  From a jaxpr: "No conversion rule found for operations: and, dynamic_slice, iota, jit".
- **LiteRT on JAX with open sizes.** "'vhlo.dynamic_gather_v1' op is not part of the vhlo support
  yet", so all sizes are fixed.
- **LiteRT on TensorFlow with an open length**, where a backbone makes a mask of two open lengths,
  as Llama and T5 do: "'tf.StridedSlice' op is neither a custom op nor a flex op".
- **LiteRT on PyTorch.** litert-torch fixes all sizes, sets JAX to 64 bits in the whole process, and
  asks for a dozen packages that are not among `keras-mpt[export]`'s.
- **`torch` on TensorFlow and JAX.** It is a program of PyTorch's.
- **2 GB and more.** ONNX on TensorFlow and LiteRT write all weights into one message, which holds
  no more; ONNX on PyTorch puts them into a file beside it.
"""


def render(numbers: dict[str, Any]) -> str:
    """The page.

    Args:
        numbers: what `serving.json` holds.
    """
    parts = [_HEAD]
    for backend in BACKENDS:
        by_case = numbers["measured"].get(backend)
        if by_case is None:
            continue
        formats = [name for name, f in FORMATS.items() if backend in f.packages]
        parts.append(f"## On {NAMES[backend]}\n\n")
        lines = [
            [case, *(_cell(by_format.get(name)) for name in formats)]
            for case, by_format in by_case.items()
        ]
        parts.append(table(["", *(f"`{name}`" for name in formats)], lines))
        parts.append("\n")
    parts += [_CELLS, f"Versions: {in_words(numbers['packages'])}.\n"]
    return "".join([*parts, _RUNTIMES, _REASONS])


def _cell(found: dict[str, Any] | None) -> str:
    """One measurement."""
    return "—" if found is None else f"{found['open']}: {found['error']:.0e}"
