//! Update rules as graphs: how parameters follow their gradients.

use hypatia::{All, Array, DType, Shared, Tensor, shared};

use crate::parameter::{Parameter, extents};

/// How parameters follow their gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Descent {
    /// Step of the gradient descent.
    pub learning_rate: f64,
    /// The norm that all gradients together are scaled down to where it is larger: Pascanu, Mikolov and Bengio, "On the
    /// difficulty of training recurrent neural networks" (2013).
    pub clip: Option<f64>,
    /// Nesterov's momentum; 0 for none.
    pub momentum: f64,
}

impl Descent {
    /// Steps of that size and nothing else.
    #[must_use]
    pub fn plain(learning_rate: f64) -> Self {
        Self { learning_rate, clip: None, momentum: 0.0 }
    }

    /// The updates that follow the gradients of the parameters, and the velocities, which there are with momentum only.
    ///
    /// Momentum in the form of Bengio, Boulanger-Lewandowski and Pascanu, "Advances in optimizing recurrent networks"
    /// (2013): `velocity' = m velocity - rate g` and `p' = p + m velocity' - rate g`.
    #[must_use]
    #[track_caller]
    pub fn updates(
        &self,
        parameters: &[Parameter],
        gradients: Vec<Tensor>,
    ) -> (Vec<(Shared, Tensor)>, Vec<Parameter>) {
        let scale = self.clip.map(|threshold| {
            let squares = gradients.iter().map(|gradient| gradient.sqr().sum(All));
            let norm = squares.reduce(|sum, square| sum + square).unwrap_or_else(|| 0.0.into()).sqrt();
            threshold / norm.maximum(threshold)
        });
        let (mut updates, mut velocities) = (Vec::new(), Vec::new());
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            let gradient = match &scale {
                Some(scale) => gradient * scale,
                None => gradient,
            };
            let step = gradient * self.learning_rate;
            let mut next = &parameter.shared - &step;
            if self.momentum > 0.0 {
                let name = format!("velocity.{}", parameter.name);
                let velocity = shared(&name, Array::zeros(DType::F32, &extents(&parameter.shared)));
                let moved = &velocity * self.momentum - &step;
                next = next + &moved * self.momentum;
                velocities.push(Parameter::new(name, &velocity));
                updates.push((velocity, moved));
            }
            updates.push((parameter.shared.clone(), next));
        }
        (updates, velocities)
    }
}
