//! Which elements of a buffer a kernel touches, and whether two kernels touch the same one.

use smallvec::{SmallVec, smallvec};

use crate::kernel::{Address, Instruction, LoopKernel, StoreKind, Value};

/// Values of counters that are tried before two regions are taken to meet.
const TRIES: u32 = 4096;

/// The elements `offset + sum of stride * counter`, where every counter runs from 0 to a last value of its own: one for
/// each axis of a loop, each run-time start, and each index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Region {
    offset: i128,
    counters: SmallVec<[Counter; 4]>,
}

/// A counter runs from 0 to `last` and moves the element by `stride` each time.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Counter {
    stride: i128,
    last: i128,
}

impl Region {
    /// Every element of any buffer.
    pub(crate) fn all() -> Region {
        Region { offset: 0, counters: smallvec![Counter { stride: 1, last: i64::MAX.into() }] }
    }

    /// What an address of a kernel reaches, plus a stride times an index if there is one. A superset where the kernel
    /// does nothing.
    pub(crate) fn of(kernel: &LoopKernel, address: &Address, index: Option<(Value, i64)>) -> Region {
        let axes = kernel.extents.iter().zip(&address.position.strides);
        let axes = axes.map(|(extent, stride)| (*stride, extent.saturating_sub(1)));
        let starts = address.position.starts.iter();
        let starts = starts.map(|(start, factor)| (*factor, kernel.starts[usize::from(*start)].limit));
        // An index that nothing has checked reaches everything.
        let reach = |value: Value| kernel.index_extent(value).map_or(usize::MAX, |n| n.saturating_sub(1));
        let index = index.map(|(value, stride)| (stride, reach(value)));
        let counters = axes.chain(starts).chain(index).filter(|(stride, last)| *stride != 0 && *last != 0);
        Region {
            offset: address.position.offset.into(),
            counters: counters
                .map(|(stride, last)| Counter { stride: stride.into(), last: last as i128 })
                .collect(),
        }
    }

    /// What a kernel reads, load by load and start by start, with the parameter.
    pub(crate) fn read(kernel: &LoopKernel) -> impl Iterator<Item = (u16, Region)> {
        let loads = kernel.body.iter().filter_map(|instruction| match instruction {
            Instruction::Load(address) => Some((address.param, Region::of(kernel, address, None))),
            Instruction::LoadAt { address, index, stride } => {
                Some((address.param, Region::of(kernel, address, Some((*index, *stride)))))
            }
            Instruction::Literal(_)
            | Instruction::Position(_)
            | Instruction::Index { .. }
            | Instruction::Map(..)
            | Instruction::Cast(..) => None,
        });
        let first = || Region { offset: 0, counters: SmallVec::new() };
        loads.chain(kernel.starts.iter().map(move |start| (start.param, first())))
    }

    /// What a kernel writes, store by store, with the parameter.
    pub(crate) fn written(kernel: &LoopKernel) -> impl Iterator<Item = (u16, Region)> {
        kernel.stores.iter().map(|store| {
            let index = match store.kind {
                StoreKind::At { index, stride, .. } => Some((index, stride)),
                StoreKind::Plain | StoreKind::Fold(_) | StoreKind::ArgMax => None,
            };
            (store.address.param, Region::of(kernel, &store.address, index))
        })
    }

    /// Whether the two may have an element in common: certain if not, and likely if so.
    pub(crate) fn meets(&self, other: &Region) -> bool {
        // Of both regions together, is there a way to count so that the difference is 0?
        let negated = |counter: &Counter| Counter { stride: -counter.stride, ..*counter };
        let all = self.counters.iter().copied().chain(other.counters.iter().map(negated));
        let mut offset = self.offset - other.offset;
        let mut counters: SmallVec<[Counter; 8]> = SmallVec::new();
        for counter in all {
            // Counters with one stride are one that counts further; each is turned so that its stride is positive.
            let Counter { mut stride, last } = counter;
            if stride < 0 {
                offset += stride * last;
                stride = -stride;
            }
            match counters.iter_mut().find(|known| known.stride == stride) {
                Some(known) => known.last += last,
                None => counters.push(Counter { stride, last }),
            }
        }
        counters.sort_unstable_by_key(|counter| -counter.stride);
        let mut tries = TRIES;
        reaches(&counters, -offset, &mut tries)
    }
}

/// Whether counters of falling, positive strides can be set so that they come to a sum; yes where it takes too long to see.
fn reaches(counters: &[Counter], sum: i128, tries: &mut u32) -> bool {
    let Some((first, rest)) = counters.split_first() else { return sum == 0 };
    let divisor = counters.iter().fold(0, |divisor, counter| gcd(divisor, counter.stride));
    if sum % divisor != 0 {
        return false;
    }
    let reach: i128 = rest.iter().map(|counter| counter.stride * counter.last).sum();
    // The others make up for 0 to `reach`.
    let from = ((sum - reach).max(0) + first.stride - 1) / first.stride;
    let to = sum.div_euclid(first.stride).min(first.last);
    for count in from..=to {
        if *tries == 0 {
            return true;
        }
        *tries -= 1;
        if reaches(rest, sum - count * first.stride, tries) {
            return true;
        }
    }
    false
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether a kernel reads one of its buffers only at the element of another that it writes in the same iteration, or has but
/// one iteration, which reads before it writes. `read` and `written` say which parameters lead to the buffers; what else
/// the kernel writes does not matter.
pub(crate) fn reads_only_what_it_writes(
    kernel: &LoopKernel,
    read: impl Fn(u16) -> bool,
    written: impl Fn(u16) -> bool,
) -> bool {
    let mut stores = kernel.stores.iter().filter(|store| written(store.address.param));
    let (Some(store), None) = (stores.next(), stores.next()) else { return false };
    if store.kind != StoreKind::Plain {
        return false;
    }
    let once = kernel.extents.iter().all(|extent| *extent <= 1);
    kernel.starts.iter().all(|start| !read(start.param))
        && kernel.body.iter().all(|instruction| match instruction {
            Instruction::Load(address) => {
                once || !read(address.param) || address.position == store.address.position
            }
            Instruction::LoadAt { address, .. } => once || !read(address.param),
            Instruction::Literal(_)
            | Instruction::Position(_)
            | Instruction::Index { .. }
            | Instruction::Map(..)
            | Instruction::Cast(..) => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(offset: i128, counters: &[(i128, i128)]) -> Region {
        let counters = counters.iter().map(|&(stride, last)| Counter { stride, last });
        Region { offset, counters: counters.collect() }
    }

    /// Every element, one by one.
    fn elements(region: &Region) -> Vec<i128> {
        region.counters.iter().fold(vec![region.offset], |all, counter| {
            let more = |element: i128| (0..=counter.last).map(move |n| element + n * counter.stride);
            all.into_iter().flat_map(more).collect()
        })
    }

    /// Windows of a matrix of six rows of eight, whole and in pieces, forwards and backwards.
    #[test]
    fn regions_meet_where_their_elements_do() {
        let regions = [
            region(0, &[]),
            region(47, &[]),
            region(0, &[(1, 47)]),
            region(0, &[(8, 5), (1, 7)]),
            region(0, &[(1, 7)]),
            region(8, &[(1, 15)]),
            region(24, &[(1, 23)]),
            region(3, &[(8, 5)]),
            region(4, &[(8, 5)]),
            region(43, &[(-8, 5)]),
            region(0, &[(8, 5), (1, 2)]),
            region(3, &[(8, 5), (1, 4)]),
            region(7, &[(8, 5), (-1, 4)]),
            region(0, &[(16, 2), (1, 7)]),
            region(8, &[(16, 2), (1, 7)]),
            region(0, &[(2, 23)]),
            region(1, &[(2, 23)]),
            region(1, &[(6, 7)]),
            region(0, &[(8, 3), (8, 2)]),
            region(10, &[(8, 2), (1, 3)]),
            region(30, &[(9, 1)]),
        ];
        for a in &regions {
            for b in &regions {
                let common = elements(a).iter().any(|element| elements(b).contains(element));
                assert_eq!(a.meets(b), common, "{a:?} and {b:?}");
            }
        }
    }

    /// The rows of a large matrix, and its columns: no counting through.
    #[test]
    fn large_regions_are_told_apart() {
        let n = 1 << 40;
        let rows = |from: i128, step: i128| region(from * n, &[(step * n, n / step - 1), (1, n - 1)]);
        assert!(rows(0, 1).meets(&rows(0, 2)) && !rows(0, 2).meets(&rows(1, 2)));
        let columns = |from: i128, count: i128| region(from, &[(n, n - 1), (1, count - 1)]);
        assert!(!columns(0, 5).meets(&columns(5, n - 5)) && columns(0, 6).meets(&columns(5, n - 5)));
        assert!(columns(n - 1, 1).meets(&rows(n - 1, 1)));
    }
}
