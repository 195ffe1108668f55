"""Writes crates/graph/src/math/division.txt: floor division and remainder of floats as NumPy computes them. One line: f32 or
f64, bits of x, of y, of x // y, of x % y, hexadecimal; `nan` for any NaN."""
import random
import sys

import numpy as np

random.seed(20240611)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 3.0, -3.0, 7.0, 5.0, 0.5, 2.5, -2.5, 1e8, 1e9, 1e-30, -1e30,
           16777215.0, 16777216.0, 16777217.0, float("inf"), float("-inf"), float("nan")]


def specials(info):
    return SPECIAL + [float(info.max), -float(info.max), float(info.smallest_normal), float(info.smallest_subnormal),
                      -float(info.smallest_subnormal), 3 * float(info.smallest_subnormal)]


def spread(info):
    exponent = random.uniform(np.log2(float(info.smallest_subnormal)), info.maxexp)
    return random.choice([1, -1]) * 2.0 ** min(exponent, info.maxexp - 1) * random.uniform(0.5, 1)


def pairs(dtype):
    info = np.finfo(dtype)
    for x in specials(info):
        for y in specials(info):
            yield x, y
    for _ in range(400):
        yield spread(info), spread(info)
    for _ in range(400):
        y = spread(info)
        yield y * random.choice([1, -1]) * random.randint(0, 40), y
    for _ in range(400):
        y = spread(info)
        yield y * 2.0 ** random.uniform(-3, info.nmant + 4), y
    for _ in range(200):
        yield random.randint(-100, 100) / 10, random.randint(-50, 50) / 10


def text(value, integer):
    return "nan" if np.isnan(value) else f"{value.view(integer):x}"


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.stdout = open(sys.argv[1], "w") if len(sys.argv) > 1 else sys.stdout
    for name, dtype, integer in [("f32", np.float32, np.uint32), ("f64", np.float64, np.uint64)]:
        for x, y in pairs(dtype):
            x, y = dtype(x), dtype(y)
            print(name, *(text(v, integer) for v in [x, y, np.floor_divide(x, y), np.remainder(x, y)]))
