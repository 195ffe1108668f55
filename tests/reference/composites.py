"""Composite functions by NumPy, in double precision.

Writes tests/reference/composites.txt: a name, the extents and the values, one array a line; `x`, `y` and `cube` are the
operands of tests/src/composites.rs. Run: python3 tests/reference/composites.py
"""

from pathlib import Path

import numpy as np

rng = np.random.RandomState(11)
x, y = rng.normal(size=(3, 4)), rng.normal(size=(1, 5))
cube = rng.normal(1, 2, size=(2, 3, 4))
scale, shift = np.array([0.5, 1, 2]), np.array([-1, 0, 3.0])
mean, variance = np.array([0.25, 0, -1]), np.array([0.5, 1, 4])


def elu(x, alpha):
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))


def normalised(cube, mean, variance, epsilon):
    mean, variance, a, b = (v[None, :, None] for v in (mean, variance, scale, shift))
    return (cube - mean) / np.sqrt(variance + epsilon) * a + b


batch = cube.mean((0, 2)), cube.var((0, 2))
ARRAYS = {
    "x": x,
    "y": y,
    "cube": cube,
    "squeeze": np.squeeze(y, 0),
    "expand_dims_first": np.expand_dims(x, 0),
    "expand_dims_last": np.expand_dims(x, -1),
    "swapaxes": np.swapaxes(cube, 0, -1),
    "repeat_rows": np.repeat(x, 3, 0),
    "repeat_columns": np.repeat(x, 2, -1),
    "repeat_none": np.repeat(x, 0, 1),
    "tile_last": np.tile(x, 2),
    "tile_both": np.tile(x, (2, 3)),
    "tile_new_axis": np.tile(x, (2, 1, 3)),
    "tile_none": np.tile(x, (0, 1)),
    "pad_constant": np.pad(x, ((1, 2), (0, 3)), constant_values=7.5),
    "norm_two": np.linalg.norm(x, axis=1),
    "norm_frobenius": np.linalg.norm(x),
    "norm_one": np.linalg.norm(x, 1, axis=0),
    "norm_three": np.linalg.norm(x, 3, axis=1),
    "norm_half": np.linalg.norm(x, 0.5, axis=1),
    "norm_negative": np.linalg.norm(x, -2, axis=1),
    "norm_zero": np.linalg.norm(np.maximum(x, 0), 0, axis=1),
    "norm_infinite": np.linalg.norm(x, np.inf, axis=0),
    "norm_minus_infinite": np.linalg.norm(x, -np.inf, axis=0),
    "where": np.where(x > 0, x, x.T[:1, :1]),
    "leaky_relu": np.where(x >= 0, x, 0.1 * x),
    "elu": elu(x, 0.7),
    "selu": 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717),
    "batch_normalise": normalised(cube, *batch, 1e-4),
    "running_mean": mean + 0.1 * (batch[0] - mean),
    "running_variance": variance + 0.1 * (cube.var((0, 2), ddof=1) - variance),
    "normalise_by": normalised(cube, mean, variance, 1e-4),
    "zeros": np.zeros((3, 5)),
    "ones": np.ones((4,)),
    "lookup": x[[[2, 0], [0, -1]]],
}
for mode in ["edge", "reflect", "symmetric", "wrap"]:
    ARRAYS[f"pad_{mode}"] = np.pad(x, ((1, 2), (3, 0)), mode=mode)
    # Margins longer than the axis, and an axis of a single element.
    ARRAYS[f"pad_{mode}_long"] = np.pad(y, ((2, 1), (11, 13)), mode=mode)

lines = []
for name, array in ARRAYS.items():
    extents = "x".join(str(extent) for extent in array.shape) or "scalar"
    lines.append(" ".join([name, extents, *(repr(float(v)) for v in array.ravel())]))
Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
