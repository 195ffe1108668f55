//! What the running processor offers, found once at run time.
//!
//! A [`Features`] never claims more than the processor has: it can be restricted, not extended, and its fields
//! are private. Code that holds one may therefore call the kernels it names.

use std::fmt;

/// The three families of precompiled kernels, in order of what they demand of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// Plain Rust, which the compiler translates for the baseline of the target.
    Portable,
    /// AVX2 with fused multiply-add: 256-bit vectors, 16 registers.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 512-bit vectors, 32 registers, masks.
    Avx512,
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// The processor's vector extensions that this crate makes use of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    instruction_set: InstructionSet,
    found: Vec<&'static str>,
}

impl Features {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> Self {
        let found = found();
        let all = |names: &[&str]| names.iter().all(|name| found.contains(name));
        let avx2 = all(&["avx2", "fma"]);
        let instruction_set = if avx2 && all(&["avx512f", "avx512bw", "avx512dq", "avx512vl"]) {
            InstructionSet::Avx512
        } else if avx2 {
            InstructionSet::Avx2
        } else {
            InstructionSet::Portable
        };
        Self { instruction_set, found }
    }

    /// No extension at all: the kernels in plain Rust, which run on every processor.
    #[must_use]
    pub fn portable() -> Self {
        Self { instruction_set: InstructionSet::Portable, found: Vec::new() }
    }

    /// The same processor, with kernels of at most `limit`.
    #[must_use]
    pub fn restricted_to(mut self, limit: InstructionSet) -> Self {
        self.instruction_set = self.instruction_set.min(limit);
        self
    }

    /// The family of kernels to use.
    #[must_use]
    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }

    /// True when the processor has a fused multiply-add that kernels may use.
    #[must_use]
    pub fn fused_multiply_add(&self) -> bool {
        self.instruction_set >= InstructionSet::Avx2
    }

    /// Every instruction set that this processor can run, the plainest first.
    #[must_use]
    pub fn available(&self) -> Vec<InstructionSet> {
        [InstructionSet::Portable, InstructionSet::Avx2, InstructionSet::Avx512]
            .into_iter()
            .filter(|set| *set <= self.instruction_set)
            .collect()
    }
}

/// The names of the extensions found, in a fixed order.
#[cfg(target_arch = "x86_64")]
fn found() -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! ask {
        ($($name:tt),*) => { $(if std::is_x86_feature_detected!($name) { names.push($name); })* };
    }
    ask!("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl");
    names
}

/// Other architectures have the kernels in plain Rust only.
#[cfg(not(target_arch = "x86_64"))]
fn found() -> Vec<&'static str> {
    Vec::new()
}

impl fmt::Display for Features {
    /// One line for a report, such as `x86_64, avx512 kernels (found sse4.2 avx avx2 fma ...)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} kernels", std::env::consts::ARCH, self.instruction_set)?;
        if self.found.is_empty() {
            f.write_str(" (no extension)")
        } else {
            write!(f, " (found {})", self.found.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restriction_only_takes_away() {
        let detected = Features::detect();
        for limit in [InstructionSet::Portable, InstructionSet::Avx2, InstructionSet::Avx512] {
            let restricted = detected.clone().restricted_to(limit);
            assert!(restricted.instruction_set() <= limit);
            assert!(restricted.instruction_set() <= detected.instruction_set());
        }
        let extended = Features::portable().restricted_to(InstructionSet::Avx512);
        assert_eq!(extended.instruction_set(), InstructionSet::Portable);
        assert_eq!(extended.available(), [InstructionSet::Portable]);
    }

    #[test]
    fn display_names_the_kernels() {
        let text = Features::portable().to_string();
        assert!(text.ends_with("portable kernels (no extension)"), "{text}");
        let detected = Features::detect();
        assert!(detected.to_string().contains(&detected.instruction_set().to_string()));
    }
}
