//! Generated tunes with chords: music to learn from that needs no download.
//!
//! A tune is in a major or minor key and in 4/4 or 3/4 time, in the form AABA: each part is four bars over one of a few
//! usual chord progressions. Chords are held in the lower half of the keyboard; above them a melody takes a tone of the
//! chord on each strong beat and mostly steps of the scale between. Tune `i` of a set depends on the seed, the set and `i`
//! alone, so sets of any size are beginnings of one another. Only integers are drawn: the tunes are the same everywhere.

use super::{PianoRoll, Sampling};
use crate::numpy::RandomState;

/// One of the independent sets of tunes of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TuneSet {
    /// Tunes to learn from.
    Train,
    /// Tunes for validation.
    Valid,
    /// Tunes for the test.
    Test,
}

const BARS: usize = 4;

const MAJOR: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];
const MINOR: [i32; 7] = [0, 2, 3, 5, 7, 8, 10];

/// Degrees of the scale, from 0, on which the chords of four bars stand; the last one leads to or is the first degree.
const PROGRESSIONS: [[i32; BARS]; 6] =
    [[0, 3, 4, 0], [0, 5, 3, 4], [0, 4, 5, 3], [5, 3, 0, 4], [0, 1, 4, 0], [3, 4, 0, 0]];
/// Lengths of the notes of a bar in eighths.
const RHYTHMS_OF_FOUR: [&[usize]; 6] =
    [&[2, 2, 2, 2], &[2, 1, 1, 2, 2], &[3, 1, 2, 2], &[4, 2, 2], &[1, 1, 2, 1, 1, 2], &[2, 2, 4]];
const RHYTHMS_OF_THREE: [&[usize]; 5] = [&[2, 2, 2], &[4, 2], &[2, 1, 1, 2], &[3, 1, 2], &[1, 1, 1, 1, 2]];

/// The first `count` tunes of a set, one frame of the sampling an eighth note.
#[must_use]
pub fn generate_tunes(seed: u32, set: TuneSet, count: usize, sampling: &Sampling) -> Vec<PianoRoll> {
    (0..count).map(|index| compose(&mut Rng::new(seed, set, index), sampling)).collect()
}

/// Draws of whole numbers.
struct Rng(RandomState);

impl Rng {
    fn new(seed: u32, set: TuneSet, index: usize) -> Self {
        let set = match set {
            TuneSet::Train => 0,
            TuneSet::Valid => 1,
            TuneSet::Test => 2,
        };
        Self(RandomState::from_key(&[seed, set, index as u32, 0x7475_6e65]))
    }

    /// A number from 0 up to, not including, `count`, which is small.
    fn below(&mut self, count: usize) -> usize {
        ((u64::from(self.0.next_u32()) * count as u64) >> 32) as usize
    }

    fn choose<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }
}

/// What all parts of a tune have in common.
struct Style {
    tonic: i32,
    scale: [i32; 7],
    rhythms: &'static [&'static [usize]],
    eighths: usize,
}

impl Style {
    /// The MIDI number of a degree of the scale above the tonic; degrees go on through all octaves.
    fn key(&self, degree: i32) -> i32 {
        self.tonic + 12 * degree.div_euclid(7) + self.scale[degree.rem_euclid(7) as usize]
    }
}

/// A note: first frame, frames, MIDI number.
type Note = (usize, usize, i32);

fn compose(rng: &mut Rng, sampling: &Sampling) -> PianoRoll {
    let three = rng.below(3) == 0;
    let style = Style {
        // Usual keys around middle C: the melody lies above, the chords below.
        tonic: 60 + rng.choose(&[0, 2, -5, -3, 5 - 12, -2]),
        scale: if rng.below(4) == 0 { MINOR } else { MAJOR },
        rhythms: if three { &RHYTHMS_OF_THREE } else { &RHYTHMS_OF_FOUR },
        eighths: if three { 6 } else { 8 },
    };
    let first = compose_part(rng, &style, true);
    let second = compose_part(rng, &style, false);
    let part_frames = BARS * style.eighths;
    let mut roll = PianoRoll::silent(sampling.keys.clone(), 4 * part_frames);
    for (number, part) in [&first, &first, &second, &first].into_iter().enumerate() {
        for &(start, frames, key) in part {
            let start = number * part_frames + start;
            // Keys outside of what a byte holds are outside of any keyboard.
            if let Ok(key) = u8::try_from(key) {
                roll.hold(key, start..start + frames);
            }
        }
    }
    roll
}

/// Four bars; a part that closes ends on the tonic.
fn compose_part(rng: &mut Rng, style: &Style, closes: bool) -> Vec<Note> {
    let mut progression = rng.choose(&PROGRESSIONS);
    if closes {
        progression[BARS - 1] = 0;
    }
    let rhythms = [rng.choose(style.rhythms), rng.choose(style.rhythms)];
    let mut notes = Vec::new();
    // Degrees count from the tonic; the melody begins in the octave above it.
    let mut degree = 7 + rng.choose(&[0, 2, 4]);
    for (bar, root) in progression.into_iter().enumerate() {
        let start = bar * style.eighths;
        // Held for the whole bar, the fundamental an octave lower.
        for step in [-7, 0, 2, 4] {
            notes.push((start, style.eighths, style.key(root - 7 + step)));
        }
        let last_bar = closes && bar + 1 == BARS;
        let rhythm: &[usize] = if last_bar { &[] } else { rhythms[bar % 2] };
        let mut position = 0;
        for &eighths in rhythm {
            degree = if position % 4 == 0 { chord_tone(degree, root) } else { step(rng, degree) };
            // A gap lets a repeated tone be heard again where there is room for it.
            let frames = eighths - usize::from(eighths > 2);
            notes.push((start + position, frames, style.key(degree)));
            position += eighths;
        }
        if last_bar {
            notes.push((start, style.eighths - 1, style.key(7)));
        }
    }
    notes
}

/// The degree nearest to `degree` that is of the chord on `root`.
fn chord_tone(degree: i32, root: i32) -> i32 {
    let is_of_chord = |degree: i32| matches!((degree - root).rem_euclid(7), 0 | 2 | 4);
    let near = [0, -1, 1, -2, 2].map(|step| degree + step);
    near.into_iter().find(|degree| is_of_chord(*degree)).unwrap_or(degree)
}

/// A step of the melody, mostly to a neighbour, turned back at the ends of its compass.
fn step(rng: &mut Rng, degree: i32) -> i32 {
    let step = rng.choose(&[-2, -1, -1, -1, 1, 1, 1, 2]);
    if (4..=15).contains(&(degree + step)) { degree + step } else { degree - step }
}
