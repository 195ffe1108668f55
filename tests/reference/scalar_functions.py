"""Writes crates/graph/src/math/reference.txt: float32 arguments of every scalar function and the exact
results, by mpmath at 400 bits, correctly rounded to float64. One line: name, argument bits, [second argument
bits,] result bits, hexadecimal."""
import random
import struct
import sys

import mpmath as mp

mp.mp.prec = 400


def bits32(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


def from_bits32(b):
    return struct.unpack("<f", struct.pack("<I", b))[0]


def log1mexp(x):
    return mp.log(-mp.expm1(x))


def softplus(x):
    return mp.log1p(mp.exp(x))


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def exact_pow(x, y):
    return mp.power(x, y)


def log_spread(low, high):
    return lambda: mp.power(2, random.uniform(low, high))


def signed(draw):
    return lambda: draw() * random.choice([1, -1])


def uniform(low, high):
    return lambda: mp.mpf(random.uniform(low, high))


WIDE = signed(log_spread(-149, 127))
UNARY = {
    "exp": (mp.exp, [uniform(-104, 89), signed(log_spread(-30, 4))]),
    "exp2": (lambda x: mp.power(2, x), [uniform(-150, 128), signed(log_spread(-30, 4))]),
    "expm1": (mp.expm1, [uniform(-20, 88), signed(log_spread(-149, 4)), uniform(-1, 1)]),
    "log": (mp.log, [log_spread(-149, 127), uniform(0.5, 2)]),
    "log2": (lambda x: mp.log(x) / mp.log(2), [log_spread(-149, 127), uniform(0.5, 2)]),
    "log10": (lambda x: mp.log(x) / mp.log(10), [log_spread(-149, 127), uniform(0.5, 2)]),
    "log1p": (mp.log1p, [log_spread(-149, 127), uniform(-1, 2)]),
    "log1mexp": (log1mexp, [uniform(-104, 0), lambda: -log_spread(-149, 3)()]),
    "sin": (mp.sin, [uniform(-1e5, 1e5), uniform(-4, 4), signed(log_spread(-149, 10))]),
    "cos": (mp.cos, [uniform(-1e5, 1e5), uniform(-4, 4), signed(log_spread(-149, 10))]),
    "tan": (mp.tan, [uniform(-1e5, 1e5), uniform(-4, 4), signed(log_spread(-149, 10))]),
    "arcsin": (mp.asin, [uniform(-1, 1), signed(log_spread(-149, 0))]),
    "arccos": (mp.acos, [uniform(-1, 1), signed(log_spread(-149, 0))]),
    "arctan": (mp.atan, [uniform(-3, 3), WIDE]),
    "sinh": (mp.sinh, [uniform(-89, 89), uniform(-2, 2), signed(log_spread(-149, 6))]),
    "cosh": (mp.cosh, [uniform(-89, 89), uniform(-2, 2), signed(log_spread(-149, 6))]),
    "tanh": (mp.tanh, [uniform(-10, 10), uniform(-1, 1), signed(log_spread(-149, 4))]),
    "arcsinh": (mp.asinh, [uniform(-10, 10), WIDE]),
    "arccosh": (mp.acosh, [uniform(1, 3), log_spread(0, 127)]),
    "arctanh": (mp.atanh, [uniform(-1, 1), signed(log_spread(-149, 0))]),
    "sigmoid": (sigmoid, [uniform(-104, 20), uniform(-3, 3)]),
    "softplus": (softplus, [uniform(-104, 20), uniform(-3, 3)]),
    "erf": (mp.erf, [uniform(-4, 4), signed(log_spread(-149, 2))]),
    "erfc": (mp.erfc, [uniform(-4, 10.1), signed(log_spread(-149, 3))]),
}
# Angles that take many bits of pi: the largest of each binade and others, and those nearest to a multiple of pi/2.
LARGE_ANGLES = [1e5, 7.4e5, 4.8e6, 1e7, 2.0**40, 6.1e11, 1e30, float(16367173 * 2**72), float.fromhex("0x1.fffffep127")]


def large_angles():
    generator = random.Random(1)
    for x in LARGE_ANGLES:
        yield nearest32(x)
        yield -nearest32(x)
    for exponent in range(16, 128):
        yield from_bits32((exponent + 127) << 23 | 0x7FFFFF)
        yield from_bits32((exponent + 127) << 23 | generator.getrandbits(23))


BINARY = {
    "pow": (exact_pow, [(log_spread(-30, 30), uniform(-4, 4)), (uniform(0.5, 2), uniform(-120, 120)), (log_spread(-149, 127), uniform(-1, 1)), (uniform(0.99, 1.01), uniform(-8000, 8000))]),
    "xlogy": (lambda x, y: x * mp.log(y), [(signed(log_spread(-60, 60)), log_spread(-149, 127)), (uniform(-2, 2), uniform(0, 2))]),
    "arctan2": (mp.atan2, [(WIDE, WIDE), (uniform(-2, 2), uniform(-2, 2))]),
}


def nearest32(value):
    return from_bits32(bits32(float(value)))


def line(name, arguments, result):
    text = struct.pack(">d", float(result)).hex()
    print(name, *(f"{bits32(x):08x}" for x in arguments), text)


if __name__ == "__main__":
    sys.stdout = open(sys.argv[1], "w") if len(sys.argv) > 1 else sys.stdout
    # Each function has draws of its own, which another one does not change.
    for name, (function, draws) in UNARY.items():
        random.seed(name)
        for index in range(60):
            x = nearest32(draws[index % len(draws)]())
            if (name == "arccosh" and x < 1) or (x == 0) or (abs(x) == 1 and name in ("arctanh", "log1p")):
                continue
            line(name, [x], function(mp.mpf(x)))
    large = list(large_angles())
    for name in ("sin", "cos", "tan"):
        for x in large:
            line(name, [x], UNARY[name][0](mp.mpf(x)))
    for name, (function, draws) in BINARY.items():
        random.seed(name)
        for index in range(80):
            first, second = draws[index % len(draws)]
            x, y = nearest32(first()), nearest32(second())
            result = function(mp.mpf(x), mp.mpf(y))
            if x != 0 and y != 0 and mp.mpf(2) ** -160 < abs(result) < mp.mpf(2) ** 140:
                line(name, [x, y], result)
