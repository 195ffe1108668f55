//! The state of a training in its checkpoints: shared variables and random streams under their names.
//!
//! Values keep their type, shape and bits. What is taken over must have the type and shape of what it replaces, so a
//! checkpoint of another model is refused before anything is changed.

use hypatia::{Array, DType, RandomStreams, Shared};

use crate::checkpoint::{Checkpoint, Dtype, SavedTensor};
use crate::model::TrainError;

/// A shared variable of a model and its name in checkpoints.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// The variable.
    pub shared: Shared,
}

impl Parameter {
    /// A parameter.
    #[must_use]
    pub fn new(name: impl Into<String>, shared: &Shared) -> Self {
        Self { name: name.into(), shared: shared.clone() }
    }

    /// Adds its value to a checkpoint.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    pub fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        checkpoint.tensors.insert(self.name.clone(), to_saved(&self.shared.get_value()?));
        Ok(())
    }

    /// The value of that name in a checkpoint, of the variable's type and shape.
    ///
    /// # Errors
    ///
    /// A value that is missing, or of another type or shape.
    pub fn saved_as(&self, name: &str, checkpoint: &Checkpoint) -> Result<Array, TrainError> {
        let ty = self.shared.ty();
        let shape: Vec<usize> = ty.shape.iter().filter_map(|extent| extent.known()).collect();
        from_saved(checkpoint.tensor(name, saved_type(ty.dtype), &shape)?, ty.dtype)
    }

    /// Its value in a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Parameter::saved_as`].
    pub fn saved(&self, checkpoint: &Checkpoint) -> Result<Array, TrainError> {
        self.saved_as(&self.name, checkpoint)
    }

    /// Takes its value over from a checkpoint.
    ///
    /// # Errors
    ///
    /// As [`Parameter::saved`]; the variable is then as it was.
    pub fn restore(&self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        Ok(self.shared.set_value(self.saved(checkpoint)?)?)
    }
}

/// Adds where every draw of the streams stands.
///
/// # Errors
///
/// A device that does not give its values.
pub fn save_streams(
    name: &str,
    streams: &RandomStreams,
    checkpoint: &mut Checkpoint,
) -> Result<(), TrainError> {
    checkpoint.tensors.insert(name.to_owned(), to_saved(&streams.state()?));
    Ok(())
}

/// Lets every draw of the streams go on from where it stood; they must be the same draws.
///
/// # Errors
///
/// A state that is missing, or of other draws.
pub fn restore_streams(
    name: &str,
    streams: &RandomStreams,
    checkpoint: &Checkpoint,
) -> Result<(), TrainError> {
    let saved = checkpoint.tensor(name, Dtype::I64, &[streams.counters().len(), 2])?;
    Ok(streams.set_state(&from_saved(saved, DType::I64)?)?)
}

/// An array as it stands in a file.
#[must_use]
pub fn to_saved(value: &Array) -> SavedTensor {
    let (dtype, size) = (saved_type(value.dtype()), value.dtype().size());
    SavedTensor { dtype, shape: value.shape().to_vec(), bytes: little_endian(value.bytes(), size) }
}

/// An array of that type from a tensor of the same type.
fn from_saved(tensor: &SavedTensor, dtype: DType) -> Result<Array, TrainError> {
    let mut array = Array::zeros(dtype, &tensor.shape)?;
    let mut bytes = little_endian(&tensor.bytes, dtype.size());
    if dtype == DType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    let target = array.bytes_mut();
    let length = target.len().min(bytes.len());
    target[..length].copy_from_slice(&bytes[..length]);
    Ok(array)
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
            parameter.save(&mut checkpoint).unwrap();
            parameter.shared.set_value(Array::zeros(dtype, &[4])).unwrap();
            parameter.restore(&checkpoint).unwrap();
            assert_eq!(parameter.shared.get_value().unwrap(), value);
        }
        let checkpoint = Checkpoint::new();
        let missing = Parameter::new("w", &shared("w", Array::vector(&[1_i64]))).restore(&checkpoint);
        assert!(missing.unwrap_err().to_string().contains("expected tensor w, found none"));
    }

    #[test]
    fn streams_go_on_where_they_stood() {
        let streams = RandomStreams::new(5);
        let draw = streams.uniform([3], 0.0, 1.0);
        let mut next = function(&[], &[&draw], &[]).unwrap();
        next.call(&[]).unwrap();
        let mut checkpoint = Checkpoint::new();
        save_streams("random", &streams, &mut checkpoint).unwrap();
        let second = next.call(&[]).unwrap().array(0).clone();
        let third = next.call(&[]).unwrap().array(0).clone();
        assert_ne!(second, third);
        restore_streams("random", &streams, &checkpoint).unwrap();
        assert_eq!(*next.call(&[]).unwrap().array(0), second);
        let others = RandomStreams::new(6);
        let _ = others.uniform([3], 0.0, 1.0);
        assert!(restore_streams("random", &others, &checkpoint).is_err());
    }
}
