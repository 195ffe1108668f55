//! What a term costs: numerical risk first, then work, then roughness.
//!
//! Costs are integers, so that sums do not depend on their order. They are charged once for each class that is
//! computed, however many use it.

use egg::Id;
use hypatia_graph::op::Op;
use hypatia_graph::{Fold, ScalarFn};

use crate::facts::{exp_limit, tiny};
use crate::term::{Data, Egraph, Term};

/// Compared from left to right.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Cost {
    /// How much may go wrong: overflow, a logarithm of what underflows, a difference of what is nearly equal.
    pub(crate) risk: i64,
    /// Operations and elements moved, in eighths of an addition.
    pub(crate) work: i64,
    /// Digits that get lost where nothing breaks; decides between terms of equal work.
    pub(crate) roughness: i64,
}

impl Cost {
    pub(crate) fn plus(self, other: Cost) -> Cost {
        Cost {
            risk: self.risk.saturating_add(other.risk),
            work: self.work.saturating_add(other.work),
            roughness: self.roughness.saturating_add(other.roughness),
        }
    }

    pub(crate) fn minus(self, other: Cost) -> Cost {
        Cost {
            risk: self.risk.saturating_sub(other.risk),
            work: self.work.saturating_sub(other.work),
            roughness: self.roughness.saturating_sub(other.roughness),
        }
    }
}

/// The cost of one term of a class, without its operands.
pub(crate) fn cost(egraph: &Egraph<'_>, class: Id, term: &Term) -> Cost {
    let data = &egraph[class].data;
    let operands: smallvec::SmallVec<[&Data; 4]> = term.operands.iter().map(|id| &egraph[*id].data).collect();
    let risk = if data.constant.is_some() { 0 } else { risk(egraph, term, data, &operands) };
    Cost { risk, work: work(term, data, &operands), roughness: roughness(term, &operands) }
}

fn work(term: &Term, data: &Data, operands: &[&Data]) -> i64 {
    let n = data.count() as i64;
    let first = operands.first().map_or(0, |data| data.count() as i64);
    let eighths = match &term.op {
        Op::Leaf(_) => return 0,
        Op::Literal(_) => return 1,
        // A constant of any shape is part of the kernel that uses it.
        Op::Broadcast { .. } if data.constant.is_some() => return 1,
        // A sign is often free where its value is used.
        Op::Map(ScalarFn::Neg) => n.saturating_mul(6),
        Op::Map(f) => n.saturating_mul(8 * i64::from(f.work()) + 2),
        Op::Cast(_) => n.saturating_mul(10),
        Op::Reduce(..) => first.saturating_mul(8).saturating_add(n.saturating_mul(4)),
        Op::ArgMax(_) => first.saturating_mul(16),
        Op::Dot => {
            let inner = operands.first().and_then(|data| data.ty.shape.last()?.known()).unwrap_or(0) as i64;
            n.saturating_mul(inner).saturating_mul(16)
        }
        Op::Broadcast { .. } | Op::Reshape(_) | Op::Extent(_) | Op::StopGradient => 2,
        Op::Permute(_) | Op::Window(_) | Op::Iota(_) | Op::Slice(_) => n.saturating_mul(2),
        Op::Concat(_) | Op::Gather { .. } => n.saturating_mul(4),
        Op::SetWindow(..) | Op::SetSlice(..) => n.saturating_mul(8),
        Op::Scatter { .. } => {
            n.saturating_mul(8).saturating_add(operands.last().map_or(0, |d| d.count() as i64 * 16))
        }
        Op::Random { .. } => n.saturating_mul(32),
        Op::Scan(_) | Op::Grad(_) => 0,
    };
    // Every operator costs a little, be there elements or not.
    eighths.saturating_add(8)
}

/// Points for what may break in floating point and would not in real arithmetic.
fn risk(egraph: &Egraph<'_>, term: &Term, data: &Data, operands: &[&Data]) -> i64 {
    let dtype = data.ty.dtype;
    if !dtype.is_float() {
        return 0;
    }
    let holds = |id: Id, test: &dyn Fn(&Term) -> bool| egraph[id].nodes.iter().any(test);
    let Op::Map(f) = &term.op else { return 0 };
    let x = operands[0];
    match f {
        ScalarFn::Exp | ScalarFn::Exp2 | ScalarFn::Expm1 => 2 * i64::from(x.facts.high > exp_limit(dtype)),
        ScalarFn::Sinh | ScalarFn::Cosh => {
            i64::from(x.facts.high > exp_limit(dtype) || x.facts.low < -exp_limit(dtype))
        }
        ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10 => 4 * i64::from(x.facts.low < tiny(dtype)),
        ScalarFn::Log1p => 4 * i64::from(x.facts.low <= -0.999),
        ScalarFn::Sqrt => {
            // A sum of squares overflows long before its root would.
            let square = |id: Id| {
                holds(id, &|t| {
                    t.op == Op::Map(ScalarFn::Sqr) && {
                        let facts = &egraph[t.operands[0]].data.facts;
                        facts.high.max(-facts.low) > 1e9
                    }
                })
            };
            let squares = holds(term.operands[0], &|t| {
                if let Op::Reduce(Fold::Sum, _) = t.op {
                    square(t.operands[0])
                } else {
                    t.op == Op::Map(ScalarFn::Add) && square(t.operands[0]) && square(t.operands[1])
                }
            });
            i64::from(squares)
        }
        ScalarFn::Div | ScalarFn::Mul => {
            let y = operands[1];
            let chosen = |id: Id| {
                holds(id, &|t| {
                    t.op == Op::Map(ScalarFn::Select)
                        && t.operands[1..]
                            .iter()
                            .any(|o| egraph[*o].data.constant.is_some_and(|c| c.to_f64() == 0.0))
                })
            };
            let unsure = i64::from(!x.facts.finite || !y.facts.finite);
            // Zero times what is infinite where it is not chosen.
            let poisoned = chosen(term.operands[0]) && (!y.facts.finite || *f == ScalarFn::Div)
                || *f == ScalarFn::Mul && chosen(term.operands[1]) && !x.facts.finite;
            unsure + i64::from(poisoned)
        }
        ScalarFn::Add | ScalarFn::Sub => {
            let y = operands[1];
            let unbounded = |data: &Data| data.facts.high.max(-data.facts.low) > 1e9;
            let opposed = if *f == ScalarFn::Sub {
                x.facts.low >= 0.0 && y.facts.low >= 0.0 || x.facts.high <= 0.0 && y.facts.high <= 0.0
            } else {
                x.facts.low >= 0.0 && y.facts.high <= 0.0 || x.facts.high <= 0.0 && y.facts.low >= 0.0
            };
            let computed = x.constant.is_none() && y.constant.is_none();
            // Near 0, where it is needed, 1 - cos x is left without digits.
            let cosine = *f == ScalarFn::Sub
                && x.constant.is_some_and(|c| c.to_f64() == 1.0)
                && holds(term.operands[1], &|t| t.op == Op::Map(ScalarFn::Cos));
            i64::from(cosine)
                + i64::from(!x.facts.finite && !y.facts.finite)
                + i64::from(computed && opposed && unbounded(x) && unbounded(y))
        }
        ScalarFn::FloorDiv
        | ScalarFn::Mod
        | ScalarFn::Pow
        | ScalarFn::Max
        | ScalarFn::Min
        | ScalarFn::Neg
        | ScalarFn::Abs
        | ScalarFn::Sign
        | ScalarFn::Sqr
        | ScalarFn::Recip
        | ScalarFn::Log1mexp
        | ScalarFn::Sin
        | ScalarFn::Cos
        | ScalarFn::Tan
        | ScalarFn::Asin
        | ScalarFn::Acos
        | ScalarFn::Atan
        | ScalarFn::Atan2
        | ScalarFn::Tanh
        | ScalarFn::Asinh
        | ScalarFn::Acosh
        | ScalarFn::Atanh
        | ScalarFn::Sigmoid
        | ScalarFn::Softplus
        | ScalarFn::Erf
        | ScalarFn::Erfc
        | ScalarFn::Floor
        | ScalarFn::Ceil
        | ScalarFn::Trunc
        | ScalarFn::Round
        | ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::And
        | ScalarFn::Or
        | ScalarFn::Xor
        | ScalarFn::Not
        | ScalarFn::IsNan
        | ScalarFn::IsInf
        | ScalarFn::Select => 0,
    }
}

/// One minus what is nearly one loses digits, though no formula breaks on it.
fn roughness(term: &Term, operands: &[&Data]) -> i64 {
    if !matches!(term.op, Op::Map(ScalarFn::Add | ScalarFn::Sub)) {
        return 0;
    }
    let constant = operands.iter().any(|data| data.constant.is_some_and(|c| c.to_f64() != 0.0));
    let count = operands[0].count() as i64;
    if constant { count.max(1) } else { 0 }
}
