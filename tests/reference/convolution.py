"""Convolutions and poolings by their definitions, and the gradients of weighted sums of the results: writes convolution.txt.

Usage: python3 convolution.py [--torch]; with --torch, what PyTorch has is compared as well, and must be equal. Needs NumPy.

A line is `KIND attributes ; extents of x ; extents of w ; extents of y ; y ; gradient by x ; gradient by w`, without w for
poolings. Element i of x is pattern(i, 1), of w pattern(i, 2), of the weights of the sum pattern(i, 3): multiples of 1/8, so
that all sums are exact in double precision.
"""

import itertools
import sys
from pathlib import Path

import numpy as np


def pattern(shape, seed):
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    return (((i * 37 + i // 7 * 5 + seed * 11) % 23 - 11) / 8).reshape(shape)


def padding(border, extents):
    """Zeros before and behind, for filters of those (dilated) extents."""
    sides = {"valid": lambda e: (0, 0), "half": lambda e: (e // 2, e // 2), "full": lambda e: (e - 1, e - 1)}
    return [sides[border](e) for e in extents] if isinstance(border, str) else border


def convolution(x, w, border, stride, dilation, groups, flip):
    """Theano's convNd: the result and what joins y, x and w."""
    n, rank = x.shape[0], x.ndim - 2
    k = [(e - 1) * d + 1 for e, d in zip(w.shape[2:], dilation)]
    pads = padding(border, k)
    out = [max(0, (i + lo + hi - e) // s + 1) if i + lo + hi >= e else 0
           for i, (lo, hi), e, s in zip(x.shape[2:], pads, k, stride)]
    y = np.zeros([n, w.shape[0], *out])
    g = pattern(y.shape, 3)
    gx, gw = np.zeros(x.shape), np.zeros(w.shape)
    per_out, per_in = w.shape[0] // groups, w.shape[1]
    taps = list(itertools.product(*map(range, w.shape[2:])))
    for o in range(w.shape[0]):
        for c in range(per_in):
            channel = o // per_out * per_in + c
            for place in itertools.product(*map(range, out)):
                for tap in taps:
                    at = tuple(p * s + t * d - lo for p, s, t, d, (lo, _) in zip(place, stride, tap, dilation, pads))
                    if any(a < 0 or a >= e for a, e in zip(at, x.shape[2:])):
                        continue
                    if flip:
                        tap = tuple(e - 1 - t for t, e in zip(tap, w.shape[2:]))
                    xi, wi, yi = (slice(None), channel, *at), (o, c, *tap), (slice(None), o, *place)
                    y[yi] += x[xi] * w[wi]
                    gx[xi] += g[yi] * w[wi]
                    gw[wi] += (g[yi] * x[xi]).sum()
    return y, gx, gw


def pooling(x, mode, size, stride, pad, ignore_border):
    """Theano's pool over the last axes (Pool.perform); tied largest elements share the gradient."""
    rank = len(size)
    padded = [e + 2 * p for e, p in zip(x.shape[-rank:], pad)]
    if ignore_border:
        out = [v // s if k == s else max(0, (v - k) // s + 1) for v, k, s in zip(padded, size, stride)]
    else:
        out = [(v - 1) // s + 1 if s >= k else max(0, (v - 1 - k + s) // s) + 1
               for v, k, s in zip(padded, size, stride)]
    lead = x.shape[:-rank]
    y = np.zeros([*lead, *out])
    g = pattern(y.shape, 3)
    gx = np.zeros(x.shape)
    inc = mode == "average_inc_pad"
    for place in itertools.product(*map(range, out)):
        window, count = [], 1
        for p, s, k, v, q in zip(place, stride, size, padded, pad):
            begin, end = p * s, min(p * s + k, v)
            if not inc:
                begin, end = max(begin, q), min(end, v - q)
            count *= end - begin
            window.append(slice(max(begin - q, 0), min(end, v - q) - q))
        at = (..., *window)
        part, axes = x[at], tuple(range(len(lead), x.ndim))
        gy = g[(..., *place)].reshape(*lead, *[1] * rank)
        if mode == "max":
            y[(..., *place)] = part.max(axes)
            tied = part == part.max(axes, keepdims=True)
            gx[at] += gy * tied / tied.sum(axes, keepdims=True)
        else:
            share = 1 if mode == "sum" else 1 / count
            y[(..., *place)] = part.sum(axes) * share
            gx[at] += gy * share * np.ones(part.shape)
    return y, gx


def numbers(values):
    return " ".join(repr(float(v)) for v in np.ravel(values))


def extents(x):
    return " ".join(str(n) for n in x.shape)


def listed(values):
    return ",".join(str(v) for v in values)


def convolutions():
    def case(x, w, border="valid", stride=None, dilation=None, groups=1, flip=True):
        rank = len(x) - 2
        return x, w, border, stride or [1] * rank, dilation or [1] * rank, groups, flip

    yield case((2, 3, 5, 6), (4, 3, 3, 2))
    yield case((2, 3, 5, 6), (4, 3, 3, 2), flip=False)
    yield case((2, 3, 5, 6), (4, 3, 3, 2), "half")
    yield case((2, 2, 6, 5), (3, 2, 4, 3), "half", stride=[2, 1])
    yield case((2, 3, 5, 6), (4, 3, 3, 2), "full")
    yield case((2, 3, 5, 6), (4, 3, 3, 2), "full", stride=[2, 3], flip=False)
    yield case((2, 3, 5, 6), (4, 3, 3, 2), [(1, 2), (0, 3)])
    yield case((1, 2, 9, 10), (3, 2, 3, 3), [(2, 2), (1, 0)], stride=[3, 2], dilation=[2, 3])
    yield case((2, 1, 9, 8), (2, 1, 3, 3), dilation=[2, 2])
    yield case((2, 1, 9, 8), (2, 1, 2, 3), "half", dilation=[3, 2], flip=False)
    yield case((2, 4, 6, 7), (6, 2, 3, 3), groups=2)
    yield case((2, 6, 5, 5), (6, 1, 2, 3), "half", groups=6, stride=[1, 2])
    yield case((1, 4, 6, 5), (2, 2, 3, 2), "full", groups=2, dilation=[1, 2], flip=False)
    yield case((3, 1, 12, 16), (5, 1, 5, 5))
    yield case((2, 6, 12, 12), (9, 6, 5, 5))
    yield case((1, 1, 3, 3), (1, 1, 3, 3))
    yield case((1, 1, 2, 3), (2, 1, 3, 3))
    yield case((2, 3, 17), (4, 3, 4))
    yield case((2, 3, 17), (4, 3, 4), [(3, 0)], stride=[2], dilation=[2], flip=False)
    yield case((2, 4, 11), (4, 2, 3), "half", groups=2)
    yield case((2, 2, 4, 5, 6), (3, 2, 2, 3, 2))
    yield case((1, 2, 4, 5, 6), (2, 2, 2, 3, 2), "full", stride=[1, 2, 1], dilation=[2, 1, 1])
    yield case((2, 2, 3, 4, 4), (4, 1, 3, 2, 3), "half", groups=2, flip=False)


def poolings():
    for mode in ["max", "sum", "average_inc_pad", "average_exc_pad"]:
        for ignore in [False, True]:
            yield (2, 3, 5, 5), mode, [2, 2], [2, 2], [0, 0], ignore
            yield (2, 2, 6, 4), mode, [3, 2], [3, 2], [0, 0], ignore
            yield (1, 2, 7, 8), mode, [3, 2], [2, 1], [0, 0], ignore
            yield (1, 2, 7, 9), mode, [2, 2], [3, 4], [0, 0], ignore
            yield (2, 9), mode, [4], [3], [0], ignore
            yield (1, 2, 3, 4, 5), mode, [2, 2, 2], [2, 2, 2], [0, 0, 0], ignore
            yield (3, 2, 2), mode, [3, 3], [3, 3], [0, 0], ignore
            yield (2, 4, 4), mode, [5, 3], [2, 2], [0, 0], ignore
        yield (2, 2, 5, 6), mode, [3, 3], [2, 2], [1, 1], True
        yield (1, 2, 5, 6), mode, [2, 3], [2, 3], [1, 2], True
        yield (1, 2, 6, 6), mode, [2, 2], [3, 3], [1, 0], True


def compare_with_torch(x, w, border, stride, dilation, groups, flip, y, gx, gw):
    import torch

    rank = x.ndim - 2
    k = [(e - 1) * d + 1 for e, d in zip(w.shape[2:], dilation)]
    pads = padding(border, k)
    if y.size == 0:
        return
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    f = tw.flip(list(range(2, w.ndim))) if flip else tw
    padded = torch.nn.functional.pad(tx, [n for lo_hi in reversed(pads) for n in lo_hi])
    conv = [torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d][rank - 1]
    ty = conv(padded, f, stride=stride, dilation=dilation, groups=groups)
    (ty * torch.tensor(pattern(y.shape, 3))).sum().backward()
    for ours, theirs in [(y, ty), (gx, tx.grad), (gw, tw.grad)]:
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


def main():
    lines = []
    for xs, ws, border, stride, dilation, groups, flip in convolutions():
        x, w = pattern(xs, 1), pattern(ws, 2)
        y, gx, gw = convolution(x, w, border, stride, dilation, groups, flip)
        if "--torch" in sys.argv:
            compare_with_torch(x, w, border, stride, dilation, groups, flip, y, gx, gw)
        named = border if isinstance(border, str) else listed(n for pair in border for n in pair)
        kind = f"conv{len(xs) - 2} {named} {listed(stride)} {listed(dilation)} {groups} {int(flip)}"
        fields = [kind, extents(x), extents(w), extents(y), numbers(y), numbers(gx), numbers(gw)]
        lines.append(" ; ".join(fields))
    for xs, mode, size, stride, pad, ignore in poolings():
        x = pattern(xs, 1)
        y, gx = pooling(x, mode, size, stride, pad, ignore)
        kind = f"pool{len(size)} {mode} {listed(size)} {listed(stride)} {listed(pad)} {int(ignore)}"
        lines.append(" ; ".join([kind, extents(x), extents(y), numbers(y), numbers(gx)]))
    Path(__file__).with_name("convolution.txt").write_text("\n".join(lines) + "\n")


main()
