"""Rows of crates/rewrite/src/rules/shared.rs: a formula for every stability rule, where its naive form loses digits, and
its value with 1000 digits (needs mpmath).

Points are single-precision numbers, so that both element types compute from the same ones."""

from mpmath import mp, mpf

mp.dps = 1000


class Vector(list):
    """A tensor of one axis, as far as the formulas need it."""

    def of(self, other, f):
        other = other if isinstance(other, list) else [other] * len(self)
        return Vector(f(a, b) for a, b in zip(self, other))

    def __add__(self, other):
        return self.of(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self.of(other, lambda a, b: a - b)

    def __mul__(self, other):
        return self.of(other, lambda a, b: a * b)

    def __truediv__(self, other):
        return self.of(other, lambda a, b: a / b)

    def __pow__(self, n):
        return Vector(a**n for a in self)


def each(f):
    return lambda x: Vector(f(a) for a in x) if isinstance(x, list) else f(x)


names = {
    "exp": each(mp.exp),
    "exp2": each(lambda x: mpf(2) ** x),
    "expm1": each(lambda x: mp.exp(x) - 1),
    "log": each(mp.log),
    "log2": each(lambda x: mp.log(x) / mp.log(2)),
    "log10": each(mp.log10),
    "log1p": each(lambda x: mp.log(1 + x)),
    "log1mexp": each(lambda x: mp.log(1 - mp.exp(x))),
    "sigmoid": each(lambda x: 1 / (1 + mp.exp(-x))),
    "softplus": each(lambda x: mp.log(1 + mp.exp(x))),
    "tanh": each(mp.tanh),
    "sinh": each(mp.sinh),
    "cosh": each(mp.cosh),
    "sin": each(mp.sin),
    "cos": each(mp.cos),
    "sqrt": each(mp.sqrt),
    "erf": each(mp.erf),
    "erfc": each(mp.erfc),
    "abs": each(abs),
    "maximum": max,
    "sum": sum,
    "prod": mp.fprod,
    "mean": lambda x: sum(x) / len(x),
    "max": max,
    "switch": lambda c, a, b: a if c else b,
    "xlogy": lambda x, y: x * mp.log(y) if x else mpf(0),
    "reciprocal": lambda x: 1 / x,
}

E = 2.0**-30
ROWS = [
    ("log1p", "log(1 + x)", [E]),
    ("log1p", "log(1 + x * x)", [2.0**-16]),
    ("log1p", "log(1 + x) / x", [E]),
    ("log1p_minus", "log(1 - x)", [E]),
    ("log2_1p", "log2(1 + x)", [E]),
    ("log2_1p_minus", "log2(1 - x)", [E]),
    ("log10_1p", "log10(1 + x)", [E]),
    ("log10_1p_minus", "log10(1 - x)", [E]),
    ("expm1", "exp(x) - 1", [E]),
    ("expm1", "(exp(x) - 1) / x", [E]),
    ("expm1", "exp(x) + -1", [E]),
    ("one_minus_exp", "1 - exp(x)", [E]),
    ("exp2_minus_one", "exp2(x) - 1", [E]),
    ("one_minus_exp2", "1 - exp2(x)", [E]),
    ("expm1_plus_one", "expm1(x) + 1", [-40.0]),
    ("exp_log1p", "exp(log1p(x))", [0.75]),
    ("expm1_log1p", "expm1(log1p(x))", [E]),
    ("log1p_expm1", "log1p(expm1(x))", [800.0]),
    ("log_exp", "log(exp(x))", [800.0]),
    ("log_exp", "log(exp(x))", [-800.0]),
    ("exp_log", "exp(log(x))", [0.75]),
    ("log2_exp2", "log2(exp2(x))", [2000.0]),
    ("exp2_log2", "exp2(log2(x))", [0.75]),
    ("log1p_exp", "log(1 + exp(x))", [800.0]),
    ("log1p_exp", "log(1 + exp(x))", [-40.0]),
    ("log1p_neg_exp", "log(1 - exp(x))", [-E]),
    ("log1p_neg_exp", "log(1 - exp(x))", [-40.0]),
    ("log_neg_expm1", "log(-expm1(x))", [-40.0]),
    ("exp_log1mexp", "exp(log1mexp(x))", [-E]),
    ("log_expm1", "log(exp(x) - 1)", [800.0]),
    ("exp_softplus", "exp(softplus(x))", [2.0]),
    ("exp_neg_softplus", "exp(-softplus(x))", [40.0]),
    ("expm1_softplus", "expm1(softplus(x))", [-40.0]),
    ("log_recip", "log(1 / x)", [0.75]),
    ("log_sqrt", "log(sqrt(x))", [0.75]),
    ("log_sqr_positive", "log((1 / (1 + exp(-x))) ** 2)", [-60.0]),
    ("log_sqr", "log(x ** 2)", [2.0**-100]),
    ("log_pow", "log(sigmoid(x) ** 40)", [-60.0]),
    ("log_product", "log(sigmoid(x) * sigmoid(y))", [-60.0, -50.0]),
    ("log_product", "log(erfc(x) * erfc(y))", [8.0, 8.5]),
    ("log_quotient", "log(erfc(x) / erfc(y))", [8.0, 8.5]),
    ("log_prod", "v: log(prod(sigmoid(x)))", [-60.0, -50.0, -40.0]),
    ("log_switch", "log(switch(x > 0, 1 + y, 2))", [1.0, E]),
    ("log2_of_exp", "log2(exp(x))", [800.0]),
    ("log10_of_exp", "log10(exp(x))", [800.0]),
    ("exp_times_exp", "exp(x) * exp(y)", [800.0, -798.0]),
    ("exp_over_exp", "exp(x) / exp(y)", [800.0, 798.0]),
    ("over_exp", "y / exp(x)", [60.0, 2.0]),
    ("recip_exp", "1 / exp(x)", [-20.0]),
    ("sqr_exp", "exp(x) ** 2", [-20.0]),
    ("sqrt_exp", "sqrt(exp(x))", [120.0]),
    ("sqrt_exp", "sqrt(exp(x))", [-120.0]),
    ("pow_exp", "exp(x) ** 0.25", [200.0]),
    ("sigmoid_of_neg_exp", "1 / (1 + exp(x))", [80.0]),
    ("over_one_plus_exp", "y / (1 + exp(x))", [80.0, 2.0]),
    ("exp_over_one_plus_exp", "exp(x) / (1 + exp(x))", [800.0]),
    ("exp_times_sigmoid", "exp(x) * sigmoid(-x)", [800.0]),
    ("exp_neg_times_sigmoid", "exp(-x) * sigmoid(x)", [-800.0]),
    ("one_minus_sigmoid", "1 - sigmoid(x)", [40.0]),
    ("one_minus_sigmoid_neg", "1 - sigmoid(-x)", [-40.0]),
    ("sigmoid_minus_one", "sigmoid(x) - 1", [40.0]),
    ("sigmoid_odds", "sigmoid(x) / (1 - sigmoid(x))", [40.0]),
    ("sigmoid_ratio", "sigmoid(x) / sigmoid(-x)", [40.0]),
    ("recip_sigmoid", "1 / sigmoid(x)", [-40.0]),
    ("sigmoid_logit", "sigmoid(log(x / (1 - x)))", [E]),
    ("sigmoid_logit_split", "sigmoid(log(x) - log(1 - x))", [E]),
    ("sigmoid_times_both", "sigmoid(x) * (1 - sigmoid(x))", [40.0]),
    ("log_sigmoid", "log(sigmoid(x))", [-800.0]),
    ("log_sigmoid", "log(sigmoid(x))", [40.0]),
    ("log1p_neg_sigmoid", "log1p(-sigmoid(x))", [800.0]),
    ("log_one_minus_sigmoid", "log(1 - sigmoid(x))", [800.0]),
    ("softplus_minus", "softplus(x) - x", [40.0]),
    ("minus_softplus", "x - softplus(x)", [40.0]),
    ("softplus_neg_plus", "softplus(-x) + x", [-40.0]),
    ("softplus_difference", "softplus(x) - softplus(-x)", [E]),
    ("softplus_log", "softplus(log(x))", [E]),
    ("tanh_by_sigmoid", "2 * sigmoid(2 * x) - 1", [E]),
    ("tanh_by_half_sigmoid", "2 * sigmoid(x) - 1", [E]),
    ("tanh_by_half_sigmoid_neg", "1 - 2 * sigmoid(x)", [E]),
    ("sigmoid_minus_half", "sigmoid(x) - 0.5", [E]),
    ("half_minus_sigmoid", "0.5 - sigmoid(x)", [E]),
    ("sigmoid_difference", "sigmoid(x) - sigmoid(-x)", [E]),
    ("sigmoid_difference_neg", "sigmoid(-x) - sigmoid(x)", [E]),
    ("sigmoid_by_tanh", "0.5 * (1 + tanh(0.5 * x))", [-40.0]),
    ("one_plus_tanh", "1 + tanh(x)", [-20.0]),
    ("one_minus_tanh", "1 - tanh(x)", [20.0]),
    ("tanh_minus_one", "tanh(x) - 1", [20.0]),
    ("one_minus_sqr_tanh", "1 - tanh(x) ** 2", [20.0]),
    ("tanh_by_exp", "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", [E]),
    ("tanh_by_exp", "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", [800.0]),
    ("tanh_by_exp_twice", "(exp(2 * x) - 1) / (exp(2 * x) + 1)", [800.0]),
    ("tanh_by_exp_minus_twice", "(1 - exp(-2 * x)) / (1 + exp(-2 * x))", [-800.0]),
    ("sinh_by_exp", "(exp(x) - exp(-x)) / 2", [E]),
    ("twice_sinh_by_exp", "exp(x) - exp(-x)", [E]),
    ("twice_minus_sinh_by_exp", "exp(-x) - exp(x)", [E]),
    ("cosh_by_exp", "(exp(x) + exp(-x)) / 2", [2.0]),
    ("cosh_minus_one", "cosh(x) - 1", [E]),
    ("one_minus_cosh", "1 - cosh(x)", [E]),
    ("cosh_minus_sinh", "cosh(x) - sinh(x)", [20.0]),
    ("sinh_minus_cosh", "sinh(x) - cosh(x)", [20.0]),
    ("cosh_plus_sinh", "cosh(x) + sinh(x)", [-20.0]),
    ("erfc", "1 - erf(x)", [8.0]),
    ("erfc_of_neg", "1 + erf(x)", [-8.0]),
    ("erf_minus_one", "erf(x) - 1", [8.0]),
    ("one_minus_erfc", "1 - erfc(x)", [E]),
    ("erfc_minus_one", "erfc(x) - 1", [E]),
    ("two_minus_erfc", "2 - erfc(x)", [-8.0]),
    ("log_add_exp", "log(exp(x) + exp(y))", [800.0, 801.0]),
    ("log_add_exp", "log(exp(x) + exp(y))", [-800.0, -801.0]),
    ("log_add_exp_constant", "log(2 + exp(x))", [800.0]),
    ("log_sub_exp", "log(exp(x) - exp(y))", [800.0, 799.0]),
    ("log_difference", "log(x + 1) - log(x)", [2.0**50]),
    ("log_difference", "log(1 + x) - log(x)", [2.0**-20]),
    ("log_difference_neg", "log(x) - log(x + 1)", [2.0**50]),
    ("log_product", "log(1 - tanh(x) ** 2)", [400.0]),
    ("log_sum_exp", "v: log(sum(exp(x)))", [800.0, 801.0, -800.0]),
    ("softmax", "v: max(exp(x) / sum(exp(x)))", [800.0, 801.0, -800.0]),
    ("softmax_flat", "v: max(exp(x) / sum(exp(x), axis=0, keepdims=true))", [800.0, 801.0, -800.0]),
    ("shifted_is_nonpositive", "v: log(sum(exp(x - max(x))))", [800.0, 801.0, -800.0]),
    ("sum_holds_a_one", "v: log(sum(exp(x - max(x))))", [800.0, 801.0, -800.0]),
    ("quotient_by_own_sum", "v: sum(abs(x) / sum(abs(x)))", [1.0, 2.0, 5.0]),
    ("xlogy", "xlogy(y, sigmoid(x))", [-800.0, 2.0]),
    ("xlogy_eq", "switch(y == 0, 0, y * log(sigmoid(x)))", [-800.0, 2.0]),
    ("xlogy_ne", "switch(y != 0, y * log(sigmoid(x)), 0)", [-800.0, 2.0]),
    ("xlogy_gt", "switch(abs(y) > 0, abs(y) * log(sigmoid(x)), 0)", [-800.0, 2.0]),
    ("sqrt_difference", "sqrt(x + 1) - sqrt(x)", [2.0**50]),
    ("sqrt_difference_neg", "sqrt(x) - sqrt(x + 1)", [2.0**50]),
    ("sqrt_difference_left", "sqrt(1 + x * x) - sqrt(y * y)", [2.0**-10, 1.0]),
    ("sqrt_difference_right", "sqrt(y * y) - sqrt(1 + x * x)", [2.0**-10, 1.0]),
    ("sqrt_minus_constant", "sqrt(1 + x) - 1", [E]),
    ("constant_minus_sqrt", "1 - sqrt(1 + x)", [E]),
    ("one_minus_cos", "1 - cos(x)", [2.0**-20]),
    ("cos_minus_one", "cos(x) - 1", [2.0**-20]),
    ("one_plus_cos", "1 + cos(x)", [3.1415927410125732]),
    ("one_minus_sqr_cos", "1 - cos(x) ** 2", [2.0**-20]),
    ("one_minus_sqr_sin", "1 - sin(x) ** 2", [1.5707963705062866]),
    ("one_minus_cos_over_sqr", "(1 - cos(x)) / x ** 2", [2.0**-20]),
    ("one_minus_cos_over_sqr", "(1 - cos(x)) / x ** 2", [2.0**-100]),
    ("variance", "v: 0.25 * sum(x ** 2) - (0.25 * sum(x)) ** 2", [65536.0, 65537.0, 65538.0, 65539.0]),
    ("variance_of_quotients", "v: sum(x ** 2) / 3 - (sum(x) / 3) ** 2", [65536.0, 65537.0, 65538.0]),
    ("norm", "v: sqrt(sum(x ** 2))", [2.0**100, 2.0**101, 0.0]),
    ("hypotenuse", "sqrt(x ** 2 + y ** 2)", [2.0**100, 2.0**101]),
    ("scaled_by_largest", "v: sqrt(sum(x ** 2))", [2.0**100, 2.0**101, 0.0]),
    ("scaled_by_larger", "sqrt(x ** 2 + y ** 2)", [2.0**100, 2.0**101]),
]


def value(text, point):
    point = [mpf(p) for p in point]
    if text.startswith("v: "):
        text = text[3:].replace(", axis=0, keepdims=true", "")
        inputs = {"x": Vector(point)}
    else:
        inputs = dict(zip("xy", point))
    return eval(text, {**names, **inputs})  # The formulas above.


def number(x):
    return repr(float(x))


for rule, text, point in ROWS:
    numbers = ", ".join(number(p) for p in point)
    print(f'    ("{rule}", "{text}", &[{numbers}], {number(value(text, point))}),')
