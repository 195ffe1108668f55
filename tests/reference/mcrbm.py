"""Makes mcrbm.txt: the mean and covariance RBM by NumPy, for models/src/mcrbm.rs.

Free energies are summed over all states of the hidden units, derivatives are central differences, both in float64.
"""
import itertools

import numpy as np

N, I, K, J = 6, 5, 4, 3
rng = np.random.RandomState(11)
f32 = lambda x: np.asarray(x, np.float32).astype(np.float64)


def unit(v, p):
    slope, offset = (1 / v.shape[1], 0.5) if p is None else (1 / 192, 0.5)
    return v / np.sqrt(slope * (v**2).sum(1, keepdims=True) + offset)


def inputs_of_hidden(params, v):
    u, w, a, b, c = params[:5]
    p = params[5] if len(params) > 5 else None
    squares = (unit(v, p) @ u) ** 2
    pooled = -squares if p is None else squares @ p
    return b + 0.5 * pooled, c + v @ w


def energy(params, v, h, g):
    x, y = inputs_of_hidden(params, v)
    return -(x * h).sum(1) - (y * g).sum(1) + 0.5 * (v**2).sum(1) - v @ params[2]


def states(n):
    return [np.array(s, float) for s in itertools.product([0, 1], repeat=n)]


def free_energy(params, v):
    k, j = len(params[3]), len(params[4])
    total = sum(np.exp(-energy(params, v, h, g)) for h in states(k) for g in states(j))
    return -np.log(total)


def expectations(params, v):
    k, j = len(params[3]), len(params[4])
    weights = [(np.exp(-energy(params, v, h, g)), h, g) for h in states(k) for g in states(j)]
    total = sum(w for w, _, _ in weights)
    mean = lambda values: sum(w[:, None] * x for w, x in values) / total[:, None]
    return mean([(w, h) for w, h, _ in weights]), mean([(w, g) for w, _, g in weights])


def terms(params, v):
    x, y = inputs_of_hidden(params, v)
    softplus = lambda z: np.log1p(np.exp(z))
    return np.array([-softplus(x).sum(1), -softplus(y).sum(1), 0.5 * (v**2).sum(1), -v @ params[2]])


def difference(cost, params):
    gradients = []
    for i, param in enumerate(params):
        g = np.zeros_like(param)
        for at in np.ndindex(param.shape):
            moved = []
            for step in (1e-6, -1e-6):
                changed = [q.copy() for q in params]
                changed[i][at] += step
                moved.append(cost(changed))
            g[at] = (moved[0] - moved[1]) / 2e-6
        gradients.append(g)
    return gradients


def learn(params, pos, neg, iterations, l1, l1_start, anneal_start, pooling_start):
    """The tutorial's trainer on one minibatch, with negative particles that stay where they are."""
    multipliers = [2, 0.2, 0.02, 0.1, 0.02, 0.02]
    norm_vf, costs = 1.0, []
    mask = None if len(params) == 5 else params[5] != 0
    for iteration in range(iterations):
        def cost(q):
            difference = (free_energy(q, pos) - free_energy(q, neg)).sum()
            penalty = np.abs(q[0]).sum() + np.abs(q[1]).sum()
            return difference + (l1 * penalty if iteration >= l1_start else 0)

        costs.append((free_energy(params, pos) - free_energy(params, neg)).mean())
        rate = 0.075 / N * min(1, anneal_start / (iteration + 1))
        factors = multipliers[:5] + [multipliers[5] if iteration > pooling_start else 0]
        params = [q - rate * m * g for q, m, g in zip(params, factors, difference(cost, params))]
        norms = np.sqrt((params[0] ** 2).sum(0))
        norm_vf = 0.95 * norm_vf + 0.05 * norms.mean()
        params[0] = params[0] * norm_vf / norms
        if mask is not None:
            p = np.minimum(params[5] * mask, 0)
            params[5] = -p / p.sum(0)
    return params, norm_vf, np.array(costs)


def connectivity(out, window, stride):
    """Every filter of the grid against every unit, by distance on the torus."""
    kernel = lambda n: np.poly1d([0.5, 0.5]) ** (n - 1)
    line = lambda out, window, stride: np.array(
        [[sum(kernel(window).coeffs[d] for d in range(window) if (unit * stride + d) % (out * stride) == filter)
          for unit in range(out)] for filter in range(out * stride)])
    return np.kron(line(out[0], window[0], stride[0]), line(out[1], window[1], stride[1]))


def show(name, values):
    print(name, " ".join("%.9g" % value for value in np.ravel(values)))


params = [f32(0.7 * rng.randn(I, K)), f32(0.5 * rng.randn(I, J)), f32(0.3 * rng.randn(I)), f32(2 + rng.randn(K)),
          f32(-1 + rng.randn(J))]
pooling = np.array([[-1, 0, -0.5], [-0.7, -0.2, 0], [0, -0.3, -0.5], [-0.3, -1.5, -1]])
pooled = params[:3] + [params[3][:3], params[4], f32(pooling)]
pos, neg = f32(rng.randn(N, I)), f32(1.5 * rng.randn(N, I))
for name, value in zip("uwabcp", params + [pooled[5]]):
    show(name, value)
show("pos", pos)
show("neg", neg)
for kind, q in (("plain", params), ("pooled", pooled)):
    assert np.allclose(terms(q, pos).sum(0), free_energy(q, pos))
    show(kind + "_terms", terms(q, pos))
    show(kind + "_free_energy", free_energy(q, pos))
    h, g = expectations(q, pos)
    show(kind + "_h", h)
    show(kind + "_g", g)
    learnt, norm_vf, costs = learn(q, pos, neg, 4, 0.3, 1, 2, 0)
    for name, value in zip("uwabcp", learnt):
        show(f"{kind}_learnt_{name}", value)
    show(kind + "_norm_vf", norm_vf)
    show(kind + "_costs", costs)
show("connectivity", connectivity((3, 4), (3, 3), (2, 2)))
