//! Matrix products as OpenCL C, in two forms. On graphics processors a group of work items brings tiles of both sides to
//! local memory and each keeps a block of results in registers. On processors local memory is memory like any other and
//! barriers are dear: there each work item reads what it needs, for some results below each other, and the compiler makes
//! neighbouring work items the lanes of a vector.
//!
//! Integers are summed unsigned, so that they wrap; floats with fused multiply-add, in the order of `k`, in stretches whose
//! sums are added in order.

use std::fmt::Write;

use hypatia_graph::{Broken, DType, Literal, broken};

use super::emit::{self, KernelText};
use super::scalar;
use crate::kernel::{Kernel, Matrix, ProductKernel, Scale};

/// Terms of the sum in one tile.
const DEPTH: usize = 16;

/// Terms of a stretch, whole tiles.
const STRETCH: usize = 4 * DEPTH;

/// What products are written for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// Devices with local memory of their own: graphics processors.
    Tiles,
    /// Devices whose work items are lanes of vectors: processors.
    Vectors,
}

/// How results are shared out: a group computes `rows * across` by `columns * along` of them.
struct Tile {
    /// Work items over the rows.
    rows: usize,
    /// Work items over the columns.
    columns: usize,
    /// Rows of results in each work item.
    across: usize,
    /// Columns of results in each work item.
    along: usize,
}

impl Tile {
    fn new(kernel: &ProductKernel) -> Tile {
        if kernel.m >= 64 && kernel.n >= 64 && kernel.m * kernel.n * kernel.batch >= 1 << 16 {
            return Tile { rows: 16, columns: 16, across: 4, along: 4 };
        }
        let rows = kernel.m.next_power_of_two().clamp(1, 16);
        let columns = kernel.n.next_power_of_two().clamp(1, 256 / rows).min(64);
        Tile { rows, columns, across: 1, along: 1 }
    }
}

/// The text of a product; `None` where there is nothing to do.
pub(super) fn emit(kernel: &ProductKernel, form: Form) -> Result<Option<KernelText>, Broken> {
    if kernel.dtype == DType::Bool {
        return Err(broken!("a product of numbers", kernel.dtype));
    }
    let results = kernel.batch * kernel.m * kernel.n;
    if results == 0 && kernel.starts.is_empty() {
        return Ok(None);
    }
    Ok(Some(match form {
        Form::Vectors if results > 0 => direct(kernel),
        Form::Vectors | Form::Tiles => tiled(kernel),
    }))
}

/// The type in which products are summed.
fn sum_type(dtype: DType) -> &'static str {
    match dtype {
        DType::U8 | DType::I32 => "uint",
        DType::I64 => "ulong",
        DType::Bool | DType::F32 | DType::F64 => scalar::register_type(dtype),
    }
}

/// Results that a work item of the direct form computes.
const BLOCK: usize = 8;

/// Each work item computes `BLOCK` results below each other. The longer side of the result lies along work items.
fn direct(kernel: &ProductKernel) -> KernelText {
    let transposed = |matrix: &Matrix| Matrix {
        row_stride: matrix.column_stride,
        column_stride: matrix.row_stride,
        ..matrix.clone()
    };
    let turned;
    let kernel = if kernel.n < 8 && kernel.m > kernel.n {
        turned = ProductKernel {
            m: kernel.n,
            n: kernel.m,
            a: transposed(&kernel.b),
            b: transposed(&kernel.a),
            c: transposed(&kernel.c),
            ..kernel.clone()
        };
        &turned
    } else {
        kernel
    };
    let ProductKernel { dtype, batch, m, n, k, .. } = *kernel;
    let group = n.next_power_of_two().min(64);
    let (down, right) = (m.div_ceil(BLOCK), n.div_ceil(group));
    let index = emit::index_type(largest_position(kernel));
    let sum = sum_type(dtype);
    let mut text = emit::head(&kernel.params, emit::is_fallible(&Kernel::Product(kernel.clone())), group);
    text.push_str(&emit::starts(&kernel.starts, index));
    // Work items past the edges compute the last column or row once more, so that none takes another way.
    let _ = write!(
        text,
        "    const {index} tile = get_group_id(0), batch = tile / {tiles};
    const {index} row = tile / {right} % {down} * {BLOCK}, j = tile % {right} * {group} + get_local_id(0);
    const {index} column = j < {n} ? j : {last};
",
        tiles = down * right,
        last = n - 1,
    );
    for r in 0..BLOCK.min(m) {
        let _ = writeln!(text, "    const {index} row{r} = row + {r} < {m} ? row + {r} : {};", m - 1);
        let _ = writeln!(text, "    {sum} sum{r} = 0;");
    }
    let long = dtype.is_float() && k > STRETCH;
    if long {
        let _ = writeln!(text, "    for ({index} base = 0; base < {k}; base += {STRETCH}) {{");
        for r in 0..BLOCK.min(m) {
            let _ = writeln!(text, "    const {sum} total{r} = sum{r};\n    sum{r} = 0;");
        }
        let end = format!("base + {STRETCH} < {k} ? base + {STRETCH} : {k}");
        let _ = writeln!(text, "    const {index} end = {end};");
        let _ = writeln!(text, "    for ({index} t = base; t < end; ++t) {{");
    } else {
        let _ = writeln!(text, "    for ({index} t = 0; t < {k}; ++t) {{");
    }
    let _ = writeln!(text, "        const {sum} right = {};", element(&kernel.b, "t", "column"));
    for r in 0..BLOCK.min(m) {
        let left = element(&kernel.a, &format!("row{r}"), "t");
        let next = match dtype {
            DType::F32 | DType::F64 => format!("fma({left}, right, sum{r})"),
            DType::Bool | DType::U8 | DType::I32 | DType::I64 => format!("sum{r} + ({sum}){left} * right"),
        };
        let _ = writeln!(text, "        sum{r} = {next};");
    }
    text.push_str("    }\n");
    if long {
        for r in 0..BLOCK.min(m) {
            let _ = writeln!(text, "    sum{r} = total{r} + sum{r};");
        }
        text.push_str("    }\n");
    }
    for r in 0..BLOCK.min(m) {
        let _ = write!(
            text,
            "    {{\n        const {index} i = row + {r};\n        if (i < {m} && j < {n})\n            {};\n    }}\n",
            result(kernel, &format!("sum{r}")),
        );
    }
    text.push_str("}\n");
    KernelText { body: text, groups: batch * down * right, group }
}

fn tiled(kernel: &ProductKernel) -> KernelText {
    let ProductKernel { dtype, batch, m, n, k, .. } = *kernel;
    let tile = Tile::new(kernel);
    let (high, wide) = (tile.rows * tile.across, tile.columns * tile.along);
    let (down, right) = (m.div_ceil(high).max(1), n.div_ceil(wide).max(1));
    let group = tile.rows * tile.columns;
    let groups = (batch * down * right).max(1);
    let index = emit::index_type(largest_position(kernel));
    let sum = sum_type(dtype);
    let mut text = emit::head(&kernel.params, emit::is_fallible(&Kernel::Product(kernel.clone())), group);
    text.push_str(&emit::starts(&kernel.starts, index));
    let _ = write!(
        text,
        "    __local {sum} left[{DEPTH}][{high} + 1], right[{DEPTH}][{wide} + 1];
    const {index} member = get_local_id(0), x = member % {columns}, y = member / {columns};
    const {index} tile = get_group_id(0), batch = tile / {tiles};
    const {index} row = tile / {right} % {down} * {high}, column = tile % {right} * {wide};
    {sum} sums[{across}][{along}], totals[{across}][{along}];
    for (int r = 0; r < {across}; ++r)
        for (int c = 0; c < {along}; ++c)
            sums[r][c] = totals[r][c] = 0;
    for ({index} base = 0; base < {k}; base += {DEPTH}) {{
",
        columns = tile.columns,
        tiles = down * right,
        across = tile.across,
        along = tile.along,
    );
    // Neighbouring work items read neighbouring elements.
    let deep = |inner_is_depth: bool, side: usize| match inner_is_depth {
        true => (format!("e % {DEPTH}"), format!("e / {DEPTH}")),
        false => (format!("e / {side}"), format!("e % {side}")),
    };
    let valid = batch * m * n > 0;
    for (name, side, extent, origin, matrix, along_depth) in [
        ("left", high, m, "row", &kernel.a, kernel.a.column_stride.abs() <= kernel.a.row_stride.abs()),
        ("right", wide, n, "column", &kernel.b, kernel.b.row_stride.abs() < kernel.b.column_stride.abs()),
    ] {
        let (depth, across) = deep(along_depth, side);
        let (row, column) = if name == "left" { ("o", "t") } else { ("t", "o") };
        let element = if valid { element(matrix, row, column) } else { "0".to_string() };
        let _ = write!(
            text,
            "        for ({index} e = member; e < {size}; e += {group}) {{
            const {index} d = {depth}, s = {across}, t = base + d, o = {origin} + s;
            {name}[d][s] = t < {k} && o < {extent} ? ({sum}){element} : 0;
        }}
",
            size = side * DEPTH,
        );
    }
    let product = match dtype {
        DType::F32 | DType::F64 => "fma(l, right[d][x + c * COLUMNS], sums[r][c])",
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => "sums[r][c] + l * right[d][x + c * COLUMNS]",
    }
    .replace("COLUMNS", &tile.columns.to_string());
    let _ = write!(
        text,
        "        barrier(CLK_LOCAL_MEM_FENCE);
        for (int d = 0; d < {DEPTH}; ++d)
            for (int r = 0; r < {across}; ++r) {{
                const {sum} l = left[d][y + r * {rows}];
                for (int c = 0; c < {along}; ++c)
                    sums[r][c] = {product};
            }}
        barrier(CLK_LOCAL_MEM_FENCE);
        if (base % {STRETCH} == {last} || base + {DEPTH} >= {k})
            for (int r = 0; r < {across}; ++r)
                for (int c = 0; c < {along}; ++c) {{
                    totals[r][c] += sums[r][c];
                    sums[r][c] = 0;
                }}
    }}
",
        across = tile.across,
        along = tile.along,
        rows = tile.rows,
        last = STRETCH - DEPTH,
    );
    if valid {
        let _ = write!(
            text,
            "    for (int r = 0; r < {}; ++r)
        for (int c = 0; c < {}; ++c) {{
            const {index} i = row + y + r * {}, j = column + x + c * {};
            if (i < {m} && j < {n})
                {};
        }}
",
            tile.across,
            tile.along,
            tile.rows,
            tile.columns,
            result(kernel, "totals[r][c]"),
        );
    }
    text.push_str("}\n");
    KernelText { body: text, groups, group }
}

/// The assignment of a sum, scaled, to the result in row `i` and column `j`.
fn result(kernel: &ProductKernel, sum: &str) -> String {
    let scale = |scale: Scale| match scale {
        Scale::Constant(value) => scalar::literal(Literal::from_f64(value, kernel.dtype)),
        Scale::Param(param) => format!("p{param}[0]"),
    };
    let wide = sum_type(kernel.dtype);
    let c = element(&kernel.c, "i", "j");
    let mut result = sum.to_string();
    if kernel.alpha != Scale::Constant(1.0) {
        result = format!("({wide}){} * {result}", scale(kernel.alpha));
    }
    if kernel.beta != Scale::Constant(0.0) {
        let beta = scale(kernel.beta);
        result = match kernel.dtype.is_float() {
            true => format!("fma({beta}, {c}, {result})"),
            false => format!("({wide}){beta} * ({wide}){c} + {result}"),
        };
    }
    format!("{c} = ({})({result})", scalar::register_type(kernel.dtype))
}

/// The element of a matrix in that row and column.
fn element(matrix: &Matrix, row: &str, column: &str) -> String {
    let start = emit::affine(&matrix.position, &[]);
    format!(
        "p{}[{start} + ({}) * batch + ({}) * {row} + ({}) * {column}]",
        matrix.param, matrix.batch_stride, matrix.row_stride, matrix.column_stride
    )
}

fn largest_position(kernel: &ProductKernel) -> i128 {
    let matrix = |matrix: &Matrix, rows: usize, columns: usize| {
        let along = |stride: i64, extent: usize| i128::from(stride).abs() * (extent + 256) as i128;
        emit::reach(&matrix.position, &[], &kernel.starts)
            + along(matrix.batch_stride, kernel.batch)
            + along(matrix.row_stride, rows)
            + along(matrix.column_stride, columns)
    };
    let sides = matrix(&kernel.a, kernel.m, kernel.k)
        .max(matrix(&kernel.b, kernel.k, kernel.n))
        .max(matrix(&kernel.c, kernel.m, kernel.n));
    sides.max((kernel.batch * (kernel.m + 256) * (kernel.n + 256)) as i128)
}
