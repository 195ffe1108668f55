//! What a term costs: numerical risk first, then work, then roughness.
//!
//! Costs are integers, so that sums do not depend on their order. They are charged once for each class that is
//! computed, however many use it.

use egg::Id;
use hypatia_graph::op::{Along, Class, Op, View};
use hypatia_graph::scalar::Risk;
use hypatia_graph::{DType, Fold, ScalarFn};

use crate::facts::{exp_limit, tiny};
use crate::term::{Data, Egraph, Term};

/// Compared from left to right.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Cost {
    /// How much may go wrong: overflow, a logarithm of what underflows, digits lost in a difference of what is nearly
    /// equal.
    pub(crate) risk: i64,
    /// Operations and elements moved, in eighths of an addition.
    pub(crate) work: i64,
    /// Digits that may get lost where `risk` knows no better form; decides between terms of equal work.
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
    // A mean keeps the digits that a sum and a division lose.
    let rough =
        matches!(term.op, Op::Map(_)) && Look(egraph).holds(class, |other| matches!(other.op, Op::Mean(_)));
    let risk =
        if data.constant.is_some() { 0 } else { risk(egraph, term, data, &operands) + i64::from(rough) };
    Cost { risk, work: work(term, data, &operands), roughness: roughness(term, &operands) }
}

fn work(term: &Term, data: &Data, operands: &[&Data]) -> i64 {
    let n = data.count() as i64;
    let first = operands.first().map_or(0, |data| data.count() as i64);
    let eighths = match term.op.class() {
        Class::Leaf(_) => return 0,
        Class::Literal(_) => return 1,
        // A constant of any shape is part of the kernel that uses it.
        Class::View(View::Broadcast(_)) if data.constant.is_some() => return 1,
        // A sign is often free where its value is used.
        Class::Map(ScalarFn::Neg) => n.saturating_mul(6),
        // A reciprocal needs one value less.
        Class::Map(ScalarFn::Div) if operands[0].constant.is_some() => {
            n.saturating_mul(8 * i64::from(ScalarFn::Div.work()) + 3)
        }
        Class::Map(f) => n.saturating_mul(8 * i64::from(f.work()) + 2),
        Class::Cast(_) => n.saturating_mul(10),
        Class::Fold(Along::ArgMax(_)) => first.saturating_mul(16),
        Class::Fold(_) => first.saturating_mul(8).saturating_add(n.saturating_mul(4)),
        Class::Product => {
            let inner = operands.first().and_then(|data| data.ty.shape.last()?.known()).unwrap_or(0) as i64;
            n.saturating_mul(inner).saturating_mul(16)
        }
        // Each element joins all channels and taps.
        Class::Convolution(axes) => {
            let filters = operands.get(1).map_or(&[][..], |data| &data.ty.shape);
            let inner = filters.iter().rev().take(axes.len() + 1);
            let inner = inner.fold(1i64, |all, n| all.saturating_mul(n.known().unwrap_or(1) as i64));
            n.saturating_mul(inner).saturating_mul(16)
        }
        Class::View(View::Broadcast(_) | View::Reshape | View::Same) => 2,
        Class::View(View::Permute(_) | View::Window(_) | View::Slice) | Class::Index => n.saturating_mul(2),
        Class::Assembly | Class::Indexed(_) if term.op.write().is_none() => n.saturating_mul(4),
        Class::Assembly => n.saturating_mul(8),
        Class::Indexed(_) => {
            n.saturating_mul(8).saturating_add(operands.last().map_or(0, |d| d.count() as i64 * 16))
        }
        Class::Random(_) => n.saturating_mul(32),
        Class::Scan(_) | Class::Gradient(_) => 0,
    };
    // Every operator costs a little, be there elements or not.
    eighths.saturating_add(8)
}

/// Points for a value of which digits get lost: more than an exponential that may overflow, less than a logarithm of what
/// may vanish.
const LOST: i64 = 3;
/// Points for a product, quotient or root of what may be infinite or vanish, though the exact result does neither. As many
/// as for lost digits, so that an exponential which others need already does not make a consumer of it look safe.
const UNSURE: i64 = 3;
/// Points for the logarithm of a product that vanishes or overflows before its logarithm would: more than for any number
/// of logarithms of factors.
const LOG_OF_PRODUCT: i64 = 1 << 16;

/// Points for what may break in floating point and would not in real arithmetic, and for lost digits.
///
/// They are charged where a value is used, not where it is made: a value that is needed anyway costs nothing more, and
/// what is made of it must not look safe for that.
fn risk(egraph: &Egraph<'_>, term: &Term, data: &Data, operands: &[&Data]) -> i64 {
    let dtype = data.ty.dtype;
    if !dtype.is_float() {
        return 0;
    }
    let Op::Map(f) = &term.op else { return 0 };
    let look = Look(egraph);
    let x = operands[0];
    // A NaN that is there already is nobody's fault.
    let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
    let infinite =
        |data: &Data| !data.facts.finite && (data.facts.low < -largest || data.facts.high > largest);
    let constant = |data: &Data| data.constant.is_some_and(|c| c.to_f64() != 0.0);
    match f.properties().risk {
        Risk::None => 0,
        Risk::Overflow => 2 * i64::from(x.facts.high > exp_limit(dtype)),
        Risk::OverflowEitherWay => {
            i64::from(x.facts.high > exp_limit(dtype) || x.facts.low < -exp_limit(dtype))
        }
        Risk::Logarithm => {
            // Of `xlogy` it is the second operand's.
            let of = operands.len() - 1;
            let vanishes = operands[of].facts.low < tiny(dtype);
            4 * i64::from(vanishes)
                + 2 * i64::from(infinite(operands[of]))
                + LOST * i64::from(look.is_near_one(term.operands[of]))
                + LOG_OF_PRODUCT * i64::from(vanishes && look.is_product(term.operands[of]))
        }
        Risk::LogOfOnePlus => 4 * i64::from(x.facts.low <= -0.999) + 2 * i64::from(infinite(x)),
        Risk::Root => {
            // A sum of squares overflows long before its root would.
            let square = |id: Id| {
                look.holds(id, |t| {
                    t.op == Op::Map(ScalarFn::Sqr) && {
                        let facts = &egraph[t.operands[0]].data.facts;
                        facts.high.max(-facts.low) > 1e9
                    }
                })
            };
            let squares = look.holds(term.operands[0], |t| {
                if let Op::Reduce(Fold::Sum, _) = t.op {
                    square(t.operands[0])
                } else {
                    t.op == Op::Map(ScalarFn::Add) && square(t.operands[0]) && square(t.operands[1])
                }
            });
            i64::from(squares) + UNSURE * i64::from(look.is_exponential(term.operands[0]))
        }
        Risk::Power => UNSURE * i64::from(look.is_exponential(term.operands[0])),
        Risk::Reciprocal => UNSURE * i64::from(infinite(x)),
        risk @ (Risk::Quotient | Risk::Product) => {
            let y = operands[1];
            let chosen = |id: Id| {
                look.holds(id, |t| {
                    t.op == Op::Map(ScalarFn::Select)
                        && t.operands[1..]
                            .iter()
                            .any(|o| egraph[*o].data.constant.is_some_and(|c| c.to_f64() == 0.0))
                })
            };
            // A constant factor changes neither what is infinite nor what is 0.
            let scaled = constant(y) || risk == Risk::Product && constant(x);
            let unsure = !scaled && (infinite(x) || infinite(y));
            // Zero times what is infinite where it is not chosen.
            let poisoned = chosen(term.operands[0]) && (infinite(y) || risk == Risk::Quotient)
                || risk == Risk::Product && chosen(term.operands[1]) && infinite(x);
            // A square vanishes long before its root does, and both sides of the quotient with it.
            let may_vanish = |data: &Data| data.facts.low <= 0.0 && data.facts.high >= 0.0;
            let vanishing = risk == Risk::Quotient
                && may_vanish(x)
                && look.holds(term.operands[1], |t| {
                    t.op == Op::Map(ScalarFn::Sqr) && may_vanish(&egraph[t.operands[0]].data)
                });
            UNSURE * i64::from(unsure) + i64::from(poisoned) + i64::from(vanishing)
        }
        risk @ (Risk::Sum | Risk::Difference) => {
            let y = operands[1];
            let unbounded = |data: &Data| data.facts.high.max(-data.facts.low) > 1e9;
            let opposed = if risk == Risk::Difference {
                x.facts.low >= 0.0 && y.facts.low >= 0.0 || x.facts.high <= 0.0 && y.facts.high <= 0.0
            } else {
                x.facts.low >= 0.0 && y.facts.high <= 0.0 || x.facts.high <= 0.0 && y.facts.low >= 0.0
            };
            let computed = x.constant.is_none() && y.constant.is_none();
            // The form without a difference is a logarithm itself, of what is known least.
            let logs = risk == Risk::Difference
                && (look.logs_of_near(term.operands[0], term.operands[1])
                    || look.logs_of_near(term.operands[1], term.operands[0]));
            3 * LOST * i64::from(logs)
                + LOST * i64::from(look.cancels(risk == Risk::Difference, term.operands[0], term.operands[1]))
                + i64::from(infinite(x) && infinite(y))
                + i64::from(computed && opposed && unbounded(x) && unbounded(y))
        }
    }
}

/// Questions about what the terms of a class are.
struct Look<'e, 'g>(&'e Egraph<'g>);

impl Look<'_, '_> {
    fn holds(&self, id: Id, test: impl Fn(&Term) -> bool) -> bool {
        self.0[id].nodes.iter().any(test)
    }

    /// Whether the class holds a value of that function which passes.
    fn holds_map(&self, id: Id, f: ScalarFn, test: impl Fn(&Term) -> bool) -> bool {
        self.holds(id, |term| term.op == Op::Map(f) && test(term))
    }

    fn constant(&self, id: Id) -> Option<f64> {
        self.0[id].data.constant.map(|c| c.to_f64())
    }

    fn may_be(&self, id: Id, value: f64) -> bool {
        let facts = &self.0[id].data.facts;
        facts.low <= value && value <= facts.high
    }

    /// One plus something that may be small: its logarithm needs the digits that the sum leaves out.
    fn is_near_one(&self, id: Id) -> bool {
        let one = |id: &Id| self.constant(*id) == Some(1.0);
        let sum = |id: Id| {
            self.may_be(id, 1.0)
                && (self.holds_map(id, ScalarFn::Add, |term| term.operands.iter().any(one))
                    || self.holds_map(id, ScalarFn::Sub, |term| one(&term.operands[0])))
        };
        sum(id) || self.holds_map(id, ScalarFn::Select, |term| term.operands[1..].iter().any(|id| sum(*id)))
    }

    /// Whether the class is a product, quotient or power of what varies.
    fn is_product(&self, id: Id) -> bool {
        let vary = |operands: &[Id]| operands.iter().all(|id| self.constant(*id).is_none());
        self.holds_map(id, ScalarFn::Mul, |term| vary(&term.operands))
            || self.holds_map(id, ScalarFn::Div, |term| vary(&term.operands))
            // A constant exponent multiplies as well.
            || self.holds_map(id, ScalarFn::Pow, |term| vary(&term.operands[..1]))
            || self.holds(id, |term| matches!(term.op, Op::Map(ScalarFn::Sqr) | Op::Reduce(Fold::Prod, _)))
    }

    /// Whether the class is an exponential that may overflow or vanish.
    fn is_exponential(&self, id: Id) -> bool {
        let limit = exp_limit(self.0[id].data.ty.dtype);
        self.holds(id, |term| {
            matches!(term.op, Op::Map(ScalarFn::Exp | ScalarFn::Exp2)) && {
                let facts = &self.0[term.operands[0]].data.facts;
                facts.low < -limit || facts.high > limit
            }
        })
    }

    /// Whether a sum or difference may leave of its operands what their roundings left, though the exact value has a form
    /// that does not.
    fn cancels(&self, difference: bool, a: Id, b: Id) -> bool {
        match (self.constant(a), self.constant(b)) {
            (Some(_), Some(_)) => false,
            (Some(c), None) => self.comes_near(b, if difference { c } else { -c }),
            (None, Some(c)) => self.comes_near(a, if difference { c } else { -c }),
            (None, None) if difference => self.are_alike(a, b),
            (None, None) => {
                self.softplus_of_negated(a, b)
                    || self.softplus_of_negated(b, a)
                    || self.hyperbolic_pair(a, b)
                    || self.hyperbolic_pair(b, a)
            }
        }
    }

    /// Whether the class is a function that comes near a constant where its argument has digits to spare: a form of the
    /// difference from the constant keeps them.
    fn comes_near(&self, id: Id, constant: f64) -> bool {
        let direct = |f: ScalarFn| {
            let steep = matches!(
                f,
                ScalarFn::Exp | ScalarFn::Exp2 | ScalarFn::Expm1 | ScalarFn::Cosh | ScalarFn::Sqrt
            );
            steep || f.properties().saturates || f == ScalarFn::Cos
        };
        let scaled = |term: &Term| {
            term.operands.iter().any(|id| self.constant(*id).is_some())
                && term.operands.iter().any(|id| self.holds_map(*id, ScalarFn::Sigmoid, |_| true))
        };
        let square = |term: &Term| {
            self.holds(term.operands[0], |root| {
                matches!(root.op, Op::Map(ScalarFn::Tanh | ScalarFn::Sin | ScalarFn::Cos))
            })
        };
        self.may_be(id, constant)
            && (self.holds(id, |term| matches!(term.op, Op::Map(f) if direct(f)))
                || self.holds_map(id, ScalarFn::Mul, scaled)
                || self.holds_map(id, ScalarFn::Sqr, square))
    }

    /// Whether the difference of two classes has a form without one: of roots, of exponentials or sigmoids of opposite
    /// arguments, of a softplus and its argument, of the mean of squares and the square of the mean.
    fn are_alike(&self, a: Id, b: Id) -> bool {
        let root = |id: Id| self.holds_map(id, ScalarFn::Sqrt, |_| true);
        root(a) && root(b)
            || self.of_opposites(ScalarFn::Exp, a, b)
            || self.of_opposites(ScalarFn::Sigmoid, a, b)
            || self.hyperbolic_pair(a, b)
            || self.hyperbolic_pair(b, a)
            || self.softplus_of(a, b)
            || self.softplus_of(b, a)
            || self.are_mean_squares(a, b)
    }

    /// The logarithm of a sum, and that of a summand.
    fn logs_of_near(&self, a: Id, b: Id) -> bool {
        self.holds_map(a, ScalarFn::Log, |sum| {
            self.holds_map(b, ScalarFn::Log, |part| {
                let part = self.0.find(part.operands[0]);
                self.holds_map(sum.operands[0], ScalarFn::Add, |add| {
                    add.operands.iter().any(|id| self.0.find(*id) == part)
                })
            })
        })
    }

    /// Hyperbolic cosine and sine of one argument.
    fn hyperbolic_pair(&self, a: Id, b: Id) -> bool {
        self.holds_map(a, ScalarFn::Cosh, |cosh| {
            self.holds_map(b, ScalarFn::Sinh, |sinh| {
                self.0.find(cosh.operands[0]) == self.0.find(sinh.operands[0])
            })
        })
    }

    /// The same function of a value and of its negated.
    fn of_opposites(&self, f: ScalarFn, a: Id, b: Id) -> bool {
        self.holds_map(a, f, |left| {
            self.holds_map(b, f, |right| {
                self.is_negated(left.operands[0], right.operands[0])
                    || self.is_negated(right.operands[0], left.operands[0])
            })
        })
    }

    /// Whether a class holds the negated of another one.
    fn is_negated(&self, negated: Id, of: Id) -> bool {
        self.holds_map(negated, ScalarFn::Neg, |term| self.0.find(term.operands[0]) == self.0.find(of))
    }

    fn softplus_of(&self, softplus: Id, x: Id) -> bool {
        self.holds_map(softplus, ScalarFn::Softplus, |term| self.0.find(term.operands[0]) == self.0.find(x))
    }

    fn softplus_of_negated(&self, softplus: Id, x: Id) -> bool {
        self.holds_map(softplus, ScalarFn::Softplus, |term| self.is_negated(term.operands[0], x))
    }

    fn are_mean_squares(&self, a: Id, b: Id) -> bool {
        let sum = |id: Id, test: &dyn Fn(Id) -> bool| {
            self.holds(id, |term| matches!(term.op, Op::Reduce(Fold::Sum, _)) && test(term.operands[0]))
        };
        let mean = |id: Id, test: &dyn Fn(Id) -> bool| {
            self.holds(id, |term| {
                matches!(term.op, Op::Map(ScalarFn::Mul | ScalarFn::Div))
                    && term.operands.iter().any(|id| self.constant(*id).is_some())
                    && term.operands.iter().any(|id| sum(*id, test))
            })
        };
        mean(a, &|id| self.holds_map(id, ScalarFn::Sqr, |_| true))
            && self.holds_map(b, ScalarFn::Sqr, |term| mean(term.operands[0], &|_| true))
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
