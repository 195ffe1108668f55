//! Pickles as Python writes them (`tests/reference/pickles.py`), hostile ones, and random damage to both.

use std::fs;
use std::path::PathBuf;

use hypatia_datasets::pickle::{Array, ElementType, Name, Pickle, PickleReader, read_pickles};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/pickles").join(name)
}

/// The whole of a value as text, down to a depth that no fixture exceeds.
fn show(value: Pickle<'_>, depth: usize) -> String {
    if depth == 0 {
        return "...".to_owned();
    }
    let join = |parts: Vec<String>| parts.join(", ");
    match value {
        Pickle::Bytes(bytes) => format!("b{:?}", bytes.escape_ascii().to_string()),
        Pickle::Text(text) => format!("{text:?}"),
        Pickle::List(items) => {
            format!("[{}]", join(items.iter().map(|item| show(item, depth - 1)).collect()))
        }
        Pickle::Tuple(items) => {
            format!("({})", join(items.iter().map(|item| show(item, depth - 1)).collect()))
        }
        Pickle::Dict(entries) => {
            let entry = |(key, value)| format!("{}: {}", show(key, depth - 1), show(value, depth - 1));
            format!("{{{}}}", join(entries.iter().map(entry).collect()))
        }
        Pickle::Array(array) => format!("{array} {:?}", array.to_f64()),
        Pickle::None | Pickle::Bool(_) | Pickle::Int(_) | Pickle::Float(_) | Pickle::Name(_) => {
            value.to_string()
        }
    }
}

const EXPECTED: [(&str, &str); 18] = [
    ("none", "None"),
    ("booleans", "(true, false)"),
    (
        "integers",
        "[0, 255, 256, 65535, 65536, -1, 2147483647, -2147483648, 2147483648, 9223372036854775807, -9223372036854775808]",
    ),
    ("text", "\"größer ≤ \\\\ \\n 'quoted' \u{1d11e}\""),
    ("bytes", "b\"\\\\x00\\\\xff\\\\'\\\\\\\\\\\\n\""),
    ("tuples", "[(), (1), (1, 2), (1, 2, 3), (1, 2, 3, 4)]"),
    ("twice", "[[1, 2], [1, 2]]"),
    ("nested", "{\"list\": [[], [[]]], 7: {}}"),
    ("float32", "a float32 array of shape [2, 3] [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]"),
    ("float64", "a float64 array of shape [2] [0.1, -2.0]"),
    (
        "column major",
        "a int16 array of shape [2, 3, 4] [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0]",
    ),
    ("big-endian", "a int32 array of shape [3] [1.0, -2.0, 300.0]"),
    ("uint8", "a uint8 array of shape [3] [0.0, 127.0, 255.0]"),
    ("bool", "a bool array of shape [2] [1.0, 0.0]"),
    ("int64", "a int64 array of shape [1, 1] [-4.611686018427388e18]"),
    ("rank 0", "a float32 array of shape [] [3.5]"),
    ("empty", "a float32 array of shape [0, 784] []"),
    ("scalars", "[0.5, -7, true, 200]"),
];

#[test]
fn every_protocol_gives_the_same_value() {
    for protocol in 0..5 {
        let documents = read_pickles(&fixture(&format!("value_{protocol}.pkl"))).unwrap();
        assert_eq!(documents.len(), 1);
        let Pickle::Dict(entries) = documents[0].root() else { panic!("{}", documents[0].root()) };
        for (name, expected) in EXPECTED {
            let Some(value) = entries.get(name) else {
                // Python 3 writes empty bytes under the old protocols as a call.
                assert!(name == "empty" && protocol < 3, "{name} of protocol {protocol}");
                continue;
            };
            assert_eq!(show(value, 10), expected, "{name} of protocol {protocol}");
        }
        let Some(Pickle::List(floats)) = entries.get("floats") else { panic!("no floats") };
        let floats: Vec<f64> = floats
            .iter()
            .map(|float| if let Pickle::Float(float) = float { float } else { panic!("{float}") })
            .collect();
        assert_eq!(floats, [0.0, -1.5, 1e300, f64::INFINITY]);
        assert!(entries.get("nothing").is_none());
    }
}

#[test]
fn arrays_are_cast_to_what_is_asked_for() {
    let documents = read_pickles(&fixture("value_4.pkl")).unwrap();
    let Pickle::Dict(entries) = documents[0].root() else { panic!("{}", documents[0].root()) };
    let array = |name: &str| -> &Array {
        if let Some(Pickle::Array(array)) = entries.get(name) { array } else { panic!("no array {name}") }
    };
    assert_eq!(array("float32").to_f32(), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    assert_eq!(array("float32").to_i64(), [0, 0, 0, 0, 1, 1]);
    assert_eq!(array("int64").to_i64(), [-(1_i64 << 62)]);
    assert_eq!(array("big-endian").element(), ElementType::Int32);
    assert_eq!(array("big-endian").bytes()[..4], [1, 0, 0, 0]);
}

fn error_of(path: PathBuf) -> String {
    let shown = path.display().to_string();
    read_pickles(&path).unwrap_err().to_string().replace(&shown, "FILE")
}

/// The offsets are those that `python -m pickletools` shows.
#[test]
fn whatever_is_not_data_is_refused_by_name() {
    let nothing_but = "expected nothing but data and NumPy arrays, found";
    for (name, expected) in [
        (
            "command_0.pkl",
            format!("FILE: pickle, byte 0: {nothing_but} a request for posix.system, which is refused"),
        ),
        (
            "command_4.pkl",
            format!("FILE: pickle, byte 33: {nothing_but} a request for posix.system, which is refused"),
        ),
        (
            "class_2.pkl",
            format!("FILE: pickle, byte 2: {nothing_but} a request for __main__.Plain, which is refused"),
        ),
        (
            "objects_2.pkl",
            "FILE: pickle, byte 151: expected an array of booleans, integers or floats, found type O8"
                .to_owned(),
        ),
        (
            "fields_2.pkl",
            "FILE: pickle, byte 151: expected an array of booleans, integers or floats, found type V4"
                .to_owned(),
        ),
        ("protocol_5.pkl", "FILE: pickle, byte 0: expected a protocol from 0 to 4, found 5".to_owned()),
    ] {
        assert_eq!(error_of(fixture(name)), expected, "{name}");
    }
}

fn read_bytes(bytes: &[u8]) -> Result<String, String> {
    let document = PickleReader::new(bytes).with_budget(1 << 16).read_next().map_err(|e| e.to_string())?;
    Ok(document.map_or("nothing".to_owned(), |document| show(document.root(), 6)))
}

#[test]
fn faults_are_explained() {
    for (bytes, expected) in [
        (&b"N"[..], "byte 1: expected more data, found the end of the file"),
        (b"X\x05\0\0\0abc", "byte 0: expected more data, found the end of the file"),
        (
            b"B\xff\xff\xff\xff",
            "byte 0: expected a document that takes at most 65536 bytes of memory, found a larger one",
        ),
        (b"\xff.", "byte 0: expected an opcode for plain data, found 0xff"),
        (b".", "byte 0: expected a value on the stack, found none"),
        (b"(.", "byte 1: expected a value on the stack, found none"),
        (b"t.", "byte 0: expected a mark on the stack, found none"),
        (b"K\x01\x86.", "byte 2: expected more values on the stack, found 1"),
        (b"h\x05.", "byte 0: expected an entry of the memo, found number 5, which was never stored"),
        (b"Ixyz\n.", "byte 0: expected an integer of 64 bits, found xyz"),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", "byte 0: expected an integer of 64 bits, found one of 9 bytes"),
        (b"T\xff\xff\xff\xff.", "byte 0: expected a length, found -1"),
        (b"X\x01\0\0\0\xff.", "byte 0: expected text in UTF-8, found other bytes"),
        (b"NNa.", "byte 2: expected a list to append to, found None"),
        (b"}(Nu.", "byte 3: expected a value for each key, found a key without one"),
        (
            b"cos\nsystem\n.",
            "byte 0: expected nothing but data and NumPy arrays, found a request for os.system, which is refused",
        ),
        (
            b"(ios\nsystem\n.",
            "byte 1: expected nothing but data and NumPy arrays, found a request for os.system, which is refused",
        ),
        (b"N)R.", "byte 2: expected the name of a constructor, found None"),
        (
            b"Pevil\n.",
            "byte 0: expected nothing but data and NumPy arrays, found opcode PERSID, which is refused",
        ),
        (
            b"cnumpy\nndarray\n)R.",
            "byte 16: expected the arguments that NumPy writes, found other ones for numpy.ndarray",
        ),
    ] {
        let error = read_bytes(bytes).unwrap_err();
        assert_eq!(error, format!("pickle, {expected}"), "{}", bytes.escape_ascii());
    }
    assert_eq!(read_bytes(b"").unwrap(), "nothing");
    assert_eq!(read_bytes(b"cnumpy\ndtype\n.").unwrap(), format!("the name {}", Name::DType));
}

#[test]
fn cycles_and_depth_are_harmless() {
    // A list that contains itself.
    assert_eq!(read_bytes(b"]q\0h\0a.").unwrap(), "[[[[[[...]]]]]]");
    // Lists in lists in lists, far deeper than any call stack.
    let depth = 1_000_000;
    let mut bytes = vec![b']'; depth];
    bytes.extend(vec![b'a'; depth - 1]);
    bytes.push(b'.');
    let document = PickleReader::new(bytes.as_slice()).read_next().unwrap().unwrap();
    assert!(matches!(document.root(), Pickle::List(items) if items.len() == 1));
    drop(document);
    // Each list holds the one before twice: 2^40 leaves in 240 bytes.
    let mut bytes = b"]".to_vec();
    for index in 0..40_u8 {
        bytes.extend([b'q', index, b'(', b'h', index, b'h', index, b'l']);
    }
    bytes.push(b'.');
    let document = PickleReader::new(bytes.as_slice()).read_next().unwrap().unwrap();
    assert!(matches!(document.root(), Pickle::List(items) if items.len() == 2));
}

#[test]
fn an_array_must_have_the_bytes_that_it_needs() {
    let array = |extents: &str, bytes: &str| {
        format!(
            "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n({extents}tcnumpy\ndtype\n(S'f4'\nI0\nI1\ntRI00\nS'{bytes}'\ntb."
        )
    };
    assert_eq!(
        read_bytes(array("I1\nI2\n", "\\x00\\x00\\x80?\\0\\0\\0@").as_bytes()).unwrap(),
        "a float32 array of shape [1, 2] [1.0, 2.0]"
    );
    let error = read_bytes(array("I2\nI2\n", "abc").as_bytes()).unwrap_err();
    assert!(error.ends_with("expected 16 bytes for an array of shape [2, 2], found 3 bytes"), "{error}");
    let error = read_bytes(array("I-1\n", "abc").as_bytes()).unwrap_err();
    assert!(error.ends_with("expected an extent, found -1"), "{error}");
    let huge = "I9000000000000000000\n";
    let error = read_bytes(array(&huge.repeat(3), "abc").as_bytes()).unwrap_err();
    assert!(error.contains("expected more bytes than there can be"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_pickles_never_panic(
        protocol in 0..5_u8,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(fixture(&format!("value_{protocol}.pkl"))).unwrap();
        for (index, byte) in damage {
            let position = index.index(bytes.len());
            bytes[position] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_bytes(&bytes);
    }

    #[test]
    fn random_opcodes_never_panic(
        bytes in prop::collection::vec(
            prop_oneof![prop::sample::select(b"(.012NIJKLMGFSTUVX])}letdaspqrghjcRb\x85\x86\x87\x88\x8a\x93\x94".to_vec()), any::<u8>()],
            0..200,
        ),
    ) {
        let _ = read_bytes(&bytes);
    }
}
