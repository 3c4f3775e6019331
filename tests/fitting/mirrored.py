"""Trains on one device and on two, in a process of its own: `python -m tests.fitting.mirrored`.

TensorFlow makes two devices of a processor only before it has begun.
"""

import numpy as np
import tensorflow as tf


def train(strategy):
    """What a model has learned and says under a strategy."""
    import keras

    import keras_mpt
    from tests import tiny
    from tests.models.classifiers import config, randomized

    keras.utils.set_random_seed(0)
    with strategy.scope():
        backbone = tiny.backbone("plain")
        model = keras_mpt.models.PromptTunedTextClassifier(backbone, config(), [2, 3])
        randomized(model).compile(keras.optimizers.SGD(0.1))
    x = {**tiny.inputs(backbone, rows=8), "task_ids": np.array([0, 1] * 4)}
    y = np.array([0, 1, 1, 2, 0, 0, 1, 1])
    given = {"batch_size": 4, "verbose": 0}
    losses = model.fit(x, y, epochs=2, shuffle=False, **given).history["loss"]
    found = [losses, model.predict(x, **given), *model.evaluate(x, y, **given)]
    return [*found, *(np.asarray(v) for v in model.trainable_variables)]


def main():
    """Compares the two."""
    processor = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, halves)
    one = train(tf.distribute.get_strategy())
    two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    print("equal")


if __name__ == "__main__":
    main()
