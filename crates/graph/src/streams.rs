//! Random numbers in formulas: streams of draws with Theano's rule of advance.
//!
//! Each draw is a pure function of a key, which the seed and the number of the draw give, and of a counter: a shared
//! variable whose default update steps over the numbers used. So one call of a function advances every draw in it
//! once, two uses of one draw share its values, two draws differ, and functions that use the same draw take turns.
//! Everything but [`Op::Random`] is composed of the graph's own functions. Deliberately absent: any other state, and
//! any other way to advance it than the default update.
//!
//! Parameters are converted to `f32` (probabilities in `f64` stay what they are) and repeated to the shape drawn; they
//! cannot enlarge it. Draws are `f32`, but for the `i64` of [`RandomStreams::integers`], [`RandomStreams::choice`],
//! [`RandomStreams::categorical`] and [`RandomStreams::permutation`]. What is outside of a parameter's domain is a
//! [`Diagnostic`] where it is a constant, and is clamped as each method says where it is known only when run.
//!
//! A word of the generator gives 24 random bits. Where something rare depends on them, a number is made of several
//! words, so that an event of probability 1e-12 happens as often as it should, and one of probability 0 never.

use std::f64::consts::TAU;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::{SmallVec, smallvec};

use crate::array::{Array, fits_in_memory};
use crate::compose::{Size, arange, stack, switch};
use crate::diagnostic::Diagnostic;
use crate::dtype::{DType, Literal};
use crate::ix;
use crate::leaf::LeafKind;
use crate::op::{Class, Dim, Op, View};
use crate::random::{BLOCK, LANES, counters_used, philox4x32_10};
use crate::scan::{Next, Scan};
use crate::shape::{Extent, TensorType};
use crate::tensor::{Shared, Tensor, build, faulty, shared};

/// The largest range of [`RandomStreams::integers`]: its product with 24 random bits stays below 2^62.
const LARGEST_RANGE: i64 = 1 << 38;

/// 2^24: the number of values of a uniform draw.
const STEPS: i32 = 1 << 24;

/// The distance between neighbouring values of a uniform draw.
const STEP: f64 = 1.0 / STEPS as f64;

/// The largest float below 1.
const BELOW_ONE: f64 = 1.0 - STEP;

/// The least probability, of a hit as of a miss, for which one word is enough: it is right to 2^-14 of itself.
const COARSE: f64 = 1.0 / 1024.0;

/// The most elements that share a second word: that one of them is hit says of another with a probability of at most
/// this times 2^-24 that it is hit too.
const SHARING: i64 = 1 << 16;

/// A source of random draws. Clones share their draws.
///
/// ```
/// use hypatia_graph::streams::RandomStreams;
/// let random = RandomStreams::new(1234);
/// let noise = random.normal([20, 500], 0.0, 1.0);
/// let kept = random.binomial([20, 500], 1, 0.9);
/// assert_eq!((noise * kept).ty().to_string(), "f32[20, 500]");
/// ```
#[derive(Clone)]
pub struct RandomStreams {
    state: Arc<Mutex<State>>,
}

struct State {
    seed: u64,
    draws: Vec<Draw>,
}

/// A draw that was made: the seed and the key that its expression holds for ever, and its counter.
struct Draw {
    seed: u64,
    key: u64,
    counter: Shared,
}

impl fmt::Debug for RandomStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state.try_lock() {
            Ok(state) => write!(f, "RandomStreams(seed {}, {} draws)", state.seed, state.draws.len()),
            Err(_) => f.write_str("RandomStreams(in use)"),
        }
    }
}

/// The key of draw `number` under a seed.
fn key_of(seed: u64, number: u64) -> u64 {
    let words = philox4x32_10(halves(number, 0), [seed as u32, (seed >> 32) as u32]);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// Where the counter of draw `number`, made under seed `made`, begins under `seed`.
fn start_of(made: u64, seed: u64, number: u64) -> i64 {
    if made == seed {
        return 0;
    }
    let words = philox4x32_10(halves(number, 1), [seed as u32, (seed >> 32) as u32]);
    // Positive, so that it prints and compares as the position it is.
    i64::from(words[0]) | i64::from(words[1] >> 1) << 32
}

fn halves(number: u64, purpose: u32) -> [u32; 4] {
    [number as u32, (number >> 32) as u32, purpose, 0]
}

/// The extents of a draw.
type Sizes = Vec<Size>;

fn collect_sizes<S: Into<Size>>(shape: impl IntoIterator<Item = S>) -> Sizes {
    shape.into_iter().map(Into::into).collect()
}

fn with_lead(lead: usize, sizes: &[Size]) -> Sizes {
    std::iter::once(Size::from(lead)).chain(sizes.iter().cloned()).collect()
}

impl RandomStreams {
    /// Streams that the seed determines: equal programs with equal seeds draw equal numbers.
    pub fn new(seed: u64) -> RandomStreams {
        RandomStreams { state: Arc::new(Mutex::new(State { seed, draws: Vec::new() })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew under a seed: with the one it was made under, a draw gives its first numbers again, with another,
    /// others. Draws to come get their keys from the new seed.
    ///
    /// # Errors
    /// As [`Shared::set_value`].
    pub fn seed(&self, seed: u64) -> Result<(), Diagnostic> {
        let mut state = self.lock();
        state.seed = seed;
        for (number, draw) in state.draws.iter().enumerate() {
            draw.counter.set_value(Array::scalar(start_of(draw.seed, seed, number as u64)))?;
        }
        Ok(())
    }

    /// The counters of the draws, in the order in which they were made.
    pub fn counters(&self) -> Vec<Shared> {
        self.lock().draws.iter().map(|draw| draw.counter.clone()).collect()
    }

    /// Where every draw stands, for checkpoints: `i64[draws, 2]`, the key (its bits) and the counter of each.
    ///
    /// # Errors
    /// As [`Shared::get_value`].
    pub fn state(&self) -> Result<Array, Diagnostic> {
        let state = self.lock();
        let mut rows: Vec<i64> = Vec::with_capacity(2 * state.draws.len());
        for draw in &state.draws {
            let counter = draw.counter.get_value()?.get(0).to_i64();
            rows.extend([draw.key as i64, counter.unwrap_or_default()]);
        }
        Array::new(&[state.draws.len(), 2], &rows)
    }

    /// Goes back to a state that [`RandomStreams::state`] gave for the same draws.
    ///
    /// # Errors
    /// The state of other draws: another number of them, another seed or another order. Nothing is changed then.
    #[track_caller]
    pub fn set_state(&self, state: &Array) -> Result<(), Diagnostic> {
        let site = Location::caller();
        let own = self.lock();
        let expected = TensorType::known(DType::I64, &[own.draws.len(), 2]);
        let found = TensorType::known(state.dtype(), state.shape());
        let rows = state.to_vec::<i64>().filter(|_| expected == found);
        let Some(rows) = rows else {
            return Err(Diagnostic::new("a state of other random streams was set")
                .at(Some(site))
                .with("expected", expected.to_string(), None)
                .with("found", found.to_string(), None)
                .hint("one row for each draw: make the same draws before the state is set"));
        };
        if let Some(number) = (0..own.draws.len()).find(|&n| rows[2 * n] as u64 != own.draws[n].key) {
            return Err(Diagnostic::new("a state of other random streams was set")
                .at(Some(site))
                .with("expected", format!("key {:#018x} of draw {number}", own.draws[number].key), None)
                .with("found", format!("key {:#018x}", rows[2 * number]), None)
                .hint("the state belongs to another seed, or to draws made in another order"));
        }
        for (draw, row) in own.draws.iter().zip(rows.chunks_exact(2)) {
            draw.counter.set_value(Array::scalar(row[1]))?;
        }
        Ok(())
    }

    /// A fresh draw of uniform numbers in [0, 1).
    #[track_caller]
    fn draw(&self, method: &str, sizes: &[Size]) -> Tensor {
        let site = Location::caller();
        let (dims, extents) = match dims_of(method, sizes) {
            Ok(dims) => dims,
            Err((fault, operands)) => {
                return faulty(fault, operands, TensorType::scalar(DType::F32), site);
            }
        };
        let mut state = self.lock();
        let (seed, number) = (state.seed, state.draws.len() as u64);
        let key = key_of(seed, number);
        let counter = shared(&format!("random_counter_{number}"), Array::scalar(0i64));
        counter.set_default_update(Some(&counter + used(&dims, &extents)));
        let operands = std::iter::once(Tensor::from(&counter)).chain(extents).collect();
        state.draws.push(Draw { seed, key, counter });
        build(Op::Random { key, dims: dims.into() }, operands, site).named(&format!("random_{number}"))
    }

    /// Uniform numbers in `[low, high)`: `low + u (high - low)` of `u` in [0, 1) in steps of 2^-24. Where the bounds are
    /// not constants, rounding may give `high` itself. Differentiable in the bounds.
    #[track_caller]
    pub fn uniform<S: Into<Size>>(
        &self,
        shape: impl IntoIterator<Item = S>,
        low: impl Into<Tensor>,
        high: impl Into<Tensor>,
    ) -> Tensor {
        let sizes = collect_sizes(shape);
        let (low, high) = (parameter(low.into()), parameter(high.into()));
        let (lows, highs) = (constants(&low), constants(&high));
        let wrong = |(a, b): &(&f64, &f64)| !(a.is_finite() && b.is_finite() && a <= b);
        let pairs = lows.iter().flat_map(|a| highs.iter().map(move |b| (a, b)));
        let fault = if lows.len() == 1 || highs.len() == 1 { pairs.into_iter().find(wrong) } else { None };
        if let Some((a, b)) = fault {
            let found = format!("{a} and {b}");
            return refuse("uniform", "finite bounds, the lower one first", found, &[low, high]);
        }
        let u = self.draw("uniform", &sizes);
        let fixed = match (&lows[..], &highs[..]) {
            (&[a], &[b]) => Some((a as f32, b as f32)),
            _ => None,
        };
        if let Some((a, b)) = fixed.filter(|(a, b)| !(b - a).is_finite()) {
            let found = format!("{a} and {b}");
            return refuse("uniform", "bounds whose distance is a finite f32", found, &[low, high]);
        }
        if fixed == Some((0.0, 1.0)) {
            return u;
        }
        let (low, high) =
            (expand("uniform", &low, &u, sizes.len()), expand("uniform", &high, &u, sizes.len()));
        let drawn = u * (high - &low) + low;
        match fixed {
            // The largest draw could round to the bound that is no part of the range.
            Some((a, b)) if a < b => {
                let largest = (BELOW_ONE as f32).mul_add(b - a, a).max(BELOW_ONE as f32 * (b - a) + a);
                if largest < b { drawn } else { drawn.minimum(f64::from(b.next_down())) }
            }
            Some(_) | None => drawn,
        }
    }

    /// Normal numbers `mean + std z`, where `z = sqrt(-2 log(1 - u)) cos(2 pi v)` of two uniform words (Box and Muller,
    /// 1958), composed of the graph's own functions so that every engine gives the same bits. `z` has 24 bits of each
    /// word: it lies within 5.77 of 0. Differentiable in `mean` and `std`.
    #[track_caller]
    pub fn normal<S: Into<Size>>(
        &self,
        shape: impl IntoIterator<Item = S>,
        mean: impl Into<Tensor>,
        std: impl Into<Tensor>,
    ) -> Tensor {
        let sizes = collect_sizes(shape);
        let (mean, std) = (parameter(mean.into()), parameter(std.into()));
        if let Some(value) = constants(&std).into_iter().find(|s| !(s.is_finite() && *s >= 0.0)) {
            return refuse("normal", "a standard deviation of 0 or more", value.to_string(), &[mean, std]);
        }
        let words = self.draw("normal", &with_lead(2, &sizes));
        let (radius, angle) = (first(&words), second(&words));
        let z = ((-radius).log1p() * -2.0).sqrt() * (angle * TAU).cos();
        let mean_of = expand("normal", &mean, &z, sizes.len());
        let std_of = expand("normal", &std, &z, sizes.len());
        let scaled = if constants(&std)[..] == [1.0] { z } else { z * std_of };
        if constants(&mean)[..] == [0.0] { scaled } else { scaled + mean_of }
    }

    /// Numbers of successes in `n` trials of probability `p`, `f32`: for `n = 1` whether a uniform number is below `p`,
    /// else the sum of `n` such trials. A `p` found below 0 or NaN when run counts as 0, one above 1 as 1. Nothing flows
    /// back to `p`.
    ///
    /// A probability is right to 2^-48, and for an `f32` to 2^-24 of itself. The lower bits of the uniform numbers are
    /// shared by up to 65,536 elements: all of them, or those along the first axis (the trials, for `n > 1`). Between
    /// elements whose probability is below 2^-24 this leaves a dependence of at most 2^-8. Constants between 2^-10 and
    /// 1 - 2^-10 are compared with 24 bits.
    #[track_caller]
    pub fn binomial<S: Into<Size>>(
        &self,
        shape: impl IntoIterator<Item = S>,
        n: usize,
        p: impl Into<Tensor>,
    ) -> Tensor {
        let sizes = collect_sizes(shape);
        let p = p.into();
        let fixed = constants(&p);
        if let Some(value) = fixed.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            return refuse("binomial", "probabilities in [0, 1]", value.to_string(), &[p]);
        }
        let all = if n == 1 { sizes.clone() } else { with_lead(n, &sizes) };
        let plain = |p: &f64| *p == 0.0 || *p == 1.0 || (COARSE..=1.0 - COARSE).contains(p);
        let coarse = !fixed.is_empty() && fixed.iter().all(plain);
        let p = if coarse { parameter(p) } else { probability(p) };
        let hits = if coarse {
            let u = self.draw("binomial", &all);
            u.lt(expand("binomial", &p, &u, sizes.len()))
        } else {
            let (upper, lower) = self.refined("binomial", &all, p.dtype());
            // Whether `upper + lower STEP < p`, without a rounding: where the difference is below a step, it is exact.
            (expand("binomial", &p, &upper, sizes.len()) - upper).gt(lower * STEP)
        };
        let hits = hits.cast(DType::F32);
        if n == 1 { hits } else { hits.sum(0) }
    }

    /// Draws of that type for uniform numbers `upper + lower STEP` of 48 bits: a word of its own for each, and a second
    /// one for all elements, or for those along the first axis, which stands behind them.
    #[track_caller]
    fn refined(&self, method: &str, sizes: &[Size], dtype: DType) -> (Tensor, Tensor) {
        let few = |n: &i64| (0..=SHARING).contains(n);
        let number = |size: &Size| match size {
            Size::Number(n) => few(n).then_some(*n),
            Size::Tensor(_) => None,
        };
        let all = sizes.iter().try_fold(1, |all: i64, size| all.checked_mul(number(size)?)).filter(few);
        let rows = match sizes.first() {
            _ if all.is_some() => None,
            Some(Size::Tensor(t)) if t.rank() == 0 && t.dtype().is_int() => Some(Size::from(t + 1)),
            Some(first) => number(first).map(|n| Size::Number(n + 1)),
            None => None,
        };
        if let Some(all) = all {
            let words = self.draw(method, &[Size::Number(all + 1)]).cast(dtype);
            (words.index(ix![..-1]).reshape(sizes.iter().cloned()), words.index(ix![-1]))
        } else if let Some(rows) = rows {
            let sizes: Sizes = std::iter::once(rows).chain(sizes[1..].iter().cloned()).collect();
            let words = self.draw(method, &sizes).cast(dtype);
            (words.index(ix![..-1]), words.index(ix![-1]))
        } else {
            let words = self.draw(method, &with_lead(2, sizes)).cast(dtype);
            (first(&words), second(&words))
        }
    }

    /// One draw from each row (last axis) of probabilities `p[.., k]`, as `f32[.., k]`: 1 in the column drawn, else 0.
    /// As [`RandomStreams::categorical`]; a row without a positive number gives zeros.
    #[track_caller]
    pub fn multinomial(&self, p: impl Into<Tensor>) -> Tensor {
        let p = p.into();
        let drawn = self.race("multinomial", &p);
        let Some(last) = p.rank().checked_sub(1) else { return drawn };
        let pattern: Vec<Option<usize>> = (0..last).map(Some).chain([None]).collect();
        drawn.dimshuffle(&pattern).eq(arange(p.extent(last))).cast(DType::F32)
    }

    /// One draw from each row (last axis) of probabilities `p[.., k]`, as `i64[..]`: the column drawn. Of exponential
    /// waiting times with rates `p` the shortest wins, so rows need not sum to 1, and what is 0 is never drawn.
    /// Probabilities are right to 2^-48, in `f64` to 2^-72, and to a few roundings of themselves; `f64` stays `f64`.
    ///
    /// What is found below 0 or NaN when run counts as 0, an infinity as the largest number. A row without a positive
    /// number draws none of its columns: it gives `k`, which every use as an index refuses.
    #[track_caller]
    pub fn categorical(&self, p: impl Into<Tensor>) -> Tensor {
        self.race("categorical", &p.into())
    }

    #[track_caller]
    fn race(&self, method: &str, p: &Tensor) -> Tensor {
        let p = probability(p.clone());
        let Some(last) = p.rank().checked_sub(1) else {
            return refuse(method, "rows of probabilities", p.ty().to_string(), &[p]);
        };
        let fixed = constants(&p);
        if let Some(value) = fixed.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
            return refuse(method, "finite probabilities of 0 or more", value.to_string(), &[p]);
        }
        if !fixed.is_empty() && fixed.iter().all(|value| *value == 0.0) {
            return refuse(method, "rows with a positive probability", "zeros alone".to_owned(), &[p]);
        }
        let mut sizes = Sizes::new();
        for axis in 0..p.rank() {
            sizes.push(match p.ty().shape[axis] {
                Extent::Known(n) => Size::from(n),
                Extent::Unknown => Size::from(p.extent(axis)),
            });
        }
        let (words, largest, below_one) = if p.dtype() == DType::F64 {
            (3, f64::MAX, 1.0f64.next_down())
        } else {
            (2, f64::from(f32::MAX), BELOW_ONE)
        };
        let draws = self.draw(method, &with_lead(words, &sizes)).cast(p.dtype());
        // Half a step at the end, so that no waiting time is 0; none is infinite either.
        let word = |number: usize| draws.index(ix![number]);
        let u = (0..words).rev().fold(Tensor::from(0.5), |rest, number| rest * STEP + word(number));
        let time = -(-u.minimum(below_one)).log1p();
        // The largest rate of a row is made 1: its speed is then a normal number, and a rate that underflows beside it
        // could not have won.
        let rates = switch(p.gt(0.0), p.minimum(largest), 0.0);
        let top = rates.max_keepdims(last as i64);
        let speed = rates / switch(top.gt(0.0), &top, 1.0) / time;
        let any = top.max(last as i64).gt(0.0);
        switch(any, speed.argmax(-1), p.extent(last))
    }

    /// Integers in `low..high`, `i64`, each equally likely up to 2^-48 times the range: `low` plus the product of the
    /// range and 48 random bits divided by 2^48, in integer arithmetic. The range is at most 2^38; one found empty when
    /// run gives `low`. (Theano's `random_integers` counts `high` in.)
    #[track_caller]
    pub fn integers<S: Into<Size>>(
        &self,
        shape: impl IntoIterator<Item = S>,
        low: impl Into<Tensor>,
        high: impl Into<Tensor>,
    ) -> Tensor {
        self.integers_in("integers", &collect_sizes(shape), low.into(), high.into())
    }

    #[track_caller]
    fn integers_in(&self, method: &str, sizes: &[Size], low: Tensor, high: Tensor) -> Tensor {
        if let Some(bound) = [&low, &high].into_iter().find(|bound| bound.dtype().is_float()) {
            return refuse(method, "integer bounds", bound.ty().to_string(), &[low.clone(), high.clone()]);
        }
        let (low, high) = (low.cast(DType::I64), high.cast(DType::I64));
        let fixed = match (&constants(&low)[..], &constants(&high)[..]) {
            (&[a], &[b]) => Some((a, b)),
            _ => None,
        };
        if let Some((a, b)) = fixed.filter(|(a, b)| b - a < 1.0 || b - a > LARGEST_RANGE as f64) {
            let expected = format!("a range of 1 to {LARGEST_RANGE} integers");
            return refuse(method, &expected, format!("{a}..{b}"), &[low, high]);
        }
        let words = self.draw(method, &with_lead(2, sizes));
        let bits = (words * f64::from(STEPS)).cast(DType::I64);
        let (upper, lower) = (first(&bits), second(&bits));
        let low = expand(method, &low, &upper, sizes.len());
        let high = expand(method, &high, &upper, sizes.len());
        let range = (high - &low).clip(1, LARGEST_RANGE);
        let carried = (lower * &range).floordiv(STEPS);
        low + (upper * range + carried).floordiv(STEPS)
    }

    /// Integers in `0..n`, `i64`, drawn with replacement. Without replacement: the first elements of a
    /// [`RandomStreams::permutation`]. With weights: [`RandomStreams::categorical`] of the weights repeated to the shape.
    #[track_caller]
    pub fn choice<S: Into<Size>>(&self, n: usize, shape: impl IntoIterator<Item = S>) -> Tensor {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        self.integers_in("choice", &collect_sizes(shape), Tensor::from(0), Tensor::from(n))
    }

    /// `0..n` in random order, `i64[n]`, by Durstenfeld's form of the shuffle of Fisher and Yates: a scan of `n` steps, each of
    /// which exchanges two elements in place. A length that no memory holds is a fault.
    #[track_caller]
    pub fn permutation(&self, n: usize) -> Tensor {
        let places = arange(n);
        if n == 0 {
            return places;
        }
        let others = self.integers_in("permutation", &[Size::from(n)], Tensor::from(0), &places + 1);
        let shuffle = Scan::new().sequence(&places).sequence(others).carry(&places).run(|step| {
            let (place, order) = (&step.sequences[0], &step.carries[0]);
            let there = order.index(ix![&step.sequences[1]]);
            Next::new().carry(order.set_rows(stack(&step.sequences, 0), stack(&[there, place.clone()], 0)))
        });
        shuffle.last[0].clone()
    }
}

/// Elements of the first row of a draw of two.
#[track_caller]
fn first(words: &Tensor) -> Tensor {
    words.index(ix![0])
}

/// Elements of the second row of a draw of two.
#[track_caller]
fn second(words: &Tensor) -> Tensor {
    words.index(ix![1])
}

/// What stands in the place of a draw whose parameters are outside of their domain.
#[track_caller]
fn refuse(method: &str, expected: &str, found: String, operands: &[Tensor]) -> Tensor {
    let fault = Diagnostic::new(format!("`{method}` takes {expected}")).with("found", found, None);
    faulty(fault, operands.into(), TensorType::scalar(DType::F32), Location::caller())
}

/// Extents as attributes, with the operands that give those not known.
type DrawDims = (Vec<Dim>, SmallVec<[Tensor; 2]>);

fn dims_of(method: &str, sizes: &[Size]) -> Result<DrawDims, (Diagnostic, SmallVec<[Tensor; 2]>)> {
    let mut dims = Vec::new();
    let mut extents: SmallVec<[Tensor; 2]> = smallvec![];
    let title = format!("`{method}` takes extents that are 0 or more, or integer scalars");
    let negative =
        |n: i64| (Diagnostic::new(title.clone()).with("found", n.to_string(), None), SmallVec::new());
    for size in sizes {
        match size {
            Size::Number(n) => dims.push(Dim::Known(usize::try_from(*n).map_err(|_| negative(*n))?)),
            Size::Tensor(t) if t.rank() != 0 || !t.dtype().is_int() => {
                let fault = Diagnostic::new(title).with("found", t.ty().to_string(), None);
                return Err((fault, smallvec![t.clone()]));
            }
            Size::Tensor(t) => match t.0.op.literal().and_then(Literal::to_i64) {
                Some(n) => dims.push(Dim::Known(usize::try_from(n).map_err(|_| negative(n))?)),
                None => {
                    dims.push(Dim::Operand);
                    extents.push(t.cast(DType::I64));
                }
            },
        }
    }
    let known: Vec<usize> = known_extents(&dims).collect();
    if !fits_in_memory(&known) {
        let fault = Diagnostic::new(format!("`{method}` would give more elements than memory can hold"))
            .with("extents", format!("{known:?}"), None);
        return Err((fault, SmallVec::new()));
    }
    Ok((dims, extents))
}

fn known_extents(dims: &[Dim]) -> impl Iterator<Item = usize> {
    dims.iter().filter_map(|dim| match dim {
        Dim::Known(n) => Some(*n),
        Dim::Operand => None,
    })
}

/// The counters that a draw uses, `i64[]`.
#[track_caller]
fn used(dims: &[Dim], extents: &[Tensor]) -> Tensor {
    let known: usize = known_extents(dims).product();
    let Some(product) = extents.iter().cloned().reduce(|a, b| a * b) else {
        return Tensor::from(counters_used(known as u64) as i64);
    };
    let elements = product * Tensor::from(known as i64);
    (elements + Tensor::from(BLOCK as i64 - 1)).floordiv(BLOCK as i64) * Tensor::from(LANES as i64)
}

/// A parameter as `f32`.
#[track_caller]
fn parameter(x: Tensor) -> Tensor {
    x.cast(DType::F32)
}

/// Probabilities as `f64` where they are, and where a plain number close to 0 or 1 needs it, else as `f32`.
#[track_caller]
fn probability(p: Tensor) -> Tensor {
    if p.dtype() == DType::F64 { p.cast(DType::F64) } else { parameter(p) }
}

/// A parameter in the shape of a draw of that rank; `like` has it, perhaps with an axis of trials before. A parameter
/// must not enlarge the draw, whose numbers would repeat.
#[track_caller]
fn expand(method: &str, x: &Tensor, like: &Tensor, rank: usize) -> Tensor {
    if x.rank() > rank {
        let expected = format!("parameters that repeat to {rank} axes");
        return refuse(method, &expected, x.ty().to_string(), std::slice::from_ref(x));
    }
    let same = x.ty().shape == like.ty().shape && x.ty().is_known();
    if x.rank() == 0 || same { x.clone() } else { x.broadcast_like(like) }
}

/// The values of a constant; nothing where they are not known.
fn constants(x: &Tensor) -> Vec<f64> {
    let mut x = x;
    while let Class::Cast(_) | Class::View(View::Broadcast(_) | View::Reshape | View::Same) = x.0.op.class() {
        x = &x.0.operands[0];
    }
    if let Some(LeafKind::Constant(array)) = x.leaf().map(|leaf| &leaf.kind) {
        return (0..array.len()).map(|i| array.get(i).to_f64()).collect();
    }
    x.0.op.literal().into_iter().map(Literal::to_f64).collect()
}

#[cfg(test)]
mod tests;
