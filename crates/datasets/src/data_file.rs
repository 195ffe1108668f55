//! A file as a stream of bytes, decompressed on the way when it is gzipped.
//!
//! Whether a file is gzipped is decided by its first two bytes, never by its name. The position counts bytes of the
//! uncompressed content. Reading to the end verifies the checksums of gzip; a reader that stops early does not.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

use crate::DataError;
use crate::files::open_plain;

const BUFFER_BYTES: usize = 1 << 16;

/// An opened data file.
pub struct DataFile {
    path: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    offset: u64,
}

/// A fault of the gzip container, told apart from the failures of the system.
#[derive(Debug, Error)]
enum GzipFault {
    #[error("truncated gzip file")]
    Truncated,
    #[error("{0}")]
    Corrupt(String),
}

/// Decompresses, and marks the decompressor's errors as [`GzipFault`].
struct Gzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                io::Error::new(error.kind(), GzipFault::Truncated)
            } else if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) {
                io::Error::new(error.kind(), GzipFault::Corrupt(error.to_string()))
            } else {
                error
            }
        })
    }
}

impl DataFile {
    /// Opens `path`.
    ///
    /// # Errors
    ///
    /// [`DataError::Open`] when it cannot be opened, [`DataError::Read`] when its first bytes cannot be read.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = open_plain(path).map_err(|source| DataError::Open { path: path.to_owned(), source })?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let head =
            file.fill_buf().map_err(|source| DataError::Read { path: path.to_owned(), offset: 0, source })?;
        let reader: Box<dyn Read + Send> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(Gzip(MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Ok(Self { path: path.to_owned(), reader, offset: 0 })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes read so far, uncompressed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The [`DataError`] for an error met while reading from this source.
    #[must_use]
    pub fn error(&self, source: io::Error) -> DataError {
        let (path, offset) = (self.path.clone(), self.offset);
        match source.get_ref().and_then(|inner| inner.downcast_ref::<GzipFault>()) {
            Some(GzipFault::Truncated) => DataError::GzipTruncated { path, offset },
            Some(GzipFault::Corrupt(reason)) => {
                DataError::GzipCorrupt { path, offset, reason: reason.clone() }
            }
            None => DataError::Read { path, offset, source },
        }
    }

    /// Up to `length` bytes; fewer only at the end of the file. Memory grows with what is there, not with `length`.
    ///
    /// # Errors
    ///
    /// Those of reading and of the gzip container.
    pub fn read_up_to(&mut self, length: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        match self.by_ref().take(length).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.error(error)),
        }
    }
}

impl Read for DataFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.offset += read as u64;
        Ok(read)
    }
}
