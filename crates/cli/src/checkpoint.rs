//! Checkpoints: named tensors and text metadata in a safetensors file.
//!
//! A checkpoint replaces the one before it atomically: it is written beside it, brought to the disk, and renamed, so
//! that a full disk or a crash leaves the earlier file whole. The bytes depend on the content alone. Reading checks the
//! layout and a checksum over names, shapes and values, without which a file is no checkpoint, and hands tensors out only
//! under the name, type and shape that the reader expects. What the tensors mean is deliberately absent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;
use hypatia_datasets::files::read_plain;
use safetensors::{SafeTensorError, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::files::{is_there, replace_file};
use hypatia_datasets::Counted;

pub use safetensors::Dtype;

/// Name of the metadata entry that holds the checksum; it is not shown among the metadata.
const CHECKSUM: &str = "crc32";
/// Alignment of the tensors in the file, in bytes.
const ALIGNMENT: usize = 8;
/// The longest file that is read: 16 GiB.
const MOST_BYTES: u64 = 1 << 34;

/// A tensor as it stands in a file: row-major, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements; as many bytes as shape and type need.
    pub bytes: Vec<u8>,
}

impl SavedTensor {
    /// A float32 tensor.
    #[must_use]
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// The values of a float32 tensor, `None` for one of another type.
    #[must_use]
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let (chunks, _) = self.bytes.as_chunks::<4>();
        (self.dtype == Dtype::F32).then(|| chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect())
    }

    /// The values of a floating-point tensor; empty for other types.
    pub(crate) fn floats(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        match self.dtype {
            Dtype::F32 => {
                let (chunks, _) = self.bytes.as_chunks::<4>();
                Box::new(chunks.iter().map(|chunk| f64::from(f32::from_le_bytes(*chunk))))
            }
            Dtype::F64 => {
                let (chunks, _) = self.bytes.as_chunks::<8>();
                Box::new(chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)))
            }
            _ => Box::new(std::iter::empty()),
        }
    }

    /// Bytes that shape and type need; `None` on overflow, or if a byte is not filled.
    fn expected_len(&self) -> Option<usize> {
        let elements = self.shape.iter().try_fold(1_usize, |product, extent| product.checked_mul(*extent))?;
        let bits = elements.checked_mul(self.dtype.bitsize())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

/// Why a checkpoint cannot be written, read or used. Every message names the file.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file cannot be written; an earlier one of that name is untouched.
    #[error(
        "cannot write checkpoint {}: {source}{}",
        path.display(), if *earlier { "; the earlier checkpoint of that name is unchanged" } else { "" }
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Whether there is an earlier one.
        earlier: bool,
        /// What the system says.
        source: io::Error,
    },
    /// A tensor to be written whose bytes are not as many as its shape and type need.
    #[error(
        "cannot write checkpoint: tensor {name}: {} are too few or too many for {dtype} of shape {shape:?}",
        Counted(*found, "byte")
    )]
    Length {
        /// Name of the tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// Its extents.
        shape: Vec<usize>,
        /// Its bytes.
        found: usize,
    },
    /// A metadata entry or tensor by a name that the format keeps for itself.
    #[error("cannot write checkpoint: the name {0} is reserved")]
    Reserved(String),
    /// The file cannot be read at all.
    #[error("cannot read checkpoint {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not a safetensors file, or truncated.
    #[error("checkpoint {}: not a safetensors file, or truncated: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader of the format says.
        source: SafeTensorError,
    },
    /// A header that says two things of one name.
    #[error("checkpoint {}: expected each name once, found {reason}", path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// Which name, and where.
        reason: String,
    },
    /// A safetensors file from elsewhere.
    #[error(
        "checkpoint {}: no checksum ({CHECKSUM}) in its metadata: not written by `hypatia train`",
        path.display()
    )]
    Unchecked {
        /// The file.
        path: PathBuf,
    },
    /// The content is not what was written.
    #[error("checkpoint {}: corrupt: expected checksum {expected}, found {found}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The checksum in the file.
        expected: String,
        /// The checksum of its content.
        found: String,
    },
    /// A tensor or metadata entry that is not there.
    #[error("checkpoint {}: expected {kind} {name}, found none; there are: {}", path.display(), present.join(", "))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Whether a tensor or a metadata entry is missing.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The names that are there.
        present: Vec<String>,
    },
    /// Tensors that nobody asked for: the checkpoint is one of another model.
    #[error("checkpoint {}: expected no other tensors than {}, found {}", path.display(), expected.join(", "), unknown.join(", "))]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Names of the tensors found and not expected.
        unknown: Vec<String>,
        /// Names expected.
        expected: Vec<String>,
    },
    /// A tensor of another type or shape.
    #[error(
        "checkpoint {}: tensor {name}: expected {expected_dtype} of shape {expected_shape:?}, found {dtype} of shape {shape:?}",
        path.display()
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Type expected.
        expected_dtype: Dtype,
        /// Extents expected.
        expected_shape: Vec<usize>,
        /// Type found.
        dtype: Dtype,
        /// Extents found.
        shape: Vec<usize>,
    },
}

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Tensors by name.
    pub tensors: BTreeMap<String, SavedTensor>,
    /// Text by name: counters, settings, states of generators.
    pub metadata: BTreeMap<String, String>,
    /// The file it was read from, for messages; empty for a new one.
    path: PathBuf,
}

impl Checkpoint {
    /// An empty checkpoint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The file it was read from; empty for a new one.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the checkpoint to `path`, replacing an earlier one only when the new one is safely on the disk.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Length`] or [`CheckpointError::Reserved`] for content that is no checkpoint,
    /// [`CheckpointError::Write`] when it cannot be stored.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let header = self.header()?;
        replace_file(path, |file| self.write_content(&header, file)).map_err(|source| {
            CheckpointError::Write { path: path.to_owned(), earlier: is_there(path), source }
        })
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Read`], [`CheckpointError::Format`], [`CheckpointError::Duplicate`],
    /// [`CheckpointError::Unchecked`] or [`CheckpointError::Checksum`].
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = read_plain(path, MOST_BYTES)
            .map_err(|source| CheckpointError::Read { path: path.to_owned(), source })?;
        expect_distinct_keys(path, &bytes)?;
        let format = |source| CheckpointError::Format { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        let file = SafeTensors::deserialize(&bytes).map_err(format)?;
        let tensors = file.iter().map(|(name, view)| {
            let tensor = SavedTensor {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), tensor)
        });
        let mut metadata: BTreeMap<String, String> =
            header.metadata().iter().flatten().map(|(name, text)| (name.clone(), text.clone())).collect();
        let checksum = metadata.remove(CHECKSUM);
        let checkpoint = Self { tensors: tensors.collect(), metadata, path: path.to_owned() };
        let found = checkpoint.checksum();
        match checksum {
            None => Err(CheckpointError::Unchecked { path: path.to_owned() }),
            Some(expected) if expected != found => {
                Err(CheckpointError::Checksum { path: path.to_owned(), expected, found })
            }
            Some(_) => Ok(checkpoint),
        }
    }

    /// The tensor of this name, type and shape.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Type`].
    pub fn tensor(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&SavedTensor, CheckpointError> {
        let tensor = self.tensors.get(name).ok_or_else(|| CheckpointError::Missing {
            path: self.path.clone(),
            kind: "tensor",
            name: name.to_owned(),
            present: self.tensors.keys().cloned().collect(),
        })?;
        if tensor.dtype == dtype && tensor.shape == shape {
            return Ok(tensor);
        }
        Err(CheckpointError::Type {
            path: self.path.clone(),
            name: name.to_owned(),
            expected_dtype: dtype,
            expected_shape: shape.to_vec(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        })
    }

    /// The metadata entry of this name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`].
    pub fn entry(&self, name: &str) -> Result<&str, CheckpointError> {
        self.metadata.get(name).map(String::as_str).ok_or_else(|| CheckpointError::Missing {
            path: self.path.clone(),
            kind: "metadata entry",
            name: name.to_owned(),
            present: self.metadata.keys().cloned().collect(),
        })
    }

    /// Checks that there is no tensor beside the expected ones.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] with all the others.
    pub fn expect_only<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<(), CheckpointError> {
        let expected: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let unknown: Vec<String> =
            self.tensors.keys().filter(|name| !expected.contains(name)).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(CheckpointError::Unknown { path: self.path.clone(), unknown, expected })
    }

    /// The tensors in the order of the file: larger elements first, so that all stay aligned.
    fn in_file_order(&self) -> Vec<(&String, &SavedTensor)> {
        let mut tensors: Vec<_> = self.tensors.iter().collect();
        tensors.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype.bitsize()));
        tensors
    }

    /// The length and the JSON text that a safetensors file begins with. They are not written by the crate because it
    /// keeps metadata in a hash map, in random order: equal content would give other bytes in every process.
    fn header(&self) -> Result<Vec<u8>, CheckpointError> {
        if self.metadata.contains_key(CHECKSUM) {
            return Err(CheckpointError::Reserved(CHECKSUM.to_owned()));
        }
        let mut metadata = self.metadata.clone();
        metadata.insert(CHECKSUM.to_owned(), self.checksum());
        let mut header = Map::from_iter([(METADATA.to_owned(), json!(metadata))]);
        let mut offset = 0;
        for (name, tensor) in self.in_file_order() {
            if name == METADATA {
                return Err(CheckpointError::Reserved(name.clone()));
            }
            if tensor.expected_len() != Some(tensor.bytes.len()) {
                return Err(CheckpointError::Length {
                    name: name.clone(),
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    found: tensor.bytes.len(),
                });
            }
            let end = offset + tensor.bytes.len();
            let info = json!({
                "dtype": tensor.dtype.to_string(),
                "shape": tensor.shape,
                "data_offsets": [offset, end],
            });
            header.insert(name.clone(), info);
            offset = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        Ok(bytes)
    }

    fn write_content(&self, header: &[u8], output: &mut dyn Write) -> io::Result<()> {
        output.write_all(header)?;
        self.in_file_order().into_iter().try_for_each(|(_, tensor)| output.write_all(&tensor.bytes))
    }

    /// CRC-32 over all names, types, shapes, values and metadata, as eight hexadecimal digits.
    fn checksum(&self) -> String {
        let mut crc = Crc::new();
        let mut field = |bytes: &[u8]| {
            crc.update(&(bytes.len() as u64).to_le_bytes());
            crc.update(bytes);
        };
        for (name, tensor) in &self.tensors {
            field(name.as_bytes());
            field(format!("{} {:?}", tensor.dtype, tensor.shape).as_bytes());
            field(&tensor.bytes);
        }
        for (name, text) in &self.metadata {
            field(name.as_bytes());
            field(text.as_bytes());
        }
        format!("{:08x}", crc.sum())
    }
}

/// Name under which the format keeps the metadata.
const METADATA: &str = "__metadata__";

/// The keys of objects in a JSON text, each at most once. A reader that takes the last of two values would not see what
/// another one sees.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Distinct, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value::<Distinct>()?;
            if keys.contains(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} twice")));
            }
            keys.insert(key);
        }
        Ok(Distinct)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Distinct, A::Error> {
        while elements.next_element::<Distinct>()?.is_some() {}
        Ok(Distinct)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Distinct)
    }
}

/// Checks that no key of the header of a safetensors file stands there twice. A file without a whole header is left to
/// the reader of the format.
fn expect_distinct_keys(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return Ok(()) };
    let length = usize::try_from(u64::from_le_bytes(*length)).ok();
    let Some(header) = length.and_then(|length| rest.get(..length)) else { return Ok(()) };
    match serde_json::from_slice::<Distinct>(header) {
        Err(error) if error.is_data() => {
            Err(CheckpointError::Duplicate { path: path.to_owned(), reason: error.to_string() })
        }
        Ok(Distinct) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn example() -> Checkpoint {
        let mut checkpoint = Checkpoint::new();
        let weights = SavedTensor::from_f32(&[2, 3], &[1.0, -2.0, f32::MIN_POSITIVE, 0.1, f32::NAN, 6.0]);
        checkpoint.tensors.insert("layer.W".to_owned(), weights);
        let bytes = [-1_i64, i64::MAX].iter().flat_map(|value| value.to_le_bytes()).collect();
        let counters = SavedTensor { dtype: Dtype::I64, shape: vec![2], bytes };
        checkpoint.tensors.insert("zz.counters".to_owned(), counters);
        let empty = SavedTensor { dtype: Dtype::U8, shape: vec![0, 4], bytes: Vec::new() };
        checkpoint.tensors.insert("empty".to_owned(), empty);
        let scalar = SavedTensor { dtype: Dtype::BOOL, shape: vec![], bytes: vec![1] };
        checkpoint.tensors.insert("flag".to_owned(), scalar);
        checkpoint.metadata.insert("model".to_owned(), "mlp \"quoted\" ü".to_owned());
        checkpoint.metadata.insert("epoch".to_owned(), "12".to_owned());
        checkpoint
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let checkpoint = example();
        checkpoint.write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap();
        assert_eq!(read.tensors, checkpoint.tensors);
        assert_eq!(read.metadata, checkpoint.metadata);
        assert_eq!(read.entry("epoch").unwrap(), "12");
        let weights = read.tensor("layer.W", Dtype::F32, &[2, 3]).unwrap().to_f32().unwrap();
        assert_eq!(weights[..4], [1.0, -2.0, f32::MIN_POSITIVE, 0.1]);
        // The same content gives the same bytes, and nothing else is left in the directory.
        let first = fs::read(&path).unwrap();
        read.write(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// What was written by other versions must be read by this one.
    #[test]
    fn the_layout_of_files_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let mut checkpoint = Checkpoint::new();
        checkpoint.tensors.insert("W".to_owned(), SavedTensor::from_f32(&[1, 2], &[1.0, -2.0]));
        checkpoint.metadata.insert("epoch".to_owned(), "12".to_owned());
        checkpoint.write(&path).unwrap();
        let header = r#"{"W":{"data_offsets":[0,8],"dtype":"F32","shape":[1,2]},"__metadata__":{"crc32":"e693be53","epoch":"12"}}       "#;
        let content = [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0];
        let expected = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &content].concat();
        assert_eq!(fs::read(&path).unwrap(), expected, "{}", fs::read(&path).unwrap().escape_ascii());
    }

    #[test]
    fn a_foreign_file_without_checksum_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("foreign.safetensors");
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![1], &[0, 0, 128, 63]).unwrap();
        fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
        let error = Checkpoint::read(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::Unchecked { .. }), "{error}");
    }

    /// The same file with a name in it twice.
    #[test]
    fn a_name_that_stands_there_twice_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        example().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let (length, rest) = whole.split_first_chunk::<8>().unwrap();
        let (header, content) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let header = String::from_utf8(header.to_vec()).unwrap();
        let flag = header.find("\"flag\"").unwrap();
        let entry = &header[flag..=flag + header[flag..].find('}').unwrap()];
        for (once, twice) in [
            (entry, format!("{entry},{entry}")),
            ("\"epoch\":\"12\"", "\"epoch\":\"13\",\"epoch\":\"12\"".to_owned()),
            ("\"shape\":[2,3]", "\"shape\":[3,2],\"sh\\u0061pe\":[2,3]".to_owned()),
        ] {
            assert!(header.contains(once), "{once} in {header}");
            let header = header.replace(once, &twice);
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), content].concat();
            fs::write(&path, bytes).unwrap();
            let error = Checkpoint::read(&path).unwrap_err();
            let named = matches!(error, CheckpointError::Duplicate { .. });
            assert!(named && error.to_string().contains("twice"), "{error}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        example().write(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = Checkpoint::read(&path).unwrap_err();
            assert!(matches!(error, CheckpointError::Format { .. }), "{length}: {error}");
        }
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 0x01;
            fs::write(&path, &changed).unwrap();
            match Checkpoint::read(&path) {
                // Spaces at the end of the header carry no content.
                Ok(read) => assert_eq!(read.tensors, example().tensors, "byte {position}"),
                Err(error) => {
                    let named = matches!(
                        error,
                        CheckpointError::Format { .. }
                            | CheckpointError::Duplicate { .. }
                            | CheckpointError::Unchecked { .. }
                            | CheckpointError::Checksum { .. }
                    );
                    assert!(named, "byte {position}: {error}");
                }
            }
        }
    }

    #[test]
    fn wrong_expectations_are_explained() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        example().write(&path).unwrap();
        let read = Checkpoint::read(&path).unwrap();
        let shown = |error: CheckpointError| error.to_string().replace(&path.display().to_string(), "FILE");
        assert_eq!(
            shown(read.tensor("layer.W", Dtype::F32, &[3, 2]).unwrap_err()),
            "checkpoint FILE: tensor layer.W: expected F32 of shape [3, 2], found F32 of shape [2, 3]"
        );
        assert_eq!(
            shown(read.tensor("layer.b", Dtype::F32, &[3]).unwrap_err()),
            "checkpoint FILE: expected tensor layer.b, found none; there are: empty, flag, layer.W, zz.counters"
        );
        assert_eq!(
            shown(read.entry("seed").unwrap_err()),
            "checkpoint FILE: expected metadata entry seed, found none; there are: epoch, model"
        );
        assert_eq!(
            shown(read.expect_only(["flag", "layer.W"]).unwrap_err()),
            "checkpoint FILE: expected no other tensors than flag, layer.W, found empty, zz.counters"
        );
        read.expect_only(["flag", "layer.W", "empty", "zz.counters"]).unwrap();
        let missing = directory.path().join("none");
        assert!(matches!(Checkpoint::read(&missing), Err(CheckpointError::Read { .. })));
    }

    #[test]
    fn content_that_is_no_checkpoint_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        let mut checkpoint = example();
        checkpoint.tensors.insert("short".to_owned(), SavedTensor::from_f32(&[4], &[1.0]));
        assert!(matches!(checkpoint.write(&path), Err(CheckpointError::Length { .. })));
        let mut checkpoint = example();
        checkpoint.metadata.insert(CHECKSUM.to_owned(), String::new());
        assert!(matches!(checkpoint.write(&path), Err(CheckpointError::Reserved(_))));
        let mut checkpoint = example();
        checkpoint.tensors.insert(METADATA.to_owned(), SavedTensor::from_f32(&[], &[1.0]));
        assert!(matches!(checkpoint.write(&path), Err(CheckpointError::Reserved(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_failure_half_way_leaves_the_previous_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        example().write(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let error = replace_file(&path, |file| {
            file.write_all(b"half of a checkpoint")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let nowhere = directory.path().join("missing").join("a.safetensors");
        let error = example().write(&nowhere).unwrap_err().to_string();
        assert!(error.contains("missing") && !error.contains("unchanged"), "{error}");
    }

    /// The real thing: a child process whose files may not grow beyond a few blocks.
    #[cfg(unix)]
    #[test]
    fn a_file_that_cannot_grow_leaves_the_previous_one() {
        const DIRECTORY: &str = "HYPATIA_TEST_CHECKPOINT_DIRECTORY";
        if let Ok(directory) = std::env::var(DIRECTORY) {
            let mut large = example();
            large.tensors.insert("large".to_owned(), SavedTensor::from_f32(&[1 << 18], &vec![0.5; 1 << 18]));
            let error = large.write(&Path::new(&directory).join("a.safetensors")).unwrap_err();
            println!("{error}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.safetensors");
        example().write(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let output = Command::new("sh")
            .arg("-c")
            .arg("trap '' XFSZ; ulimit -f 64; exec \"$0\" --nocapture --exact checkpoint::tests::a_file_that_cannot_grow_leaves_the_previous_one")
            .arg(std::env::current_exe().unwrap())
            .env(DIRECTORY, directory.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{shown}");
        assert!(shown.contains("cannot write checkpoint") && shown.contains("unchanged"), "{shown}");
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
