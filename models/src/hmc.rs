//! Hybrid Monte Carlo: samples from a density that is known up to a factor, by simulated Hamiltonian dynamics.
//!
//! Positions are `[n, d]`, one chain a row; an energy function turns them into energies `[n]`, minus the log of the
//! density, row by row. A draw gives every chain a random velocity, follows its motion by leapfrog steps, and accepts
//! where it ends by the rule of Metropolis; the step grows while more is accepted than wanted, and shrinks otherwise.
//! Source: Duane, Kennedy, Pendleton and Roweth, "Hybrid Monte Carlo" (1987); Neal, "Probabilistic inference using
//! Markov chain Monte Carlo methods" (1993); names and constants of the Deep Learning Tutorials. The functions are
//! formulas; [`HmcSampler`] compiles them. Masses other than 1 are deliberately absent.

use std::fmt;

use hypatia::scan::{Next, Scan};
use hypatia::{
    All, Array, Builder, CallError, DType, Device, Diagnostic, Diagnostics, Extent, Function, RandomStreams,
    Shared, Size, Tensor, grad, input_of_type, scalar, shared, switch,
};
use thiserror::Error;

/// How the sampler moves and adapts; the defaults are the tutorial's.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct HmcSettings {
    /// The leapfrog step at the start.
    pub initial_stepsize: f64,
    /// The share of accepted moves that the step is adapted to, also where the average starts.
    pub target_acceptance_rate: f64,
    /// Leapfrog steps of a move, at least 1.
    pub n_steps: usize,
    /// Factor of the step while less is accepted than wanted.
    pub stepsize_dec: f64,
    /// The smallest step.
    pub stepsize_min: f64,
    /// The largest step.
    pub stepsize_max: f64,
    /// Factor of the step while more is accepted than wanted.
    pub stepsize_inc: f64,
    /// Share of the old value when the average acceptance rate is brought up to date.
    pub avg_acceptance_slowness: f64,
}

impl Default for HmcSettings {
    fn default() -> Self {
        Self {
            initial_stepsize: 0.01,
            target_acceptance_rate: 0.9,
            n_steps: 20,
            stepsize_dec: 0.98,
            stepsize_min: 0.001,
            stepsize_max: 0.25,
            stepsize_inc: 1.02,
            avg_acceptance_slowness: 0.9,
        }
    }
}

/// Half the squares of velocities `[n, d]`: the kinetic energies `[n]` of unit masses.
#[must_use]
#[track_caller]
pub fn kinetic_energy(vel: &Tensor) -> Tensor {
    0.5 * vel.sqr().sum(1)
}

/// The sum of potential and kinetic energy, `[n]`.
#[must_use]
#[track_caller]
pub fn hamiltonian(pos: &Tensor, vel: &Tensor, energy: impl Fn(&Tensor) -> Tensor) -> Tensor {
    energy(pos) + kinetic_energy(vel)
}

/// Whether to move from states of energies `energy_prev` to states of energies `energy_next`, both `[n]`, as `bool[n]`:
/// with the probability `min(1, exp(energy_prev - energy_next))` (Metropolis et al., 1953), never where either is NaN.
#[must_use]
#[track_caller]
pub fn metropolis_hastings_accept(
    energy_prev: &Tensor,
    energy_next: &Tensor,
    random: &RandomStreams,
) -> Tensor {
    let threshold = (energy_prev - energy_next).exp();
    random.uniform(sizes(energy_prev), 0.0, 1.0).lt(threshold)
}

/// Positions and velocities `[n, d]` after `n_steps` leapfrog steps of size `stepsize`, a scalar: half a step for the
/// velocities, then whole steps for both in turn, and half a step for the velocities at the end. No step leaves both as
/// they are.
#[must_use]
#[track_caller]
pub fn simulate_dynamics(
    initial_pos: &Tensor,
    initial_vel: &Tensor,
    stepsize: &Tensor,
    n_steps: usize,
    energy: impl Fn(&Tensor) -> Tensor,
) -> (Tensor, Tensor) {
    if n_steps == 0 {
        return (initial_pos.clone(), initial_vel.clone());
    }
    let trajectory = Trajectory::new(initial_pos, initial_vel, stepsize, n_steps, &energy);
    (trajectory.pos, trajectory.vel)
}

/// The gradient of the energies `[n]` of positions with respect to the positions, `[n, d]`.
#[track_caller]
fn force(energies: &Tensor, pos: &Tensor) -> Tensor {
    grad(&energies.sum(All), [pos]).remove(0)
}

/// One leapfrog step inside a trajectory: `vel` is half a step behind `pos` before and after it.
#[track_caller]
fn leapfrog(
    pos: &Tensor,
    vel: &Tensor,
    stepsize: &Tensor,
    energy: &impl Fn(&Tensor) -> Tensor,
) -> (Tensor, Tensor) {
    let vel = vel - stepsize * force(&energy(pos), pos);
    (pos + stepsize * &vel, vel)
}

/// A simulated motion and the potential energies at its ends, which its forces need anyway.
struct Trajectory {
    energy_start: Tensor,
    energy_end: Tensor,
    pos: Tensor,
    vel: Tensor,
}

impl Trajectory {
    #[track_caller]
    fn new(
        initial_pos: &Tensor,
        initial_vel: &Tensor,
        stepsize: &Tensor,
        n_steps: usize,
        energy: &impl Fn(&Tensor) -> Tensor,
    ) -> Self {
        let half = 0.5 * stepsize;
        let energy_start = energy(initial_pos);
        let vel = initial_vel - &half * force(&energy_start, initial_pos);
        let pos = initial_pos + stepsize * &vel;
        let moved = Scan::new().carry(&pos).carry(&vel).steps(n_steps.saturating_sub(1)).run(|step| {
            let (pos, vel) = leapfrog(&step.carries[0], &step.carries[1], stepsize, energy);
            Next::new().carry(pos).carry(vel)
        });
        let (pos, vel) = (&moved.last[0], &moved.last[1]);
        let energy_end = energy(pos);
        let vel = vel - &half * force(&energy_end, pos);
        Self { energy_start, energy_end, pos: pos.clone(), vel }
    }
}

/// A move of every chain, before it is made.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Whether each chain makes its move, `bool[n]`.
    pub accept: Tensor,
    /// Where the moves end, `[n, d]`.
    pub final_pos: Tensor,
    /// The velocities that were drawn, `[n, d]`.
    pub initial_vel: Tensor,
    /// Potential energies where the chains are, `[n]`.
    pub energy_start: Tensor,
    /// Potential energies where the moves end, `[n]`.
    pub energy_end: Tensor,
}

impl Proposal {
    /// Where the chains are afterwards, `[n, d]`, if they were at `positions`.
    #[must_use]
    #[track_caller]
    pub fn next_positions(&self, positions: &Tensor) -> Tensor {
        switch(self.accept.dimshuffle(&[Some(0), None]), &self.final_pos, positions)
    }
}

/// Draws velocities, simulates the motion from `positions`, `[n, d]`, and decides where to accept its end.
#[must_use]
#[track_caller]
pub fn hmc_move(
    random: &RandomStreams,
    positions: &Tensor,
    energy: impl Fn(&Tensor) -> Tensor,
    stepsize: &Tensor,
    n_steps: usize,
) -> Proposal {
    let initial_vel = random.normal(sizes(positions), 0.0, 1.0).cast(positions.dtype());
    let trajectory = Trajectory::new(positions, &initial_vel, stepsize, n_steps, &energy);
    let Trajectory { energy_start, energy_end, pos, vel } = trajectory;
    let accept = metropolis_hastings_accept(
        &(&energy_start + kinetic_energy(&initial_vel)),
        &(&energy_end + kinetic_energy(&vel)),
        random,
    );
    Proposal { accept, final_pos: pos, initial_vel, energy_start, energy_end }
}

/// The extents of a tensor, for a draw of its shape.
fn sizes(x: &Tensor) -> Vec<Size> {
    let size = |(axis, extent): (usize, &Extent)| match extent {
        Extent::Known(n) => Size::from(*n),
        Extent::Unknown => Size::from(x.extent(axis)),
    };
    x.ty().shape.iter().enumerate().map(size).collect()
}

/// The step of a sampler and the acceptance rate by which it is adapted.
#[derive(Clone, Debug)]
pub struct Adaptation {
    /// The leapfrog step, an `f32` scalar.
    pub stepsize: Shared,
    /// The moving average of the share of accepted moves, an `f32` scalar.
    pub avg_acceptance_rate: Shared,
    /// The constants.
    pub settings: HmcSettings,
}

impl Adaptation {
    /// At the start.
    #[must_use]
    #[track_caller]
    pub fn new(settings: HmcSettings) -> Self {
        Self {
            stepsize: shared("stepsize", Array::scalar(settings.initial_stepsize as f32)),
            avg_acceptance_rate: shared(
                "avg_acceptance_rate",
                Array::scalar(settings.target_acceptance_rate as f32),
            ),
            settings,
        }
    }

    /// The next step, by the average as it was, and the average with what was accepted now, `bool[n]`.
    #[must_use]
    #[track_caller]
    pub fn updates(&self, accept: &Tensor) -> [(Shared, Tensor); 2] {
        let settings = &self.settings;
        let (stepsize, average) = (Tensor::from(&self.stepsize), Tensor::from(&self.avg_acceptance_rate));
        let factor =
            switch(average.gt(settings.target_acceptance_rate), settings.stepsize_inc, settings.stepsize_dec);
        let next = (stepsize * factor).clip(settings.stepsize_min, settings.stepsize_max);
        let slowness = settings.avg_acceptance_slowness;
        let now = accept.cast(DType::F32).mean(All);
        let average = slowness * average + (1.0 - slowness) * now;
        [(self.stepsize.clone(), next), (self.avg_acceptance_rate.clone(), average)]
    }
}

/// What a move makes of the positions, the step and the average acceptance rate.
#[must_use]
#[track_caller]
pub fn hmc_updates(
    positions: &Shared,
    adaptation: &Adaptation,
    proposal: &Proposal,
) -> Vec<(Shared, Tensor)> {
    let next = proposal.next_positions(&Tensor::from(positions));
    let mut updates = vec![(positions.clone(), next)];
    updates.extend(adaptation.updates(&proposal.accept));
    updates
}

/// Where an energy was NaN first.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NanEnergy {
    /// The chain, from 0.
    pub chain: usize,
    /// The leapfrog step of the move, from 1; 0 where the chain stood before it.
    pub step: usize,
    /// Leapfrog steps of the move.
    pub n_steps: usize,
}

impl fmt::Display for NanEnergy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, step, n_steps } = self;
        write!(f, "the energy of chain {chain} became NaN ")?;
        match step {
            0 => f.write_str("before the first leapfrog step"),
            step => write!(f, "at leapfrog step {step} of {n_steps}"),
        }
    }
}

/// Finds out where in a move an energy became NaN, by making the move again and looking at every step.
pub struct Diagnosis {
    energy_start: Tensor,
    energies: Tensor,
    inputs: [Tensor; 3],
    n_steps: usize,
    device: Device,
}

impl Diagnosis {
    /// For moves of `n_steps` from positions of the type of `positions`. Nothing is compiled before it is needed.
    #[must_use]
    #[track_caller]
    pub fn new(
        positions: &Tensor,
        energy: impl Fn(&Tensor) -> Tensor,
        n_steps: usize,
        device: Device,
    ) -> Self {
        let pos = input_of_type("positions", positions.ty().clone());
        let vel = input_of_type("velocities", positions.ty().clone());
        let stepsize = scalar::<f32>("stepsize");
        let energy_start = energy(&pos);
        let half_step = &vel - 0.5 * &stepsize * force(&energy_start, &pos);
        let moved = Scan::new().carry(&pos).carry(&half_step).steps(n_steps).run(|step| {
            let pos = &step.carries[0] + &stepsize * &step.carries[1];
            let energies = energy(&pos);
            let vel = &step.carries[1] - &stepsize * force(&energies, &pos);
            Next::new().carry(&pos).carry(vel).output(energies)
        });
        let energies = moved.outputs[0].clone();
        Self { energy_start, energies, inputs: [pos, vel, stepsize], n_steps, device }
    }

    /// Where the first NaN is among moves from `positions` with these velocities and this step; `None` if there is none.
    ///
    /// Chains whose energy becomes NaN are not moved, so the positions after a draw tell as much as those before it.
    ///
    /// # Errors
    ///
    /// A function that cannot be compiled or called.
    pub fn find(
        &self,
        positions: &Array,
        velocities: &Array,
        stepsize: &Array,
    ) -> Result<Option<NanEnergy>, HmcError> {
        let [pos, vel, step] = &self.inputs;
        let mut function = Builder::new()
            .inputs(&[pos, vel, step])
            .outputs(&[&self.energy_start, &self.energies])
            .device(self.device)
            .compile()?;
        let outputs = function.call(&[positions, velocities, stepsize])?;
        // The energies before the move are row 0 of what follows.
        let mut rows = Vec::new();
        for array in outputs.arrays() {
            rows.extend(doubles(array)?);
        }
        let chains = outputs.array(0).len().max(1);
        let place = rows.iter().position(|energy| energy.is_nan());
        let n_steps = self.n_steps;
        Ok(place.map(|place| NanEnergy { chain: place % chains, step: place / chains, n_steps }))
    }
}

/// The values of an array, whatever their type.
fn doubles(array: &Array) -> Result<Vec<f64>, HmcError> {
    array.cast(DType::F64).to_vec().ok_or(HmcError::Internal("values that convert to f64"))
}

/// The value of a scalar variable.
fn number(variable: &Shared) -> Result<f64, HmcError> {
    variable.get_value()?.item().ok_or(HmcError::Internal("a scalar"))
}

/// Why there is no sample.
#[derive(Debug, Error)]
pub enum HmcError {
    /// Constants that make no sense.
    #[error("hybrid Monte Carlo: {setting}: expected {expected}, found {found}")]
    Setting {
        /// The name of the constant.
        setting: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// An energy function or positions of another type than needed.
    #[error("hybrid Monte Carlo: expected {expected}, found {found}")]
    Type {
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A broken invariant: a bug of this module.
    #[error("hybrid Monte Carlo: internal error, please report it: expected {0}")]
    Internal(&'static str),
    /// An energy that is not a number.
    #[error(
        "draw {draw}: {energy}: expected a number\nhint: positions may have left the domain of the energy function; a smaller largest step (now {stepsize_max}) keeps them nearer"
    )]
    Nan {
        /// The number of the draw, from 1.
        draw: u64,
        /// Where it happened.
        energy: NanEnergy,
        /// The largest step allowed.
        stepsize_max: f64,
    },
    /// Expressions that make no function.
    #[error("{0}")]
    Graph(#[from] Diagnostics),
    /// A call that failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A shared variable that cannot be read.
    #[error("{0}")]
    Shared(#[from] Diagnostic),
}

impl HmcSettings {
    /// Checks that the constants make a sampler.
    ///
    /// # Errors
    ///
    /// [`HmcError::Setting`] with the first that does not.
    pub fn check(&self) -> Result<(), HmcError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let checks: [(&str, &str, f64, bool); 8] = [
            ("n_steps", "at least 1", self.n_steps as f64, self.n_steps >= 1),
            ("stepsize_min", "a number above 0", self.stepsize_min, positive(self.stepsize_min)),
            (
                "stepsize_max",
                "a number not below stepsize_min",
                self.stepsize_max,
                self.stepsize_max.is_finite() && self.stepsize_max >= self.stepsize_min,
            ),
            ("initial_stepsize", "a number above 0", self.initial_stepsize, positive(self.initial_stepsize)),
            (
                "stepsize_dec",
                "a factor above 0, at most 1",
                self.stepsize_dec,
                self.stepsize_dec > 0.0 && self.stepsize_dec <= 1.0,
            ),
            (
                "stepsize_inc",
                "a factor of at least 1",
                self.stepsize_inc,
                self.stepsize_inc.is_finite() && self.stepsize_inc >= 1.0,
            ),
            (
                "target_acceptance_rate",
                "a number from 0 to 1",
                self.target_acceptance_rate,
                (0.0..=1.0).contains(&self.target_acceptance_rate),
            ),
            (
                "avg_acceptance_slowness",
                "a number from 0 to 1",
                self.avg_acceptance_slowness,
                (0.0..=1.0).contains(&self.avg_acceptance_slowness),
            ),
        ];
        match checks.into_iter().find(|(_, _, _, holds)| !holds) {
            None => Ok(()),
            Some((setting, expected, found, _)) => {
                Err(HmcError::Setting { setting, expected, found: found.to_string() })
            }
        }
    }
}

/// A sampler of many chains at once, compiled.
pub struct HmcSampler {
    /// Where the chains are, `[n, d]`.
    pub positions: Shared,
    /// The step and the acceptance rate.
    pub adaptation: Adaptation,
    random: RandomStreams,
    simulate: Function,
    diagnosis: Diagnosis,
    draws: u64,
}

impl HmcSampler {
    /// Chains that start at `positions`, `f32` or `f64` `[n, d]`, in a density of minus this log.
    ///
    /// # Errors
    ///
    /// [`HmcError::Setting`], [`HmcError::Type`], or an energy function that does not compile.
    #[track_caller]
    pub fn new(
        positions: Array,
        energy: impl Fn(&Tensor) -> Tensor,
        settings: HmcSettings,
        seed: u64,
    ) -> Result<Self, HmcError> {
        settings.check()?;
        if positions.rank() != 2 || !positions.dtype().is_float() || positions.is_empty() {
            return Err(HmcError::Type {
                expected: "positions of type f32 or f64 and shape [chains, dimensions], neither 0".to_owned(),
                found: format!("{}{:?}", positions.dtype(), positions.shape()),
            });
        }
        let positions = shared("positions", positions);
        let tensor = Tensor::from(&positions);
        let energies = energy(&tensor);
        if energies.fault().is_none() && (energies.rank() != 1 || energies.dtype() != tensor.dtype()) {
            return Err(HmcError::Type {
                expected: format!("an energy function from {} to {}[n]", tensor.ty(), tensor.dtype()),
                found: format!("one that gives {}", energies.ty()),
            });
        }
        let random = RandomStreams::new(seed);
        let adaptation = Adaptation::new(settings);
        let stepsize = Tensor::from(&adaptation.stepsize);
        let proposal = hmc_move(&random, &tensor, &energy, &stepsize.cast(tensor.dtype()), settings.n_steps);
        let updates = hmc_updates(&positions, &adaptation, &proposal);
        let updates: Vec<(&Shared, &Tensor)> = updates.iter().map(|(shared, next)| (shared, next)).collect();
        let simulate = Builder::new()
            .outputs(&[&proposal.energy_start, &proposal.energy_end, &proposal.initial_vel, &stepsize])
            .updates(&updates)
            .compile()?;
        let diagnosis = Diagnosis::new(&tensor, energy, settings.n_steps, Device::Cpu);
        Ok(Self { positions, adaptation, random, simulate, diagnosis, draws: 0 })
    }

    /// Moves every chain once and says where they are.
    ///
    /// # Errors
    ///
    /// [`HmcError::Nan`] when an energy is NaN where a move ends or begins; that chain was not moved.
    pub fn draw(&mut self) -> Result<Array, HmcError> {
        self.draws += 1;
        let outputs = self.simulate.call(&[])?;
        let energies = [doubles(outputs.array(0))?, doubles(outputs.array(1))?].concat();
        let [velocities, stepsize] = [outputs.array(2), outputs.array(3)];
        let positions = self.positions.get_value()?;
        if energies.iter().any(|energy| energy.is_nan())
            && let Some(energy) = self.diagnosis.find(&positions, velocities, stepsize)?
        {
            let stepsize_max = self.adaptation.settings.stepsize_max;
            return Err(HmcError::Nan { draw: self.draws, energy, stepsize_max });
        }
        Ok(positions)
    }

    /// The moving average of the share of accepted moves.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn acceptance_rate(&self) -> Result<f64, HmcError> {
        number(&self.adaptation.avg_acceptance_rate)
    }

    /// The leapfrog step as it is now.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn stepsize(&self) -> Result<f64, HmcError> {
        number(&self.adaptation.stepsize)
    }

    /// The source of its draws, for checkpoints.
    #[must_use]
    pub fn random(&self) -> &RandomStreams {
        &self.random
    }
}

#[cfg(test)]
mod tests;
