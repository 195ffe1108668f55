"""Costs and gradients of a tiny autoencoder, by NumPy in double precision and complex steps.

The contractive cost is the tutorial's: a tensor with the derivative of each hidden unit with respect to each element
of the input. Writes tests/reference/autoencoder.txt: a name, the extents and the values, one array a line. Run:
python3 tests/reference/autoencoder.py
"""

from pathlib import Path

import numpy as np

EXAMPLES, VISIBLE, HIDDEN, CONTRACTION = 5, 4, 3, 0.5
rng = np.random.RandomState(11)
# Multiples of 1/64 are the same in single precision.
parameters = {
    name: np.round(rng.normal(0, 0.9, shape) * 64) / 64
    for name, shape in {"W": (VISIBLE, HIDDEN), "bhid": (HIDDEN,), "bvis": (VISIBLE,)}.items()
}
x = np.round(rng.uniform(size=(EXAMPLES, VISIBLE)) * 64) / 64


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def reconstruction(p):
    hidden = sigmoid(x @ p["W"] + p["bhid"])
    z = sigmoid(hidden @ p["W"].T + p["bvis"])
    return -(x * np.log(z) + (1 - x) * np.log(1 - z)).sum(axis=1).mean()


def jacobian(p):
    hidden = sigmoid(x @ p["W"] + p["bhid"])
    slopes = np.reshape(hidden * (1 - hidden), (EXAMPLES, 1, HIDDEN))
    return (slopes * np.reshape(p["W"], (1, VISIBLE, HIDDEN)))


def contractive(p):
    return reconstruction(p) + CONTRACTION * (jacobian(p) ** 2).sum() / EXAMPLES


def gradient(cost, name):
    """By complex steps, which lose no digits."""
    step = 1e-30
    result = np.zeros(parameters[name].shape)
    for at in np.ndindex(result.shape):
        moved = {key: value.astype(complex) for key, value in parameters.items()}
        moved[name][at] += step * 1j
        result[at] = cost(moved).imag / step
    return result


values = {**parameters, "x": x, "reconstruction": reconstruction(parameters), "jacobian": jacobian(parameters)}
values["contraction"] = (jacobian(parameters) ** 2).sum() / EXAMPLES
values["cost"] = contractive(parameters)
for name in parameters:
    values[f"reconstruction.{name}"] = gradient(reconstruction, name)
    values[f"cost.{name}"] = gradient(contractive, name)

lines = []
for name, value in values.items():
    value = np.asarray(value)
    extents = "x".join(map(str, value.shape)) or "scalar"
    lines.append(" ".join([name, extents, *(repr(float(element)) for element in value.ravel())]) + "\n")
(Path(__file__).parent / "autoencoder.txt").write_text("".join(lines))
