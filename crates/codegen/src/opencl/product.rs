//! Matrix products as OpenCL C: tiles of both sides in local memory, a block of results in each work item's registers.
//!
//! Integers are summed unsigned, so that they wrap; floats with fused multiply-add, in the order of `k`.

use std::fmt::Write;

use hypatia_graph::{DType, Literal};

use super::emit::{self, KernelText};
use super::scalar;
use crate::kernel::{Kernel, Matrix, ProductKernel, Scale};

/// Terms of the sum in one tile.
const DEPTH: usize = 16;

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
pub(super) fn emit(kernel: &ProductKernel) -> Result<Option<KernelText>, String> {
    let ProductKernel { dtype, batch, m, n, k, .. } = *kernel;
    if dtype == DType::Bool {
        return Err("truth values have no product".to_string());
    }
    if batch * m * n == 0 && kernel.starts.is_empty() {
        return Ok(None);
    }
    let tile = Tile::new(kernel);
    let (high, wide) = (tile.rows * tile.across, tile.columns * tile.along);
    let (down, right) = (m.div_ceil(high).max(1), n.div_ceil(wide).max(1));
    let group = tile.rows * tile.columns;
    let groups = (batch * down * right).max(1);
    let index = emit::index_type(largest_position(kernel));
    let sum = match dtype {
        DType::U8 | DType::I32 => "uint",
        DType::I64 => "ulong",
        DType::Bool | DType::F32 | DType::F64 => scalar::register_type(dtype),
    };
    let mut text = emit::head(&kernel.params, emit::is_fallible(&Kernel::Product(kernel.clone())), group);
    text.push_str(&emit::starts(&kernel.starts, index));
    let _ = write!(
        text,
        "    __local {sum} left[{DEPTH}][{high} + 1], right[{DEPTH}][{wide} + 1];
    const {index} member = get_local_id(0), x = member % {columns}, y = member / {columns};
    const {index} tile = get_group_id(0), batch = tile / {tiles};
    const {index} row = tile / {right} % {down} * {high}, column = tile % {right} * {wide};
    {sum} sums[{across}][{along}];
    for (int r = 0; r < {across}; ++r)
        for (int c = 0; c < {along}; ++c)
            sums[r][c] = 0;
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
    }}
",
        across = tile.across,
        along = tile.along,
        rows = tile.rows,
    );
    if valid {
        text.push_str(&results(kernel, &tile, index, sum));
    }
    text.push_str("}\n");
    Ok(Some(KernelText { body: text, groups, group }))
}

/// Scales the sums and writes them.
fn results(kernel: &ProductKernel, tile: &Tile, index: &str, sum: &str) -> String {
    let scale = |scale: Scale| match scale {
        Scale::Constant(value) => scalar::literal(Literal::from_f64(value, kernel.dtype)),
        Scale::Param(param) => format!("p{param}[0]"),
    };
    let float = kernel.dtype.is_float();
    let ty = scalar::register_type(kernel.dtype);
    let c = element(&kernel.c, "i", "j");
    let mut result = "sums[r][c]".to_string();
    if kernel.alpha != Scale::Constant(1.0) {
        result = format!("({sum}){} * {result}", scale(kernel.alpha));
    }
    if kernel.beta != Scale::Constant(0.0) {
        let beta = scale(kernel.beta);
        result = match float {
            true => format!("fma({beta}, {c}, {result})"),
            false => format!("({sum}){beta} * ({sum}){c} + {result}"),
        };
    }
    format!(
        "    for (int r = 0; r < {}; ++r)
        for (int c = 0; c < {}; ++c) {{
            const {index} i = row + y + r * {}, j = column + x + c * {};
            if (i < {} && j < {})
                {c} = ({ty})({result});
        }}
",
        tile.across, tile.along, tile.rows, tile.columns, kernel.m, kernel.n
    )
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
