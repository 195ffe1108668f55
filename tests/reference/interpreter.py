"""Values of the tensor operators by NumPy, for the tests of the reference interpreter.

    python3 tests/reference/interpreter.py > crates/graph/src/interp/reference.txt

Each case is a graph in the text form, between a line `== title` and lines `= constant` with the outputs that NumPy
computes. All values are exact: sums and products of float32 are computed in float64 and rounded once, as the
interpreter defines them; float64 data are multiples of 1/8, whose sums and products have no rounding. A title that
ends in `~` is of functions of which NumPy and libm round the last digits differently.

Written with NumPy 2.4.6.
"""

import itertools

import numpy as np

rng = np.random.default_rng(20260101)
np.seterr(all="ignore")

NAMES = {
    np.dtype(np.bool_): "bool",
    np.dtype(np.uint8): "u8",
    np.dtype(np.int32): "i32",
    np.dtype(np.int64): "i64",
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
}
FLOATS = [np.float32, np.float64]
NUMBERS = [np.uint8, np.int32, np.int64, *FLOATS]


def element(x):
    if isinstance(x, np.bool_):
        return "true" if x else "false"
    if isinstance(x, np.floating):
        if np.isnan(x):
            return "nan"
        if np.isinf(x):
            return "inf" if x > 0 else "-inf"
        return np.format_float_scientific(x, unique=True, trim="0")
    return str(int(x))


def written(x):
    x = np.asarray(x)
    return f"{NAMES[x.dtype]}{list(x.shape)} = [{', '.join(element(v) for v in x.reshape(-1))}]"


def case(title, lines, operands, *results):
    """`lines` speak of the operands as %0, %1, ...; the last ones define %r0, %r1, ..."""
    print(f"== {title}")
    for position, operand in enumerate(operands):
        print(f"constant %{position}: {written(operand)}")
    for position, line in enumerate(lines):
        print(f"%r{position} = {line}")
    for position in range(len(lines)):
        print(f"output %r{position}")
    for result in results:
        print(f"= constant %0: {written(result)}")


def data(dtype, *shape):
    if dtype is np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype is np.float32:
        return rng.normal(size=shape).astype(np.float32)
    if dtype is np.float64:
        return rng.integers(-40, 40, shape) / 8
    if dtype is np.uint8:
        return rng.integers(0, 256, shape).astype(dtype)
    return rng.integers(-50, 50, shape).astype(dtype)


def wide(x):
    return x.astype(np.float64) if x.dtype == np.float32 else x


def narrow(x, dtype):
    return np.asarray(x).astype(dtype)


# Reductions
for dtype in NUMBERS:
    for shape in [(5,), (2, 3, 4), (3, 0, 2)]:
        for axes in [(0,), (len(shape) - 1,), tuple(range(len(shape))), ()]:
            x = data(dtype, *shape)
            few = np.sign(x) if dtype is np.float64 else x
            lowest = np.array(-np.inf).astype(dtype) if dtype in FLOATS else np.iinfo(dtype).min
            highest = np.array(np.inf).astype(dtype) if dtype in FLOATS else np.iinfo(dtype).max
            ops = ["sum", "prod", "max", "min"]
            case(
                f"fold {NAMES[np.dtype(dtype)]}{list(shape)} over {list(axes)}",
                [f"{op}{{axes={list(axes)}}}(%{int(op == 'prod')})" for op in ops],
                [x, few],
                narrow(wide(x).sum(axis=axes, dtype=wide(x).dtype), dtype),
                narrow(wide(few).prod(axis=axes, dtype=wide(x).dtype), dtype),
                x.max(axis=axes, initial=lowest),
                x.min(axis=axes, initial=highest),
            )
x = data(np.bool_, 4, 3)
case("truth", ["all{axes=[0]}(%0)", "any{axes=[1]}(%0)"], [x], x.all(axis=0), x.any(axis=1))
x = np.array([[1, np.nan, 3], [np.inf, 2, -np.inf]], np.float32)
case(
    "not a number",
    [f"{op}{{axes=[{axis}]}}(%0)" for op in ["sum", "max", "min"] for axis in (0, 1)],
    [x],
    *[getattr(x, op)(axis=axis) for op in ["sum", "max", "min"] for axis in (0, 1)],
)
x = np.array([[1, 5, 5], [np.nan, 7, np.nan], [-1, -1, -2]], np.float64)
case("argmax", [f"argmax{{axis={a}}}(%0)" for a in (0, 1)], [x], x.argmax(0), x.argmax(1))
x = data(np.int32, 2, 3, 4)
case("argmax of i32", [f"argmax{{axis={a}}}(%0)" for a in range(3)], [x], *[x.argmax(a) for a in range(3)])

# Matrix products
for dtype in NUMBERS:
    for left, right in [((2, 3), (3, 4)), ((1, 0), (0, 2)), ((3, 2, 5), (3, 5, 1))]:
        a, b = data(dtype, *left), data(dtype, *right)
        case(f"dot {left} {right}", ["dot(%0, %1)"], [a, b], narrow(wide(a) @ wide(b), dtype))

# Moving elements
x = data(np.float32, 3, 1)
case(
    "broadcast",
    ["broadcast{axes=[0, 1], dims=[3, 4]}(%0)", "broadcast{axes=[1, 3], dims=[2, 3, 2, 1]}(%0)"],
    [x],
    np.broadcast_to(x, (3, 4)),
    np.broadcast_to(x[None, :, None, :], (2, 3, 2, 1)),
)
x = data(np.int64, 2, 3, 4)
permutations = list(itertools.permutations(range(3)))
case(
    "permute",
    [f"permute{{axes={list(p)}}}(%0)" for p in permutations],
    [x],
    *[x.transpose(p) for p in permutations],
)
case("reshape", ["reshape{dims=[4, ?]}(%0, 6i64)", "reshape{dims=[24]}(%0)"], [x], x.reshape(4, 6), x.reshape(24))
case("iota and extent", ["iota{dims=[5]}()", "extent{axis=1}(%0)"], [x], np.arange(5), np.int64(3))
y = data(np.int64, 2, 1, 4)
case("concat", ["concat{axis=1}(%0, %1, %0)"], [x, y], np.concatenate([x, y, x], axis=1))
x, y = data(np.bool_, 2), data(np.bool_, 0)
case("concat with nothing", ["concat{axis=0}(%1, %0, %1)"], [x, y], np.concatenate([y, x, y]))


def bound():
    return None if rng.random() < 0.25 else int(rng.integers(-8, 9))


def shown(bound, operands):
    if bound is None:
        return ""
    if rng.random() < 0.5:
        operands.append(f"{bound}i64")
        return "?"
    return str(bound)


for number in range(60):
    dtype = NUMBERS[number % len(NUMBERS)]
    x = data(dtype, int(rng.integers(0, 7)), 4)
    ranges, slices, operands = [], [], []
    for _ in range(2):
        start, stop, step = bound(), bound(), int(rng.choice([-3, -2, -1, 1, 1, 2, 5]))
        slices.append(slice(start, stop, step))
        ranges.append(f"{shown(start, operands)}:{shown(stop, operands)}:{step}")
    part = tuple(slices)
    y = data(dtype, *x[part].shape)
    written_to, added_to = x.copy(), x.copy()
    written_to[part] = y
    added_to[part] += y
    ranges = f"{{ranges=[{', '.join(ranges)}]}}"
    case(
        f"slice {number}",
        [
            f"slice{ranges}({', '.join(['%0', *operands])})",
            f"set_slice{ranges}({', '.join(['%0', '%1', *operands])})",
            f"inc_slice{ranges}({', '.join(['%0', '%1', *operands])})",
        ],
        [x, y],
        x[part],
        written_to,
        added_to,
    )

x = data(np.float64, 5, 6)
for start, column in [(0, 0), (3, 2), (-5, -4), (-2, -4)]:
    rows = slice(start % 5, start % 5 + 2)
    columns = slice(column % 6, column % 6 + 2)
    y = data(np.float64, 2, 2)
    written_to, added_to = x.copy(), x.copy()
    written_to[rows, columns] = y
    added_to[rows, columns] += y
    attributes = "{starts=[?, ?], lengths=[2, 2]}"
    starts = f"{start}i64, {column}i64"
    case(
        f"window at {start}, {column}",
        [f"window{attributes}(%0, {starts})"]
        + [f"{op}_window{attributes}(%0, %1, {starts})" for op in ("set", "inc")],
        [x, y],
        x[rows, columns],
        written_to,
        added_to,
    )
case(
    "window with steps",
    ["window{starts=[4, 1], lengths=[3, 2], steps=[-2, 3]}(%0)", "window{starts=[5, 2], lengths=[0, 1]}(%0)"],
    [x],
    x[[4, 2, 0]][:, [1, 4]],
    x[5:, 2:3],
)

# Indices
for dtype in [np.float32, np.uint8, np.int32]:
    x = data(dtype, 4, 3)
    i = np.array([0, -1, 3, 0, -4, 1], np.int64)
    y = data(dtype, 6, 3)
    written_to, added_to = x.copy(), x.copy()
    for row, value in zip(i, y):
        written_to[row] = value
    np.add.at(added_to, i, y)
    case(
        f"rows of {NAMES[np.dtype(dtype)]}",
        ["gather{batch=0}(%0, %1)", "scatter{batch=0}(%0, %1, %2)", "scatter_add{batch=0}(%0, %1, %2)"],
        [x, i, y],
        x[i],
        written_to,
        added_to,
    )
x = data(np.float64, 2, 3, 5, 2)
i = rng.integers(-5, 5, (2, 3, 4)).astype(np.int32)
y = data(np.float64, 2, 3, 4, 2)
picked = np.take_along_axis(x, np.where(i < 0, i + 5, i)[..., None], axis=2)
added_to = x.copy()
written_to = x.copy()
for a, b, m in np.ndindex(i.shape):
    added_to[a, b, i[a, b, m]] += y[a, b, m]
    written_to[a, b, i[a, b, m]] = y[a, b, m]
case(
    "indices for each leading index",
    ["gather{batch=2}(%0, %1)", "scatter{batch=2}(%0, %1, %2)", "scatter_add{batch=2}(%0, %1, %2)"],
    [x, i, y],
    picked,
    written_to,
    added_to,
)
x, i = data(np.float32, 2, 3), np.array([[0, 1, 2, 2], [2, 1, 0, 0]], np.uint8)
case("one element a row", ["gather{batch=1}(%0, %1)"], [x, i], np.take_along_axis(x, i.astype(int), axis=1))
x, i = data(np.float32, 0, 3), np.zeros(0, np.int64)
case("no indices into nothing", ["gather{batch=0}(%0, %1)"], [x, i], x[i])

# Conversions
x = np.array([0.0, -0.5, 0.99, -1.99, 2.5, 200.75], np.float32)
case(
    "cast of f32",
    [f"cast{{dtype={name}}}(%0)" for name in ["bool", "i32", "i64", "f64"]],
    [x],
    *[x.astype(t) for t in (np.bool_, np.int32, np.int64, np.float64)],
)
x = np.array([0, 1, -1, 300, 2**31, 2**53 + 1], np.int64)
case(
    "cast of i64",
    [f"cast{{dtype={name}}}(%0)" for name in ["bool", "u8", "i32", "f32", "f64"]],
    [x],
    *[x.astype(t) for t in (np.bool_, np.uint8, np.int32, np.float32, np.float64)],
)
x = np.array([0.1, 1e300, -1e-300, np.inf], np.float64)
case("cast of f64", ["cast{dtype=f32}(%0)"], [x], x.astype(np.float32))

# Elementwise functions
ARITHMETIC = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "floordiv": np.floor_divide,
    "mod": np.mod,
}
COMPARISONS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
for dtype in NUMBERS:
    x, y = data(dtype, 12), data(dtype, 12)
    y = np.where(y == 0, 3, y).astype(dtype)
    y[:2] = x[:2]
    if dtype in FLOATS:
        # The definition x - floor(x / y) * y is exact on quarters of small numbers.
        x, y = (np.round(x * 4) / 4 + 0.0).astype(dtype), (np.round(y * 4) / 4 + 0.125).astype(dtype)
        y = (np.sign(y) * 2.0 ** np.round(np.log2(np.abs(y)))).astype(dtype)
    functions = ARITHMETIC | COMPARISONS
    case(
        f"arithmetic of {NAMES[np.dtype(dtype)]}",
        [f"{name}(%0, %1)" for name in functions] + ["sqr(%0)", "sign(%0)", "abs(%0)"],
        [x, y],
        *[f(x, y) for f in functions.values()],
        np.square(x),
        np.sign(x) + np.zeros((), dtype),
        np.abs(x),
    )
x, y = np.array([np.nan, 1, np.nan, np.inf], np.float32), np.array([1, np.nan, np.nan, np.inf], np.float32)
case(
    "comparison of what is no number",
    [f"{name}(%0, %1)" for name in [*COMPARISONS, "maximum", "minimum"]] + ["isnan(%0)", "isinf(%0)"],
    [x, y],
    *[f(x, y) for f in COMPARISONS.values()],
    np.maximum(x, y),
    np.minimum(x, y),
    np.isnan(x),
    np.isinf(x),
)
for dtype in [np.bool_, np.uint8, np.int32, np.int64]:
    x, y = data(dtype, 8), data(dtype, 8)
    case(
        f"bits of {NAMES[np.dtype(dtype)]}",
        ["and(%0, %1)", "or(%0, %1)", "xor(%0, %1)", "not(%0)"],
        [x, y],
        x & y,
        x | y,
        x ^ y,
        ~x,
    )
c, x, y = data(np.bool_, 6), data(np.int32, 6), data(np.int32, 6)
case("switch", ["switch(%0, %1, %2)"], [c, x, y], np.where(c, x, y))
x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6, -2.6])
roundings = {"floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.round}
case("roundings", [f"{name}(%0)" for name in roundings], [x], *[f(x) for f in roundings.values()])
x = rng.uniform(0.05, 0.95, 8)
FUNCTIONS = {
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arcsinh": np.arcsinh,
    "arctanh": np.arctanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
}
case("functions of f64 ~", [f"{name}(%0)" for name in FUNCTIONS], [x], *[f(x) for f in FUNCTIONS.values()])
y = rng.uniform(-2, 2, 8)
case(
    "functions of two f64 ~",
    ["pow(%0, %1)", "arctan2(%1, %0)", "div(%1, %0)"],
    [x, y],
    np.power(x, y),
    np.arctan2(y, x),
    y / x,
)


def scan(title, steps, body, operands, wanted, *results):
    """A scan over the operands; `wanted` are its results, such as `rows 0`."""
    print(f"== {title}")
    for position, operand in enumerate(operands):
        print(f"constant %{position}: {written(operand)}")
    print("body b0 {\n" + "\n".join(body) + "\n}")
    names = ", ".join(f"%{position}" for position in range(len(operands)))
    for position, result in enumerate(wanted):
        print(f"%r{position} = scan{{body=b0, result={result}, steps={steps}}}({names})")
    for position in range(len(wanted)):
        print(f"output %r{position}")
    for result in results:
        print(f"= constant %0: {written(result)}")


x, h = data(np.float64, 6, 3), data(np.float64, 3)
scan(
    "cumulative sum by a scan",
    6,
    ["sequence %x: f64[3]", "carry %h: f64[3]", "%0 = add(%x, %h)", "row %0", "next %h = %0"],
    [x, h],
    ["rows 0", "last 0", "steps"],
    np.cumsum(x, 0) + h,
    x.sum(0) + h,
    np.asarray(6),
)
x = data(np.int32, 4, 5)
scan(
    "map by a scan",
    4,
    ["sequence %x: i32[5]", "%0 = max{axes=[0]}(%x)", "%1 = argmax{axis=0}(%x)", "row %0", "row %1"],
    [x],
    ["rows 0", "rows 1"],
    x.max(1),
    x.argmax(1),
)
x, w, u, h = data(np.float64, 5, 2, 3), data(np.float64, 3, 4), data(np.float64, 4, 4), data(np.float64, 2, 4)
states, state = [], h
for step in x:
    state = np.abs(step @ w + state @ u)
    states.append(state)
scan(
    "recurrent network by a scan",
    5,
    [
        "sequence %x: f64[2, 3]",
        "captured %w: f64[3, 4]",
        "captured %u: f64[4, 4]",
        "carry %h: f64[2, 4]",
        "%0 = dot(%x, %w)",
        "%1 = dot(%h, %u)",
        "%2 = add(%0, %1)",
        "%3 = abs(%2)",
        "row %3",
        "next %h = %3",
    ],
    [x, w, u, h],
    ["rows 0", "last 0"],
    np.stack(states),
    states[-1],
)
limits = np.cumsum(np.arange(1, 8))
made = int(np.argmax(limits > 9)) + 1
scan(
    "a scan that ends early",
    7,
    [
        "carry %n: i64[]",
        "carry %sum: i64[]",
        "%0 = add(%n, 1i64)",
        "%1 = add(%sum, %0)",
        "%2 = gt(%1, 9i64)",
        "row %1",
        "until %2",
        "next %n = %0",
        "next %sum = %1",
    ],
    [np.asarray(0), np.asarray(0)],
    ["rows 0", "last 0", "last 1", "steps"],
    np.minimum(limits, limits[made - 1]),
    np.asarray(made),
    limits[made - 1],
    np.asarray(made),
)
