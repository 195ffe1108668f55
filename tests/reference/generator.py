"""Draws of numpy.random.default_rng, for the tests of crates/datasets/src/numpy/generator.rs.

    python generator.py > generator.txt

Each line: kind, seed, values (floats by the bits of their float32).
"""
import numpy as np


def bits(values):
    return values.view(np.uint32).tolist()


def mixed(g):
    return bits(g.random(3, dtype=np.float32)) + g.integers(0, 10, 4).tolist() + bits(g.random(6, dtype=np.float32))


KINDS = {
    "raw": lambda g: g.bit_generator.random_raw(12).tolist(),
    "float32": lambda g: bits(g.random(13, dtype=np.float32)),
    "integers10": lambda g: g.integers(0, 10, 30).tolist(),
    "integers3000000000": lambda g: g.integers(0, 3_000_000_000, 20).tolist(),
    "mixed": mixed,
}

print(f"# NumPy {np.__version__}: made by generator.py")
for seed in (0, 7, 1234, 89677, 2**32 - 1):
    for kind, draw in KINDS.items():
        print(kind, seed, *draw(np.random.default_rng(seed)))
