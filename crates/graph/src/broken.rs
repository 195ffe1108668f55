//! What the compiler says where one of its own invariants does not hold.
//!
//! A pass that meets what cannot be returns [`Broken`], made by [`broken!`](crate::broken!), and never a value in its
//! place: a plausible number would hide the fault. The error reaches the user of `function()` and asks for a report.
//! Mistakes of users are [`Diagnostic`]s instead.

use std::fmt::{self, Write};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// Bytes of an input's text that are kept.
const INPUT_BYTES: usize = 20_000;

/// A broken invariant of the compiler: a fault of Hypatia's, not of the user's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken(Box<Parts>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Parts {
    pass: &'static str,
    expected: String,
    found: String,
    input: Option<String>,
}

impl Broken {
    /// A pass (a module's path) expected one thing and found another; [`broken!`](crate::broken!) is shorter.
    pub fn new(pass: &'static str, expected: String, found: String) -> Broken {
        Broken(Box::new(Parts { pass, expected, found, input: None }))
    }

    /// Adds the text of what the pass was given, if the error has none yet. Long texts are cut.
    pub fn with_input(mut self, input: &impl fmt::Display) -> Broken {
        if self.0.input.is_none() {
            let mut text = Beginning(String::new());
            // An error is how a full text stops its writer.
            if write!(text, "{input}").is_err() {
                text.0.push_str("...\n");
            }
            self.0.input = Some(text.0);
        }
        self
    }
}

/// The beginning of a text.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.0.len() + more.len() > INPUT_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { pass, expected, found, input } = &*self.0;
        write!(
            f,
            "a fault of Hypatia's in `{pass}`, please report it with this text: expected {expected}, found {found}"
        )?;
        input.iter().try_for_each(|input| write!(f, "\n{input}"))
    }
}

impl std::error::Error for Broken {}

impl From<Broken> for Diagnostic {
    fn from(broken: Broken) -> Diagnostic {
        Diagnostic::new(broken.to_string())
    }
}

impl From<Broken> for Diagnostics {
    fn from(broken: Broken) -> Diagnostics {
        Diagnostic::from(broken).into()
    }
}

/// A [`Broken`](crate::Broken) invariant of the module in which this stands: what was expected, a format string, and
/// what was found instead, which can be left out where it is nothing.
///
/// ```
/// # use hypatia_graph::broken;
/// let (node, extents) = (3, vec![2]);
/// let missing = broken!("a value of %{node}");
/// assert!(missing.to_string().ends_with("expected a value of %3, found none"));
/// let odd = broken!("two axes of %{node}", extents.len());
/// assert!(odd.to_string().ends_with("expected two axes of %3, found 1"));
/// ```
#[macro_export]
macro_rules! broken {
    ($expected:literal) => {
        $crate::broken!($expected, "none")
    };
    ($expected:literal, $found:expr) => {
        $crate::Broken::new(module_path!(), format!($expected), $found.to_string())
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_the_pass_and_the_beginning_of_its_input() {
        let axis = "i";
        let broken =
            broken!("an extent below 5 of {axis}", 7).with_input(&"scan i<7\n").with_input(&"ignored");
        assert_eq!(
            broken.to_string(),
            "a fault of Hypatia's in `hypatia_graph::broken::tests`, please report it with this text: \
             expected an extent below 5 of i, found 7\nscan i<7\n"
        );
        let lines = vec!["scan"; 10_000].join("\n");
        struct Lines<'a>(&'a str);
        impl fmt::Display for Lines<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.lines().try_for_each(|line| writeln!(f, "{line}"))
            }
        }
        let text = broken!("a short program").with_input(&Lines(&lines)).to_string();
        assert!(text.len() < INPUT_BYTES + 200 && text.ends_with("scan\n...\n"), "{}", text.len());
    }
}
