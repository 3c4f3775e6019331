"""Full fine-tuning: every weight of the backbone, and a head."""

from __future__ import annotations

import numpy as np

from studies.transfer.job import HEAD_RATE, Job, Method, Trained
from studies.transfer.rows import Inputs, Rows, by_length, training_batches
from studies.transfer.torch_loop import as_bert, device, fit, mean_over_tokens


def train(job: Job) -> Trained:
    """Trains both in PyTorch, on transformers' model of the same weights."""
    import torch
    from transformers import BertModel

    torch.manual_seed(job.seed)
    bench = job.bench
    backbone = BertModel.from_pretrained(
        bench.preset,
        add_pooling_layer=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ).to(device())
    head = torch.nn.Linear(backbone.config.hidden_size, job.task.num_classes).to(device())
    torch.nn.init.trunc_normal_(head.weight, std=0.02)
    torch.nn.init.zeros_(head.bias)

    def logits_of(x: Inputs) -> torch.Tensor:
        inputs = as_bert(x)
        tokens = backbone(**inputs).last_hidden_state
        return head(mean_over_tokens(tokens, inputs["attention_mask"]))

    groups = [(list(backbone.parameters()), job.rate), (list(head.parameters()), HEAD_RATE)]
    backbone.train()
    fit(groups, logits_of, training_batches(job.rows, job.batch_size, job.steps, job.seed),
        job.steps)  # fmt: skip
    backbone.eval()

    @torch.no_grad()
    def predict(rows: Rows) -> np.ndarray:
        return by_length(lambda x: logits_of(x).argmax(dim=1).cpu().numpy(), rows, bench.batch_size)

    return Trained(predict, sum(p.numel() for group, _ in groups for p in group))


FULL = Method(
    "full",
    "full fine-tuning",
    "every weight of the model and a head",
    "learning rate of the backbone",
    (1e-5, 3e-5, 1e-4, 3e-4),
    train,
)
