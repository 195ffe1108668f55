//! Files of a run: plain ones only, replaced whole, in a directory that one process at a time writes to.
//!
//! A name may stand for a device, a pipe or a socket, which has no end or waits for somebody, so what is read and what is
//! written over is looked at before it is opened. A file is replaced by one written beside it, under a name that tells
//! it from all others, so that what a killed process left can be removed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;

use hypatia_datasets::files::expect_plain;

/// Creates a file or empties a plain one.
pub(crate) fn create_plain(path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(metadata) => expect_plain(metadata.file_type())?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::create(path)
}

/// Begin and end of the names of files that are not whole yet.
const PARTIAL: (&str, &str) = (".", ".partial");

/// Writes a file beside `path`, brings it to the disk and renames it to `path`; on any failure removes it again.
pub(crate) fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    let (begin, end) = PARTIAL;
    let temporary = directory.join(format!("{begin}{}.{}{end}", name.to_string_lossy(), process::id()));
    let outcome = write_durably(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = outcome {
        // The failure to report is the first one.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The rename itself is safe only once the directory is on the disk; elsewhere directories cannot be opened.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn write_durably(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
    write(&mut file)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The right to write into a directory, which ends when it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    /// Held for its lock.
    _file: File,
}

impl DirectoryLock {
    /// Locks a directory; `None` where another process has it.
    pub(crate) fn take(directory: &Path) -> io::Result<Option<Self>> {
        // Where directories cannot be opened, a file in it stands for it.
        let file = if cfg!(unix) {
            expect_directory(directory)?;
            File::open(directory)?
        } else {
            OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(".lock"))?
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // A file system without locks; a run that is not guarded is better than none.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Self { _file: file }))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn expect_directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

/// Removes what processes that were killed had not written to its end. The directory must be locked.
pub(crate) fn remove_partial_files(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_partial(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a name is one that [`replace_file`] makes: `.NAME.PROCESS.partial`.
fn is_partial(name: &str) -> bool {
    let inner = name.strip_prefix(PARTIAL.0).and_then(|name| name.strip_suffix(PARTIAL.1));
    let process = inner.and_then(|inner| inner.rsplit_once('.')).map(|(_, process)| process);
    process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether there is anything of that name, even a link to nothing.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The first of several names that is there, in a directory.
pub(crate) fn first_there(directory: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| directory.join(name)).find(|path| is_there(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_partial_files_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let kept = [".partial", "a.1.partial", ".a.x.partial", ".a..partial", ".a.1.part", "log.jsonl"];
        for name in kept.iter().chain(&[".checkpoint.safetensors.4711.partial", ".log.jsonl.1.partial"]) {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_partial_files(directory.path()).unwrap();
        let mut left: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut kept = kept.map(str::to_owned).to_vec();
        left.sort();
        kept.sort();
        assert_eq!(left, kept);
    }

    #[test]
    fn a_directory_is_locked_once() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        assert!(lock.is_some());
        assert!(DirectoryLock::take(directory.path()).unwrap().is_none());
        drop(lock);
        assert!(DirectoryLock::take(directory.path()).unwrap().is_some());
    }
}
