//! What went wrong in a user's program, where, and what to do.
//!
//! Building an expression never fails: an ill-typed node keeps its [`Diagnostic`] and `function()` returns all of them
//! at once, each with the line that built the node.

use std::fmt;
use std::panic::Location;

/// The line of the user's program that built a node.
pub type Site = &'static Location<'static>;

/// How bad what a message says is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The program is refused.
    Error,
    /// The program is carried out, but may not give what was meant.
    Warning,
}

/// A message about a user's program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// Whether the program is refused.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub title: String,
    /// The line at fault, where it is known (graphs read from text have none).
    pub at: Option<Site>,
    /// The values involved: a label, what it is, and where it was built.
    pub related: Vec<Related>,
    /// What would mend it.
    pub hint: Option<String>,
}

/// A value that a message speaks of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Related {
    /// Its role: `left`, `expected`, ...
    pub label: String,
    /// What it is, for example its type and name.
    pub text: String,
    /// Where it was built.
    pub at: Option<Site>,
}

impl Diagnostic {
    /// An error with a title only.
    pub fn new(title: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            title: title.into(),
            at: None,
            related: Vec::new(),
            hint: None,
        }
    }

    /// A warning with a title only.
    pub fn warning(title: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::new(title) }
    }

    /// Says which line is at fault.
    pub fn at(mut self, site: Option<Site>) -> Diagnostic {
        self.at = site;
        self
    }

    /// Adds a value involved.
    pub fn with(mut self, label: impl Into<String>, text: impl Into<String>, at: Option<Site>) -> Diagnostic {
        self.related.push(Related { label: label.into(), text: text.into(), at });
        self
    }

    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.title)?;
        if let Some(site) = self.at {
            write!(f, "\n  at {}:{}", site.file(), site.line())?;
        }
        let width = self.related.iter().map(|r| r.label.len()).max().unwrap_or(0);
        for related in &self.related {
            write!(f, "\n  {:width$}  {}", related.label, related.text)?;
            if let Some(site) = related.at {
                write!(f, ", built at {}:{}", site.file(), site.line())?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// All that is wrong with a program, in the order in which it was built; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if index > 0 { "\n\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Diagnostics {
        Diagnostics(vec![diagnostic])
    }
}
