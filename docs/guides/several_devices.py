# %% [markdown]
# # Several devices
#
# A training on several devices, or in several processes, gives what one device gives: the same losses
# and weights, to rounding. Here it is run on one machine, whose processor stands for two devices; the
# scripts are what you would run on yours. Recipes for each backend, several machines, and what holds
# on them are in [several devices](../scaling.md).
#
# ```
# pip install "keras-mpt[data,jax]" torch
# ```
#
# What devices send each other in a step are the gradients of what is trained, which is little. The
# backbone is whole on each of them, or, where it is too large for one, spread over them.
#
# ## The tasks
#
# Scripts are files of their own, since a backend's devices are fixed once it has begun. This one is
# shared by the others: two tasks on a tiny random BERT, whose first token tells the class.

# %%
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"  # Before Keras is imported, which else takes TensorFlow.

Path("tasks.py").write_text('''
import keras
import keras_hub
import keras_mpt
import numpy as np


def make():
    """A model, made alike in each process."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32,
        max_sequence_length=64, dropout=0.0,
    )
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
    )
    # Without dropout, which would draw other numbers on several devices than on one.
    model = keras_mpt.prompt_tune(
        backbone, config, num_classes={"tone": 2, "topic": 3}, pooling="mean"
    )
    model.compile(keras.optimizers.Adam(0.01))
    return model


def mix(**shard):
    """Batches of 16 rows, or this process's part of each."""
    rng = np.random.default_rng(0)
    datasets = {}
    for name, classes in {"tone": 2, "topic": 3}.items():
        labels = rng.integers(0, classes, 64)
        ids = rng.integers(10, 100, (64, 6))
        ids[:, 1] = labels
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
        datasets[name] = (x, labels)
    return keras_mpt.TaskMix(datasets, batch_size=16, **shard)


def train(**shard):
    """The losses of four epochs, and the model."""
    model = make()
    history = model.fit(mix(**shard), epochs=4, verbose=0)
    return [round(loss, 5) for loss in history.history["loss"]], model
''')


def run(*command, **environment):
    """What a script says."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


# %% [markdown]
# ## PyTorch: a process for each device
#
# Each process reads its part of every batch (`shard`), and `fit` makes one training of them: a step
# goes by the mean of their gradients. `torchrun --nproc-per-node 2 train.py` starts two.

# %%
Path("train.py").write_text("""
import os

import tasks
import torch

count = int(os.environ["WORLD_SIZE"])
torch.distributed.init_process_group("gloo")  # "nccl" between GPUs.
losses, model = tasks.train(shard=(torch.distributed.get_rank(), count))
if torch.distributed.get_rank() == 0:
    print(count, "processes:", losses)
    model.save_adapter("adapter")
""")
torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
two = run(*torchrun, "2", "train.py", OMP_NUM_THREADS="1")
print(two)

# %% [markdown]
# The same on one device, which has no need of a script:

# %%
one = run("-c", "import tasks; print(1, 'process:', tasks.train()[0])", OMP_NUM_THREADS="1")
print(one)


def losses(said):
    """The numbers in brackets."""
    return [float(number) for number in re.findall(r"\d+\.\d+", said)]


assert all(abs(a - b) < 2e-5 for a, b in zip(losses(one), losses(two), strict=True))

# %% [markdown]
# ## JAX: one process for all devices
#
# Keras spreads rows over devices by `DataParallel`; `keras_mpt.BackboneParallel` spreads a backbone that
# is too large for one, by one rule for all families: each large variable along its longest axis
# (`min_size` is lower here, for the sake of a tiny one). Both come before the model is made.

# %%
Path("jax_devices.py").write_text("""
import sys

import keras
import keras_mpt

devices = keras.distribution.list_devices()
if "backbone" in sys.argv:
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ["batch", "model"], devices)
    keras.distribution.set_distribution(keras_mpt.BackboneParallel(mesh, min_size=100))
elif len(devices) > 1:
    keras.distribution.set_distribution(keras.distribution.DataParallel())

import tasks

losses, model = tasks.train()
on_first = sum(w.value.addressable_shards[0].data.nbytes for w in model.backbone.weights)
print(len(devices), "devices, with", on_first, "bytes of the backbone on the first:", losses)
""")
one, two = (
    run("jax_devices.py", *spread, KERAS_BACKEND="jax", XLA_FLAGS=devices.format(count))
    for devices in ["--xla_force_host_platform_device_count={}"]
    for count, spread in ((1, ()), (2, ("backbone",)))
)
print(one, two, sep="\n")
of_one, of_two = (losses(said.partition("first:")[2]) for said in (one, two))
assert all(abs(a - b) < 2e-5 for a, b in zip(of_one, of_two, strict=True))

# %% [markdown]
# ## TensorFlow
#
# `tf.distribute.MirroredStrategy` and its workers, with the model made in `strategy.scope()`:
# [recipes](../scaling.md#tensorflow-rows-over-devices).
#
# ## What fits
#
# Before anything is on a device, `estimate_memory` counts what a step will take of one, by the shapes of
# the weights. Here a Llama of 8 billion numbers, of which none is made:

# %%
import keras
import keras_hub

import keras_mpt

config = keras_mpt.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=20, num_tasks=10
)
with keras.StatelessScope(initialize_variables=False):
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=128256,
        num_layers=32,
        num_query_heads=32,
        num_key_value_heads=8,
        hidden_dim=4096,
        intermediate_dim=14336,
        dtype="bfloat16",
    )
    for rows in (1, 8):
        print(rows, keras_mpt.estimate_memory(backbone, config, batch_size=rows, length=512))

# %% [markdown]
# Its weights alone are 15 GiB; of two devices each has half of them under `BackboneParallel`, and of
# the rows of a batch each has its part under `DataParallel`.
#
# An interrupted run of several processes goes on by any number of them: `keras_mpt.ResumeTraining`, as in
# [the recipes](../scaling.md#pytorch-several-processes). Which task goes to which machine is a question
# of its own: [scaling](../scaling.md#on-paper).
