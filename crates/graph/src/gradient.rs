//! Asking for gradients: nodes that stand for a gradient not yet taken.
//!
//! The derivative is taken when a function is compiled ([`crate::differentiate`]), from the formula as it was made
//! stable, not as it was written: the gradient of `log(sigmoid(x))` is that of `-softplus(-x)`, finite for every `x`.

use std::fmt;
use std::panic::Location;

use smallvec::{SmallVec, smallvec};

use crate::diagnostic::Diagnostic;
use crate::made;
use crate::op::{Disconnected, Grad, Op};
use crate::tensor::{Tensor, build, faulty};
use crate::text::shown::Few;

/// The gradients of a scalar cost with respect to variables, each of the variable's own type.
///
/// ```
/// use hypatia_graph::{gradient::grad, compose::All, tensor::vector};
/// let x = vector::<f32>("x");
/// let gradients = grad(&x.sqr().sum(All), [&x]);
/// assert_eq!(gradients[0].ty(), x.ty());
/// ```
#[track_caller]
pub fn grad<V: Into<Tensor>>(cost: &Tensor, variables: impl IntoIterator<Item = V>) -> Vec<Tensor> {
    Gradient::of(cost).wrt(variables)
}

/// A gradient with choices; [`grad`] is the short form without any.
#[derive(Clone, Default)]
pub struct Gradient {
    cost: Option<Tensor>,
    known: Vec<(Tensor, Tensor)>,
    constants: Vec<Tensor>,
    disconnected: Disconnected,
}

impl fmt::Debug for Gradient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gradient")
            .field("cost", &self.cost)
            .field("known", &Few(&self.known))
            .field("constants", &Few(&self.constants))
            .field("disconnected", &self.disconnected)
            .finish()
    }
}

impl Gradient {
    /// Of a scalar cost.
    pub fn of(cost: &Tensor) -> Gradient {
        Gradient { cost: Some(cost.clone()), ..Gradient::default() }
    }

    /// Of no cost: the cotangents given with [`Gradient::known`] are where it begins.
    pub fn of_known() -> Gradient {
        Gradient::default()
    }

    /// Expressions through which nothing flows.
    pub fn consider_constant<V: Into<Tensor>>(mut self, constants: impl IntoIterator<Item = V>) -> Gradient {
        self.constants.extend(constants.into_iter().map(Into::into));
        self
    }

    /// Adds `cotangent` to the cotangent of `expression`, whose type it has.
    pub fn known(mut self, expression: impl Into<Tensor>, cotangent: impl Into<Tensor>) -> Gradient {
        self.known.push((expression.into(), cotangent.into()));
        self
    }

    /// What to do with a variable that the cost does not depend on; an error by default.
    pub fn disconnected(mut self, disconnected: Disconnected) -> Gradient {
        self.disconnected = disconnected;
        self
    }

    /// The gradients with respect to these variables, in their order.
    #[track_caller]
    pub fn wrt<V: Into<Tensor>>(self, variables: impl IntoIterator<Item = V>) -> Vec<Tensor> {
        let site = Location::caller();
        let variables: Vec<Tensor> = variables.into_iter().map(Into::into).collect();
        let fault = self.check(&variables);
        let mut operands: SmallVec<[Tensor; 2]> = self.cost.iter().cloned().collect();
        operands.extend(variables.iter().cloned());
        operands.extend(self.known.iter().flat_map(|(e, c)| [e.clone(), c.clone()]));
        operands.extend(self.constants.iter().cloned());
        let gradient = |index: usize| match &fault {
            Some(fault) if index == 0 => {
                faulty(fault.clone(), operands.clone(), variables[index].ty().clone(), site)
            }
            // One message is enough: the others only carry the poison on.
            Some(fault) => {
                let first = faulty(fault.clone(), operands.clone(), variables[0].ty().clone(), site);
                build(Op::StopGradient, smallvec![first], site)
            }
            None => {
                let grad = Grad {
                    index: index as u16,
                    variables: variables.len() as u16,
                    known: self.known.len() as u16,
                    constants: self.constants.len() as u16,
                    has_cost: self.cost.is_some(),
                    disconnected: self.disconnected,
                };
                let name = variables[index].name().unwrap_or("variable").to_string();
                build(Op::Grad(Box::new(grad)), operands.clone(), site).named(&format!("d_{name}"))
            }
        };
        (0..variables.len()).map(gradient).collect()
    }

    fn check(&self, variables: &[Tensor]) -> Option<Diagnostic> {
        if let Some(cost) = self.cost.as_ref().filter(|c| c.rank() != 0 || !c.dtype().is_float()) {
            let fault = Diagnostic::new("a gradient is that of a float scalar").with(
                "cost",
                cost.ty().to_string(),
                Some(cost.site()),
            );
            return Some(if cost.rank() > 0 {
                fault.hint("reduce the cost first, with `.mean(All)` or `.sum(All)`")
            } else {
                fault
            });
        }
        if self.cost.is_none() && self.known.is_empty() {
            return Some(Diagnostic::new("a gradient needs a cost or known cotangents"));
        }
        if let Some(variable) = variables.iter().find(|v| !v.dtype().is_float()) {
            let name = variable.name().map_or(String::new(), |name| format!(" `{name}`"));
            return Some(
                Diagnostic::new("a gradient is taken with respect to float variables")
                    .with("found", format!("{}{name}", variable.ty()), Some(variable.site()))
                    .hint("integers carry no gradient; `.cast(DType::F32)` the variable where it is made"),
            );
        }
        let ends =
            variables.iter().chain(self.known.iter().flat_map(|(e, c)| [e, c])).find(|x| x.made().is_some());
        if let Some(rows) = ends {
            return Some(made::fault("as a variable or a cotangent of a gradient", rows));
        }
        let (expression, cotangent) = self.known.iter().find(|(e, c)| !e.ty().accepts(c.ty()))?;
        Some(
            Diagnostic::new("a known cotangent has another type than its expression")
                .with("expected", expression.ty().to_string(), Some(expression.site()))
                .with("found", cotangent.ty().to_string(), Some(cotangent.site())),
        )
    }
}
