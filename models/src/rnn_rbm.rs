//! The RNN-RBM of the Deep Learning Tutorials: polyphonic music as a sequence of restricted Boltzmann machines, whose
//! biases a recurrent network computes from the past.
//!
//! Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences: Application
//! to Polyphonic Music Generation and Transcription" (ICML 2012). Frame `t` is drawn from the machine with the biases
//! `bv + u[t-1] Wuv` and `bh + u[t-1] Wuh`, and the recurrent state is `u[t] = tanh(bu + v[t] Wvu + u[t-1] Wuu)`. In
//! training all frames are known, so the biases of all frames come first and one Gibbs chain over all frames follows; in
//! generation each frame has a chain of its own.

use hypatia::{
    All, Array, DType, Gradient, Next, RandomStreams, Scan, Shared, Size, Tensor, concatenate, full, ix,
    shared, switch,
};

use hypatia_datasets::numpy::RandomState;

use crate::parameter::{Parameter, extents};

/// A chain of Gibbs steps of a restricted Boltzmann machine, from data.
#[derive(Clone, Debug)]
pub struct RbmChain {
    /// The sample at the end of the chain, of the shape of the data.
    pub v_sample: Tensor,
    /// The difference of the mean free energies of data and sample, a scalar: its gradient, with `v_sample` taken as a
    /// constant, is the estimate of contrastive divergence.
    pub cost: Tensor,
    /// The mean over the frames of `sum(v log m + (1 - v) log(1 - m))`, where `m` is the mean of one more step: a proxy of
    /// the log-likelihood, a scalar.
    pub monitor: Tensor,
}

impl RbmChain {
    /// The gradients of contrastive divergence.
    #[must_use]
    #[track_caller]
    pub fn gradients(&self, parameters: &[Parameter]) -> Vec<Tensor> {
        let wrt = parameters.iter().map(|parameter| &parameter.shared);
        Gradient::of(&self.cost).consider_constant([&self.v_sample]).wrt(wrt)
    }
}

/// `k` Gibbs steps from `v`, of shape `[n_visible]` or `[frames, n_visible]`, and what they are good for.
///
/// `w` is `f32[n_visible, n_hidden]`; the biases `bv` and `bh` are one row for all frames or one for each. Draws are made
/// from `random`.
#[must_use]
#[track_caller]
pub fn build_rbm(
    random: &RandomStreams,
    v: &Tensor,
    w: &Tensor,
    bv: &Tensor,
    bh: &Tensor,
    k: usize,
) -> RbmChain {
    let machine = Machine { random, w, bv, bh };
    let v_sample = machine.gibbs_chain(v, k);
    let mean_v = machine.mean_v(&machine.sample_h(&v_sample));
    let log_likelihood = xlogy0(v, &mean_v) + xlogy0(&(1.0 - v), &(1.0 - mean_v));
    let frames = if v.rank() > 1 { v.extent(0).cast(DType::F32) } else { Tensor::from(1.0) };
    let monitor = log_likelihood.sum(All) / &frames;
    let cost = (machine.free_energy(v) - machine.free_energy(&v_sample)) / frames;
    RbmChain { v_sample, cost, monitor }
}

/// `x log(y)`, and 0 where `x` is 0 whatever `y` is: Theano's `xlogy0`.
#[must_use]
#[track_caller]
pub fn xlogy0(x: &Tensor, y: &Tensor) -> Tensor {
    switch(x.eq(0.0), 0.0, x * y.log())
}

/// A restricted Boltzmann machine as expressions.
struct Machine<'a> {
    random: &'a RandomStreams,
    w: &'a Tensor,
    bv: &'a Tensor,
    bh: &'a Tensor,
}

impl Machine<'_> {
    #[track_caller]
    fn sample_h(&self, v: &Tensor) -> Tensor {
        let mean_h = (v.dot(self.w) + self.bh).sigmoid();
        self.random.binomial(rows_of(v, self.w.extent(1)), 1, mean_h)
    }

    #[track_caller]
    fn mean_v(&self, h: &Tensor) -> Tensor {
        (h.dot(self.w.t()) + self.bv).sigmoid()
    }

    #[track_caller]
    fn gibbs_chain(&self, v: &Tensor, k: usize) -> Tensor {
        let shape = rows_of(v, self.w.extent(0));
        let chain = Scan::new().carry(v).steps(k).run(|step| {
            let mean_v = self.mean_v(&self.sample_h(&step.carries[0]));
            Next::new().carry(self.random.binomial(shape, 1, mean_v))
        });
        chain.last[0].clone()
    }

    /// The sum of the free energies of all frames.
    #[track_caller]
    fn free_energy(&self, v: &Tensor) -> Tensor {
        let hidden = (v.dot(self.w) + self.bh).exp() + 1.0;
        -(v * self.bv).sum(All) - hidden.log().sum(All)
    }
}

/// The extents of `v` with another last one.
fn rows_of(v: &Tensor, last: Tensor) -> Vec<Size> {
    (0..v.rank().saturating_sub(1)).map(|axis| v.extent(axis).into()).chain([last.into()]).collect()
}

/// The parameters of the model, and the formulas on them.
#[derive(Clone, Debug)]
pub struct RnnRbm {
    /// Weights between visible and hidden units, `f32[n_visible, n_hidden]`.
    pub w: Shared,
    /// Biases of the visible units, `f32[n_visible]`.
    pub bv: Shared,
    /// Biases of the hidden units, `f32[n_hidden]`.
    pub bh: Shared,
    /// Weights from the recurrent state to the hidden biases, `f32[n_recurrent, n_hidden]`.
    pub wuh: Shared,
    /// Weights from the recurrent state to the visible biases, `f32[n_recurrent, n_visible]`.
    pub wuv: Shared,
    /// Weights from a frame to the recurrent state, `f32[n_visible, n_recurrent]`.
    pub wvu: Shared,
    /// Weights from the recurrent state to the next one, `f32[n_recurrent, n_recurrent]`.
    pub wuu: Shared,
    /// Biases of the recurrent state, `f32[n_recurrent]`.
    pub bu: Shared,
    /// The recurrent state before the first frame, `f32[n_recurrent]`, 0 unless it is learnt.
    pub u0: Shared,
}

impl RnnRbm {
    /// The model with normal weights, of standard deviation 0.01 between visible and hidden units and 0.0001 elsewhere,
    /// drawn in the order of the tutorial; biases and the first state are 0.
    #[must_use]
    pub fn new(rng: &mut RandomState, n_visible: usize, n_hidden: usize, n_recurrent: usize) -> Self {
        let mut normal = |name: &str, shape: [usize; 2], deviation: f64| {
            let draws = rng.normal(0.0, deviation, shape[0] * shape[1]);
            let values: Vec<f32> = draws.into_iter().map(|value| value as f32).collect();
            shared(name, Array::new(&shape, &values))
        };
        let zeros = |name: &str, length| shared(name, Array::zeros(DType::F32, &[length]));
        Self {
            w: normal("W", [n_visible, n_hidden], 0.01),
            wuh: normal("Wuh", [n_recurrent, n_hidden], 1e-4),
            wuv: normal("Wuv", [n_recurrent, n_visible], 1e-4),
            wvu: normal("Wvu", [n_visible, n_recurrent], 1e-4),
            wuu: normal("Wuu", [n_recurrent, n_recurrent], 1e-4),
            bv: zeros("bv", n_visible),
            bh: zeros("bh", n_hidden),
            bu: zeros("bu", n_recurrent),
            u0: zeros("u0", n_recurrent),
        }
    }

    /// The parameters in the order of the tutorial, and the first state, by name.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let all =
            [&self.w, &self.bv, &self.bh, &self.wuh, &self.wuv, &self.wvu, &self.wuu, &self.bu, &self.u0];
        Parameter::list(&["W", "bv", "bh", "Wuh", "Wuv", "Wvu", "Wuu", "bu", "u0"], all)
    }

    /// The biases of visible and hidden units for each frame of `v`, `f32[frames, n_visible]`: `bv_t` and `bh_t`.
    #[must_use]
    #[track_caller]
    pub fn biases(&self, v: &Tensor) -> (Tensor, Tensor) {
        let states = Scan::new()
            .sequence(v)
            .carry(&self.u0)
            .run(|step| Next::new().carry(self.next_state(&step.carries[0], &step.sequences[0])));
        // The state before each frame: that after the last one is not needed.
        let first = Tensor::from(&self.u0).reshape([1, -1]);
        let before = concatenate(&[first, states.carries[0].index(ix![..-1])], 0);
        self.biases_after(&before)
    }

    /// Of one recurrent state or of a matrix of them.
    #[track_caller]
    fn biases_after(&self, u: &Tensor) -> (Tensor, Tensor) {
        (&self.bv + u.dot(&self.wuv), &self.bh + u.dot(&self.wuh))
    }

    #[track_caller]
    fn next_state(&self, u: &Tensor, v: &Tensor) -> Tensor {
        (&self.bu + v.dot(&self.wvu) + u.dot(&self.wuu)).tanh()
    }

    /// The chain of the training on a sequence `v`, `f32[frames, n_visible]`, with `k` Gibbs steps for all frames at once.
    #[must_use]
    #[track_caller]
    pub fn chain(&self, random: &RandomStreams, v: &Tensor, k: usize) -> RbmChain {
        let (bv_t, bh_t) = self.biases(v);
        build_rbm(random, v, &(&self.w).into(), &bv_t, &bh_t, k)
    }

    /// The chain of a machine with the biases `bv` and `bh` for every frame: independent of the past, for pre-training.
    #[must_use]
    #[track_caller]
    pub fn static_chain(&self, random: &RandomStreams, v: &Tensor, k: usize) -> RbmChain {
        build_rbm(random, v, &(&self.w).into(), &(&self.bv).into(), &(&self.bh).into(), k)
    }

    /// A new sequence, `f32[frames, n_visible]`: each frame is the end of `k` Gibbs steps from silence.
    #[must_use]
    #[track_caller]
    pub fn generate(&self, random: &RandomStreams, frames: usize, k: usize) -> Tensor {
        let silence = full(0.0, DType::F32, extents(&self.bv));
        let generated = Scan::new().carry(&self.u0).steps(frames).run(|step| {
            let u = &step.carries[0];
            let (bv, bh) = self.biases_after(u);
            let machine = Machine { random, w: &(&self.w).into(), bv: &bv, bh: &bh };
            let v = machine.gibbs_chain(&silence, k);
            Next::new().carry(self.next_state(u, &v)).output(v)
        });
        generated.outputs[0].clone()
    }
}

#[cfg(test)]
mod tests;
