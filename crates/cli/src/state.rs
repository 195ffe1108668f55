//! What checkpoints hold of a training: shared variables, random streams and numbers, under their names.
//!
//! Values keep their type, shape and bits, and are restored only to a variable of that type and shape.

use std::fmt::Display;
use std::str::FromStr;

use hypatia::{Array, DType, RandomStreams, Shared};
use hypatia_models::parameter::{Parameter, extents};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Dtype, SavedTensor};
use crate::error::TrainError;

/// The largest parameter that means anything: inputs lie between 0 and 1, and a sum of them with larger weights has no
/// digit below 0.1 in `f32`.
pub const LARGEST_PARAMETER: f64 = 1e6;

impl Checkpoint {
    /// Adds the value of a parameter.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn save_parameter(&mut self, parameter: &Parameter) -> Result<(), TrainError> {
        self.save_array(&parameter.name, &parameter.shared.get_value()?);
        Ok(())
    }

    /// Gives a parameter its saved value.
    ///
    /// # Errors
    ///
    /// A value that is missing, or of another type or shape.
    pub fn restore_parameter(&self, parameter: &Parameter) -> Result<(), TrainError> {
        Ok(parameter.shared.set_value(self.array(&parameter.name, &parameter.shared)?)?)
    }

    /// Adds an array.
    pub fn save_array(&mut self, name: &str, value: &Array) {
        let (dtype, size) = (saved_type(value.dtype()), value.dtype().size());
        let bytes = little_endian(value.bytes(), size);
        self.tensors.insert(name.to_owned(), SavedTensor { dtype, shape: value.shape().to_vec(), bytes });
    }

    /// The array of that name, of the type and shape of a variable.
    ///
    /// # Errors
    ///
    /// An array that is missing, or of another type or shape.
    pub fn array(&self, name: &str, like: &Shared) -> Result<Array, TrainError> {
        self.typed_array(name, like.ty().dtype, &extents(like))
    }

    /// The array of that name, type and shape.
    pub(crate) fn typed_array(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<Array, TrainError> {
        let tensor = self.tensor(name, saved_type(dtype), shape)?;
        let mut array = Array::zeros(dtype, shape)?;
        let mut bytes = little_endian(&tensor.bytes, dtype.size());
        if dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        let target = array.bytes_mut();
        if target.len() != bytes.len() {
            return Err(TrainError::Internal(format!("tensor {name} has {} bytes", bytes.len())));
        }
        target.copy_from_slice(&bytes);
        Ok(array)
    }

    /// Adds where every draw of the streams stands.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn save_streams(&mut self, name: &str, streams: &RandomStreams) -> Result<(), TrainError> {
        self.save_array(name, &streams.state()?);
        Ok(())
    }

    /// Lets every draw of the streams go on from where it stood; they must be the same draws.
    ///
    /// # Errors
    ///
    /// A state that is missing, or of other draws.
    pub fn restore_streams(&self, name: &str, streams: &RandomStreams) -> Result<(), TrainError> {
        let state = self.typed_array(name, DType::I64, &[streams.counters().len(), 2])?;
        Ok(streams.set_state(&state)?)
    }

    /// Adds a number to the metadata, exact to the bit.
    pub fn save_number(&mut self, name: &str, number: impl Display) {
        self.metadata.insert(name.to_owned(), number.to_string());
    }

    /// A counter or number in the metadata.
    ///
    /// # Errors
    ///
    /// A number that is missing or is none.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<T, TrainError> {
        let text = self.entry(name)?;
        text.parse().map_err(|_| self.fault(format!("expected {name} to be a number, found {text:?}")))
    }

    /// A finite number in the metadata.
    ///
    /// # Errors
    ///
    /// A number that is missing, is none or is not finite.
    pub fn float(&self, name: &str) -> Result<f64, TrainError> {
        let number: f64 = self.number(name)?;
        if number.is_finite() {
            return Ok(number);
        }
        Err(self.fault(format!("expected {name} to be a finite number, found {number}")))
    }

    /// A finite number in the metadata, if it is there.
    ///
    /// # Errors
    ///
    /// A number that is none or is not finite.
    pub fn optional_float(&self, name: &str) -> Result<Option<f64>, TrainError> {
        self.metadata.contains_key(name).then(|| self.float(name)).transpose()
    }

    /// Adds a setting of the run.
    pub(crate) fn save_setting(&mut self, name: &str, value: &Value) {
        self.metadata.insert(setting_name(name), value.to_string());
    }

    /// The text of the value that a setting had in the run.
    ///
    /// # Errors
    ///
    /// A setting that is missing.
    pub(crate) fn setting_text(&self, name: &str) -> Result<&str, TrainError> {
        Ok(self.entry(&setting_name(name))?)
    }

    /// The value that a setting had in the run.
    ///
    /// # Errors
    ///
    /// A setting that is missing or is no JSON value.
    pub fn setting(&self, name: &str) -> Result<Value, TrainError> {
        let text = self.setting_text(name)?;
        serde_json::from_str(text).map_err(|_| {
            self.fault(format!("expected the setting {name} to be a JSON value, found {text:?}"))
        })
    }

    /// The value of a setting that counts something.
    ///
    /// # Errors
    ///
    /// A setting that is missing or is no count.
    pub fn count_setting(&self, name: &str) -> Result<usize, TrainError> {
        let value = self.setting(name)?;
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.fault(format!("expected the setting {name} to be a count, found {value}")))
    }

    /// The error for a state that is there and makes no sense.
    #[must_use]
    pub fn fault(&self, reason: String) -> TrainError {
        TrainError::State { path: self.path().to_owned(), reason }
    }

    /// What is wrong with the values, if anything: a number that is none or too large.
    #[must_use]
    pub fn fault_of_values(&self) -> Option<String> {
        self.tensors.iter().find_map(|(name, tensor)| {
            let found = tensor.floats().find(|value| value.is_nan() || value.abs() > LARGEST_PARAMETER)?;
            Some(format!(
                "tensor {name}: expected numbers from -{LARGEST_PARAMETER:e} to {LARGEST_PARAMETER:e}, found {found:e}"
            ))
        })
    }
}

fn setting_name(name: &str) -> String {
    format!("setting.{name}")
}

/// The values of an array that is made to be `f32`.
pub(crate) fn floats(array: &Array) -> Result<&[f32], TrainError> {
    array.as_slice().ok_or_else(|| TrainError::Internal(format!("expected f32, found {}", array.dtype())))
}

/// Elements of `size` bytes between the order of this machine and that of the file.
fn little_endian(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if cfg!(target_endian = "big") {
        bytes.chunks_mut(size).for_each(<[u8]>::reverse);
    }
    bytes
}

fn saved_type(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::U8 => Dtype::U8,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypatia::{function, shared};

    #[test]
    fn values_of_every_type_come_back() {
        for dtype in DType::ALL {
            let value = Array::vector(&[0.0_f32, 1.0, 1.0, 0.0]).cast(dtype);
            let parameter = Parameter::new("v", &shared("v", value.clone()));
            let mut checkpoint = Checkpoint::new();
            checkpoint.save_parameter(&parameter).unwrap();
            parameter.shared.set_value(Array::zeros(dtype, &[4])).unwrap();
            checkpoint.restore_parameter(&parameter).unwrap();
            assert_eq!(parameter.shared.get_value().unwrap(), value);
        }
        let w = Parameter::new("w", &shared("w", Array::vector(&[1_i64])));
        let missing = Checkpoint::new().restore_parameter(&w);
        assert!(missing.unwrap_err().to_string().contains("expected tensor w, found none"));
    }

    #[test]
    fn streams_go_on_where_they_stood() {
        let streams = RandomStreams::new(5);
        let draw = streams.uniform([3], 0.0, 1.0);
        let mut next = function(&[], &[&draw], &[]).unwrap();
        next.call(&[]).unwrap();
        let mut checkpoint = Checkpoint::new();
        checkpoint.save_streams("random", &streams).unwrap();
        let second = next.call(&[]).unwrap().array(0).clone();
        let third = next.call(&[]).unwrap().array(0).clone();
        assert_ne!(second, third);
        checkpoint.restore_streams("random", &streams).unwrap();
        assert_eq!(*next.call(&[]).unwrap().array(0), second);
        let others = RandomStreams::new(6);
        let _ = others.uniform([3], 0.0, 1.0);
        assert!(checkpoint.restore_streams("random", &others).is_err());
    }
}
