"""Makes whitening.txt: principal component whitening by NumPy, for crates/datasets/src/whitening.rs."""
import numpy as np

rng = np.random.RandomState(3)
rows = (10 + rng.randn(12, 5) @ rng.randn(5, 5)).astype(np.float32)
x = rows.astype(np.float64)
mean = x.mean(0)
values, vectors = np.linalg.eigh(np.cov(x.T))
order = np.argsort(-values)[:3]
vectors = vectors[:, order]
vectors *= np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
deviations = np.sqrt(values[order])
whitened = (x - mean) @ vectors / deviations
tables = dict(
    rows=rows,
    variances=values[order],
    explained=values[order].sum() / values.sum(),
    whitened=whitened,
    unwhitened=(whitened * deviations) @ vectors.T + mean,
)
for name, table in tables.items():
    print(name, " ".join("%.9g" % value for value in np.ravel(table)))
