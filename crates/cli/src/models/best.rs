//! The parameters at the best result so far.

use hypatia::Array;
use hypatia_models::parameter::Parameter;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;

/// Parameters, and their values at the best result so far.
#[derive(Debug)]
pub(super) struct Best {
    parameters: Vec<Parameter>,
    values: Option<Vec<Array>>,
}

impl Best {
    /// Without a result.
    pub(super) fn new(parameters: &[Parameter]) -> Self {
        Self { parameters: parameters.to_vec(), values: None }
    }

    /// Whether there was a result.
    pub(super) fn exists(&self) -> bool {
        self.values.is_some()
    }

    /// Takes the present values.
    pub(super) fn take(&mut self) -> Result<(), TrainError> {
        let values: Result<_, _> =
            self.parameters.iter().map(|parameter| parameter.shared.get_value()).collect();
        self.values = Some(values?);
        Ok(())
    }

    /// Gives the parameters the best values, if there are any.
    pub(super) fn put_back(&self) -> Result<(), TrainError> {
        for (parameter, value) in self.parameters.iter().zip(self.values.iter().flatten()) {
            parameter.shared.set_value(value.clone())?;
        }
        Ok(())
    }

    pub(super) fn save(&self, checkpoint: &mut Checkpoint) {
        for (parameter, value) in self.parameters.iter().zip(self.values.iter().flatten()) {
            checkpoint.save_array(&name(parameter), value);
        }
    }

    /// Takes over what was saved where there was a result.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint, exists: bool) -> Result<(), TrainError> {
        let values = self.parameters.iter().map(|p| checkpoint.array(&name(p), &p.shared));
        self.values = exists.then(|| values.collect::<Result<_, _>>()).transpose()?;
        Ok(())
    }
}

fn name(parameter: &Parameter) -> String {
    format!("best.{}", parameter.name)
}
