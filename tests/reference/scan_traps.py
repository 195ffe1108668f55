"""Expected values of the recurrent formulas in crates/rewrite/tests/scans.rs, with 500 digits (needs mpmath)."""

from mpmath import mp, mpf, exp, log

mp.dps = 500
STEPS = 4


def sigmoid(x):
    return 1 / (1 + exp(-x))


def softmax(values):
    parts = [exp(v) for v in values]
    return [p / sum(parts) for p in parts]


def show(name, *values):
    print(f"{name:20}", *(mp.nstr(v, 17) for v in values))


hidden, all_hidden = [mpf("0.25")] * 2, []
for t in range(STEPS):
    inputs = [mpf(-200 - 10 * t), mpf(200 + 10 * t)]
    hidden = [sigmoid(x + 2 * h) for x, h in zip(inputs, hidden)]
    all_hidden.append(hidden)
show("log h", *(log(h) for h in hidden))
show("log(1 - h)", *(log(1 - h) for h in hidden))
targets = [mpf("0.25"), mpf("0.75")]
terms = [y * log(h) + (1 - y) * log(1 - h) for row in all_hidden for y, h in zip(targets, row)]
show("cross-entropy", -sum(terms) / len(terms))

probabilities = [mpf("0.25"), mpf("0.25"), mpf("0.5")]
for t in range(STEPS):
    inputs = [mpf(0), mpf(300 + t), mpf(-300)]
    probabilities = softmax([x + 2 * p for x, p in zip(inputs, probabilities)])
show("log p", *(log(p) for p in probabilities))
