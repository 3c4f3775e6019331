"""The models, in PEFT and here with the same weights, and their batches.

Frameworks are imported where they are used: a process that measures the memory of one side must
not hold the other.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

# Relative to the largest logit. Two float32 programs of this depth agree far better.
TOLERANCE = 1e-4
# Ways to open our model: arguments of `open_ours`.
SIDES: dict[str, dict[str, Any]] = {
    "ours": {},
    "bfloat16": {"dtype": "bfloat16"},
    "remat activations": {"remat": "activations"},
    "remat blocks": {"remat": "blocks"},
    "remat": {"remat": True},
    "half remat": {"remat": 0.5},
}
# Ways to open PEFT's.
PEFT_SIDES: dict[str, dict[str, Any]] = {"peft": {}, "peft bfloat16": {"dtype": "bfloat16"}}
VARIANTS = ("bfloat16", "remat activations", "remat blocks")
_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        layers: how many there are.
        width: d.
        heads: of queries.
        groups: heads of keys and values, where the family has fewer of them.
        vocabulary: V.
        inner: the width within a feed-forward part, as a multiple of `width`.
    """

    layers: int
    width: int
    heads: int
    groups: int
    vocabulary: int
    inner: float = 2.75


# Those of the published models; all others are small ones of 6 layers.
SIZES = {
    "SmolLM2": Size(30, 576, 9, 3, 49152, 8 / 3),
    "GPT-2 medium": Size(24, 1024, 16, 16, 50257, 4),
    "Llama 1B": Size(16, 2048, 32, 8, 128256, 4),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and a batch.

    Attributes:
        shape: "GPT-2", "Llama", "SmolLM2", "MiniLM" or "T5"; "GPT-2 medium" and "Llama 1B" are of
            these families, in their own sizes.
        length: L, virtual tokens.
        rows: B.
        tokens: S; of a T5 the encoder's, its decoder has half of them.
        tasks: T.
        distinct: K, how many tasks the batch holds.
        small: whether the model is tiny, to try the machinery.
        one_word: whether one target of each row counts, as where a text is answered by a word.
        depth: how many layers; 0 for the shape's own.
    """

    shape: str
    length: int
    rows: int
    tokens: int
    tasks: int = 4
    distinct: int = 4
    small: bool = False
    one_word: bool = False
    depth: int = 0

    @property
    def name(self) -> str:
        return f"{self.shape}, L {self.length}, B {self.rows}, S {self.tokens}"

    @property
    def family(self) -> str:
        """The shape without its size."""
        return "Llama" if self.shape == "SmolLM2" else self.shape.partition(" ")[0]

    @property
    def size(self) -> Size:
        """Of the shape, or of a tiny model of its family."""
        if self.small and self.shape == "SmolLM2":
            return Size(1, 24, 3, 1, 100, 8 / 3)
        if self.small:
            return Size(1, 32, 2, 1, 100)
        return SIZES.get(self.shape, Size(6, 512, 8, 4, 8000))

    @property
    def layers(self) -> int:
        return self.depth or self.size.layers

    @property
    def vocabulary(self) -> int:
        """Whose tokens a batch has, at most: BERT's is larger."""
        return self.size.vocabulary

    @property
    def is_causal(self) -> bool:
        return self.family in ("GPT-2", "Llama")

    @property
    def has_logits_per_token(self) -> bool:
        return self.shape != "MiniLM"

    @property
    def task_type(self) -> str:
        others = {"MiniLM": "SEQ_CLS", "T5": "SEQ_2_SEQ_LM"}
        return others.get(self.shape, "CAUSAL_LM")


def small(case: Case) -> Case:
    """The same kind of model, in a size that takes no time."""
    sizes = {"length": min(case.length, 6), "rows": min(case.rows, 4), "tokens": 8}
    return dataclasses.replace(case, **sizes, tasks=min(case.tasks, 50), small=True)


def base_config(case: Case) -> Any:
    """The configuration of transformers."""
    import transformers

    size, layers = case.size, case.layers
    width, heads, vocabulary = size.width, size.heads, size.vocabulary
    match case.family:
        case "GPT-2":
            is_long = case.shape in SIZES or case.length + case.tokens > 512
            return transformers.GPT2Config(
                vocab_size=vocabulary, n_positions=1024 if is_long else 512,
                n_embd=width, n_layer=layers, n_head=heads,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_IDS,
            )  # fmt: skip
        case "Llama":
            return transformers.LlamaConfig(
                vocab_size=vocabulary, hidden_size=width,
                intermediate_size=round(width * size.inner), num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=size.groups,
                tie_word_embeddings=case.shape in SIZES, **_IDS,
            )  # fmt: skip
        case "MiniLM":
            width, heads, vocabulary = (32, 2, 100) if case.small else (384, 12, 30522)
            return transformers.BertConfig(
                vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width,
                num_hidden_layers=layers, num_attention_heads=heads, hidden_act="gelu_new",
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2,
            )  # fmt: skip
        case "T5":
            return transformers.T5Config(
                vocab_size=vocabulary, d_model=width, d_kv=width // heads, d_ff=4 * width,
                num_layers=layers, num_heads=heads, dropout_rate=0.0, decoder_start_token_id=1,
                **_IDS,
            )  # fmt: skip
    raise ValueError(case.shape)


def _base_class(case: Case) -> Any:
    import transformers

    names = {
        "GPT-2": "GPT2LMHeadModel",
        "Llama": "LlamaForCausalLM",
        "MiniLM": "BertForSequenceClassification",
        "T5": "T5ForConditionalGeneration",
    }
    return getattr(transformers, names[case.family])


def wrapped(case: Case, base: Any) -> Any:
    """PEFT's model of a model of transformers, with new prompts."""
    import peft

    # The paper prompts T5's encoder alone.
    submodules = {"num_transformer_submodules": 1} if case.shape == "T5" else {}
    config = peft.MultitaskPromptTuningConfig(
        task_type=case.task_type, num_virtual_tokens=case.length, num_tasks=case.tasks, **submodules
    )
    return peft.get_peft_model(base, config)


def write(case: Case, folder: Path) -> None:
    """Writes a random model, "base", and an adapter of PEFT's for it, "adapter"."""
    import torch

    torch.manual_seed(0)
    base = _base_class(case)(base_config(case))
    base.save_pretrained(folder / "base")
    write_adapter(wrapped(case, base), folder)


def write_base(case: Case, folder: Path, dtype: str, device: str) -> Any:
    """Writes a random model, "base", made on a device in a dtype; and gives it."""
    import torch

    torch.manual_seed(0)
    with torch.device(device):
        base = _base_class(case)._from_config(base_config(case), dtype=getattr(torch, dtype))
    base.save_pretrained(folder / "base")
    return base.eval()


def write_adapter(model: Any, folder: Path) -> None:
    """Gives PEFT's model random prompts, and writes them, "adapter"."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_(std=0.3)
    model.save_pretrained(folder / "adapter")


def open_peft(
    case: Case, folder: Path, attention: str | None = None, dtype: str | None = None
) -> Any:
    """PEFT's model of what `write` wrote; only prompts and a classifier's head have gradients."""
    import peft

    # Given or not: transformers takes sdpa where the model has it.
    chosen = {} if attention is None else {"attn_implementation": attention}
    chosen |= {} if dtype is None else {"dtype": dtype}
    model = wrapped(case, _base_class(case).from_pretrained(folder / "base", **chosen))
    peft.set_peft_model_state_dict(model, peft.load_peft_weights(str(folder / "adapter")))
    check_gradients(model)
    return model


def check_gradients(model: Any) -> None:
    """Refuses a model of PEFT's that would compute more of them than prompt tuning needs."""
    needless = [n for n, p in model.named_parameters() if p.requires_grad and not _is_trained(n)]
    if needless:
        raise AssertionError(f"PEFT's side should not compute these gradients: {needless}")


def _is_trained(name: str) -> bool:
    return "prompt_encoder" in name or "modules_to_save" in name


def open_backbone(
    case: Case, folder: Path, dtype: str | None = None, remat: str | None = None
) -> Any:
    """keras-hub's model of the same weights, as `keras_mpt.load_adapter` takes it.

    With `remat`, `"blocks"` or `"activations"`, what is within GPT-2's blocks, or within activation
    functions, is computed again on the way back.
    """
    import keras
    import keras_hub

    import keras_mpt

    if case.shape == "T5":
        return keras_mpt.t5_from_pretrained(folder / "base", dtype=dtype)
    name = {"GPT-2": "GPT2", "MiniLM": "Bert"}.get(case.family, "Llama3")
    changes: dict[str, Any] = {} if name == "Llama3" else {"dropout": 0.0}
    if dtype is not None:
        changes["dtype"] = dtype
    cls = getattr(keras_hub.models, f"{name}Backbone")
    mode, blocks = remat, None
    if remat == "blocks":
        mode, blocks = "list_of_layers", [f"transformer_layer_{i}" for i in range(case.layers)]
    with keras.RematScope(mode, layer_names=blocks) if remat else nullcontext():
        return cls.from_preset(str(folder / "base"), **changes)


def open_ours(
    case: Case, folder: Path, dtype: str | None = None, remat: str | float | None = None
) -> Any:
    """Our model of what `write` wrote. A `remat` that is no string is the model's own."""
    import keras_mpt

    of_keras = remat if isinstance(remat, str) else None

    # A classifier's head in keras-hub has a dropout of its own, which PEFT's has not.
    head = {"head_config": {"dropout": 0.0}} if case.shape == "MiniLM" else {}
    backbone = open_backbone(case, folder, dtype, of_keras)
    again = {} if remat == of_keras else {"remat": remat}
    return keras_mpt.load_adapter(backbone, folder / "adapter", **head, **again)


@dataclasses.dataclass
class Batch:
    """Random tokens, tasks in equal parts, and labels.

    Attributes:
        ids: int array (B, S).
        task_ids: int array (B,), `distinct` different ones.
        labels: int array (B,) or one per token.
        weights: float array of that shape, 1 where labels count; `None` where all do.
    """

    ids: np.ndarray
    task_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


def batch(case: Case, rows: int | None = None) -> Batch:
    """The case's batch."""
    rng = np.random.default_rng(0)
    rows = rows or case.rows
    vocabulary = case.vocabulary
    ids = rng.integers(5, vocabulary, (rows, case.tokens)).astype("int32")
    distinct = min(case.distinct, case.tasks, rows)
    chosen = np.linspace(0, case.tasks - 1, distinct).astype("int32")
    task_ids = rng.permutation(np.resize(chosen, rows))
    labels = np.roll(ids, -1, 1)
    if case.shape == "MiniLM":
        labels = task_ids % 2
    elif case.shape == "T5":
        labels = rng.integers(5, vocabulary, (rows, case.tokens // 2)).astype("int32")
    weights = None
    if case.one_word:
        weights = np.zeros(labels.shape, "float32")
        weights[np.arange(rows), rng.integers(case.tokens // 2, case.tokens, rows)] = 1.0
    return Batch(ids, task_ids, labels, weights)


def our_inputs(case: Case, data: Batch) -> dict[str, np.ndarray]:
    """The batch as our model takes it."""
    sides = {"token_ids": data.ids}
    if case.shape == "T5":
        # What transformers makes of labels.
        start = np.full((len(data.ids), 1), _IDS["pad_token_id"], "int32")
        shifted = np.concatenate([start, data.labels[:, :-1]], 1)
        sides = {"encoder_token_ids": data.ids, "decoder_token_ids": shifted}
    masks = {k.replace("token_ids", "padding_mask"): np.ones_like(v) for k, v in sides.items()}
    return {**sides, **masks, "task_ids": data.task_ids}


def peft_inputs(case: Case, data: Batch, device: Any = "cpu") -> dict[str, Any]:
    """The batch as PEFT's model takes it. T5 makes the decoder's tokens of the labels."""
    import torch

    def tensor(values: np.ndarray) -> Any:
        return torch.tensor(values, dtype=torch.long, device=device)

    ids = tensor(data.ids)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "task_ids": tensor(data.task_ids),
    }
    if case.shape == "T5":
        inputs["labels"] = tensor(data.labels)
    if data.weights is not None:  # transformers moves labels by one.
        labels = np.roll(np.where(data.weights > 0, data.labels, -100), 1, 1)
        inputs["labels"] = tensor(labels)
    return inputs
