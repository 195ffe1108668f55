//! Minimising a cost over all data by nonlinear conjugate gradients, as SciPy's `fmin_cg` does.
//!
//! Directions are those of Polak and Ribiere with restarts (Nocedal and Wright, "Numerical Optimization", 2006, equation
//! 5.45); the steps along them satisfy the strong Wolfe conditions, by the line search of Moré and Thuente that `argmin`
//! has. Everything between two iterations is in [`ConjugateGradients`], so that it can be saved. Numbers are in double
//! precision, whatever the cost is computed in.

use std::cell::RefCell;

use argmin::core::{CostFunction, Executor, Gradient, LineSearch, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;

/// Constants of the Wolfe conditions: those of `fmin_cg`.
const WOLFE: (f64, f64) = (1e-4, 0.4);
/// A direction must descend at least this much of what the gradient itself would.
const LEAST_DESCENT: f64 = 0.01;
/// Evaluations of a line search at most.
const MOST_EVALUATIONS: u64 = 100;

/// A cost and its gradient at a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The cost.
    pub cost: f64,
    /// The derivative by each coordinate.
    pub gradient: Vec<f64>,
}

/// A minimisation between two iterations.
#[derive(Clone, Debug, PartialEq)]
pub struct ConjugateGradients {
    /// The best point so far.
    pub point: Vec<f64>,
    /// Cost and gradient there.
    pub evaluation: Evaluation,
    /// The direction of the next iteration.
    pub direction: Vec<f64>,
    /// The cost an iteration before.
    pub cost_before: f64,
}

impl ConjugateGradients {
    /// The start at a point, whose evaluation is given.
    #[must_use]
    pub fn new(point: Vec<f64>, evaluation: Evaluation) -> Self {
        let direction: Vec<f64> = evaluation.gradient.iter().map(|g| -g).collect();
        // As if the cost had fallen by a step of length 1/2, so that the first trial has about length 1.
        let cost_before = evaluation.cost + dot(&direction, &direction).sqrt() / 2.0;
        Self { point, evaluation, direction, cost_before }
    }

    /// One iteration: a line search along the direction, whose first trial is no longer than that (1 in `fmin_cg`), and the
    /// next direction. Whether a better point was found; if not, nothing has changed and no further iteration will find
    /// one.
    ///
    /// # Errors
    ///
    /// That of `evaluate`.
    pub fn step<E>(
        &mut self,
        longest_trial: f64,
        evaluate: impl FnMut(&[f64]) -> Result<Evaluation, E>,
    ) -> Result<bool, E> {
        let slope = dot(&self.evaluation.gradient, &self.direction);
        // The step that would bring the fall of the last iteration again, were the cost a parabola.
        let expected = 1.01 * 2.0 * (self.evaluation.cost - self.cost_before) / slope;
        let first = if expected > 0.0 { expected.min(longest_trial) } else { longest_trial };
        let along =
            Along { evaluate: RefCell::new(evaluate), last: RefCell::new(None), failure: RefCell::new(None) };
        let found = self.search(&along, first);
        if let Some(failure) = along.failure.into_inner() {
            return Err(failure);
        }
        let last = along.last.into_inner();
        let Some((point, next)) = found.and_then(|point| last.filter(|(at, _)| *at == point)) else {
            return Ok(false);
        };
        if next.cost.is_nan() || next.cost >= self.evaluation.cost {
            return Ok(false);
        }
        let before = &self.evaluation.gradient;
        let change: f64 = next.gradient.iter().zip(before).map(|(new, old)| (new - old) * new).sum();
        let beta = (change / dot(before, before)).max(0.0);
        let conjugate = next.gradient.iter().zip(&self.direction).map(|(g, d)| beta * d - g).collect();
        let squares = dot(&next.gradient, &next.gradient);
        let descends = |direction: &Vec<f64>| dot(direction, &next.gradient) <= -LEAST_DESCENT * squares;
        let steepest = || next.gradient.iter().map(|g| -g).collect();
        self.direction = Some(conjugate).filter(descends).unwrap_or_else(steepest);
        self.cost_before = self.evaluation.cost;
        (self.point, self.evaluation) = (point, next);
        Ok(true)
    }

    /// The point that the line search ends at; `None` where it fails.
    fn search<E, F>(&self, along: &Along<F, E>, first: f64) -> Option<Vec<f64>>
    where
        F: FnMut(&[f64]) -> Result<Evaluation, E>,
    {
        let mut search = MoreThuenteLineSearch::new().with_c(WOLFE.0, WOLFE.1).ok()?;
        search.search_direction(self.direction.clone());
        search.initial_step_length(first).ok()?;
        let begin = &self.evaluation;
        let result = Executor::new(along, search)
            .configure(|state| {
                let state = state.param(self.point.clone()).gradient(begin.gradient.clone()).cost(begin.cost);
                state.max_iters(MOST_EVALUATIONS)
            })
            .ctrlc(false)
            .run()
            .ok()?;
        result.state.get_param().cloned()
    }
}

/// The cost as the line search asks for it: cost and gradient of one point one after the other, which are computed
/// together.
struct Along<F, E> {
    evaluate: RefCell<F>,
    last: RefCell<Option<(Vec<f64>, Evaluation)>>,
    failure: RefCell<Option<E>>,
}

impl<F: FnMut(&[f64]) -> Result<Evaluation, E>, E> Along<F, E> {
    fn at(&self, point: &[f64]) -> Result<Evaluation, argmin::core::Error> {
        let mut last = self.last.borrow_mut();
        if let Some((at, evaluation)) = &*last
            && at == point
        {
            return Ok(evaluation.clone());
        }
        match (self.evaluate.borrow_mut())(point) {
            Ok(evaluation) => {
                *last = Some((point.to_vec(), evaluation.clone()));
                Ok(evaluation)
            }
            Err(failure) => {
                *self.failure.borrow_mut() = Some(failure);
                Err(argmin::core::Error::msg("the cost could not be computed"))
            }
        }
    }
}

impl<F: FnMut(&[f64]) -> Result<Evaluation, E>, E> CostFunction for &Along<F, E> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, point: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.at(point)?.cost)
    }
}

impl<F: FnMut(&[f64]) -> Result<Evaluation, E>, E> Gradient for &Along<F, E> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, point: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.at(point)?.gradient)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's function, whose least value is 0 at (1, 1).
    fn rosenbrock(p: &[f64]) -> Result<Evaluation, String> {
        let (x, y) = (p[0], p[1]);
        let cost = (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2);
        let gradient = vec![-2.0 * (1.0 - x) - 400.0 * x * (y - x * x), 200.0 * (y - x * x)];
        Ok(Evaluation { cost, gradient })
    }

    fn begin(point: Vec<f64>) -> ConjugateGradients {
        let evaluation = rosenbrock(&point).unwrap();
        ConjugateGradients::new(point, evaluation)
    }

    /// SciPy's `fmin_cg` needs 36 iterations from there.
    #[test]
    fn the_valley_of_rosenbrock_ends_at_one() {
        let mut minimiser = begin(vec![-1.2, 1.0]);
        let mut costs = vec![minimiser.evaluation.cost];
        while costs.len() < 100 && minimiser.step(1.0, rosenbrock).unwrap() {
            costs.push(minimiser.evaluation.cost);
        }
        assert!(costs.windows(2).all(|pair| pair[1] < pair[0]), "{costs:?}");
        let distance = minimiser.point.iter().map(|x| (x - 1.0).abs()).fold(0.0, f64::max);
        assert!(distance < 1e-4 && costs.len() < 60, "{} {:?}", costs.len(), minimiser.point);
    }

    /// A quadratic function of n variables needs n exact line searches; these are nearly exact.
    #[test]
    fn a_quadratic_bowl_is_left_behind_fast() {
        let bowl = |p: &[f64]| -> Result<Evaluation, String> {
            let weight = |i: usize| (i + 1) as f64;
            let cost = p.iter().enumerate().map(|(i, x)| weight(i) * x * x / 2.0).sum();
            Ok(Evaluation { cost, gradient: p.iter().enumerate().map(|(i, x)| weight(i) * x).collect() })
        };
        let point = vec![1.0; 5];
        let evaluation = bowl(&point).unwrap();
        let mut minimiser = ConjugateGradients::new(point, evaluation);
        for _ in 0..20 {
            if !minimiser.step(1.0, bowl).unwrap() {
                break;
            }
        }
        assert!(minimiser.evaluation.cost < 1e-9, "{}", minimiser.evaluation.cost);
    }

    #[test]
    fn a_failed_evaluation_is_passed_on_and_changes_nothing() {
        let mut minimiser = begin(vec![-1.2, 1.0]);
        let before = minimiser.clone();
        assert_eq!(minimiser.step(1.0, |_| Err("out of order".to_owned())), Err("out of order".to_owned()));
        assert_eq!(minimiser, before);
    }

    #[test]
    fn a_point_without_a_slope_is_the_end() {
        let mut minimiser = begin(vec![1.0, 1.0]);
        assert_eq!(minimiser.step(1.0, rosenbrock), Ok(false));
        assert_eq!(minimiser, begin(vec![1.0, 1.0]));
    }
}
