//! Polyphonic music as piano-rolls: data for models of sequences, and what such models play.
//!
//! A [`PianoRoll`] says for each key of a range and each short stretch of time whether the key sounds. Rolls come from
//! MIDI files, from the published pickles, or from [`generate_tunes`], and go to MIDI files. Whatever a file
//! contains, the outcome is a value or a [`DataError`](crate::DataError). Loudness, instruments and pedals are
//! deliberately absent.

mod collection;
mod midi;
mod tunes;

use std::ops::Range;

pub use collection::{MAX_TOTAL_FRAMES, MusicSizes, Songbook};
pub use midi::{MAX_FRAMES, MidiError, TempoMap, read_midi, write_midi};
pub use tunes::{TuneSet, generate_tunes};

/// The MIDI numbers of the keys of a piano, A0 to C8, as the RNN-RBM tutorial counts them.
pub const PIANO: Range<u8> = 21..109;

/// How music is cut into a [`PianoRoll`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// The MIDI numbers of the keys that are kept; at most 128.
    pub keys: Range<u8>,
    /// Seconds of a frame.
    pub frame_seconds: f64,
    /// How changes of tempo in one track are taken in the others.
    pub tempo_map: TempoMap,
}

impl Default for Sampling {
    /// The piano in frames of 0.3 seconds with the tempo of the RNN-RBM tutorial's reader.
    fn default() -> Self {
        Self { keys: PIANO, frame_seconds: 0.3, tempo_map: TempoMap::Sequential }
    }
}

/// Which keys sound in which frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PianoRoll {
    keys: Range<u8>,
    frames: usize,
    /// 1 where a key sounds, else 0; row-major of shape `[frames, keys]`.
    cells: Vec<u8>,
}

impl PianoRoll {
    /// A silent roll of so many frames.
    #[must_use]
    pub fn silent(keys: Range<u8>, frames: usize) -> Self {
        let cells = vec![0; frames * keys.len()];
        Self { keys, frames, cells }
    }

    /// The roll of generated values `[frames, keys]` in row-major order, where all above one half sounds.
    ///
    /// Values after the last whole frame are left out.
    #[must_use]
    pub fn from_values(keys: Range<u8>, values: &[f32]) -> Self {
        let frames = values.len().checked_div(keys.len()).unwrap_or(0);
        let cells = values[..frames * keys.len()].iter().map(|value| u8::from(*value > 0.5)).collect();
        Self { keys, frames, cells }
    }

    /// The MIDI numbers of its keys.
    #[must_use]
    pub fn keys(&self) -> Range<u8> {
        self.keys.clone()
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// All cells, 1 where a key sounds and else 0, shape `[frames, keys]` in row-major order.
    #[must_use]
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// Whether the key of that MIDI number sounds in a frame; a key or frame that is not there is silent.
    #[must_use]
    pub fn sounds(&self, frame: usize, key: u8) -> bool {
        frame < self.frames
            && self.keys.contains(&key)
            && self.cells[frame * self.keys.len() + usize::from(key - self.keys.start)] != 0
    }

    /// The MIDI numbers of the keys that sound in a frame, from the lowest.
    pub fn chord(&self, frame: usize) -> impl Iterator<Item = u8> + '_ {
        self.keys.clone().filter(move |key| self.sounds(frame, *key))
    }

    /// Lets a key sound in some frames; what is outside of the roll is left out.
    pub(crate) fn hold(&mut self, key: u8, frames: Range<usize>) {
        if self.keys.contains(&key) {
            let (width, column) = (self.keys.len(), usize::from(key - self.keys.start));
            for frame in frames.start..frames.end.min(self.frames) {
                self.cells[frame * width + column] = 1;
            }
        }
    }
}
