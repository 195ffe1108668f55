//! Convolution along one axis: how positions of the input, of the filters and of the result belong together.
//!
//! Result element `y` joins the filter's elements `k` with the input at `y * stride + k * dilation - low`, counted in the
//! input after `spread - 1` zeros were put between its elements and zeros around them. The filters are not reversed. Always
//! true: both derivatives of a convolution are convolutions, whose attributes [`ConvAxis::by_input`] and
//! [`ConvAxis::by_filters`] give, so there are derivatives of every order.

/// How many zeros stand around the input; a negative number takes elements away.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Border {
    /// Before the first element and behind the last.
    Padded(i64, i64),
    /// Half of the dilated filter's extent on both sides, rounded down.
    Half,
    /// One less than the dilated filter's extent on both sides: every position at which they overlap.
    Full,
}

/// The attributes of a convolution along one axis.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConvAxis {
    /// Zeros around the input.
    pub border: Border,
    /// Distance in the input from one result element to the next; at least 1.
    pub stride: usize,
    /// Distance between elements of the input; at least 1.
    pub spread: usize,
    /// Distance in the input between elements of the filters; at least 1.
    pub dilation: usize,
}

/// The extent of `n` elements at a distance; wide enough for any two numbers.
fn dilated(n: usize, distance: usize) -> i128 {
    if n == 0 { 0 } else { (n as i128 - 1) * distance as i128 + 1 }
}

impl ConvAxis {
    /// The largest padding, stride or dilation: products of a few fit 64 bits.
    pub const LARGEST: usize = 1 << 24;

    /// Every place where the filters lie inside the input.
    pub const VALID: ConvAxis = ConvAxis { border: Border::Padded(0, 0), stride: 1, spread: 1, dilation: 1 };

    /// Zeros before and behind the input for filters of an extent.
    pub fn padding(&self, filters: usize) -> [i64; 2] {
        let extent = dilated(filters, self.dilation) as i64;
        match self.border {
            Border::Padded(low, high) => [low, high],
            Border::Half => [extent / 2; 2],
            Border::Full => [(extent - 1).max(0); 2],
        }
    }

    /// The extent of the result.
    pub fn extent(&self, input: usize, filters: usize) -> usize {
        let [low, high] = self.padding(filters);
        let padded = dilated(input, self.spread) + i128::from(low) + i128::from(high);
        let room = padded - dilated(filters, self.dilation);
        if room < 0 { 0 } else { room as usize / self.stride + 1 }
    }

    /// The position in the input that belongs to positions in the result and the filters, unless it is a zero.
    pub fn source(&self, result: usize, filter: usize, input: usize, filters: usize) -> Option<usize> {
        let at = (result * self.stride + filter * self.dilation) as i64 - self.padding(filters)[0];
        let at = usize::try_from(at).ok().filter(|at| at % self.spread == 0)? / self.spread;
        (at < input).then_some(at)
    }

    /// The convolution of the result's gradient with reversed filters that is the gradient by the input.
    pub fn by_input(&self, input: usize, filters: usize) -> ConvAxis {
        let own = dilated(filters, self.dilation);
        let result = dilated(self.extent(input, filters), self.stride);
        let before = (own - 1).max(0) - i128::from(self.padding(filters)[0]);
        let last = (input as i128 - 1) * self.spread as i128;
        let behind = last + own - result - before;
        ConvAxis {
            border: Border::Padded(before as i64, behind as i64),
            stride: self.spread,
            spread: self.stride,
            dilation: self.dilation,
        }
    }

    /// The convolution of the input with the result's gradient that is the gradient by the filters.
    pub fn by_filters(&self, input: usize, filters: usize) -> ConvAxis {
        let result = dilated(self.extent(input, filters), self.stride);
        let [low, _] = self.padding(filters);
        let last = (filters as i128 - 1) * self.dilation as i128;
        let behind = last + result - dilated(input, self.spread) - i128::from(low);
        ConvAxis {
            border: Border::Padded(low, behind as i64),
            stride: self.dilation,
            spread: self.spread,
            dilation: self.stride,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The triples (result, filter, input) that a convolution joins.
    fn joined(axis: &ConvAxis, input: usize, filters: usize) -> Vec<[usize; 3]> {
        let mut all = Vec::new();
        for y in 0..axis.extent(input, filters) {
            for k in 0..filters {
                all.extend(axis.source(y, k, input, filters).map(|i| [y, k, i]));
            }
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn both_gradients_join_what_the_convolution_joins() {
        let borders = [
            Border::Padded(0, 0),
            Border::Padded(2, 1),
            Border::Padded(-1, 3),
            Border::Padded(1, -2),
            Border::Half,
            Border::Full,
        ];
        let mut extents = Vec::new();
        for (input, filters) in (0..7).flat_map(|i| (1..4).map(move |k| (i, k))) {
            for border in borders {
                for (stride, spread, dilation) in [(1, 1, 1), (2, 1, 1), (3, 1, 2), (1, 2, 1), (2, 3, 2)] {
                    let axis = ConvAxis { border, stride, spread, dilation };
                    let result = axis.extent(input, filters);
                    let own = joined(&axis, input, filters);
                    let back = axis.by_input(input, filters);
                    assert_eq!(back.extent(result, filters), input, "{axis:?} of {input}, {filters}");
                    let mut found: Vec<_> = joined(&back, result, filters)
                        .into_iter()
                        .map(|[i, k, y]| [y, filters - 1 - k, i])
                        .collect();
                    found.sort_unstable();
                    assert_eq!(found, own, "{axis:?} of {input}, {filters} by the input");
                    let weights = axis.by_filters(input, filters);
                    assert_eq!(weights.extent(input, result), filters, "{axis:?} of {input}, {filters}");
                    let mut found: Vec<_> =
                        joined(&weights, input, result).into_iter().map(|[k, y, i]| [y, k, i]).collect();
                    found.sort_unstable();
                    assert_eq!(found, own, "{axis:?} of {input}, {filters} by the filters");
                    extents.push(result);
                }
            }
        }
        assert!(extents.contains(&0) && extents.iter().any(|n| *n > 5));
    }
}
