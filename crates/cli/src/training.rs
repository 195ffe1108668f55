//! A model being trained: epochs of minibatches, and all of a training that does not depend on the model.
//!
//! What a minibatch does is the affair of a [`Learner`]. Counting, means over an epoch, the end, saving and restoring are
//! here, once. A training has one stage or several, one after the other, as pre-training and fine-tuning; epochs count
//! over all of them. Between two steps everything about a training can be saved.

use std::path::{Path, PathBuf};

use hypatia::{Function, RandomStreams};
use hypatia_datasets::Counted;
use hypatia_models::parameter::Parameter;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::log::{Done, Epoch, Phase};
use crate::model::Setting;

/// What a model does with minibatches.
pub trait Learner {
    /// Minibatches in the present epoch.
    fn batches(&self) -> u64;

    /// Makes ready for an epoch, counted from 0, which comes after those that were begun.
    fn begin_epoch(&mut self, _epoch: u64) {}

    /// Learns from the minibatch at a position within the stage and returns what it measured: see [`Measure`].
    ///
    /// # Errors
    ///
    /// A failed call, or numbers that have become useless.
    fn learn(&mut self, at: Position) -> Result<f64, TrainError>;

    /// Adds what an epoch brought beside the mean of what its steps measured, which is given; epochs of the stage are
    /// counted from 1.
    ///
    /// # Errors
    ///
    /// Results that are useless, or a device that does not give its values.
    fn report(&mut self, _epoch: u64, _mean: f64, _results: &mut Epoch) -> Result<(), TrainError> {
        Ok(())
    }

    /// Whether to stop at a position before the last epoch.
    fn has_enough(&self, _at: Position) -> bool {
        false
    }

    /// Adds to the results at the end.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    fn finish(&self, _results: &mut Done) -> Result<(), TrainError> {
        Ok(())
    }

    /// The epoch of the stage with the best result so far, for models that have one.
    fn best_epoch(&self) -> Option<u64> {
        None
    }

    /// Adds what has to be remembered beside parameters, streams, position and means.
    fn save(&self, _checkpoint: &mut Checkpoint) {}

    /// Takes over what [`Learner::save`] added.
    ///
    /// # Errors
    ///
    /// A checkpoint that lacks something, or has it in another type or shape.
    fn restore(&mut self, _checkpoint: &Checkpoint) -> Result<(), TrainError> {
        Ok(())
    }

    /// Writes the pictures of what was learnt into a directory and says which files they are.
    ///
    /// # Errors
    ///
    /// Files that cannot be written.
    fn write_pictures(&self, _directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        Ok(Vec::new())
    }

    /// Writes the pictures that are wanted after an epoch of that number, and says which files they are.
    ///
    /// # Errors
    ///
    /// Files that cannot be written.
    fn write_epoch_pictures(&self, _directory: &Path, _epoch: u64) -> Result<Vec<PathBuf>, TrainError> {
        Ok(Vec::new())
    }

    /// The compiled functions by name, that of the training step first.
    fn functions(&self) -> Vec<(&'static str, &Function)>;
}

/// What the steps of a stage measure: every epoch reports its mean.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Measure {
    /// The cost that goes downhill.
    Cost,
    /// A measure by this name, of a model that has no tractable cost. The mean of the last epoch is a result of the run.
    Monitor {
        /// Its name in reports.
        name: &'static str,
        /// Name in checkpoints of its sum over the present epoch.
        sum: &'static str,
        /// Name in checkpoints of its mean over the last whole epoch.
        last: &'static str,
    },
}

impl Measure {
    /// A monitor by that name in reports.
    #[must_use]
    pub fn monitor(name: &'static str) -> Measure {
        Measure::Monitor { name, sum: "monitor.sum", last: "monitor.last" }
    }

    /// What it is, for messages.
    fn what(self) -> &'static str {
        match self {
            Measure::Cost => "training cost",
            Measure::Monitor { .. } => "monitor",
        }
    }

    /// Name in checkpoints of its sum over the present epoch.
    fn sum_name(self) -> &'static str {
        match self {
            Measure::Cost => "epoch.cost_sum",
            Measure::Monitor { sum, .. } => sum,
        }
    }
}

/// A part of a training with an aim of its own; most have one only.
pub struct Stage {
    learner: Box<dyn Learner>,
    /// The phase that its epochs belong to, unless the learner names another.
    phase: Option<&'static str>,
    /// What its steps measure.
    measure: Measure,
    /// Name of its position in checkpoints.
    position_name: &'static str,
    /// The largest number of epochs.
    epochs: u64,
    /// Step of the gradient descent, for messages.
    learning_rate: f64,
    /// What its updates change.
    parameters: Vec<Parameter>,
    /// Where it draws from, and the name of that in checkpoints.
    streams: Option<(&'static str, RandomStreams)>,
    position: Position,
    /// Sum of the measure over the present epoch.
    sum: f64,
    /// Its mean over the last whole epoch.
    last_mean: Option<f64>,
}

impl Stage {
    /// A stage at its start.
    pub fn new(
        learner: impl Learner + 'static,
        measure: Measure,
        epochs: u64,
        learning_rate: f64,
        parameters: Vec<Parameter>,
    ) -> Self {
        let mut learner = Box::new(learner);
        learner.begin_epoch(0);
        Self {
            learner,
            phase: None,
            measure,
            position_name: "position",
            epochs,
            learning_rate,
            parameters,
            streams: None,
            position: Position::default(),
            sum: 0.0,
            last_mean: None,
        }
    }

    /// The stage with draws from these streams.
    #[must_use]
    pub fn drawing_from(self, name: &'static str, streams: &RandomStreams) -> Self {
        Self { streams: Some((name, streams.clone())), ..self }
    }

    /// The stage as a phase of a training in several.
    #[must_use]
    pub fn as_phase(self, phase: &'static str) -> Self {
        Self { phase: Some(phase), ..self }
    }

    /// The stage with that name of its position in checkpoints, to tell it from another one.
    #[must_use]
    pub fn with_position_name(self, position_name: &'static str) -> Self {
        Self { position_name, ..self }
    }

    fn is_finished(&self) -> bool {
        self.position.epochs >= self.epochs || self.learner.has_enough(self.position)
    }

    /// Goes on by a minibatch, after so many epochs of other stages.
    fn step(&mut self, before: u64) -> Result<Step, TrainError> {
        let measured = self.learner.learn(self.position)?;
        if measured.is_nan() || measured.abs() > LARGEST_MEASURE {
            return Err(TrainError::Diverged {
                what: self.measure.what(),
                found: measured,
                epoch: before + self.position.epochs + 1,
                batch: self.position.batches + 1,
                learning_rate: self.learning_rate,
            });
        }
        self.sum += measured;
        self.position.batches += 1;
        if self.position.batches < self.learner.batches() {
            return Ok(Step::Batch);
        }
        let mean = std::mem::take(&mut self.sum) / self.position.batches as f64;
        let number = self.position.epochs + 1;
        let mut epoch = Epoch { epoch: before + number, ..Epoch::default() };
        epoch.phase =
            self.phase.map(|name| Phase { name: name.to_owned(), epoch: number, epochs: self.epochs });
        match self.measure {
            Measure::Cost => epoch.train_cost = Some(mean),
            Measure::Monitor { name, .. } => drop(epoch.measures.insert(name.to_owned(), mean)),
        }
        self.learner.report(number, mean, &mut epoch)?;
        self.last_mean = Some(mean);
        self.position = Position { epochs: number, batches: 0 };
        self.learner.begin_epoch(number);
        Ok(Step::Epoch(epoch))
    }

    /// The results at its end.
    fn results(&self) -> Result<Done, TrainError> {
        let mut results = Done::default();
        if let (Measure::Monitor { name, .. }, Some(mean)) = (self.measure, self.last_mean) {
            results.measures.insert(name.to_owned(), mean);
        }
        self.learner.finish(&mut results)?;
        Ok(results)
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        for parameter in &self.parameters {
            checkpoint.save_parameter(parameter)?;
        }
        if let Some((name, streams)) = &self.streams {
            checkpoint.save_streams(name, streams)?;
        }
        checkpoint.save_number(&format!("{}.epochs", self.position_name), self.position.epochs);
        checkpoint.save_number(&format!("{}.batches", self.position_name), self.position.batches);
        checkpoint.save_number(self.measure.sum_name(), self.sum);
        if let (Measure::Monitor { last, .. }, Some(mean)) = (self.measure, self.last_mean) {
            checkpoint.save_number(last, mean);
        }
        self.learner.save(checkpoint);
        Ok(())
    }

    /// Takes over all but the values of parameters and streams.
    fn restore_position(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.sum = checkpoint.float(self.measure.sum_name())?;
        self.last_mean = match self.measure {
            Measure::Cost => None,
            Measure::Monitor { last, .. } => checkpoint.optional_float(last)?,
        };
        let position = Position {
            epochs: checkpoint.number(&format!("{}.epochs", self.position_name))?,
            batches: checkpoint.number(&format!("{}.batches", self.position_name))?,
        };
        // A run that was made shorter is over; its last epoch stands for the later ones.
        self.learner.begin_epoch(position.epochs.min(self.epochs.saturating_sub(1)));
        let batches = self.learner.batches();
        let iterations = position.epochs.checked_mul(batches);
        if position.batches >= batches || iterations.is_none_or(|iterations| iterations > u64::MAX / 4) {
            return Err(checkpoint.fault(format!(
                "expected a position within epochs of {}, found epoch {}, minibatch {}",
                Counted(batches, "minibatch"),
                position.epochs,
                position.batches
            )));
        }
        self.position = position;
        self.learner.restore(checkpoint)
    }

    fn restore_values(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        if let Some((name, streams)) = &self.streams {
            checkpoint.restore_streams(name, streams)?;
        }
        self.parameters.iter().try_for_each(|parameter| checkpoint.restore_parameter(parameter))
    }
}

/// A model being trained.
pub struct Training {
    settings: Vec<Setting>,
    earlier: Vec<Stage>,
    last: Stage,
}

impl Training {
    /// A training of one stage. The settings decide about the run and are shown in their order.
    #[must_use]
    pub fn new(settings: Vec<Setting>, stage: Stage) -> Self {
        Self { settings, earlier: Vec::new(), last: stage }
    }

    /// The training with a stage before its last one.
    #[must_use]
    pub fn after(mut self, stage: Stage) -> Self {
        self.earlier.push(stage);
        self
    }

    /// What decides about the run, beyond the name of the model.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    fn stages(&self) -> impl DoubleEndedIterator<Item = &Stage> {
        self.earlier.iter().chain([&self.last])
    }

    /// How many stages are over, and their epochs; the last one never is.
    fn over(&self) -> (usize, u64) {
        let over = self.earlier.iter().take_while(|stage| stage.is_finished());
        over.fold((0, 0), |(stages, epochs), stage| (stages + 1, epochs + stage.position.epochs))
    }

    /// The largest number of epochs, over all stages.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.stages().fold(0, |sum, stage| sum.saturating_add(stage.epochs))
    }

    /// Minibatches in the present epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.earlier.get(self.over().0).unwrap_or(&self.last).learner.batches()
    }

    /// How far it has come.
    #[must_use]
    pub fn position(&self) -> Position {
        let (number, before) = self.over();
        let Position { epochs, batches } = self.earlier.get(number).unwrap_or(&self.last).position;
        Position { epochs: before + epochs, batches }
    }

    /// The step that was made last: the epoch from 1, and how many of its minibatches were learnt from.
    #[must_use]
    pub fn last_step(&self) -> Position {
        let Position { epochs, batches } = self.position();
        match batches {
            0 if epochs > 0 => Position { epochs, batches: self.batches_per_epoch() },
            _ => Position { epochs: epochs + 1, batches },
        }
    }

    /// Goes on by one minibatch.
    ///
    /// # Errors
    ///
    /// A failed call, or numbers that have become useless.
    pub fn step(&mut self) -> Result<Step, TrainError> {
        let (number, before) = self.over();
        match self.earlier.get_mut(number) {
            Some(stage) => stage.step(before),
            None if !self.last.is_finished() => self.last.step(before),
            None => Ok(Step::Done(self.last.results()?)),
        }
    }

    /// The epoch with the best result so far, for models that have one.
    #[must_use]
    pub fn best_epoch(&self) -> Option<u64> {
        let before: u64 = self.earlier.iter().map(|stage| stage.position.epochs).sum();
        self.last.learner.best_epoch().map(|epoch| before + epoch)
    }

    /// Adds the whole state: parameters, counters, generators.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        self.stages().try_for_each(|stage| stage.save(checkpoint))
    }

    /// Takes over a state that [`Training::save`] added. After an error the training is of no use.
    ///
    /// # Errors
    ///
    /// A checkpoint that lacks something, has it in another type or shape, or has more.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        for stage in self.earlier.iter_mut().chain([&mut self.last]) {
            stage.restore_position(checkpoint)?;
        }
        // What would be saved at this position is what must be there.
        let mut expected = Checkpoint::new();
        self.save(&mut expected)?;
        checkpoint.expect_only(expected.tensors.keys().map(String::as_str))?;
        self.stages().try_for_each(|stage| stage.restore_values(checkpoint))
    }

    /// Writes the pictures of what was learnt into a directory and says which files they are.
    ///
    /// # Errors
    ///
    /// Files that cannot be written.
    pub fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let files: Result<Vec<_>, _> =
            self.stages().map(|stage| stage.learner.write_pictures(directory)).collect();
        Ok(files?.concat())
    }

    /// Writes the pictures that are wanted after the epoch that was trained last, and says which files they are.
    ///
    /// # Errors
    ///
    /// Files that cannot be written.
    pub fn write_epoch_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        match self.stages().rfind(|stage| stage.position.epochs > 0) {
            Some(stage) => stage.learner.write_epoch_pictures(directory, stage.position.epochs),
            None => Ok(Vec::new()),
        }
    }

    /// The compiled functions by name, that of the first training step first.
    #[must_use]
    pub fn functions(&self) -> Vec<(&'static str, &Function)> {
        self.stages().flat_map(|stage| stage.learner.functions()).collect()
    }
}

/// What a step of a training brought.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A minibatch was learnt from.
    Batch,
    /// A minibatch was learnt from, and an epoch is over. The caller fills in the seconds.
    Epoch(Epoch),
    /// Training is over. The caller fills in the seconds.
    Done(Done),
}

/// How far a training has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Epochs that are over.
    pub epochs: u64,
    /// Minibatches of the present epoch that are over.
    pub batches: u64,
}

/// The largest cost or measure of a step that means anything: sums in `f32` have no digits below 65,536 there.
pub const LARGEST_MEASURE: f64 = 1e12;
