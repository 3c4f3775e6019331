"""Trains in one way, in a process of its own: `python -m tests.scaling.run WAY FOLDER INDEX PORTS`.

WAY is "one" or what `WAYS` has for the backend. INDEX says which of the processes it is, PORTS
where they meet. The first one leaves `WAY-KIND.npz` in FOLDER, and all the errors that they met.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

KINDS = ("classifier", "language model")
# Each backend's ways, and the kinds of models that are trained in each: compiling takes long.
WAYS = {
    "jax": {
        "data parallel": KINDS,
        "backbone parallel": KINDS[1:],
        "layout map": KINDS[1:],
        "processes": KINDS[:1],
    },
    "tensorflow": {"mirrored": KINDS, "workers": KINDS[:1]},
    "torch": {"processes": KINDS, "wrapped": KINDS[:1]},
}

# What is trained in each run of the tests, of each backend one; `--all-ways` trains all.
OFTEN = {"jax": "data parallel", "tensorflow": "mirrored", "torch": "processes"}


def main(way, folder, index=0, ports=()):
    """All kinds of models, trained in one way."""
    backend = os.environ["KERAS_BACKEND"]
    scope, shard = {"jax": on_jax, "tensorflow": on_tensorflow, "torch": on_torch}[backend](
        way, index, ports
    )
    from tests.scaling import jobs

    for kind in WAYS[backend].get(way, KINDS):
        if way == "wrapped":
            found = in_own_loop(kind, shard)
        elif way == "processes":
            found = in_processes(kind, folder, shard, index)
        else:
            with scope():
                model = jobs.make(kind)
            found = jobs.mixed(model, kind)
            found |= {f"mixed {name}": value for name, value in jobs.weights(model).items()}
            if kind == "classifier":
                found |= {**jobs.arrays(model, kind), **jobs.weights(model)}
            check_spread(way, model)
        if index == 0:
            jobs.write(folder / f"{way}-{kind}.npz", found)


def in_processes(kind, folder, shard, index):
    """Each process reads its part; one writes. Wrong parts are refused, and nothing is lost."""
    from tests.scaling import jobs

    model, errors = jobs.make(kind), []
    for wrong in ({"shard": shard, "seed": index}, {"shard": (0, 2)}):
        try:
            jobs.mixed(model, kind, **wrong)
        except ValueError as error:
            errors.append(str(error))
    (folder / f"errors {index}.json").write_text(json.dumps(errors))
    assert int(model.optimizer.iterations) == 0
    own = folder / kind
    model, found = jobs.resumed(kind, own, shard=shard)
    # Both to one place, and to one each: the second process writes nothing.
    model.save_adapter(own / "adapter")
    model.save_adapter(own / f"adapter {index}")
    return {**found, **jobs.weights(model)}


def in_own_loop(kind, shard):
    """PyTorch's own wrapper around the model, in a loop of one's own.

    It means over the processes' means: of rows these are the mean of all, of weighted tokens not.
    """
    import torch

    from tests.scaling import jobs

    model, mix = jobs.make(kind), jobs.mix(kind, shard=shard)
    assert not any(v.value.requires_grad for v in model.backbone.weights)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    trained = model.trainable_variables
    for _ in range(2):
        mix.on_epoch_begin()
        for step in range(len(mix)):
            x, y, _ = model.prepared(*mix[step])
            model.zero_grad()
            loss = model.compute_loss(x, torch.as_tensor(y), wrapped(x, training=True))
            loss.backward()
            with torch.no_grad():
                model.optimizer.apply([v.value.grad for v in trained], trained)
        mix.on_epoch_end()
    return jobs.weights(model)


def check_spread(way, model):
    """Weights are on several devices, and prompts whole on each."""
    if way not in ("backbone parallel", "layout map"):
        return
    split = [v for v in model.backbone.weights if not v.value.sharding.is_fully_replicated]
    whole = [v for v in model.trainable_variables if v.value.sharding.is_fully_replicated]
    assert len(split) >= 6 and len(whole) == len(model.trainable_variables)


def on_jax(way, index, ports):
    """Four devices, or two processes of one."""
    count = 1 if way == "processes" else 4
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    os.environ["XLA_FLAGS"] = flags
    import jax

    if way == "processes":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        # Between processors, gloo takes what two programs at once say for one another's.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.distributed.initialize(f"127.0.0.1:{ports[0]}", 2, index)
    import keras

    import keras_mpt

    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((count // 2 or 1, 2), ["batch", "model"], devices)
    match way:
        case "data parallel":
            made = keras.distribution.DataParallel()
        case "processes":
            made = keras.distribution.DataParallel(auto_shard_dataset=False)
        case "backbone parallel":
            made = keras_mpt.BackboneParallel(mesh, min_size=200)
        case "layout map":
            layout_map = keras.distribution.LayoutMap(mesh)
            layout_map[".*(query|key|value).kernel"] = (None, "model", None)
            made = keras.distribution.ModelParallel(layout_map=layout_map)
        case _:
            made = None
    keras.distribution.set_distribution(made)
    return contextlib.nullcontext, (index, 2)


def on_tensorflow(way, index, ports):
    """Two devices, or two workers of one."""
    if way == "workers":
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        task = {"type": "worker", "index": index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    import tensorflow as tf

    if way == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy().scope, None
    processor = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    if way == "one":
        return contextlib.nullcontext, None
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope, None


def on_torch(way, index, ports):
    """Two processes."""
    import torch

    if way != "one":
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0])}
        os.environ |= {"RANK": str(index), "WORLD_SIZE": "2"}
        torch.distributed.init_process_group("gloo")
    return contextlib.nullcontext, (index, 2)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
