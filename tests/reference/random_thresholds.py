"""Critical values at the level 1e-4 for the statistical tests in crates/hypatia/tests/random.rs.

    python3 tests/reference/random_thresholds.py

Written with SciPy 1.17.1.
"""

from scipy.stats import chi2, kstwobign, norm

for degrees in [1, 2, 3, 9, 19, 23, 99, 255]:
    print(f"chi-square of {degrees}: {chi2.isf(1e-4, degrees):.2f}")
print(f"Kolmogorov-Smirnov, sqrt(n) D: {kstwobign.isf(1e-4):.4f}")
print(f"normal, two sides: {norm.isf(0.5e-4):.4f}")
print("normal at quantiles 0.05, 0.10 .. 0.95:", [round(float(norm.ppf(q / 20)), 6) for q in range(1, 20)])
