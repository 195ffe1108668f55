//! Collections of music in three sets: directories and archives of MIDI files, single files, published pickles.
//!
//! A MIDI file belongs to the set that a directory on its way is named after (`train`, `valid`, `test`), else to the
//! training set, and the files of a set are sorted by name. What a file is decides its content; gzipped files are
//! unpacked on the way. Sizes are bounded, so a hostile archive is refused before it fills the memory.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::{MAX_FRAMES, PianoRoll, Sampling, TuneSet, generate_tunes, read_midi};
use crate::count::Counted;
use crate::pickle::{Items, Pickle, read_pickles};
use crate::{DataError, DataFile};

/// The most frames that a collection may have in all.
pub const MAX_TOTAL_FRAMES: usize = 1 << 23;

/// The largest MIDI file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 24;
/// The largest unpacked archive, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 1 << 28;
/// Directories inside directories that are looked into.
const MAX_DEPTH: usize = 8;
/// The archive that a directory stands for when it holds no MIDI file.
const ARCHIVE: &str = "Nottingham.tar.gz";
/// The three sets as the published data name them.
const SETS: [&str; 3] = ["train", "valid", "test"];

/// Numbers of pieces in the three sets of a [`Songbook`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MusicSizes {
    /// Pieces to learn from.
    pub train: usize,
    /// Pieces for validation.
    pub valid: usize,
    /// Pieces for the test.
    pub test: usize,
}

/// Pieces of music in the three sets of a training run; the training set has at least one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Songbook {
    /// Pieces to learn from.
    pub train: Vec<PianoRoll>,
    /// Pieces for validation; there may be none.
    pub valid: Vec<PianoRoll>,
    /// Pieces for the test; there may be none.
    pub test: Vec<PianoRoll>,
    /// How the music was cut into frames.
    pub sampling: Sampling,
    /// Where the music comes from, for the log.
    pub origin: String,
}

impl Songbook {
    /// Reads `path`: a MIDI file, a tar archive of such files, a pickle of piano-rolls (all of them gzipped or not), or a
    /// directory with MIDI files in it or below it; a directory without any stands for the `Nottingham.tar.gz` in it.
    ///
    /// Pickles hold frames already, so of the sampling only the keys apply to them.
    ///
    /// # Errors
    ///
    /// A [`DataError`] that says which file, where in it, and what was expected there.
    pub fn read(path: &Path, sampling: &Sampling) -> Result<Self, DataError> {
        let metadata =
            fs::metadata(path).map_err(|source| DataError::Open { path: path.to_owned(), source })?;
        let mut collection = Collection { path, sampling, sets: Default::default(), frames: 0 };
        if metadata.is_dir() {
            let mut files = Vec::new();
            find_midi_files(path, MAX_DEPTH, &mut files)?;
            let archive = path.join(ARCHIVE);
            if files.is_empty() && archive.is_file() {
                return Self::read(&archive, sampling);
            }
            files.sort();
            for file in files {
                let bytes = read_whole(&mut DataFile::open(&file)?, &file, MAX_FILE_BYTES)?;
                let inside = file.strip_prefix(path).unwrap_or(&file);
                collection.add_midi(set_of(inside), file.clone(), &bytes)?;
            }
        } else {
            collection.read_file()?;
        }
        let [train, valid, test] = collection.sets;
        if train.iter().all(|roll| roll.frames() == 0) {
            let expected =
                "at least one note in a MIDI file (.mid), a tar archive of them, or a pickle of piano-rolls";
            return Err(layout(path, "training music", expected, "none"));
        }
        let origin = path.display().to_string();
        Ok(Self { train, valid, test, sampling: sampling.clone(), origin })
    }

    /// Generates simple tunes: the same ones for the same `seed` on every machine.
    #[must_use]
    pub fn generate(seed: u32, sizes: MusicSizes, sampling: &Sampling) -> Self {
        let set = |set, count| generate_tunes(seed, set, count, sampling);
        Self {
            train: set(TuneSet::Train, sizes.train),
            valid: set(TuneSet::Valid, sizes.valid),
            test: set(TuneSet::Test, sizes.test),
            sampling: sampling.clone(),
            origin: format!("generated tunes, seed {seed}"),
        }
    }

    /// Numbers of pieces in the three sets.
    #[must_use]
    pub fn sizes(&self) -> MusicSizes {
        MusicSizes { train: self.train.len(), valid: self.valid.len(), test: self.test.len() }
    }

    /// CRC-32 of all lengths and cells: runs with the same one see the same music, wherever it comes from.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        for set in [&self.train, &self.valid, &self.test] {
            crc.update(&(set.len() as u64).to_le_bytes());
            for roll in set {
                crc.update(&(roll.frames() as u64).to_le_bytes());
                crc.update(roll.cells());
            }
        }
        crc.sum()
    }
}

/// Adds the MIDI files in a directory and below it.
fn find_midi_files(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let error = |source| DataError::Open { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(error)? {
        let entry = entry.map_err(error)?;
        let path = entry.path();
        // Links to directories are not followed: they may lead in circles.
        if entry.file_type().map_err(error)?.is_dir() {
            if depth > 0 {
                find_midi_files(&path, depth - 1, files)?;
            }
        } else if is_midi_name(&path) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn is_midi_name(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    !hidden && extension.is_some_and(|extension| extension == "mid" || extension == "midi")
}

/// The number of the set that a path inside a collection belongs to.
fn set_of(inside: &Path) -> usize {
    let directories = inside.parent().into_iter().flat_map(Path::components);
    let number = |component: Component<'_>| SETS.iter().position(|set| component.as_os_str() == *set);
    directories.filter_map(number).next_back().unwrap_or(0)
}

/// The content of a source from where it stands, refused when it is larger than `limit` bytes.
fn read_whole(source: &mut DataFile, path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let bytes = source.read_up_to(limit + 1)?;
    if bytes.len() as u64 > limit {
        return Err(layout(path, "size", &format!("at most {limit} bytes, uncompressed"), "more"));
    }
    Ok(bytes)
}

/// What has been read so far.
struct Collection<'a> {
    path: &'a Path,
    sampling: &'a Sampling,
    sets: [Vec<PianoRoll>; 3],
    frames: usize,
}

impl Collection<'_> {
    fn add(&mut self, set: usize, roll: PianoRoll) -> Result<(), DataError> {
        self.frames += roll.frames();
        self.check_frames()?;
        self.sets[set].push(roll);
        Ok(())
    }

    fn check_frames(&self) -> Result<(), DataError> {
        if self.frames > MAX_TOTAL_FRAMES {
            let expected = format!("at most {MAX_TOTAL_FRAMES} frames");
            return Err(layout(self.path, "length of all music", &expected, "more"));
        }
        Ok(())
    }

    fn add_midi(&mut self, set: usize, path: PathBuf, bytes: &[u8]) -> Result<(), DataError> {
        let roll = read_midi(bytes, self.sampling).map_err(|source| DataError::Midi { path, source })?;
        self.add(set, roll)
    }

    /// Reads a file that is not a directory, whatever it is.
    fn read_file(&mut self) -> Result<(), DataError> {
        const TAR_MAGIC: std::ops::Range<usize> = 257..262;
        let mut source = DataFile::open(self.path)?;
        let head = source.read_up_to(512)?;
        if head.first() == Some(&0x80) {
            // The protocol opcode, with which every pickle since protocol 2 begins.
            return self.add_pickle();
        }
        let is_archive = head.get(TAR_MAGIC) == Some(b"ustar");
        if !is_archive && !head.starts_with(b"MThd") && !is_midi_name(self.path) {
            let expected = "a MIDI file, a tar archive of MIDI files, or a pickle of protocol 2 or later";
            let found = match head.len() {
                0 => "an empty file".to_owned(),
                _ => format!("a file that begins with \"{}\"", head[..head.len().min(8)].escape_ascii()),
            };
            return Err(layout(self.path, "kind of the file", expected, found));
        }
        let limit = if is_archive { MAX_ARCHIVE_BYTES } else { MAX_FILE_BYTES };
        let rest = read_whole(&mut source, self.path, limit)?;
        let bytes = [head, rest].concat();
        if is_archive { self.add_archive(&bytes) } else { self.add_midi(0, self.path.to_owned(), &bytes) }
    }

    fn add_archive(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        let damaged = |number: usize, error: std::io::Error| {
            let what = format!("entry {number} of the tar archive (from 1)");
            layout(self.path, &what, "a whole entry", error)
        };
        let mut archive = tar::Archive::new(bytes);
        let mut files = Vec::new();
        let entries = archive.entries().map_err(|error| damaged(1, error))?;
        for (number, entry) in (1..).zip(entries) {
            let mut entry = entry.map_err(|error| damaged(number, error))?;
            let inside = entry.path().map_err(|error| damaged(number, error))?.into_owned();
            if !entry.header().entry_type().is_file() || !is_midi_name(&inside) {
                continue;
            }
            if entry.size() > MAX_FILE_BYTES {
                let expected = format!("at most {MAX_FILE_BYTES} bytes");
                return Err(layout(&self.path.join(inside), "size", &expected, entry.size()));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|error| damaged(number, error))?;
            if content.len() as u64 != entry.size() {
                let expected = format!("{}, as the archive says", Counted(entry.size(), "byte"));
                return Err(layout(&self.path.join(inside), "size", &expected, content.len()));
            }
            files.push((inside, content));
        }
        files.sort();
        for (inside, content) in files {
            self.add_midi(set_of(&inside), self.path.join(&inside), &content)?;
        }
        Ok(())
    }

    /// The published layout: a dictionary of the sets, each a list of pieces, each a list of chords of MIDI numbers.
    fn add_pickle(&mut self) -> Result<(), DataError> {
        let documents = read_pickles(self.path)?;
        let [document] = documents.as_slice() else {
            return Err(layout(self.path, "number of pickles in the file", "1", documents.len()));
        };
        let expected = "a dictionary with the entries train, valid and test";
        let Pickle::Dict(sets) = document.root() else {
            return Err(layout(self.path, "content of the pickle", expected, document.root()));
        };
        for (number, name) in SETS.iter().enumerate() {
            let Some(set) = sets.get(name) else {
                return Err(layout(self.path, "content of the pickle", expected, format!("no {name}")));
            };
            let pieces = self.sequence(set, &[name])?;
            for (piece, frames) in pieces.iter().enumerate() {
                let piece = piece.to_string();
                let frames = self.sequence(frames, &[name, &piece])?;
                if frames.len() > MAX_FRAMES {
                    let expected = format!("at most {MAX_FRAMES} frames");
                    let what = format!("piece {piece} of the {name} set");
                    return Err(layout(self.path, &what, &expected, frames.len()));
                }
                self.frames += frames.len();
                self.check_frames()?;
                let mut roll = PianoRoll::silent(self.sampling.keys.clone(), frames.len());
                for (frame, chord) in frames.iter().enumerate() {
                    for key in self.sequence(chord, &[name, &piece, &frame.to_string()])?.iter() {
                        let Pickle::Int(number @ 0..128) = key else {
                            let what = format!("piece {piece} of the {name} set, frame {frame}");
                            return Err(layout(self.path, &what, "MIDI numbers from 0 to 127", key));
                        };
                        roll.hold(number as u8, frame..frame + 1);
                    }
                }
                self.sets[number].push(roll);
            }
        }
        Ok(())
    }

    fn sequence<'a>(&self, value: Pickle<'a>, place: &[&str]) -> Result<Items<'a>, DataError> {
        match value {
            Pickle::List(items) | Pickle::Tuple(items) => Ok(items),
            Pickle::None
            | Pickle::Bool(_)
            | Pickle::Int(_)
            | Pickle::Float(_)
            | Pickle::Bytes(_)
            | Pickle::Text(_)
            | Pickle::Dict(_)
            | Pickle::Array(_)
            | Pickle::Name(_) => {
                let what = format!("entry {} of the pickle", place.join("."));
                Err(layout(self.path, &what, "a list or tuple", value))
            }
        }
    }
}

fn layout(path: &Path, what: &str, expected: &str, found: impl ToString) -> DataError {
    DataError::Layout {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}
