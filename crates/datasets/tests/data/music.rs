//! Music: MIDI files as others write them and as this project does, archives, pickles, tunes, and damage to all of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use hypatia_datasets::DataError;
use hypatia_datasets::music::{
    MusicSizes, PIANO, PianoRoll, Sampling, Songbook, TempoMap, TuneSet, generate_tunes, read_midi,
    write_midi,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sha2::{Digest, Sha256};

fn real(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/music").join(name);
    if !path.exists() {
        eprintln!("skipped: no {} here", path.display());
        return None;
    }
    Some(path)
}

/// A chunk of a Standard MIDI File.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [kind.as_slice(), &(content.len() as u32).to_be_bytes(), content].concat()
}

fn midi(format: u16, division: [u8; 2], tracks: &[&[u8]]) -> Vec<u8> {
    let [f0, f1] = format.to_be_bytes();
    let [t0, t1] = (tracks.len() as u16).to_be_bytes();
    let mut file = chunk(b"MThd", &[f0, f1, t0, t1, division[0], division[1]]);
    tracks.iter().for_each(|track| file.extend(chunk(b"MTrk", track)));
    file
}

const END: [u8; 4] = [0, 0xff, 0x2f, 0];

fn track(events: &[&[u8]]) -> Vec<u8> {
    [events.concat(), END.to_vec()].concat()
}

/// 480 ticks a quarter note.
const QUARTER: [u8; 2] = [1, 0xe0];
/// 240, 480 and 960 ticks as delta times: a quarter, half and one second at the tempo that holds from the beginning.
const T240: [u8; 2] = [0x81, 0x70];
const T480: [u8; 2] = [0x83, 0x60];
const T960: [u8; 2] = [0x87, 0x40];

fn event(delta: [u8; 2], message: &[u8]) -> Vec<u8> {
    [&delta, message].concat()
}

/// Each key that sounds, with its frames.
fn notes(roll: &PianoRoll) -> Vec<(u8, Vec<usize>)> {
    let frames = |key| (0..roll.frames()).filter(|frame| roll.sounds(*frame, key)).collect::<Vec<_>>();
    roll.keys().map(|key| (key, frames(key))).filter(|(_, frames)| !frames.is_empty()).collect()
}

fn quarter_seconds() -> Sampling {
    Sampling { frame_seconds: 0.25, ..Sampling::default() }
}

#[test]
fn notes_last_from_the_frame_of_their_start_to_that_of_their_end() {
    // Middle C from 0 to 0.5 s; by running status E from 0.5 to 1.5 s, ended by a note-on of velocity 0; the G that
    // never ends and the key below the piano are left out, but the latter's end at 2.5 s counts.
    let events = track(&[
        &[0, 0x90, 60, 90],
        &event(T480, &[0x80, 60, 0]),
        &[0, 0x90, 64, 90],
        &[0, 67, 90],
        &[0, 20, 90],
        &event(T960, &[64, 0]),
        &event(T960, &[20, 0]),
    ]);
    for (format, tracks) in [(0, vec![events.as_slice()]), (1, vec![&track(&[]), &events])] {
        let roll = read_midi(&midi(format, QUARTER, &tracks), &quarter_seconds()).unwrap();
        assert_eq!((roll.frames(), roll.keys()), (10, PIANO));
        assert_eq!(notes(&roll), [(60, vec![0, 1]), (64, vec![2, 3, 4, 5])]);
        assert_eq!(roll.chord(3).collect::<Vec<_>>(), [64]);
    }
    // In frames of 0.3 s: 0.5 s is within frame 1, so what begins there sounds from frame 2.
    let roll = read_midi(&midi(0, QUARTER, &[&events]), &Sampling::default()).unwrap();
    assert_eq!((roll.frames(), notes(&roll)), (9, vec![(60, vec![0, 1]), (64, vec![2, 3, 4])]));
}

#[test]
fn a_note_struck_again_begins_anew_and_an_end_without_a_note_is_nothing() {
    let events = track(&[
        &[0, 0x80, 60, 0],
        &[0, 0x90, 60, 90],
        &event(T240, &[60, 90]),
        &event(T240, &[60, 0]),
        &event(T240, &[60, 0]),
    ]);
    let roll = read_midi(&midi(0, QUARTER, &[&events]), &quarter_seconds()).unwrap();
    assert_eq!((roll.frames(), notes(&roll)), (2, vec![(60, vec![1])]));
}

/// Two channels play middle C; the end of the one does not end the other.
#[test]
fn notes_end_on_their_own_channel() {
    let events = track(&[
        &[0, 0x90, 60, 90],
        &[0, 0x91, 60, 90],
        &event(T480, &[0x81, 60, 0]),
        &event(T480, &[0x82, 60, 0]),
        &event(T480, &[0x90, 60, 0]),
    ]);
    let roll = read_midi(&midi(0, QUARTER, &[&events]), &quarter_seconds()).unwrap();
    assert_eq!(notes(&roll), [(60, vec![0, 1, 2, 3, 4, 5])]);
}

/// A text, a change of tempo and the name of a track stand between messages that share their status byte.
#[test]
fn running_status_goes_on_after_a_text() {
    let events = track(&[
        &[0, 0xff, 0x03, 1, b'a'],
        &[0, 0x90, 60, 90],
        &[0, 0xff, 0x01, 3, b'a', b'b', b'c'],
        &event(T480, &[60, 0]),
        &[0, 0xff, 0x51, 3, 0x07, 0xa1, 0x20],
        &[0, 64, 90],
        &event(T480, &[64, 0]),
    ]);
    let roll = read_midi(&midi(0, QUARTER, &[&events]), &quarter_seconds()).unwrap();
    assert_eq!(notes(&roll), [(60, vec![0, 1]), (64, vec![2, 3])]);
    // There is no status to run on before the first message.
    let events = track(&[&[0, 0xff, 0x01, 1, b'a'], &[0, 60, 90]]);
    assert!(error_of(&midi(0, QUARTER, &[&events])).contains("expected an event"));
}

#[test]
fn tempo_changes_of_one_track_hold_for_all_or_for_the_next_ones() {
    // One second a quarter note after the first one, in the first track; the notes are in the second.
    let tempos = track(&[&event(T480, &[0xff, 0x51, 3, 0x0f, 0x42, 0x40])]);
    let melody = track(&[&[0, 0x90, 60, 90], &event(T480, &[60, 0]), &[0, 62, 90], &event(T480, &[62, 0])]);
    let file = midi(1, QUARTER, &[&tempos, &melody]);
    let merged = Sampling { tempo_map: TempoMap::Merged, ..quarter_seconds() };
    let roll = read_midi(&file, &merged).unwrap();
    assert_eq!(notes(&roll), [(60, vec![0, 1]), (62, vec![2, 3, 4, 5])]);
    // By the tutorial's reader the second track goes at the last tempo from its beginning, which so is at -0.5 s.
    let short = track(&[&[0, 0x90, 60, 90], &event(T240, &[60, 0]), &[0, 62, 90], &event(T240, &[62, 0])]);
    let file = midi(1, QUARTER, &[&tempos, &short]);
    assert_eq!(notes(&read_midi(&file, &merged).unwrap()), [(60, vec![0]), (62, vec![1])]);
    assert_eq!(notes(&read_midi(&file, &quarter_seconds()).unwrap()), [(62, vec![0, 1])]);
    // 25 frames of 40 ticks a second: tempos do not count.
    let timecode = [0xe7, 40];
    let roll = read_midi(&midi(1, timecode, &[&tempos, &melody]), &quarter_seconds()).unwrap();
    assert_eq!(notes(&roll), [(60, vec![0, 1]), (62, vec![2, 3])]);
}

fn error_of(bytes: &[u8]) -> String {
    read_midi(bytes, &Sampling::default()).unwrap_err().to_string()
}

#[test]
fn faults_of_midi_files_are_explained() {
    let good = midi(0, QUARTER, &[&track(&[&[0, 0x90, 60, 90], &event(T480, &[60, 0])])]);
    assert!(read_midi(&good, &Sampling::default()).is_ok());
    assert_eq!(error_of(b"MThd"), "byte 0: header: expected 14 bytes, found a file of 4 bytes");
    assert_eq!(
        error_of(b"RIFF, not bare MIDI"),
        "byte 0: kind of the file: expected 4d 54 68 64 (\"MThd\"), found 52 49 46 46"
    );
    assert_eq!(
        error_of(&midi(2, QUARTER, &[])),
        "byte 8: format: expected 0 or 1 (tracks that sound together), found 2"
    );
    assert_eq!(
        error_of(&midi(0, [0x80, 0], &[])),
        "byte 12: division: expected -24, -25, -29 or -30 SMPTE frames a second, found -128"
    );
    assert_eq!(error_of(&midi(0, [0, 0], &[])), "byte 12: division: expected at least one tick, found 0");
    let mut long_header = good.clone();
    long_header[4] = 0xff;
    assert_eq!(
        error_of(&long_header),
        "byte 4: length of the header: expected 6 or more bytes that are in the file, found 4278190086"
    );
    assert_eq!(
        error_of(&good[..good.len() - 2]),
        "byte 14, after 0 tracks: expected a whole chunk, found 18 bytes: 4d 54 72 6b 00 00 00 0c ..."
    );
    assert_eq!(
        error_of(&good[..14]),
        "expected 1 track, as the header says, found 0 and the end of the file"
    );
    assert_eq!(
        error_of(&midi(0, QUARTER, &[&track(&[&[0, 0x90, 60, 90], &[0, 0x90, 200, 1]])])),
        "byte 26, track 1: expected an event, found 00 90 c8 01 00 ff 2f 00"
    );
    let endless = event([0, 0x90], &[60, 90]).into_iter().chain([0xff, 0xff, 0xff, 0x7f, 60, 0]);
    let slowest = [0, 0xff, 0x51, 3, 0xff, 0xff, 0xff];
    assert_eq!(
        error_of(&midi(0, [0, 1], &[&track(&[&slowest, &endless.collect::<Vec<_>>()])])),
        "expected music of at most 524288 frames, found a note that ends after 4503599342 seconds"
    );
    let sampling = Sampling { frame_seconds: 0.0, ..Sampling::default() };
    assert!(
        read_midi(&good, &sampling).unwrap_err().to_string().starts_with("expected frames of more than 0")
    );
}

/// Rolls of a few keys that end with a note.
fn rolls() -> impl Strategy<Value = PianoRoll> {
    (1..400_usize, any::<u64>(), 1..6_u32).prop_map(|(frames, seed, density)| {
        let mut state = seed | 1;
        let mut values = vec![0.0; frames * PIANO.len()];
        for value in &mut values {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = if (state >> 33) as u32 % 20 < density { 1.0 } else { 0.0 };
        }
        *values.last_mut().unwrap() = 1.0;
        PianoRoll::from_values(PIANO, &values)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_written_roll_reads_back(roll in rolls(), milliseconds in 1..20_000_u32) {
        let frame_seconds = f64::from(milliseconds.min(16_000)) / 1000.0;
        let sampling = Sampling { frame_seconds, ..Sampling::default() };
        let bytes = write_midi(&roll, frame_seconds);
        prop_assert_eq!(read_midi(&bytes, &sampling), Ok(roll));
    }
}

#[test]
fn a_written_roll_reads_back_however_long() {
    let mut values = vec![0.0; 500_000 * PIANO.len()];
    values[0] = 1.0;
    *values.last_mut().unwrap() = 1.0;
    let roll = PianoRoll::from_values(PIANO, &values);
    assert!(read_midi(&write_midi(&roll, 0.3), &Sampling::default()) == Ok(roll));
}

#[test]
fn written_files_are_what_the_format_says() {
    // Two frames of a C, the second with an E, at half a second: checked by hand against the specification.
    let mut values = vec![0.0; 2 * PIANO.len()];
    [60 - 21, 88 + 60 - 21, 88 + 64 - 21].into_iter().for_each(|cell| values[cell] = 1.0);
    let bytes = write_midi(&PianoRoll::from_values(PIANO, &values), 0.5);
    let events = track(&[
        &[0, 0xff, 0x51, 3, 0x07, 0xa1, 0x20, 0, 0xc0, 0, 0, 0x90, 60, 90],
        &event(T480, &[0x90, 64, 90]),
        &event(T480, &[0x80, 60, 64]),
        &[0, 0x80, 64, 64],
    ]);
    assert_eq!(bytes, midi(0, QUARTER, &[&events]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_midi_files_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        odd in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let tempos = track(&[&event(T480, &[0xff, 0x51, 3, 0x0f, 0x42, 0x40]), &[0, 0xf0, 2, 1, 0xf7]]);
        let melody = track(&[&[0, 0x90, 60, 90], &event(T480, &[60, 0]), &[0, 0xc1, 3], &odd]);
        let mut bytes = midi(1, QUARTER, &[&tempos, &melody]);
        for (index, byte) in damage {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(error) = read_midi(&bytes, &Sampling::default()) {
            let text = error.to_string();
            prop_assert!(text.contains("expected ") && text.contains(", found "), "{}", text);
        }
    }

    #[test]
    fn any_bytes_after_a_header_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_midi(&midi(1, QUARTER, &[&bytes]), &Sampling::default());
        let _ = read_midi(&[midi(1, QUARTER, &[]), bytes.clone()].concat(), &Sampling::default());
        let _ = read_midi(&bytes, &Sampling::default());
    }

    #[test]
    fn cutting_a_file_is_always_noticed(at in any::<prop::sample::Index>()) {
        let roll = &generate_tunes(1, TuneSet::Train, 1, &Sampling::default())[0];
        let bytes = write_midi(roll, 0.3);
        prop_assert!(read_midi(&bytes[..at.index(bytes.len())], &Sampling::default()).is_err());
    }
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A piece of one key in so many frames of 0.25 s, as a MIDI file.
fn piece(key: u8, frames: usize) -> Vec<u8> {
    let mut values = vec![0.0; frames * PIANO.len()];
    values.iter_mut().skip(usize::from(key - 21)).step_by(88).for_each(|value| *value = 1.0);
    write_midi(&PianoRoll::from_values(PIANO, &values), 0.25)
}

fn read(path: &Path) -> Result<Songbook, DataError> {
    Songbook::read(path, &quarter_seconds())
}

fn first_keys(set: &[PianoRoll]) -> Vec<u8> {
    set.iter().flat_map(|roll| roll.chord(0)).collect()
}

#[test]
fn a_directory_and_an_archive_give_the_same_sets() {
    let files: [(&str, Vec<u8>); 5] = [
        ("tunes/train/b.mid", piece(61, 3)),
        ("tunes/train/a.MID", piece(60, 2)),
        ("tunes/valid/v.mid", piece(62, 1)),
        ("tunes/test/deeper/t.midi", piece(63, 4)),
        ("tunes/train/notes.txt", b"not music".to_vec()),
    ];
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("music");
    for (name, content) in &files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let from_directory = read(&root).unwrap();
    assert_eq!(from_directory.sizes(), MusicSizes { train: 2, valid: 1, test: 1 });
    assert_eq!(first_keys(&from_directory.train), [60, 61]);
    assert_eq!(first_keys(&from_directory.test), [63]);
    assert_eq!(from_directory.train[1].frames(), 3);

    let borrowed: Vec<_> = files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
    let packed = directory.path().join("Nottingham.tar.gz");
    for bytes in [archive(&borrowed), gzip(&archive(&borrowed))] {
        fs::write(&packed, bytes).unwrap();
        let from_archive = read(&packed).unwrap();
        assert_eq!(from_archive.checksum(), from_directory.checksum());
        assert_eq!(from_archive.train, from_directory.train);
    }
    // Without MIDI files of its own a directory stands for the archive in it.
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(read(directory.path()).unwrap().train, from_directory.train);
    // Files in no set are for training.
    let alone = directory.path().join("alone.mid");
    fs::write(&alone, gzip(&piece(64, 2))).unwrap();
    assert_eq!(read(&alone).unwrap().sizes(), MusicSizes { train: 1, valid: 0, test: 0 });
}

/// The message of reading `content` as a file of that name, with the path shortened.
fn collection_error(name: &str, content: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(name), content).unwrap();
    let error = read(&directory.path().join(name)).unwrap_err().to_string();
    error.replace(&directory.path().display().to_string(), "DIR")
}

#[test]
fn faults_of_collections_are_explained() {
    let good = piece(60, 2);
    assert_eq!(
        collection_error("a.tar", &archive(&[("train/x.mid", &good[..40])])),
        "DIR/a.tar/train/x.mid: MIDI: byte 14, after 0 tracks: expected a whole chunk, found 26 bytes: 4d 54 72 6b 00 00 00 17 ..."
    );
    let whole = archive(&[("train/x.mid", &good), ("train/y.mid", &good)]);
    assert_eq!(
        collection_error("a.tar", &whole[..1024 + 512 + 10]),
        "DIR/a.tar/train/y.mid: size: expected 45 bytes, as the archive says, found 10"
    );
    let cut = collection_error("a.tar", &whole[..1024 + 100]);
    assert!(
        cut.starts_with("DIR/a.tar: entry 2 of the tar archive (from 1): expected a whole entry, found "),
        "{cut}"
    );
    let cut = collection_error("a.tar.gz", &gzip(&whole)[..50]);
    assert!(cut.starts_with("DIR/a.tar.gz: truncated gzip file"), "{cut}");
    assert_eq!(
        collection_error("a.tar", &archive(&[("readme.txt", b"nothing")])),
        "DIR/a.tar: training music: expected at least one note in a MIDI file (.mid), a tar archive of them, or a pickle of piano-rolls, found none"
    );
    assert_eq!(
        collection_error("a.wav", b"RIFF\x01\x02"),
        "DIR/a.wav: kind of the file: expected a MIDI file, a tar archive of MIDI files, or a pickle of protocol 2 or later, found a file that begins with \"RIFF\\x01\\x02\""
    );
    assert_eq!(
        collection_error("a.mid", b""),
        "DIR/a.mid: MIDI: byte 0: header: expected 14 bytes, found a file of 0 bytes"
    );
    assert_eq!(
        collection_error("a.pickle", b"\x80\x02]."),
        "DIR/a.pickle: content of the pickle: expected a dictionary with the entries train, valid and test, found a list of 0"
    );
    // {"train": [[(60, 200)]], ...}
    assert_eq!(
        collection_error("a.pickle", b"\x80\x02}U\x05train]]K\x3cK\xc8\x86aas."),
        "DIR/a.pickle: piece 0 of the train set, frame 0: expected MIDI numbers from 0 to 127, found 200"
    );
    assert_eq!(
        collection_error("a.pickle", b"\x80\x02}U\x05train]K\x01as."),
        "DIR/a.pickle: entry train.0 of the pickle: expected a list or tuple, found 1"
    );
    let missing = read(Path::new("/no/such/music")).unwrap_err();
    assert!(matches!(missing, DataError::Open { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_archives_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let good = piece(60, 2);
        let mut bytes = archive(&[("train/x.mid", &good), ("valid/y.mid", &good)]);
        for (index, byte) in damage {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("music.tar");
        fs::write(&path, bytes).unwrap();
        let _ = read(&path);
    }
}

/// The test values for readers that the data come with: files, frames, notes, SHA-256 of all cells.
#[test]
fn nottingham_is_read_as_the_tutorial_reads_it() {
    let Some(path) = real("Nottingham.tar.gz") else { return };
    let songs = Songbook::read(&path, &Sampling::default()).unwrap();
    for (set, files, frames, on, hash) in [
        (
            &songs.train,
            694,
            147_737,
            586_084,
            "2ee7526b56b21b72b24cb76056b990de1a116e75e64ceffa2a5016f76b82c68d",
        ),
        (
            &songs.valid,
            173,
            38_111,
            150_901,
            "db83e772ac3bb55dd64204724d5097ee2ddb1c8b780935906664c37b2519e172",
        ),
        (
            &songs.test,
            170,
            37_232,
            148_914,
            "68b2dc1a42a6154e50eef0de5a9b2a72261ea77fd5b88beb42aac87b3aed846b",
        ),
    ] {
        assert_eq!(set.len(), files);
        assert_eq!(set.iter().map(PianoRoll::frames).sum::<usize>(), frames);
        let mut sha = Sha256::new();
        let mut count = 0;
        for roll in set {
            sha.update(roll.cells());
            count += roll.cells().iter().filter(|cell| **cell == 1).count();
        }
        let digest: String = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((count, digest.as_str()), (on, hash));
    }
}

#[test]
fn pickles_of_piano_rolls_are_read() {
    let Some(path) = real("JSB_Chorales.pickle.gz") else { return };
    let songs = Songbook::read(&path, &Sampling::default()).unwrap();
    let frames = |set: &[PianoRoll]| (set.len(), set.iter().map(PianoRoll::frames).sum::<usize>());
    assert_eq!(frames(&songs.train), (229, 13807));
    assert_eq!(frames(&songs.valid), (76, 4602));
    assert_eq!(frames(&songs.test), (77, 4725));
    assert_eq!(songs.train[0].chord(0).count(), 4);
}

#[test]
fn generated_tunes_are_the_same_everywhere() {
    let sizes = MusicSizes { train: 40, valid: 5, test: 5 };
    let tunes = Songbook::generate(1, sizes, &Sampling::default());
    // Taken on x86-64 Linux; only integers are drawn.
    assert_eq!(tunes.checksum(), TUNES_CHECKSUM);
    assert_ne!(Songbook::generate(2, sizes, &Sampling::default()).checksum(), tunes.checksum());
    assert_eq!(generate_tunes(1, TuneSet::Train, 7, &Sampling::default()), tunes.train[..7]);
    assert_ne!(tunes.train[..5], tunes.valid);
    for (number, tune) in tunes.train.iter().enumerate() {
        assert!([96, 128].contains(&tune.frames()));
        let sizes: Vec<usize> = (0..tune.frames()).map(|frame| tune.chord(frame).count()).collect();
        assert!(sizes.iter().all(|size| (3..=5).contains(size)), "tune {number}: {sizes:?}");
        let lowest = (0..tune.frames()).filter_map(|frame| tune.chord(frame).next()).min().unwrap();
        let highest = (0..tune.frames()).filter_map(|frame| tune.chord(frame).last()).max().unwrap();
        assert!(lowest >= 28 && highest <= 96, "tune {number}: {lowest} to {highest}");
    }
}

const TUNES_CHECKSUM: u32 = 1_855_929_860;
