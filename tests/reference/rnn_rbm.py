"""Biases, cost and gradients of a tiny RNN-RBM, by NumPy in double precision and complex steps.

Writes tests/reference/rnn_rbm.txt: a name, the extents and the values, one array a line. Run:
python3 tests/reference/rnn_rbm.py
"""

from pathlib import Path

import numpy as np

VISIBLE, HIDDEN, RECURRENT, FRAMES = 4, 3, 2, 6
rng = np.random.RandomState(7)
SHAPES = {
    "W": (VISIBLE, HIDDEN),
    "bv": (VISIBLE,),
    "bh": (HIDDEN,),
    "Wuh": (RECURRENT, HIDDEN),
    "Wuv": (RECURRENT, VISIBLE),
    "Wvu": (VISIBLE, RECURRENT),
    "Wuu": (RECURRENT, RECURRENT),
    "bu": (RECURRENT,),
    "u0": (RECURRENT,),
}
# Multiples of 1/64 are the same in single precision.
parameters = {name: np.round(rng.normal(0, 0.7, shape) * 64) / 64 for name, shape in SHAPES.items()}
v = (rng.uniform(size=(FRAMES, VISIBLE)) < 0.4).astype(float)
sample = (rng.uniform(size=(FRAMES, VISIBLE)) < 0.5).astype(float)


def biases(p):
    u, bv, bh = p["u0"], [], []
    for frame in v:
        bv.append(p["bv"] + u @ p["Wuv"])
        bh.append(p["bh"] + u @ p["Wuh"])
        u = np.tanh(p["bu"] + frame @ p["Wvu"] + u @ p["Wuu"])
    return np.array(bv), np.array(bh)


def cost(p):
    bv, bh = biases(p)

    def free_energy(x):
        return -(x * bv).sum() - np.log(1 + np.exp(x @ p["W"] + bh)).sum()

    return (free_energy(v) - free_energy(sample)) / FRAMES


def gradient(name):
    """The derivative by each element, exact to rounding: Im f(x + ih) / h."""
    step, result = 1e-30, np.zeros(SHAPES[name])
    for index in np.ndindex(*SHAPES[name]):
        p = {key: value.astype(complex) for key, value in parameters.items()}
        p[name][index] += 1j * step
        result[index] = cost(p).imag / step
    return result


arrays = {**parameters, "v": v, "sample": sample}
arrays["bv_t"], arrays["bh_t"] = biases(parameters)
arrays["cost"] = np.array(cost(parameters))
arrays.update({f"gradient.{name}": gradient(name) for name in SHAPES})
lines = []
for name, array in arrays.items():
    extents = "x".join(str(extent) for extent in array.shape) or "scalar"
    lines.append(" ".join([name, extents, *(repr(float(x)) for x in array.ravel())]))
Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
