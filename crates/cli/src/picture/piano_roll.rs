//! Piano-rolls as pictures: time to the right, pitch upwards.

use hypatia_datasets::music::PianoRoll;

use super::{Colours, Picture};

/// Pixels of a cell in width, the last one of them a gap where a note ends.
const CELL_WIDTH: usize = 5;
/// Pixels of a cell in height, the lowest of them a line between keys.
const CELL_HEIGHT: usize = 7;
/// Frames between upright lines.
const FRAMES_PER_LINE: usize = 10;

const WHITE_KEY: [u8; 3] = [252, 252, 250];
const BLACK_KEY: [u8; 3] = [238, 238, 236];
const KEY_LINE: [u8; 3] = [228, 228, 226];
const OCTAVE_LINE: [u8; 3] = [150, 150, 150];
const TIME_LINE: [u8; 3] = [205, 205, 203];
const NOTE: [u8; 3] = [24, 84, 166];
const NOTE_EDGE: [u8; 3] = [12, 46, 96];

/// The roll as a colour picture: a row of 7 pixels for each key, the highest on top, and 5 pixels for each frame.
///
/// The rows of black keys are shaded, a dark line lies below every C, an upright line before every tenth frame. A roll
/// without frames or keys gives a picture without pixels, which cannot be stored.
#[must_use]
pub fn draw_piano_roll(roll: &PianoRoll) -> Picture {
    let keys = roll.keys();
    let (height, width) = (keys.len() * CELL_HEIGHT, roll.frames() * CELL_WIDTH);
    let mut bytes = Vec::with_capacity(height * width * 3);
    for key in keys.rev() {
        for y in 0..CELL_HEIGHT {
            for x in 0..width {
                bytes.extend(pixel(roll, key, x / CELL_WIDTH, x % CELL_WIDTH, y));
            }
        }
    }
    Picture { height, width, colours: Colours::Rgb, bytes }
}

fn pixel(roll: &PianoRoll, key: u8, frame: usize, x: usize, y: usize) -> [u8; 3] {
    let last_row = y + 1 == CELL_HEIGHT;
    if roll.sounds(frame, key) && !last_row {
        let starts = frame == 0 || !roll.sounds(frame - 1, key);
        return if starts && x == 0 { NOTE_EDGE } else { NOTE };
    }
    match key % 12 {
        0 if last_row => OCTAVE_LINE,
        _ if x == 0 && frame.is_multiple_of(FRAMES_PER_LINE) => TIME_LINE,
        _ if last_row => KEY_LINE,
        1 | 3 | 6 | 8 | 10 => BLACK_KEY,
        _ => WHITE_KEY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypatia_datasets::music::PIANO;

    #[test]
    fn a_picture_shows_each_note_at_its_place() {
        let mut values = vec![0.0; 3 * PIANO.len()];
        values[0] = 1.0;
        values[2 * 88 + 87] = 1.0;
        let picture = draw_piano_roll(&PianoRoll::from_values(PIANO, &values));
        assert_eq!((picture.height, picture.width), (88 * 7, 15));
        let pixel = |x: usize, y: usize| &picture.bytes[(y * 15 + x) * 3..][..3];
        let note = pixel(3, 87 * 7);
        assert!(note[2] > 100 && note[0] < 60, "{note:?}");
        assert_eq!(pixel(12, 0), note);
        assert!(pixel(7, 87 * 7)[0] > 150 && pixel(2, 0)[0] > 150);
    }
}
