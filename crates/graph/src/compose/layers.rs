//! Layers of networks without state: activations, and normalisation over a minibatch.
//!
//! Parameters and running statistics are the caller's. Slopes where an activation has a corner are those from the right,
//! as for `relu`.

use super::*;

/// Values normalised over a minibatch, and the statistics they were normalised by.
#[derive(Clone, Debug)]
pub struct Normalised {
    /// The values, of the operand's shape.
    pub values: Tensor,
    /// Mean over the axes, which are gone.
    pub mean: Tensor,
    /// Mean squared distance from the mean.
    pub variance: Tensor,
    /// How many elements each statistic was taken of.
    count: Tensor,
}

impl Normalised {
    /// The next running mean and variance: they move towards the statistics of the minibatch by the fraction `rate`. The
    /// variance is that of the population, estimated from the minibatch as a sample (`n - 1` of its `n` elements count);
    /// a sample of one says 0.
    #[must_use]
    #[track_caller]
    pub fn running(&self, mean: &Tensor, variance: &Tensor, rate: impl Into<Tensor>) -> (Tensor, Tensor) {
        let rate = rate.into();
        let estimate = &self.variance * (&self.count / (&self.count - 1.0).maximum(1.0));
        (mean + (&self.mean - mean) * &rate, variance + (estimate - variance) * rate)
    }
}

impl Tensor {
    /// `x` from 0 on, `slope * x` below.
    #[track_caller]
    pub fn leaky_relu(&self, slope: impl Into<Tensor>) -> Tensor {
        switch(self.ge(0.0), self, self * slope.into())
    }

    /// `x` from 0 on, `alpha * (e^x - 1)` below.
    #[track_caller]
    pub fn elu(&self, alpha: impl Into<Tensor>) -> Tensor {
        // Above 0 the exponential could overflow, and then has no gradient that 0 times it would be.
        switch(self.ge(0.0), self, self.minimum(0.0).expm1() * alpha.into())
    }

    /// The scaled [`Tensor::elu`] of Klambauer and others, "Self-Normalizing Neural Networks" (2017), whose constants keep a
    /// mean of 0 and a variance of 1 from layer to layer.
    #[track_caller]
    pub fn selu(&self) -> Tensor {
        self.elu(1.673_263_242_354_377_2) * 1.050_700_987_355_480_5
    }

    /// Normalised over axes by their own mean and variance (for training): `(x - mean) / sqrt(variance + epsilon) * scale +
    /// shift`. `scale` and `shift` have the axes that are left.
    #[track_caller]
    pub fn batch_normalise(
        &self,
        axes: impl AxisSet,
        scale: impl Into<Tensor>,
        shift: impl Into<Tensor>,
        epsilon: f64,
    ) -> Normalised {
        let site = Location::caller();
        let float = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F32) };
        match axes.axes(self.rank()) {
            Ok(set) => {
                let (mean, variance) = float.moments(set, site);
                let values =
                    float.normalised(set, [&mean, &variance, &scale.into(), &shift.into()], epsilon, site);
                Normalised { values, mean, variance, count: float.count(set, float.dtype(), site) }
            }
            Err(message) => {
                let fault = mistake(self, format!("`batch_normalise`: {message}"), site);
                let [mean, variance, count] = [fault.clone(), fault.clone(), fault.clone()];
                Normalised { values: fault, mean, variance, count }
            }
        }
    }

    /// Normalised over axes by a given mean and variance (for use after training, with the running ones): see
    /// [`Tensor::batch_normalise`]. All four have the axes that are left.
    #[track_caller]
    pub fn normalise_by(
        &self,
        axes: impl AxisSet,
        mean: impl Into<Tensor>,
        variance: impl Into<Tensor>,
        scale: impl Into<Tensor>,
        shift: impl Into<Tensor>,
        epsilon: f64,
    ) -> Tensor {
        let site = Location::caller();
        let float = if self.dtype().is_float() { self.clone() } else { self.cast(DType::F32) };
        let statistics = [&mean.into(), &variance.into(), &scale.into(), &shift.into()];
        match axes.axes(self.rank()) {
            Ok(set) => float.normalised(set, statistics, epsilon, site),
            Err(message) => mistake(self, format!("`normalise_by`: {message}"), site),
        }
    }

    fn normalised(&self, set: Axes, statistics: [&Tensor; 4], epsilon: f64, site: Site) -> Tensor {
        let rank = self.rank() - set.len();
        // A scalar is the same for all.
        if let Some(wrong) = statistics.iter().find(|statistic| ![0, rank].contains(&statistic.rank())) {
            let fault = Diagnostic::new(format!(
                "normalisation over {} of {} axes expected statistics, scale and shift of rank {rank}",
                set.len(),
                self.rank()
            ))
            .with("operand", self.ty().to_string(), None)
            .with("found", wrong.ty().to_string(), None);
            return faulty(fault, smallvec![self.clone(), (*wrong).clone()], self.ty().clone(), site);
        }
        let kept = |t: &Tensor| if t.rank() == 0 { t.clone() } else { keep_axes(t, set, self.rank(), site) };
        let [mean, variance, scale, shift] = statistics.map(kept);
        (self - mean) * (scale / (variance + epsilon).sqrt()) + shift
    }
}
