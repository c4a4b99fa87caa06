"""Networks made in Keras and TensorFlow, each for one thing: run where TensorFlow is.

python keras_nets.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any


def make(folder: Path) -> None:
    """Write all of them."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    keras.utils.set_random_seed(0)

    words = keras.Input(shape=(6,), dtype="int32", name="words")
    extra = keras.Input(shape=(3,), name="extra")
    mixed = layers.Embedding(20, 4, name="table")(words)
    mixed = layers.GlobalAveragePooling1D(name="mean")(mixed)
    mixed = layers.Concatenate(name="both")([mixed, extra])
    classes = layers.Dense(5, activation="softmax", name="classes")(mixed)
    level = layers.Dense(1, name="level")(mixed)
    keras.Model([words, extra], [classes, level], name="two").save(folder / "two.keras")

    image = keras.Input(shape=(None, None, 3), name="image")
    wide = layers.Conv2D(4, 3, activation="relu", padding="same", name="conv")(image)
    wide = layers.GlobalAveragePooling2D(name="pool")(wide)
    wide = layers.Dense(2, activation="softmax", name="head")(wide)
    keras.Model(image, wide, name="open").save(folder / "open.keras")

    fixed = keras.Input(batch_shape=(4, 3), name="fixed")
    keras.Model(fixed, layers.Dense(2, name="head")(fixed), name="four").save(folder / "four.keras")

    steps = keras.Input(shape=(5, 3), name="steps")
    keras.Model(steps, layers.LSTM(4, name="lstm")(steps)).save(folder / "lstm.keras")
    unrolled = layers.LSTM(4, unroll=True, name="lstm")(steps)
    keras.Model(steps, unrolled).save(folder / "unrolled.keras")

    rows = keras.Input(shape=(3,), name="rows")
    twice = layers.Lambda(lambda x: 2 * x, name="twice", output_shape=(3,))(rows)
    keras.Model(rows, layers.Dense(2)(twice)).save(folder / "lambda.keras")
    keras.Sequential([layers.Dense(2)]).save(folder / "unbuilt.keras")

    rows = keras.Input(shape=(3,), name="rows")
    plain = keras.Model(rows, layers.Dense(2, name="head")(rows), name="plain")
    plain.export(folder / "exported", verbose=False)

    takes = [tf.TensorSpec((None, 3), tf.float32, name="rows")]
    weights = tf.Variable(tf.ones((3, 2)))

    def reading(rows: Any) -> Any:
        text = tf.io.read_file("/etc/hostname")
        return rows @ weights + tf.cast(tf.strings.length(text), tf.float32)

    def writing(rows: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file("edgesdk-was-here", "x")]):
            return rows @ weights

    def python(rows: Any) -> Any:
        return tf.numpy_function(lambda x: x, [rows], tf.float32)

    def lacking(rows: Any) -> Any:
        return tf.math.igamma(tf.abs(rows @ weights) + 1.0, 1.0)

    def save(name: str, **functions: Any) -> None:
        module = tf.Module()
        module.weights = weights
        module.functions = {k: tf.function(f, takes) for k, f in functions.items()}
        tf.saved_model.save(module, str(folder / name), module.functions)

    for function in (reading, writing, python, lacking):
        save(function.__name__, serving_default=function)
    save("several", up=lambda rows: rows @ weights, down=lambda rows: -(rows @ weights))
    save("none")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
