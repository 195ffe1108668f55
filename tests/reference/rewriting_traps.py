"""Expected values of the numeric traps in crates/rewrite/tests/traps.rs, with 1000 digits (needs mpmath)."""

from mpmath import mp, mpf, exp, log, log1p, sqrt, cos, expm1

mp.dps = 1000


def sigmoid(x):
    return 1 / (1 + exp(-mpf(x)))


def softmax(values):
    parts = [exp(mpf(v)) for v in values]
    return [p / sum(parts) for p in parts]


def show(name, *values):
    print(f"{name:40}", *(mp.nstr(v, 17) for v in values))


show("log softmax (0, 1000)", *(log(p) for p in softmax([0, 1000])))
show("-(1 - sigmoid 40)", -(1 - sigmoid(40)))
show("log(1 - sigmoid x), x = 40, 100", log(1 - sigmoid(40)), log(1 - sigmoid(100)))
show("log(1 + exp x), x = 800, -800", log1p(exp(mpf(800))), log1p(exp(mpf(-800))))
show("log(exp 800 + exp 801), twice -800", log(exp(mpf(800)) + exp(mpf(801))), log(2 * exp(mpf(-800))))
show("its gradient", exp(mpf(800)) / (exp(mpf(800)) + exp(mpf(801))))
show("sqrt(x + 1) - sqrt(x), x = 1e16", sqrt(mpf(10) ** 16 + 1) - sqrt(mpf(10) ** 16))
show("(1 - cos x) / x^2, x = 1e-9, 1e-5", *((1 - cos(x)) / x**2 for x in (mpf("1e-9"), mpf("1e-5"))))
show("(exp x - 1) / x, x = 1e-12, 1e-6", *(expm1(x) / x for x in (mpf("1e-12"), mpf("1e-6"))))
show("log(sigmoid x sigmoid -x), x = 800", log(sigmoid(800) * sigmoid(-800)))
show("log of sigmoid(-500)^2", log(sigmoid(-500) ** 2))
show("v log sigmoid(-800), v = 1", log(sigmoid(-800)))
show("norm of (1, 1)", sqrt(mpf(2)))
