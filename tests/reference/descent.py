"""Update rules, schedules and clipping as their papers have them, by NumPy in double precision.

Writes tests/reference/descent.txt: a rule or schedule and the values that it gives, one a line. Run:
python3 tests/reference/descent.py
"""

from pathlib import Path

import numpy as np

STEPS = 6
START = np.array([0.5, -1.25, 2.0])
RATE = 0.0625


def gradient(p, t):
    """That of a bowl whose middle moves from step to step, so that gradients change their size and sign."""
    return np.array([1.0, 3.0, 0.25]) * (p - np.array([0.25, -0.5, 1.5]) * t)


def sgd(rate=RATE):
    return lambda p, g, t: p - rate * g


def momentum(m=0.75):
    v = 0.0

    def step(p, g, t):
        nonlocal v
        v = m * v - RATE * g
        return p + v

    return step


def nesterov(m=0.75):
    """Bengio, Boulanger-Lewandowski and Pascanu (2013), equation 7, for the point that is looked ahead to."""
    v = 0.0

    def step(p, g, t):
        nonlocal v
        v = m * v - RATE * g
        return p + m * v - RATE * g

    return step


def adagrad(epsilon=1e-6):
    squares = 0.0

    def step(p, g, t):
        nonlocal squares
        squares = squares + g**2
        return p - RATE * g / np.sqrt(squares + epsilon)

    return step


def adadelta(decay=0.95, epsilon=1e-6):
    """Zeiler (2012), algorithm 1."""
    squares = steps = 0.0

    def step(p, g, t):
        nonlocal squares, steps
        squares = decay * squares + (1 - decay) * g**2
        delta = -np.sqrt(steps + epsilon) / np.sqrt(squares + epsilon) * g
        steps = decay * steps + (1 - decay) * delta**2
        return p + delta

    return step


def rmsprop(decay=0.9, epsilon=1e-6):
    squares = 0.0

    def step(p, g, t):
        nonlocal squares
        squares = decay * squares + (1 - decay) * g**2
        return p - RATE * g / np.sqrt(squares + epsilon)

    return step


def centred_rmsprop(decay=0.95, m=0.9, epsilon=1e-4):
    """Graves (2013), equations 38 to 41."""
    n = mean = delta = 0.0

    def step(p, g, t):
        nonlocal n, mean, delta
        n = decay * n + (1 - decay) * g**2
        mean = decay * mean + (1 - decay) * g
        delta = m * delta - RATE * g / np.sqrt(n - mean**2 + epsilon)
        return p + delta

    return step


def adam(beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Kingma and Ba (2015), algorithm 1."""
    m = v = 0.0

    def step(p, g, t):
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1 ** (t + 1)), v / (1 - beta2 ** (t + 1))
        return p - RATE * m_hat / (np.sqrt(v_hat) + epsilon)

    return step


def clipped(norm=1.0):
    """Both halves of the parameters are clipped together: Pascanu, Mikolov and Bengio (2013), algorithm 1."""

    def step(p, g, t):
        found = np.linalg.norm(g)
        return p - RATE * (g * norm / found if found > norm else g)

    return step


RULES = {
    "sgd": sgd(),
    "momentum": momentum(),
    "nesterov": nesterov(),
    "adagrad": adagrad(),
    "adadelta": adadelta(),
    "rmsprop": rmsprop(),
    "centred_rmsprop": centred_rmsprop(),
    "adam": adam(),
    "clipped": clipped(),
}

# Factors of the rate at these steps.
AT = [0, 1, 2, 3, 4, 5, 7, 8, 9, 100]
SCHEDULES = {
    "constant": lambda t: 1.0,
    "staircase": lambda t: 0.5 ** (t // 3),
    "exponential": lambda t: 0.5 ** (t / 3),
    "inverse": lambda t: min(1.0, 4 / (t + 1)),
    "linear": lambda t: np.interp(t, [0, 8], [1.0, 0.25]),
    "cosine": lambda t: 0.25 + 0.75 * (1 + np.cos(np.pi * min(t, 8) / 8)) / 2,
}

lines = []
for name, step in RULES.items():
    p, values = START, []
    for t in range(STEPS):
        p = step(p, gradient(p, t), t)
        values.extend(p)
    lines.append((name, values))
for name, factor in SCHEDULES.items():
    lines.append((name, [factor(t) for t in AT]))
# Steps of one and the same gradient under a schedule.
p, values = START, []
for t in range(STEPS):
    p = p - RATE * SCHEDULES["linear"](t) * gradient(p, t)
    values.extend(p)
lines.append(("scheduled", values))

text = "".join(" ".join([name, *(repr(float(value)) for value in values)]) + "\n" for name, values in lines)
(Path(__file__).parent / "descent.txt").write_text(text)
