//! Standard MIDI Files to piano-rolls and back.
//!
//! Formats 0 and 1 are read, with tempo maps or SMPTE time; format 2, whose tracks are separate pieces, is refused. A
//! note sounds from the first frame that begins at or after its start up to the first one that begins at or after its
//! end, as in the reader of the RNN-RBM tutorial, whose piano-rolls come out cell for cell. A file that is cut off or
//! damaged is refused, not guessed at.

use std::fmt::Write;

use midly::{MetaMessage, MidiMessage, TrackEvent, TrackEventKind, TrackIter};
use thiserror::Error;

use super::{PianoRoll, Sampling};
use crate::count::Counted;

/// The longest roll that is read, in frames: 43 hours at 0.3 seconds.
pub const MAX_FRAMES: usize = 1 << 19;

/// Microseconds of a quarter note until the file says otherwise.
const DEFAULT_TEMPO: f64 = 500_000.0;
/// Bytes of the header chunk.
const HEADER_BYTES: usize = 14;
/// Ticks of a written frame, which is a quarter note.
const FRAME_TICKS: u32 = 480;

/// How changes of tempo in one track are taken in the others. Without changes after the beginning both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TempoMap {
    /// Tracks are read one after another and each begins with the tempo, and its origin in time, at which the one before
    /// ended: the reader of the RNN-RBM tutorial.
    #[default]
    Sequential,
    /// The changes of all tracks hold for all of them at their time, as the format defines it.
    Merged,
}

/// Why bytes are no music.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum MidiError {
    /// The file does not begin as a MIDI file does.
    #[error("byte {offset}: {what}: expected {expected}, found {found}")]
    Header {
        /// Offset of the field in the file.
        offset: usize,
        /// The field.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Fewer tracks than the header says.
    #[error(
        "expected {}, as the header says, found {found} and the end of the file",
        Counted(*expected, "track")
    )]
    Tracks {
        /// Tracks by the header.
        expected: u16,
        /// Tracks in the file.
        found: usize,
    },
    /// A chunk that is longer than the file, or no chunk.
    #[error(
        "byte {offset}, after {}: expected a whole chunk, found {}: {bytes}",
        Counted(*tracks, "track"), Counted(*left, "byte")
    )]
    Chunk {
        /// Offset of the chunk in the file.
        offset: usize,
        /// Tracks before it.
        tracks: usize,
        /// Bytes from there to the end of the file.
        left: usize,
        /// The first bytes of the chunk.
        bytes: String,
    },
    /// Bytes that are no event.
    #[error("byte {offset}, track {track}: expected an event, found {bytes}")]
    Event {
        /// Offset of the event in the file.
        offset: usize,
        /// The track, from 1.
        track: usize,
        /// The first bytes of the event.
        bytes: String,
    },
    /// Music that never ends.
    #[error(
        "expected music of at most {MAX_FRAMES} frames, found a note that ends after {seconds:.0} seconds"
    )]
    TooLong {
        /// End of the note.
        seconds: f64,
    },
    /// A sampling by which nothing can be read.
    #[error("expected frames of more than 0 seconds and keys below 128, found {0:?}")]
    Sampling(Sampling),
}

/// Reads a Standard MIDI File.
///
/// The roll is as long as the last note that ends; notes that never end and notes outside of the keys are left out. The
/// order of arithmetic is that of the tutorial's `midiread`: `t0 + tempo * (tick - tick0) / 1e6 / division` seconds.
///
/// # Errors
///
/// A [`MidiError`] with the offset in `bytes`, whatever these contain.
pub fn read_midi(bytes: &[u8], sampling: &Sampling) -> Result<PianoRoll, MidiError> {
    let Sampling { keys, frame_seconds, tempo_map } = sampling.clone();
    if !(frame_seconds > 0.0 && frame_seconds.is_finite() && keys.end <= 128) {
        return Err(MidiError::Sampling(sampling.clone()));
    }
    let header = Header::read(bytes)?;
    let tracks = read_tracks(bytes, &header)?;
    let mut clock = Clock::new(header.division);
    if tempo_map == TempoMap::Merged {
        let changes = tracks.iter().flat_map(|track| &track.tempos);
        clock.change(changes.copied().collect());
    }
    let mut roll_end = 0.0_f64;
    let mut notes = Vec::new();
    for track in tracks {
        if tempo_map == TempoMap::Sequential {
            clock.restart();
            clock.change(track.tempos);
        }
        for note in track.notes {
            let Some(end) = note.end else { continue };
            let (start, end) = (clock.seconds(note.start), clock.seconds(end));
            roll_end = roll_end.max(end);
            notes.push((note.key, start, end));
        }
    }
    // A frame boundary: the first frame that begins at or after this time.
    let boundary = |seconds: f64| (seconds / frame_seconds).ceil();
    if boundary(roll_end) > MAX_FRAMES as f64 {
        return Err(MidiError::TooLong { seconds: roll_end });
    }
    let mut roll = PianoRoll::silent(keys, boundary(roll_end) as usize);
    for (key, start, end) in notes {
        roll.hold(key, boundary(start) as usize..boundary(end) as usize);
    }
    Ok(roll)
}

/// How ticks become time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Division {
    /// So many ticks a quarter note.
    Quarter(f64),
    /// So many ticks a second.
    Second(f64),
}

struct Header {
    tracks: u16,
    division: Division,
    /// Offset of the first chunk after the header.
    end: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, MidiError> {
        let error = |offset, what, expected, found| MidiError::Header { offset, what, expected, found };
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(error(
                0,
                "header",
                "14 bytes",
                format!("a file of {}", Counted(bytes.len(), "byte")),
            ));
        };
        if !head.starts_with(b"MThd") {
            return Err(error(0, "kind of the file", "4d 54 68 64 (\"MThd\")", show_bytes(&head[..4])));
        }
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let end = length.checked_add(8).filter(|end| length >= 6 && *end <= bytes.len());
        let Some(end) = end else {
            let expected = "6 or more bytes that are in the file";
            return Err(error(4, "length of the header", expected, length.to_string()));
        };
        let format = word(8);
        if format > 1 {
            let expected = "0 or 1 (tracks that sound together)";
            return Err(error(8, "format", expected, format.to_string()));
        }
        let [rate, parts] = word(12).to_be_bytes();
        let division = if rate < 0x80 {
            Division::Quarter(f64::from(word(12)))
        } else {
            // A negative number of SMPTE frames a second; 29 stands for 30 / 1.001.
            match rate.cast_signed() {
                -24 => Division::Second(24.0 * f64::from(parts)),
                -25 => Division::Second(25.0 * f64::from(parts)),
                -29 => Division::Second(30.0 / 1.001 * f64::from(parts)),
                -30 => Division::Second(30.0 * f64::from(parts)),
                _ => {
                    let expected = "-24, -25, -29 or -30 SMPTE frames a second";
                    return Err(error(12, "division", expected, rate.cast_signed().to_string()));
                }
            }
        };
        if matches!(division, Division::Quarter(0.0) | Division::Second(0.0)) {
            return Err(error(12, "division", "at least one tick", "0".to_owned()));
        }
        Ok(Self { tracks: word(10), division, end })
    }
}

/// A note of a track, in ticks from the beginning.
struct Note {
    key: u8,
    start: u64,
    end: Option<u64>,
}

#[derive(Default)]
struct Track {
    notes: Vec<Note>,
    /// Tick and microseconds of a quarter note from there on.
    tempos: Vec<(u64, f64)>,
}

fn read_tracks(bytes: &[u8], header: &Header) -> Result<Vec<Track>, MidiError> {
    let mut chunks = TrackIter::new(&bytes[header.end..]);
    let mut tracks: Vec<Track> = Vec::new();
    loop {
        let unread = chunks.unread();
        let Some(events) = chunks.next() else { break };
        let Ok(mut events) = events else {
            let (offset, left) = (bytes.len() - unread.len(), unread.len());
            return Err(MidiError::Chunk { offset, tracks: tracks.len(), left, bytes: show_bytes(unread) });
        };
        // Where the chunk ends is where the next one is read from.
        let end = bytes.len() - chunks.unread().len();
        let mut track = Track::default();
        let mut open = [[None; 128]; 16];
        let mut status = None;
        let mut tick = 0_u64;
        loop {
            let unread = events.unread();
            match events.next() {
                None => break,
                Some(Ok(event)) => {
                    tick = tick.saturating_add(u64::from(event.delta.as_int()));
                    track.take(tick, &event, &mut open);
                    // Text, tempo and their like stand between messages and leave the status as it was.
                    match event.kind {
                        TrackEventKind::Meta(_) => *events.running_status_mut() = status,
                        TrackEventKind::Midi { .. }
                        | TrackEventKind::SysEx(_)
                        | TrackEventKind::Escape(_) => {
                            status = events.running_status();
                        }
                    }
                }
                Some(Err(_)) => {
                    let (offset, bytes) = (end - unread.len(), show_bytes(unread));
                    return Err(MidiError::Event { offset, track: tracks.len() + 1, bytes });
                }
            }
        }
        tracks.push(track);
    }
    if tracks.len() < usize::from(header.tracks) {
        return Err(MidiError::Tracks { expected: header.tracks, found: tracks.len() });
    }
    Ok(tracks)
}

impl Track {
    /// Takes an event; `open` has for each channel and key its latest note.
    fn take(&mut self, tick: u64, event: &TrackEvent<'_>, open: &mut [[Option<usize>; 128]; 16]) {
        match event.kind {
            TrackEventKind::Midi { channel, message: MidiMessage::NoteOn { key, vel } }
                if vel.as_int() > 0 =>
            {
                open[usize::from(channel.as_int())][usize::from(key.as_int())] = Some(self.notes.len());
                self.notes.push(Note { key: key.as_int(), start: tick, end: None });
            }
            TrackEventKind::Midi {
                channel,
                message: MidiMessage::NoteOn { key, .. } | MidiMessage::NoteOff { key, .. },
            } => {
                if let Some(note) = open[usize::from(channel.as_int())][usize::from(key.as_int())].take() {
                    self.notes[note].end = Some(tick);
                }
            }
            TrackEventKind::Meta(MetaMessage::Tempo(tempo)) => {
                self.tempos.push((tick, f64::from(tempo.as_int())));
            }
            TrackEventKind::Midi { .. }
            | TrackEventKind::SysEx(_)
            | TrackEventKind::Escape(_)
            | TrackEventKind::Meta(_) => {}
        }
    }
}

/// A stretch of constant tempo, whose origin may lie after it.
#[derive(Clone, Copy)]
struct Stretch {
    /// The first tick that it holds for.
    from: u64,
    /// Tick and seconds of its origin.
    tick: u64,
    seconds: f64,
    tempo: f64,
}

/// Ticks to seconds by a tempo map.
struct Clock {
    division: Division,
    /// The first one is from tick 0 on.
    stretches: Vec<Stretch>,
}

impl Clock {
    fn new(division: Division) -> Self {
        Self { division, stretches: vec![Stretch { from: 0, tick: 0, seconds: 0.0, tempo: DEFAULT_TEMPO }] }
    }

    /// Lets the last stretch hold from the beginning on.
    fn restart(&mut self) {
        if let Some(last) = self.stretches.pop() {
            self.stretches = vec![Stretch { from: 0, ..last }];
        }
    }

    /// Takes changes of tempo into the map.
    fn change(&mut self, mut changes: Vec<(u64, f64)>) {
        // The sort is stable: of changes at one tick the last one holds.
        changes.sort_by_key(|(tick, _)| *tick);
        for (tick, tempo) in changes {
            let seconds = self.seconds(tick);
            self.stretches.push(Stretch { from: tick, tick, seconds, tempo });
        }
    }

    fn seconds(&self, tick: u64) -> f64 {
        let division = match self.division {
            Division::Second(ticks) => return tick as f64 / ticks,
            Division::Quarter(ticks) => ticks,
        };
        let number = self.stretches.partition_point(|stretch| stretch.from <= tick).saturating_sub(1);
        let Stretch { tick: origin, seconds, tempo, .. } = self.stretches[number];
        seconds + tempo * (tick as f64 - origin as f64) / 1e6 / division
    }
}

/// Up to eight bytes in hexadecimal.
fn show_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, byte) in bytes.iter().take(8).enumerate() {
        let separator = if number == 0 { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{byte:02x}");
    }
    if bytes.is_empty() {
        text.push_str("none");
    } else if bytes.len() > 8 {
        text.push_str(" ...");
    }
    text
}

/// The roll as a Standard MIDI File of format 0, played on a piano.
///
/// A frame is a quarter note of 480 ticks and `frame_seconds`; a key that sounds in neighbouring frames is held. Where
/// rounding would let [`read_midi`] take the beginning of a frame for the next one, a note starts or ends one tick
/// earlier, so that the roll reads back as it was up to the end of its last note. `frame_seconds` is rounded to
/// microseconds and kept below the 16.7 seconds that the format can say.
#[must_use]
pub fn write_midi(roll: &PianoRoll, frame_seconds: f64) -> Vec<u8> {
    let tempo = (frame_seconds * 1e6).round().clamp(1.0, f64::from(0xff_ffff)) as u32;
    let clock = Clock {
        division: Division::Quarter(f64::from(FRAME_TICKS)),
        stretches: vec![Stretch { from: 0, tick: 0, seconds: 0.0, tempo: f64::from(tempo) }],
    };
    let frame_tick = |frame: usize| {
        let tick = frame as u64 * u64::from(FRAME_TICKS);
        if (clock.seconds(tick) / frame_seconds).ceil() > frame as f64 {
            tick.saturating_sub(1)
        } else {
            tick
        }
    };
    let mut track = Vec::new();
    let [_, tempo @ ..] = tempo.to_be_bytes();
    track.extend([0, 0xff, 0x51, 3]);
    track.extend(tempo);
    track.extend([0, 0xc0, 0]);
    let mut last = 0;
    let mut event = |tick: u64, bytes: [u8; 3]| {
        push_delta(&mut track, tick - last);
        track.extend(bytes);
        last = tick;
    };
    for frame in 0..=roll.frames() {
        let tick = frame_tick(frame);
        let sounded = |key: &u8| frame > 0 && roll.sounds(frame - 1, *key);
        let sounds = |key: &u8| roll.sounds(frame, *key);
        for key in roll.keys().filter(|key| sounded(key) && !sounds(key)) {
            event(tick, [0x80, key, 64]);
        }
        for key in roll.keys().filter(|key| sounds(key) && !sounded(key)) {
            event(tick, [0x90, key, 90]);
        }
    }
    push_delta(&mut track, frame_tick(roll.frames()) - last);
    track.extend([0xff, 0x2f, 0]);

    let mut file = b"MThd\0\0\0\x06\0\0\0\x01".to_vec();
    file.extend((FRAME_TICKS as u16).to_be_bytes());
    file.extend(b"MTrk");
    file.extend((track.len() as u32).to_be_bytes());
    file.append(&mut track);
    file
}

/// A delta time: seven bits a byte, the highest first. The format ends at 28 bits, so a longer rest is divided by empty
/// texts.
fn push_delta(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x0fff_ffff {
        bytes.extend([0xff, 0xff, 0xff, 0x7f, 0xff, 0x01, 0]);
        value -= 0x0fff_ffff;
    }
    for shift in [21, 14, 7] {
        if value >> shift != 0 {
            bytes.push(0x80 | (value >> shift & 0x7f) as u8);
        }
    }
    bytes.push((value & 0x7f) as u8);
}
