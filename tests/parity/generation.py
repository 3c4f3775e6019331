"""Pairs of a PEFT model and ours that generate, and the tokens that PEFT's own logits ask for.

What `generate` should give is found by brute force: PEFT's whole forward pass for each new token,
without its cache and without its `generate`, which does not follow its logits with every version of
transformers. `generate_follows_logits` measures that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pytest

import keras_mpt

peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")
torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

VOCABULARY, ROWS, GIVEN, NEW, TASK_IDS = 60, 4, 5, 6, [0, 2, 1, 2]
# Where an encoder-decoder's answers start.
START = 0


def saved(model_class: Any, config: Any, path: Path) -> Any:
    """A random model of transformers', the same each time, which a folder then holds too."""
    torch.manual_seed(0)
    base = model_class(config)
    base.save_pretrained(path)
    return base


def gpt2(path: Path) -> tuple[Any, Any]:
    """A small random GPT-2 in both libraries."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None,
        eos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    base = saved(transformers.GPT2LMHeadModel, config, path)
    return base, keras_hub.models.GPT2Backbone.from_preset(str(path))


def t5(path: Path) -> tuple[Any, Any]:
    """A small random T5 in both libraries."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=START, eos_token_id=None, initializer_factor=3.0,
    )  # fmt: skip
    base = saved(transformers.T5ForConditionalGeneration, config, path)
    return base, keras_mpt.t5_from_pretrained(path).backbone


def llama(path: Path) -> tuple[Any, Any]:
    """A small random Llama in both libraries, with two heads on one of keys and values."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    base = saved(transformers.LlamaForCausalLM, config, path)
    return base, keras_hub.models.LlamaBackbone.from_preset(str(path))


def bart(path: Path) -> tuple[Any, Any]:
    """A small random BART in both libraries."""
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, init_std=0.5,
        max_position_embeddings=64, decoder_start_token_id=START, bos_token_id=None,
        eos_token_id=None, pad_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    base = saved(transformers.BartForConditionalGeneration, config, path)
    # Published checkpoints have it, and keras-hub reads it.
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**written, "num_hidden_layers": 2}))
    return base, keras_hub.models.BartBackbone.from_preset(str(path))


BASES: dict[str, Callable[[Path], tuple[Any, Any]]] = {
    "gpt2": gpt2,
    "llama": llama,
    "t5": t5,
    "bart": bart,
}


def make_both(name: str, path: Path) -> tuple[Any, Any]:
    """A PEFT model with random prompts, and ours of its adapter."""
    base, backbone = BASES[name](path / "base")
    config = peft.MultitaskPromptTuningConfig(
        # With decoder prompts PEFT's own generation is another thing: it drops them.
        task_type="SEQ_2_SEQ_LM" if base.config.is_encoder_decoder else "CAUSAL_LM",
        num_virtual_tokens=4, num_tasks=3, num_transformer_submodules=1,
    )  # fmt: skip
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(path / "adapter")
    return model, keras_mpt.load_adapter(backbone, path / "adapter")


def given_ids() -> np.ndarray:
    """What is generated after: an encoder's text, or the first tokens of a decoder's."""
    return np.random.default_rng(0).integers(1, VOCABULARY, (ROWS, GIVEN))


def tokens_of_logits(model: Any, task_ids: list[int], num_beams: int = 1) -> np.ndarray:
    """The `NEW` tokens of the best of `num_beams` beams over PEFT's logits: one beam is greedy.

    Every token of every beam costs the whole forward pass of its row. Beams are compared by the
    sum of their log probabilities.
    """
    return np.stack(list(_rows(model, task_ids, num_beams)))


def _rows(model: Any, task_ids: list[int], num_beams: int) -> Iterator[np.ndarray]:
    is_decoder_alone = not model.config.is_encoder_decoder
    for given, task_id in zip(given_ids(), task_ids, strict=True):
        beams = [(list(given) if is_decoder_alone else [START], 0.0)]
        for _ in range(NEW):
            longer = []
            for tokens, score in beams:
                log_p = _log_probabilities(model, given, tokens, task_id)
                for token in np.argsort(log_p)[-num_beams:]:
                    longer.append(([*tokens, int(token)], score + log_p[token]))
            beams = sorted(longer, key=lambda beam: beam[1])[-num_beams:]
        yield np.array(beams[-1][0][-NEW:])


def _log_probabilities(model: Any, given: np.ndarray, tokens: list[int], task: int) -> np.ndarray:
    """Of the token after `tokens`, by one pass over all of them."""
    arguments = {"input_ids": torch.tensor([tokens])}
    if model.config.is_encoder_decoder:
        # PEFT's forward drops a decoder's ids and embeddings here. transformers makes the ids of
        # labels, by a start token in front and without the last, which therefore may be any.
        arguments = {"input_ids": torch.tensor(given[None])}
        arguments["labels"] = torch.tensor([[*tokens[1:], START]])
    with torch.no_grad():
        logits = model(**arguments, task_ids=torch.tensor([task])).logits
    return torch.log_softmax(logits[0, -1].double(), dim=-1).numpy()


def peft_tokens(model: Any, use_cache: bool = True) -> np.ndarray:
    """The `NEW` tokens that PEFT's `generate` gives, greedily."""
    return model.generate(
        input_ids=torch.tensor(given_ids()),
        attention_mask=torch.ones(ROWS, GIVEN, dtype=torch.long),
        task_ids=torch.tensor(TASK_IDS),
        use_cache=use_cache,
        max_new_tokens=NEW,
        do_sample=False,
    ).numpy()[:, -NEW:]


def generate_follows_logits(name: str, path: Path) -> dict[str, float]:
    """The share of greedy tokens that are those of PEFT's logits: of PEFT's `generate`, of ours."""
    model, ours = make_both(name, path)
    wanted = tokens_of_logits(model, TASK_IDS)
    return {
        "PEFT's": float(np.mean(peft_tokens(model) == wanted)),
        "PEFT's without cache": float(np.mean(peft_tokens(model, use_cache=False) == wanted)),
        "keras_mpt's": float(np.mean(our_tokens(ours) == wanted)),
    }


def our_tokens(ours: Any, num_beams: int = 1) -> np.ndarray:
    """The `NEW` tokens that our `generate` gives."""
    sampler = "greedy" if num_beams == 1 else keras_hub.samplers.BeamSampler(num_beams=num_beams)
    ours.compile(sampler=sampler)
    ids = given_ids()
    mask, room, empty = np.ones_like(ids), np.zeros((ROWS, NEW), int), np.zeros((ROWS, NEW), int)
    if len(ours.splice.token_inputs) == 1:
        x = {"token_ids": np.concatenate([ids, room], 1)}
        x["padding_mask"] = np.concatenate([mask, empty], 1)
    else:
        start = np.full((ROWS, 1), START)
        x = {"encoder_token_ids": ids, "encoder_padding_mask": mask}
        x["decoder_token_ids"] = np.concatenate([start, room], 1)
        x["decoder_padding_mask"] = np.concatenate([np.ones_like(start), empty], 1)
    made = ours.generate(x, task_ids=TASK_IDS, stop_token_ids=None)
    return next(v for k, v in made.items() if k.endswith("token_ids"))[:, -NEW:]
