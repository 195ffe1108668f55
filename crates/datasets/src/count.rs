//! Counted things in words: `1 epoch`, `2 epochs`.

use std::fmt;

/// A number of things that are called `noun`, which gets an ending where there is not exactly one.
///
/// The plural is regular: `es` after a hiss as in minibatch, not after the k of epoch, else `s`.
pub struct Counted<'a, N>(pub N, pub &'a str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Counted<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let hisses = ["s", "x", "z", "tch", "sh"].iter().any(|sibilant| noun.ends_with(sibilant));
        let ending = match hisses {
            _ if *count == N::from(1) => "",
            true => "es",
            false => "s",
        };
        write!(f, "{count} {noun}{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let text = |count: usize, noun| Counted(count, noun).to_string();
        assert_eq!([0, 1, 2].map(|count| text(count, "epoch")), ["0 epochs", "1 epoch", "2 epochs"]);
        assert_eq!(text(1, "minibatch"), "1 minibatch");
        assert_eq!(text(7, "minibatch"), "7 minibatches");
        assert_eq!(text(3, "box"), "3 boxes");
    }
}
