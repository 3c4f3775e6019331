"""A tiny random model in Hugging Face's layout, to see the study run."""

from __future__ import annotations

import json
from pathlib import Path

from studies.transfer.words.table import ASKED, WORDS

_END = "<|im_end|>"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", _END)


def write_tiny(folder: Path) -> Path:
    """Writes it where it is not there yet: every word of the tasks is one token."""
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_model(folder, _write_tokenizer(folder))
    return folder


def _write_tokenizer(folder: Path) -> int:
    """Bytes, and merges that give the words; gives how many tokens there are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = sorted({word for own in WORDS.values() for word in own})
    tokenizer.train_from_iterator([*words, ASKED] * 2, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _SPECIAL[1],
              "eos_token": _END, "pad_token": _END}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(tokenizer.get_vocab_size())


def _write_model(folder: Path, tokens: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=_SPECIAL.index("<|im_start|>"),
        eos_token_id=_SPECIAL.index(_END),
        pad_token_id=_SPECIAL.index(_END),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
