//! Update rules as graphs: how parameters follow their gradients.
//!
//! A [`Descent`] is a rule, the size of its steps and their schedule, and a norm that gradients are clipped to. Every
//! rule is used alike: [`Descent::updates`] makes the updates of the parameters and of what the rule remembers, which
//! is named after the parameters, so that a checkpoint can hold it. A rule that remembers nothing has no variables.

use hypatia::{All, Array, DType, Shared, Tensor, shared};

use crate::parameter::{Parameter, extents};

/// How parameters follow their gradients.
#[derive(Clone, Debug)]
pub struct Descent {
    /// What a step is made of.
    pub rule: Rule,
    /// The size of the first step, a scalar: a number, or an input of the function.
    pub learning_rate: Tensor,
    /// How the size of steps changes from one to the next.
    pub schedule: Schedule,
    /// The norm that all gradients together are scaled down to where it is larger: Pascanu, Mikolov and Bengio, "On the
    /// difficulty of training recurrent neural networks" (2013).
    pub clip: Option<f64>,
}

/// What a step is made of, for a gradient `g` and a rate `r`. Operations are those of elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `p' = p - r g`.
    Sgd,
    /// A velocity that keeps a share of itself (Polyak, 1964): `v' = momentum v - r g`, `p' = p + v'`.
    Momentum {
        /// The share.
        momentum: f64,
    },
    /// Nesterov's momentum in the form of Bengio, Boulanger-Lewandowski and Pascanu, "Advances in optimizing recurrent
    /// networks" (2013): `v' = momentum v - r g`, `p' = p + momentum v' - r g`.
    Nesterov {
        /// The share of itself that the velocity keeps.
        momentum: f64,
    },
    /// Duchi, Hazan and Singer (2011): `s' = s + g^2`, `p' = p - r g / sqrt(s' + epsilon)`.
    AdaGrad {
        /// What keeps the divisor from 0.
        epsilon: f64,
    },
    /// Zeiler (2012), with means `s` of squared gradients and `d` of squared steps: `s' = decay s + (1 - decay) g^2`,
    /// `step = sqrt(d + epsilon) / sqrt(s' + epsilon) g`, `d' = decay d + (1 - decay) step^2`, `p' = p - r step`. The
    /// paper has no rate: it is 1.
    AdaDelta {
        /// The share of themselves that the means keep.
        decay: f64,
        /// What keeps the divisor from 0, and lets the first steps begin.
        epsilon: f64,
    },
    /// Tieleman and Hinton (2012), with a mean `s` of squared gradients: `s' = decay s + (1 - decay) g^2`,
    /// `p' = p - r g / sqrt(s' + epsilon)`.
    RmsProp {
        /// The share of itself that the mean keeps.
        decay: f64,
        /// What keeps the divisor from 0.
        epsilon: f64,
    },
    /// RMSprop by the variance of gradients, with momentum: Graves, "Generating sequences with recurrent neural
    /// networks" (2013), equations 38 to 41. With a mean `m` of gradients beside `s`:
    /// `v' = momentum v - r g / sqrt(s' - m'^2 + epsilon)`, `p' = p + v'`.
    CentredRmsProp {
        /// The share of themselves that the means keep.
        decay: f64,
        /// The share of itself that the velocity keeps.
        momentum: f64,
        /// What keeps the divisor from 0.
        epsilon: f64,
    },
    /// Kingma and Ba (2015), with means `m` of gradients and `s` of their squares, both divided by what a mean that
    /// began at 0 lacks after `t` steps: `p' = p - r m' / (1 - mean_decay^t) / (sqrt(s' / (1 - square_decay^t)) +
    /// epsilon)`.
    Adam {
        /// The share of itself that the mean of gradients keeps.
        mean_decay: f64,
        /// The share of itself that the mean of squares keeps.
        square_decay: f64,
        /// What keeps the divisor from 0.
        epsilon: f64,
    },
}

impl Rule {
    /// AdaGrad as it is used most.
    pub const ADAGRAD: Rule = Rule::AdaGrad { epsilon: 1e-6 };
    /// AdaDelta with the constants of the paper.
    pub const ADADELTA: Rule = Rule::AdaDelta { decay: 0.95, epsilon: 1e-6 };
    /// RMSprop with the constants of the lecture.
    pub const RMSPROP: Rule = Rule::RmsProp { decay: 0.9, epsilon: 1e-6 };
    /// Graves' RMSprop with the constants of the paper, whose rate is 1e-4.
    pub const CENTRED_RMSPROP: Rule = Rule::CentredRmsProp { decay: 0.95, momentum: 0.9, epsilon: 1e-4 };
    /// Adam with the constants of the paper, whose rate is 1e-3.
    pub const ADAM: Rule = Rule::Adam { mean_decay: 0.9, square_decay: 0.999, epsilon: 1e-8 };
}

/// How the size of steps changes: the factor of the learning rate at step `t`, which counts from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// 1.
    Constant,
    /// `factor^floor(t / every)`.
    Staircase {
        /// What the rate is multiplied by.
        factor: f64,
        /// After so many steps.
        every: u64,
    },
    /// `factor^(t / every)`.
    Exponential {
        /// What the rate is multiplied by in the course of `every` steps.
        factor: f64,
        /// So many steps.
        every: u64,
    },
    /// `min(1, after / (t + 1))`: constant at first, then as one over the step.
    Inverse {
        /// The last step at full size, counted from 1.
        after: u64,
    },
    /// A straight line from 1 to `last` at step `over`, and `last` from there on.
    Linear {
        /// Steps that it takes.
        over: u64,
        /// The factor at its end.
        last: f64,
    },
    /// Half a wave of the cosine from 1 to `last` at step `over`, and `last` from there on (Loshchilov and Hutter, 2017).
    Cosine {
        /// Steps that it takes.
        over: u64,
        /// The factor at its end.
        last: f64,
    },
}

impl Schedule {
    /// The factor at the step of that number from 0, an integer scalar: a scalar `f32`.
    #[must_use]
    #[track_caller]
    pub fn factor(self, step: &Tensor) -> Tensor {
        let share = |over: u64| (step.cast(DType::F32) / over.max(1) as f64).minimum(1.0);
        match self {
            Self::Constant => Tensor::from(1.0_f32),
            Self::Staircase { factor, every } => {
                (step.floordiv(every.max(1) as i64).cast(DType::F32) * factor.ln()).exp()
            }
            Self::Exponential { factor, every } => {
                (step.cast(DType::F32) / every.max(1) as f64 * factor.ln()).exp()
            }
            Self::Inverse { after } => (after as f64 / (step + 1).cast(DType::F32)).minimum(1.0),
            Self::Linear { over, last } => 1.0 - share(over) * (1.0 - last),
            Self::Cosine { over, last } => {
                last + (1.0 - last) * 0.5 * (1.0 + (share(over) * std::f64::consts::PI).cos())
            }
        }
    }
}

/// The variable that counts the steps, in checkpoints.
const STEP: &str = "step";

impl Descent {
    /// A rule whose steps have that size from first to last.
    #[must_use]
    #[track_caller]
    pub fn new(rule: Rule, learning_rate: impl Into<Tensor>) -> Self {
        Self { rule, learning_rate: learning_rate.into(), schedule: Schedule::Constant, clip: None }
    }

    /// Plain gradient descent.
    #[must_use]
    #[track_caller]
    pub fn sgd(learning_rate: impl Into<Tensor>) -> Self {
        Self::new(Rule::Sgd, learning_rate)
    }

    /// With that schedule.
    #[must_use]
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// With gradients clipped to that norm, all of them together.
    #[must_use]
    pub fn with_clip(self, norm: f64) -> Self {
        Self { clip: Some(norm), ..self }
    }

    /// The updates that follow the gradients of the parameters, and what is remembered from one step to the next, at its
    /// start.
    #[must_use = "nothing is learnt unless the updates are given to the function"]
    #[track_caller]
    pub fn updates(
        &self,
        parameters: &[Parameter],
        gradients: Vec<Tensor>,
    ) -> (Vec<(Shared, Tensor)>, Vec<Parameter>) {
        let mut memory = Memory::default();
        let rate = match self.schedule {
            Schedule::Constant => self.learning_rate.clone(),
            schedule => &self.learning_rate * schedule.factor(&memory.step()),
        };
        let gradients = match self.clip {
            Some(norm) => clipped(gradients, norm),
            None => gradients,
        };
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            let next = self.next(parameter, &gradient, &rate, &mut memory);
            memory.updates.push((parameter.shared.clone(), next));
        }
        (memory.updates, memory.variables)
    }

    /// The parameter after a step.
    #[track_caller]
    fn next(&self, parameter: &Parameter, g: &Tensor, rate: &Tensor, memory: &mut Memory) -> Tensor {
        let p = &parameter.shared;
        match self.rule {
            Rule::Sgd => p - g * rate,
            Rule::Momentum { momentum } => {
                p + memory.next("velocity", parameter, |velocity| velocity * momentum - g * rate)
            }
            Rule::Nesterov { momentum } => {
                let descent = g * rate;
                let velocity = memory.next("velocity", parameter, |velocity| velocity * momentum - &descent);
                p - descent + velocity * momentum
            }
            Rule::AdaGrad { epsilon } => {
                let squares = memory.next("squares", parameter, |squares| squares + g.sqr());
                p - g * rate / (squares + epsilon).sqrt()
            }
            Rule::AdaDelta { decay, epsilon } => {
                let squares = memory.mean("squares", parameter, decay, &g.sqr());
                let (steps, before) = memory.variable("steps", parameter);
                let moved = (&before + epsilon).sqrt() / (squares + epsilon).sqrt() * g;
                memory.updates.push((steps, mean(&before, decay, &moved.sqr())));
                p - moved * rate
            }
            Rule::RmsProp { decay, epsilon } => {
                let squares = memory.mean("squares", parameter, decay, &g.sqr());
                p - g * rate / (squares + epsilon).sqrt()
            }
            Rule::CentredRmsProp { decay, momentum, epsilon } => {
                let squares = memory.mean("squares", parameter, decay, &g.sqr());
                let mean = memory.mean("mean", parameter, decay, g);
                let deviation = (squares - mean.sqr() + epsilon).sqrt();
                p + memory.next("velocity", parameter, |velocity| velocity * momentum - g * rate / deviation)
            }
            Rule::Adam { mean_decay, square_decay, epsilon } => {
                let mean = memory.mean("mean", parameter, mean_decay, g);
                let squares = memory.mean("squares", parameter, square_decay, &g.sqr());
                // 1 - decay^t without a difference: a decay near 1 would leave it few digits.
                let number = (memory.step() + 1).cast(DType::F32);
                let lacking = |decay: f64| -(&number * decay.ln()).expm1();
                let deviation = (squares / lacking(square_decay)).sqrt() + epsilon;
                p - mean * (rate / lacking(mean_decay)) / deviation
            }
        }
    }
}

/// The gradients, scaled down together where their norm is larger than that.
#[must_use]
#[track_caller]
pub fn clipped(gradients: Vec<Tensor>, norm: f64) -> Vec<Tensor> {
    let squares = gradients.iter().map(|gradient| gradient.sqr().sum(All));
    let Some(sum) = squares.reduce(|sum, square| sum + square) else { return gradients };
    let scale = norm / sum.sqrt().maximum(norm);
    gradients.into_iter().map(|gradient| gradient * &scale).collect()
}

/// A mean that keeps that share of itself.
#[track_caller]
fn mean(before: &Tensor, decay: f64, value: &Tensor) -> Tensor {
    before * decay + value * (1.0 - decay)
}

/// What a rule remembers from one step to the next: variables, and updates of these and of the parameters.
#[derive(Default)]
struct Memory {
    variables: Vec<Parameter>,
    updates: Vec<(Shared, Tensor)>,
    step: Option<Tensor>,
}

impl Memory {
    /// How many steps were made, an `i64` scalar. There is one counter for all parameters.
    #[track_caller]
    fn step(&mut self) -> Tensor {
        if let Some(step) = &self.step {
            return step.clone();
        }
        let counter = shared(STEP, Array::scalar(0_i64));
        self.variables.push(Parameter::new(STEP, &counter));
        self.updates.push((counter.clone(), &counter + 1));
        self.step.insert(Tensor::from(&counter)).clone()
    }

    /// A variable of that role beside a parameter, zero at the start, and its value before the step.
    #[track_caller]
    fn variable(&mut self, role: &str, parameter: &Parameter) -> (Shared, Tensor) {
        let name = format!("{role}.{}", parameter.name);
        let dtype = parameter.shared.ty().dtype;
        let variable = shared(&name, Array::zeros(dtype, &extents(&parameter.shared)));
        self.variables.push(Parameter::new(name, &variable));
        let before = Tensor::from(&variable);
        (variable, before)
    }

    /// The next value of a variable of that role.
    #[track_caller]
    fn next(&mut self, role: &str, parameter: &Parameter, next: impl FnOnce(Tensor) -> Tensor) -> Tensor {
        let (variable, before) = self.variable(role, parameter);
        let next = next(before);
        self.updates.push((variable, next.clone()));
        next
    }

    /// The next value of a variable that holds a [`mean`].
    #[track_caller]
    fn mean(&mut self, role: &str, parameter: &Parameter, decay: f64, value: &Tensor) -> Tensor {
        self.next(role, parameter, |before| mean(&before, decay, value))
    }
}

#[cfg(test)]
mod tests;
