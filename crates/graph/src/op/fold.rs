//! How reductions join elements.

use crate::dtype::{DType, Literal};
use crate::scalar::ScalarFn;

/// How a reduction joins elements.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fold {
    /// Sum; 0 of nothing. Numbers only: the builder counts `bool` as `i64`.
    Sum,
    /// Product; 1 of nothing. Numbers only.
    Prod,
    /// Largest; a NaN anywhere gives NaN. Of nothing: the smallest value of the type, `-inf` for floats.
    /// The gradient is shared equally by tied elements.
    Max,
    /// Smallest; as `Max`, mirrored.
    Min,
    /// Whether all are true; `bool` only.
    All,
    /// Whether any is true; `bool` only.
    Any,
}

impl Fold {
    /// Every fold, for tables and tests.
    pub const ALL: [Fold; 6] = [Fold::Sum, Fold::Prod, Fold::Max, Fold::Min, Fold::All, Fold::Any];

    /// The name in text, messages and rules.
    pub fn name(self) -> &'static str {
        match self {
            Fold::Sum => "sum",
            Fold::Prod => "prod",
            Fold::Max => "max",
            Fold::Min => "min",
            Fold::All => "all",
            Fold::Any => "any",
        }
    }

    /// The function that joins two elements.
    pub fn join(self) -> ScalarFn {
        match self {
            Fold::Sum => ScalarFn::Add,
            Fold::Prod => ScalarFn::Mul,
            Fold::Max => ScalarFn::Max,
            Fold::Min => ScalarFn::Min,
            Fold::All => ScalarFn::And,
            Fold::Any => ScalarFn::Or,
        }
    }

    /// The value of an empty reduction.
    pub fn identity(self, dtype: DType) -> Literal {
        match self {
            Fold::Sum => Literal::from_i64(0, dtype),
            Fold::Prod => Literal::from_i64(1, dtype),
            Fold::Max if dtype == DType::U8 => Literal::U8(0),
            Fold::Min if dtype == DType::U8 => Literal::U8(u8::MAX),
            Fold::Max => Literal::from_f64(f64::NEG_INFINITY, dtype),
            Fold::Min => Literal::from_f64(f64::INFINITY, dtype),
            Fold::All => Literal::Bool(true),
            Fold::Any => Literal::Bool(false),
        }
    }

    /// Whether elements of the type can be reduced so.
    pub fn takes(self, dtype: DType) -> bool {
        match self {
            Fold::Sum | Fold::Prod | Fold::Max | Fold::Min => dtype != DType::Bool,
            Fold::All | Fold::Any => dtype == DType::Bool,
        }
    }
}
