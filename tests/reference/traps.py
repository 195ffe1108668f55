"""Values of the formulas in tests/src/traps.rs over the real numbers, by mpmath with 60 digits.

Writes tests/reference/traps.txt: a name and its values, one trap a line. Run: python3 tests/reference/traps.py
"""

from pathlib import Path

from mpmath import cos, exp, expm1, log, mp, mpf, sqrt

mp.dps = 60


def sigmoid(x):
    return 1 / (1 + exp(-mpf(x)))


def softmax(row):
    powers = [exp(mpf(x)) for x in row]
    return [p / sum(powers) for p in powers]


def mean(xs):
    return sum(xs) / len(xs)


def variance(xs):
    xs = [mpf(x) for x in xs]
    return mean([(x - mean(xs)) ** 2 for x in xs])


def entropy(ps):
    return -sum(p * log(p) for p in ps if p != 0)


mp.dps = 1000  # exp(-2000) beside 1
ENTROPY = entropy(softmax([0, 2000]))
HARD = [log(p) for p in softmax([0, 1000])]
HARD_DOWN = [log(p) for p in softmax([0, -1000])]
SIGMOID_800 = [log(sigmoid(x)) for x in (-800, 800)]
PRODUCT = log(sigmoid(800) * sigmoid(-800))
SOFTPLUS = [log(1 + exp(mpf(x))) for x in (800, -800)]
mp.dps = 60

TRAPS = {
    "log_transposed_softmax": HARD,
    "log_reshaped_softmax": HARD + HARD_DOWN,
    # d/da of -(log sigmoid a) at 40
    "gradient_cross_entropy_of_sigmoid": [-(1 - sigmoid(40))],
    # d/da of -(t log p + (1 - t) log(1 - p)), p = sigmoid a: sigmoid a - t
    "gradient_cross_entropy_of_reshaped_sigmoid": [sigmoid(40) - 0, sigmoid(-40) - 1, sigmoid(40) - 1],
    "log_one_minus_reshaped_sigmoid": [log(1 - sigmoid(x)) for x in (40, 100)],
    # n x^(n - 1), at n = 0: nothing depends on x
    "gradient_of_power_zero": [0, 0],
    "cross_entropy_of_constant_softmax": [-x for x in HARD],
    "xlogy_of_sigmoid": [0, SIGMOID_800[0], 0, SIGMOID_800[1]],
    "log_one_plus_exp": SOFTPLUS,
    "log_of_sum_of_exp": [801 + log(1 + exp(mpf(-1))), -800 + log(mpf(2))],
    "difference_of_roots": [1 / (sqrt(mpf(10) ** 16 + 1) + sqrt(mpf(10) ** 16))],
    "one_minus_cosine": [(1 - cos(mpf(x))) / mpf(x) ** 2 for x in (1e-9,)],
    "exp_minus_one": [expm1(mpf(x)) / mpf(x) for x in (1e-12,)],
    # d/dx of x > 0 ? sqrt x : 0
    "gradient_of_guarded_root": [0, 1 / (2 * sqrt(mpf(4)))],
    "norm_f32": [sqrt(mpf(2)) * mpf(10) ** 30],
    "norm_f64": [sqrt(mpf(2)) * mpf(10) ** 200],
    "variance": [variance([1e9, 1e9 + 1, 1e9 + 2])],
    "variance_f32": [variance([10000, 10001, 10002])],
    "log_of_product_of_sigmoids": [PRODUCT, PRODUCT],
    "log_of_folded_sigmoids": [2 * log(sigmoid(-500))],
    "entropy_of_hard_softmax": [ENTROPY],
}

if __name__ == "__main__":
    lines = [f"{name} {' '.join(repr(float(v)) for v in values)}" for name, values in TRAPS.items()]
    Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
