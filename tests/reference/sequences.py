"""Costs and gradients of a tiny slot filler and a tiny LSTM, by NumPy in double precision and complex steps.

Writes tests/reference/sequences.txt: a name, the extents and the values, one array a line; names begin with `slu.` or
`lstm.`. Run: python3 tests/reference/sequences.py
"""

from pathlib import Path

import numpy as np

rng = np.random.RandomState(7)


def drawn(shapes):
    """Multiples of 1/64 are the same in single precision."""
    return {name: np.round(rng.normal(0, 0.7, shape) * 64) / 64 for name, shape in shapes.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def gradients(cost, parameters):
    """The derivatives by each element, exact to rounding: Im f(x + ih) / h."""
    step, results = 1e-30, {}
    for name in parameters:
        results[name] = np.zeros(parameters[name].shape)
        for index in np.ndindex(*parameters[name].shape):
            p = {key: value.astype(complex) for key, value in parameters.items()}
            p[name][index] += 1j * step
            results[name][index] = cost(p).imag / step
    return results


# Slot filling: a sentence of 5 words out of 4, windows of 3 rows of 2 elements, 3 hidden units, 3 labels.
WORDS, EMBEDDING, WINDOW, HIDDEN, CLASSES = 4, 2, 3, 3, 3
slu = drawn(
    {
        "embeddings": (WORDS + 1, EMBEDDING),
        "wx": (EMBEDDING * WINDOW, HIDDEN),
        "wh": (HIDDEN, HIDDEN),
        "w": (HIDDEN, CLASSES),
        "bh": (HIDDEN,),
        "b": (CLASSES,),
        "h0": (HIDDEN,),
    }
)
sentence, labels = [2, 0, 0, 3, 2], [0, 2, 1, 1, 0]


def slu_probabilities(p):
    padded = [WORDS] + sentence + [WORDS]
    h, rows = p["h0"], []
    for t in range(len(sentence)):
        x = p["embeddings"][padded[t : t + WINDOW]].ravel()
        h = sigmoid(x @ p["wx"] + h @ p["wh"] + p["bh"])
        rows.append(softmax(h @ p["w"] + p["b"]))
    return np.array(rows)


def slu_cost(p):
    return -np.log(slu_probabilities(p)[np.arange(len(labels)), labels]).mean()


# LSTM: three sequences of 4, 2 and 1 words out of 5, 3 units, 2 classes.
UNITS = 3
lstm = drawn(
    {
        "Wemb": (5, UNITS),
        "lstm_W": (UNITS, 4 * UNITS),
        "lstm_U": (UNITS, 4 * UNITS),
        "lstm_b": (4 * UNITS,),
        "U": (UNITS, 2),
        "b": (2,),
    }
)
reviews, sentiments = [[1, 4, 4, 2], [0, 3], [2]], [1, 0, 1]
dropped = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1.0]])


def averages(p):
    rows = []
    for words in reviews:
        h = c = np.zeros(UNITS)
        states = []
        for word in words:
            gates = p["Wemb"][word] @ p["lstm_W"] + h @ p["lstm_U"] + p["lstm_b"]
            i, f, o, new = gates[:UNITS], gates[UNITS : 2 * UNITS], gates[2 * UNITS : 3 * UNITS], gates[3 * UNITS :]
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
            h = sigmoid(o) * np.tanh(c)
            states.append(h)
        rows.append(np.mean(states, axis=0))
    return np.array(rows)


def lstm_probabilities(p, kept):
    return softmax((averages(p) * kept) @ p["U"] + p["b"])


def lstm_cost(p):
    return -np.log(lstm_probabilities(p, dropped)[np.arange(3), sentiments]).mean()


arrays = {f"slu.{name}": value for name, value in slu.items()}
arrays["slu.probabilities"] = slu_probabilities(slu)
arrays["slu.cost"] = np.array(slu_cost(slu))
arrays.update({f"slu.gradient.{name}": value for name, value in gradients(slu_cost, slu).items()})
arrays.update({f"lstm.{name}": value for name, value in lstm.items()})
arrays["lstm.dropped"] = dropped
arrays["lstm.probabilities"] = lstm_probabilities(lstm, 0.5)
arrays["lstm.cost"] = np.array(lstm_cost(lstm))
arrays.update({f"lstm.gradient.{name}": value for name, value in gradients(lstm_cost, lstm).items()})
lines = []
for name, array in arrays.items():
    extents = "x".join(str(extent) for extent in array.shape) or "scalar"
    lines.append(" ".join([name, extents, *(repr(float(x)) for x in array.ravel())]))
Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
