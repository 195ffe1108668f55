//! Plain files only: a name may stand for a device, a pipe or a socket, which has no end or waits for somebody, so it is
//! looked at before it is opened.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

/// Opens a plain file for reading; the error of any other thing says what it is.
pub fn open_plain(path: &Path) -> io::Result<File> {
    expect_plain(fs::metadata(path)?.file_type())?;
    File::open(path)
}

/// The error that says what the name of another kind of file stands for.
pub fn expect_plain(kind: FileType) -> io::Result<()> {
    match name_of(kind) {
        None => Ok(()),
        Some(found) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("expected a plain file, found {found}")))
        }
    }
}

/// What a name that is no plain file stands for.
fn name_of(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a directory");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a pipe");
        } else if kind.is_socket() {
            return Some("a socket");
        } else if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    Some("something else")
}

/// The whole of a plain file of at most so many bytes.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let too_long = |found: u64| {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("expected at most {most} bytes, found {found} or more"),
        )
    };
    let file = open_plain(path)?;
    let length = file.metadata()?.len();
    if length > most {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    // A file that grows meanwhile is read no further than allowed.
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > most { Err(too_long(read as u64)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_bounded_and_of_plain_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read_plain(&path, 10).unwrap().len(), 10);
        assert_eq!(read_plain(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let found = |path: &Path| read_plain(path, 10).unwrap_err().to_string();
        assert_eq!(found(directory.path()), "expected a plain file, found a directory");
        #[cfg(unix)]
        {
            let link = directory.path().join("zero");
            std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
            assert_eq!(found(&link), "expected a plain file, found a device");
            let pipe = directory.path().join("pipe");
            assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            assert_eq!(found(&pipe), "expected a plain file, found a pipe");
        }
    }
}
