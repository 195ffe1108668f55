"""Fits the polynomial coefficients of crates/graph/src/math/*.rs.

Each fit minimises the largest weighted error by Lawson's iteratively reweighted least squares on
Chebyshev nodes, values from mpmath. Coefficients are then rounded to float32 one by one from the
lowest power, and the rest refitted, so that the printed maximum is that of the rounded polynomial.
Needs mpmath and numpy. Prints Rust tables, highest power first, with the error in units of 2^-24.
"""
import sys

import mpmath as mp
import numpy as np

mp.mp.prec = 200


def solve(basis, target, weight):
    lawson = np.ones(len(target))
    best = None
    for _ in range(120):
        scale = np.sqrt(lawson) * weight
        coefficients, *_ = np.linalg.lstsq(basis * scale[:, None], target * scale, rcond=None)
        error = np.abs((basis @ coefficients - target) * weight)
        if best is None or error.max() < best[0]:
            best = (error.max(), coefficients)
        lawson = lawson * (error / max(error.max(), 1e-300)) ** 0.7 + 1e-9
        lawson /= lawson.sum()
    return best


def fit(name, function, weight, low, high, terms, variable=lambda x: x):
    """function(x) ~ sum c_k variable(x)^k, least max of |weight(x) (difference)| on [low, high]."""
    count = 40 * terms
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count)) for i in range(count)]
    nodes = [x for x in nodes if abs(x) > mp.mpf(10) ** -12]
    target = np.array([float(function(x)) for x in nodes])
    weights = np.array([float(abs(weight(x))) for x in nodes])
    v = np.array([float(variable(x)) for x in nodes])
    basis = np.stack([v ** k for k in range(terms)], 1)
    fixed = []
    for k in range(terms):
        rest = target - basis[:, :k] @ np.array(fixed) if k else target
        _, coefficients = solve(basis[:, k:], rest, weights)
        fixed.append(float(np.float32(coefficients[0])))
    error = np.abs((basis @ np.array(fixed) - target) * weights).max()
    print(f"// {name}: {error * 2**24:.4f} * 2^-24")
    print("[" + ", ".join(np.format_float_scientific(np.float32(c), unique=True, trim='0') for c in reversed(fixed)) + "]")
    sys.stdout.flush()


square = lambda x: x * x
ln2 = mp.log(2)
h = ln2 / 2 * mp.mpf("1.001")
half = mp.mpf("0.5005")
quarter_pi = mp.pi / 4 * mp.mpf("1.002")
root = mp.sqrt(2)


def erfinv_ratio(v):
    """erfinv(x) / x for w = v + 2.5."""
    x = mp.sqrt(-mp.expm1(-(v + 2.5)))
    return mp.erfinv(x) / x


FITS = {
    "exp": lambda n: fit("exp: (e^r - 1 - r) / r^2", lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r**2 / mp.exp(r), -h, h, n),
    "expm1": lambda n: fit("expm1: (e^r - 1 - r) / r^2", lambda r: (mp.exp(r) - 1 - r) / r**2, lambda r: r**2 / mp.expm1(r), -h, h, n),
    "exp2": lambda n: fit("exp2: (2^r - 1) / r", lambda r: (mp.power(2, r) - 1) / r, lambda r: r / mp.power(2, r), -half, half, n),
    "log": lambda n: fit("log: (log(1+f) - f + f^2/2) / f^3", lambda f: (mp.log1p(f) - f + f * f / 2) / f**3, lambda f: f**3 / mp.log1p(f), 1 / root - 1, root - 1, n),
    "log1p": lambda n: fit("softplus: (log1p(e) - e + e^2/2) / e^3 on [0, 1]", lambda e: (mp.log1p(e) - e + e * e / 2) / e**3, lambda e: e**3 / mp.log1p(e), mp.mpf(0), mp.mpf(1), n),
    "sin": lambda n: fit("sin: (sin r - r) / r^3", lambda r: (mp.sin(r) - r) / r**3, lambda r: r**3 / mp.sin(r), mp.mpf(0), quarter_pi, n, square),
    "cos": lambda n: fit("cos: (cos r - 1 + r^2/2) / r^4", lambda r: (mp.cos(r) - 1 + r * r / 2) / r**4, lambda r: r**4 / mp.cos(r), mp.mpf("1e-6"), quarter_pi, n, square),
    "tan": lambda n: fit("tan: (tan r - r) / r^3", lambda r: (mp.tan(r) - r) / r**3, lambda r: r**3 / mp.tan(r), mp.mpf(0), quarter_pi, n, square),
    "atan": lambda n: fit("atan: (atan x - x) / x^3", lambda x: (mp.atan(x) - x) / x**3, lambda x: x**3 / mp.atan(x), mp.mpf(0), mp.mpf(1), n, square),
    "asin": lambda n: fit("asin: (asin x - x) / x^3", lambda x: (mp.asin(x) - x) / x**3, lambda x: x**3 / mp.asin(x), mp.mpf(0), mp.mpf("0.5"), n, square),
    "sinh": lambda n: fit("sinh: (sinh x - x) / x^3", lambda x: (mp.sinh(x) - x) / x**3, lambda x: x**3 / mp.sinh(x), mp.mpf(0), mp.mpf(1), n, square),
    "tanh": lambda n: fit("tanh: (tanh x - x) / x^3 on [0, 0.6]", lambda x: (mp.tanh(x) - x) / x**3, lambda x: x**3 / mp.tanh(x), mp.mpf(0), mp.mpf("0.6"), n, square),
    "erf": lambda n: fit("erf: (erf x - x) / x on [0, 0.95]", lambda x: mp.erf(x) / x - 1, lambda x: x / mp.erf(x), mp.mpf(0), mp.mpf("0.95"), n, square),
    "erf_tail": lambda n: fit("erf tail: (-log erfc t) / t - 1 on [0.9, 4.2]", lambda t: -mp.log(mp.erfc(t)) / t - 1, lambda t: t * mp.erfc(t) / mp.erf(t), mp.mpf("0.9"), mp.mpf("4.2"), n),
    "erfc": lambda n: fit("erfc: (1 + 2 a) exp(a^2) erfc(a) - 1 in q = (a - 2) / (a + 2)", lambda a: (1 + 2 * a) * mp.exp(a * a) * mp.erfc(a) - 1, lambda a: 1 / ((1 + 2 * a) * mp.exp(a * a) * mp.erfc(a)), mp.mpf("1e-6"), mp.mpf("10.1"), n, lambda a: (a - 2) / (a + 2)),
    "erfinv": lambda n: fit("erfinv: erfinv(x) / x in w - 2.5, w = -log(1 - x^2) in [0, 5]", erfinv_ratio, lambda v: 1 / erfinv_ratio(v), mp.mpf("-2.499999"), mp.mpf("2.502"), n),
    "erfinv_tail": lambda n: fit("erfinv tail: in sqrt(w) - 3, w in [5, 17]", lambda v: erfinv_ratio((v + 3) ** 2 - 2.5), lambda v: 1 / erfinv_ratio((v + 3) ** 2 - 2.5), mp.sqrt(5) - 3, mp.sqrt(17) - 3, n),
    "pow": lambda n: fit("pow: (log2((1+q)/(1-q)) - 2 q / ln 2) / q^3", lambda q: (mp.log((1 + q) / (1 - q)) - 2 * q) / ln2 / q**3, lambda q: q**3 / mp.log((1 + q) / (1 - q)), mp.mpf(0), (root - 1) / (root + 1), n, square),
}
TERMS = {"exp": 5, "expm1": 5, "exp2": 6, "log": 8, "log1p": 9, "sin": 3, "cos": 3, "tan": 6, "atan": 9, "asin": 5, "sinh": 4, "tanh": 5, "erf": 7, "erf_tail": 7, "erfc": 10, "erfinv": 10, "erfinv_tail": 9, "pow": 4}

if __name__ == "__main__":
    names = sys.argv[1:] or list(FITS)
    for name in names:
        key, _, terms = name.partition(":")
        FITS[key](int(terms) if terms else TERMS[key])
