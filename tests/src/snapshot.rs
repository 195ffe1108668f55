//! Expected texts: golden files, blessed anew by `HYPATIA_BLESS=1`, and tables of reference values.

use std::path::PathBuf;

/// The values after a name in a table of lines `name value value...`.
#[track_caller]
pub(crate) fn reference(table: &str, name: &str) -> Vec<f64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("the table has no `{name}`"));
    line.split(' ').map(|value| value.parse().unwrap()).collect()
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden", name].iter().collect()
}

fn blessing() -> bool {
    std::env::var_os("HYPATIA_BLESS").is_some_and(|value| value == "1")
}

/// Compares a text with the golden file of that name.
#[track_caller]
pub(crate) fn golden(name: &str, found: &str) {
    let path = path(name);
    if blessing() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    if found == expected {
        return;
    }
    let line = found.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    let shown =
        |text: &str| text.lines().skip(line.saturating_sub(3)).take(12).collect::<Vec<_>>().join("\n");
    panic!(
        "{} differs from line {}; HYPATIA_BLESS=1 writes it anew.\n--- expected\n{}\n--- found\n{}",
        path.display(),
        line + 1,
        shown(&expected),
        shown(found)
    );
}

/// The golden file of that name, for files that begin with what they are about.
pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_default().replace("\r\n", "\n")
}
