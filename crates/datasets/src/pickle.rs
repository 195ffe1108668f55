//! A reader of Python pickles that hold data: numbers, text, bytes, lists, tuples, dictionaries and NumPy arrays.
//!
//! A pickle is a program for a stack machine that may call anything. This machine knows protocols 0 to 4 and resolves
//! the names by which NumPy writes arrays, array types and scalars, and nothing else: any other name is an error that
//! tells it, and nothing is ever executed. Objects stand in one flat list and refer to each other by number, so
//! shared and cyclic structures cost no more than they took to write, and no depth of nesting can exhaust the stack.
//! Memory is bounded by a budget that every opcode is charged to.

mod array;
mod machine;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

pub use array::{Array, ElementType};

use crate::count::Counted;
use crate::{DataError, DataFile};
use machine::Machine;

/// Default bound on the memory that one document may take, in bytes.
pub const DEFAULT_BUDGET: u64 = 2 << 30;

/// Reads every pickle of the file at `path`, one after another to its end; the file may be gzipped.
///
/// # Errors
///
/// A [`DataError`] with the path, and for a fault of the pickle the byte offset of the opcode.
pub fn read_pickles(path: &Path) -> Result<Vec<PickleDocument>, DataError> {
    let mut reader = PickleReader::new(DataFile::open(path)?);
    let mut documents = Vec::new();
    loop {
        match reader.read_next() {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => return Ok(documents),
            Err(PickleError { kind: PickleErrorKind::Read(error), .. }) => {
                return Err(reader.input.error(error));
            }
            Err(source) => return Err(DataError::Pickle { path: path.to_owned(), source }),
        }
    }
}

/// Reads pickles one after another from a stream of bytes.
#[derive(Debug)]
pub struct PickleReader<R> {
    input: R,
    offset: u64,
    budget: u64,
}

impl<R: Read> PickleReader<R> {
    /// A reader at the beginning of `input`, which should be buffered: it is read byte by byte.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, budget: DEFAULT_BUDGET }
    }

    /// Sets the memory that one document may take, in bytes.
    #[must_use]
    pub fn with_budget(self, budget: u64) -> Self {
        Self { budget, ..self }
    }

    /// The next document, or `None` at the end of the input.
    ///
    /// # Errors
    ///
    /// A [`PickleError`] with the offset of the opcode that cannot be read.
    pub fn read_next(&mut self) -> Result<Option<PickleDocument>, PickleError> {
        Machine::new(&mut self.input, &mut self.offset, self.budget).run()
    }
}

/// The content of one pickle.
#[derive(Debug, Clone)]
pub struct PickleDocument {
    objects: Vec<Object>,
    root: Value,
}

/// A value on the stack or in a container.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Index into the objects of the document.
    Object(u32),
}

/// What a [`Value`] may refer to.
#[derive(Debug, Clone)]
enum Object {
    Bytes(Arc<Vec<u8>>),
    Text(String),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Array(Array),
    ElementType { element: ElementType, big_endian: bool },
    Name(Name),
}

/// The names that are resolved, all of them constructors of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `numpy.core.multiarray._reconstruct`, also under `numpy._core`: makes an empty array, to be filled.
    Reconstruct,
    /// `numpy.core.multiarray.scalar`, also under `numpy._core`.
    Scalar,
    /// `numpy.ndarray`.
    NdArray,
    /// `numpy.dtype`.
    DType,
    /// `_codecs.encode`: how Python 3 writes the bytes of an array under protocols 0 to 2.
    Encode,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reconstruct => "numpy.core.multiarray._reconstruct",
            Self::Scalar => "numpy.core.multiarray.scalar",
            Self::NdArray => "numpy.ndarray",
            Self::DType => "numpy.dtype",
            Self::Encode => "_codecs.encode",
        })
    }
}

/// A value of a document, seen from outside.
#[derive(Debug, Clone, Copy)]
pub enum Pickle<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer, also a NumPy scalar.
    Int(i64),
    /// A float, also a NumPy scalar.
    Float(f64),
    /// A Python 3 `bytes` or a Python 2 `str`.
    Bytes(&'a [u8]),
    /// A Python 3 `str` or a Python 2 `unicode`.
    Text(&'a str),
    /// A list.
    List(Items<'a>),
    /// A tuple.
    Tuple(Items<'a>),
    /// A dictionary.
    Dict(Entries<'a>),
    /// A NumPy array.
    Array(&'a Array),
    /// The name of a NumPy constructor or of an array type, by itself.
    Name(Name),
}

impl PickleDocument {
    /// The value that was pickled.
    #[must_use]
    pub fn root(&self) -> Pickle<'_> {
        self.view(self.root)
    }

    fn view(&self, value: Value) -> Pickle<'_> {
        let index = match value {
            Value::None => return Pickle::None,
            Value::Bool(value) => return Pickle::Bool(value),
            Value::Int(value) => return Pickle::Int(value),
            Value::Float(value) => return Pickle::Float(value),
            Value::Object(index) => index,
        };
        match &self.objects[index as usize] {
            Object::Bytes(bytes) => Pickle::Bytes(bytes),
            Object::Text(text) => Pickle::Text(text),
            Object::List(values) => Pickle::List(Items { document: self, values }),
            Object::Tuple(values) => Pickle::Tuple(Items { document: self, values }),
            Object::Dict(entries) => Pickle::Dict(Entries { document: self, entries }),
            Object::Array(array) => Pickle::Array(array),
            Object::ElementType { .. } => Pickle::Name(Name::DType),
            Object::Name(name) => Pickle::Name(*name),
        }
    }
}

/// The items of a list or tuple.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    document: &'a PickleDocument,
    values: &'a [Value],
}

impl<'a> Items<'a> {
    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Item `index`, from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Pickle<'a>> {
        self.values.get(index).map(|value| self.document.view(*value))
    }

    /// The items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Pickle<'a>> + use<'a> {
        let document = self.document;
        self.values.iter().map(move |value| document.view(*value))
    }
}

/// The entries of a dictionary.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    document: &'a PickleDocument,
    entries: &'a [(Value, Value)],
}

impl<'a> Entries<'a> {
    /// Number of entries, in which a key set twice counts twice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of the key that is this text, whether Python wrote it as `str`, `bytes` or `unicode`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Pickle<'a>> {
        let is_name = |key: Pickle<'_>| match key {
            Pickle::Bytes(bytes) => bytes == name.as_bytes(),
            Pickle::Text(text) => text == name,
            Pickle::None
            | Pickle::Bool(_)
            | Pickle::Int(_)
            | Pickle::Float(_)
            | Pickle::List(_)
            | Pickle::Tuple(_)
            | Pickle::Dict(_)
            | Pickle::Array(_)
            | Pickle::Name(_) => false,
        };
        // The last of equal keys is the one that Python keeps.
        let (_, value) = self.entries.iter().rev().find(|(key, _)| is_name(self.document.view(*key)))?;
        Some(self.document.view(*value))
    }

    /// Keys and values in the order in which they were written.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Pickle<'a>, Pickle<'a>)> + use<'a> {
        let document = self.document;
        self.entries.iter().map(move |(key, value)| (document.view(*key), document.view(*value)))
    }
}

/// What the value is, for messages: never its whole content.
impl fmt::Display for Pickle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bytes(bytes) => write!(f, "a string of {}", Counted(bytes.len(), "byte")),
            Self::Text(text) => write!(f, "a string of {}", Counted(text.len(), "byte")),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Tuple(items) => write!(f, "a tuple of {}", items.len()),
            Self::Dict(entries) => write!(f, "a dictionary of {}", entries.len()),
            Self::Array(array) => write!(f, "{array}"),
            Self::Name(name) => write!(f, "the name {name}"),
        }
    }
}

/// Why a pickle cannot be read.
#[derive(Debug, Error)]
#[error("pickle, byte {offset}: {kind}")]
pub struct PickleError {
    /// Offset of the opcode in the uncompressed content.
    pub offset: u64,
    /// What is wrong there.
    pub kind: PickleErrorKind,
}

/// The ways in which a pickle can be unusable.
#[derive(Debug, Error)]
pub enum PickleErrorKind {
    /// The input itself failed.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The input ends inside the pickle.
    #[error("expected more data, found the end of the file")]
    Truncated,
    /// A byte that is no opcode of protocols 0 to 4, or one that this reader has no use for.
    #[error("expected an opcode for plain data, found {0:#04x}")]
    Opcode(u8),
    /// A newer protocol.
    #[error("expected a protocol from 0 to 4, found {0}")]
    Protocol(u8),
    /// A name that is not one of NumPy's constructors of arrays.
    #[error("expected nothing but data and NumPy arrays, found a request for {0}, which is refused")]
    ForbiddenName(String),
    /// An opcode that builds an object of a class or refers to something outside the file.
    #[error("expected nothing but data and NumPy arrays, found opcode {0}, which is refused")]
    ForbiddenOpcode(&'static str),
    /// An operand that is missing or of another kind.
    #[error("expected {expected}, found {found}")]
    Operand {
        /// What the opcode needs.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A reference to something that was never stored.
    #[error("expected an entry of the memo, found number {0}, which was never stored")]
    Memo(u64),
    /// A number as text that is no number, or one that does not fit.
    #[error("expected {expected}, found {found}")]
    Number {
        /// The kind of number.
        expected: &'static str,
        /// The text, shortened.
        found: String,
    },
    /// Text in a wrong encoding.
    #[error("expected {0}, found other bytes")]
    Encoding(&'static str),
    /// An array whose bytes are not as many as its shape and type need.
    #[error("expected {expected} for an array of shape {shape:?}, found {}", Counted(*found, "byte"))]
    ArrayLength {
        /// Extents of the array.
        shape: Vec<usize>,
        /// Bytes needed.
        expected: String,
        /// Bytes found.
        found: usize,
    },
    /// An array of something else than booleans, integers and floats.
    #[error("expected an array of booleans, integers or floats, found type {0}")]
    ElementType(String),
    /// The budget is used up.
    #[error("expected a document that takes at most {0} bytes of memory, found a larger one")]
    Budget(u64),
}
