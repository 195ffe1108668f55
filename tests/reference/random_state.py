"""Reference values for crates/datasets/src/numpy/random_state.rs: draws of NumPy's legacy RandomState.

Run: python random_state.py > random_state.txt   (needs numpy)

Each line: a name, then values. Integers stand as they are, floats as the hexadecimal of their bits.
"""

import struct
import numpy as np


def bits(values):
    return " ".join(struct.pack(">d", float(v)).hex() for v in np.ravel(values))


def integers(values):
    return " ".join(str(int(v)) for v in np.ravel(values))


def line(name, text):
    print(f"{name}: {text}")


R = np.random.RandomState
print("# made by tests/reference/random_state.py")
for seed in (0, 1, 1234, 4294967295):
    line(f"words {seed}", integers(R(seed).randint(0, 2**32, 5)))
    line(f"sample {seed}", bits(R(seed).random_sample(5)))
late = R(7)
late.random_sample(5000)
line("late sample 7", bits(late.random_sample(3)))
line("key 1 2 3", bits(R([1, 2, 3]).random_sample(5)))
line("key long", bits(R(list(range(1000))).random_sample(5)))

bound = np.sqrt(6.0 / (784 + 500))
weights = R(1234).uniform(-bound, bound, size=(784, 500))
line("mlp head", bits(weights.ravel()[:6]))
line("mlp tail", bits(weights.ravel()[-6:]))
single = np.asarray(weights, dtype="float32")
line("mlp float32 head", " ".join(struct.pack(">f", v).hex() for v in single.ravel()[:6]))
line("mlp float32 sum of bits", str(int(single.view(np.uint32).astype(np.uint64).sum())))

line("randint 2**30", integers([R(123).randint(2**30)]))
line("randint -5 12", integers(R(3).randint(-5, 12, 20)))
line("randint 2**32", integers(R(3).randint(2**32, size=4)))
line("randint 2**32+1", integers(R(3).randint(2**32 + 1, size=4)))
line("randint 10**15", integers(R(3).randint(10**15, size=6)))
line("randint full", integers(R(3).randint(-(2**63), 2**63 - 1, 4)))
line("randint one", integers(R(3).randint(5, 6, 3)))

normal = R(44).randn(7)
line("normal 44", bits(normal))
mixed = R(5)
first = mixed.standard_normal(3)
middle = mixed.random_sample(2)
last = mixed.normal(10.0, 3.0, 4)
line("mixed", bits(np.concatenate([first, middle, last])))

line("permutation", integers(R(123).permutation(20)))
shuffled = list(range(11))
again = R(9)
again.shuffle(shuffled)
line("shuffle", integers(shuffled))
line("after shuffle", bits(again.random_sample(1)))

line("binomial 1 0.3", integers(R(89677).binomial(1, 0.3, 30)))
line("binomial 1 0.9", integers(R(89677).binomial(1, 0.9, 30)))
line("binomial 40 0.2", integers(R(1).binomial(40, 0.2, 20)))
line("binomial 40 0.75", integers(R(1).binomial(40, 0.75, 20)))

state = R(123)
state.randint(2**30)
bound = 4 * np.sqrt(6.0 / (500 + 784))
line("da after randint", bits(state.uniform(-bound, bound, 4)))
