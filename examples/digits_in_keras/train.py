"""Trains ``digits.keras`` on the spot: a small network in Keras that reads 8 x 8 scans of digits.

Data: Optical Recognition of Handwritten Digits, 1,797 real scans (Alpaydin, Kaynak 1998), as
scikit-learn ships it. Needs TensorFlow and scikit-learn, in any environment; not edgesdk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

ROWS = {
    "training": slice(0, 1000),
    "calibration": slice(1000, 1100),
    "validation": slice(1100, 1400),
    "test": slice(1400, 1797),
}


def samples(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images [N, 8, 8, 1] from 0 to 1 and digits [N]; no two splits share a sample."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[ROWS[name]]
    images = (data.images[order, :, :, None] / 16).astype(np.float32)
    return images, data.target[order].astype(np.int64)


def main() -> None:
    """Train the network and save it beside this file."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv1"),
            keras.layers.BatchNormalization(name="norm1"),
            keras.layers.ReLU(name="relu1"),
            keras.layers.MaxPooling2D(name="pool1"),
            keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise"),
            keras.layers.Conv2D(32, 3, activation="relu", name="conv2"),
            keras.layers.GlobalAveragePooling2D(name="pool2"),
            keras.layers.Dense(10, name="head"),
        ],
        name="digits",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
    model.fit(*samples("training"), batch_size=32, epochs=30, verbose=0)
    print("test loss and accuracy:", model.evaluate(*samples("test"), verbose=0))  # noqa: T201
    keras.Model(model.inputs, model.outputs, name="digits").save(
        Path(__file__).with_name("digits.keras")
    )


if __name__ == "__main__":
    main()
