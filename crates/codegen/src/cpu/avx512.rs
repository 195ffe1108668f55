//! Loop kernels as AVX-512 machine code, written directly.
//!
//! A kernel passes through `nest` (the order of its loops), `strip` (its body as straight-line nodes on 16 lanes, each
//! with the loop level where it is computed), and `allocate` (registers, and the instructions of one level); this module
//! puts the loops around them, and `encode` knows the bytes.
//!
//! Registers. General: `rax`, `rcx` are scratch; `rdx` is the index along the strip axis; `rsp` the frame, aligned
//! to 64 bytes; `rbp` the way back; the others hold pointers and loop counters, those that find no place lie in the
//! frame. Vectors: accumulators from `zmm31` downward, below them pinned values (constants and loop-invariant values
//! that the innermost code reads often), the rest belongs to the blocks. Masks: `k1` is the tail, `k2` to `k7` belong to
//! the blocks.
//!
//! Always true: a strip's loads come before its stores; lanes past the end are neither read nor written nor checked;
//! every element has the bits that [`hypatia_graph::ScalarFn::eval`] gives (a NaN may have other payload bits), every
//! fold the order that [`crate::kernel`] describes. Deliberately absent: `f64`, arg max, scattered stores, and `i64`
//! values that may need more than 32 bits. Such kernels are refused, and the portable code generator takes them.

mod allocate;
mod encode;
mod nest;
mod rare;
mod strip;

#[cfg(test)]
mod tests;

use hypatia_graph::{Broken, DType};

use self::allocate::{Failure, Found, Frame, Function, INDEX, MASK_COUNT, Place, TAIL, emit_block};
use self::encode::*;
use self::nest::{Nest, Normal, normalise};
use self::rare::emit_rare_code;
use self::strip::{Class, Constant, Element, Id, Node, Strip};
use crate::kernel::{LANES, LoopKernel};

/// Whether this processor runs the emitted code.
pub fn is_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Machine code of a kernel, position-independent, its constants behind it, or `None` where the kernel uses something
/// that is not covered. For the System V calling convention:
///
/// ```text
/// extern "C" fn(buffers: *const *mut u8, begin: i64, end: i64, error: *mut [i64; 3])
/// ```
///
/// `buffers` has one pointer for each parameter; `begin..end` is the part of the outermost loop axis to run, all of it
/// where that axis is reduced, and `0..1` where there is no axis. If `error[0]` is 0 and an index or start is out of
/// range, `error` becomes 1, the value, the check. Of memory that the kernel writes, an iteration may read only the
/// element that it writes itself: iterations are not run in order.
///
/// There is none for what the portable emitter has to take.
pub fn emit(kernel: &LoopKernel) -> Result<Option<Vec<u8>>, Broken> {
    let covered = |dtype: DType| dtype != DType::F64;
    if !kernel.types.iter().copied().all(covered) || kernel.extents.len() > 16 {
        return Ok(None);
    }
    match normalise(kernel) {
        // The starts are checked even if nothing is written.
        Some(Normal::Empty) if kernel.starts.is_empty() => {
            let mut asm = Assembler::default();
            asm.return_at_once();
            Ok(Some(asm.finish()))
        }
        Some(Normal::Loops(parts)) => {
            let (normal, nest) = *parts;
            let Some(strip) = strip::record(&normal, &nest) else { return Ok(None) };
            let has_range = !kernel.extents.is_empty() && !kernel.reduced[0];
            let emit = |pages| match Emitter::new(&normal, &nest, &strip, has_range) {
                Some(emitter) => emitter.emit(pages),
                None => Ok(None),
            };
            // The frame's size is known at the end, and so is the number of pages to touch at the beginning: mostly none.
            let code = match emit(0)? {
                Some((_, pages)) if pages > 0 => emit(pages)?,
                code => code,
            };
            Ok(code.map(|(code, _)| code))
        }
        Some(Normal::Empty) | None => Ok(None),
    }
}

/// General registers for pointers and counters, those first that need not be saved.
const PLACES: [Gpr; 11] =
    [RSI, RDI, Gpr(8), Gpr(9), Gpr(10), Gpr(11), RBX, Gpr(12), Gpr(13), Gpr(14), Gpr(15)];
/// How many of them the caller may have in use.
const UNSAVED: usize = 6;
/// Vector registers that a block has for itself at least.
const LEAST_POOL: usize = 8;

struct Emitter<'a> {
    kernel: &'a LoopKernel,
    nest: &'a Nest,
    function: Function<'a>,
    has_range: bool,
    /// Strips in one turn of the main loop.
    copies: usize,
    saved: Vec<Gpr>,
    counters: Vec<Place>,
    buffers: i32,
    error: i32,
    begin: i32,
    end: i32,
}

impl<'a> Emitter<'a> {
    fn new(kernel: &'a LoopKernel, nest: &'a Nest, strip: &'a Strip, has_range: bool) -> Option<Emitter<'a>> {
        let mut frame = Frame::default();
        let (buffers, error) = (frame.scalar(), frame.scalar());
        let (begin, end) = (frame.scalar(), frame.scalar());
        let mut registers = PLACES.into_iter();
        let mut place = || registers.next().map_or_else(|| Place::Stack(frame.scalar()), Place::Register);
        let mut pointers: Vec<Place> = strip.groups.iter().map(|_| place()).collect();
        let counters: Vec<Place> = nest.loops.iter().rev().map(|_| place()).rev().collect();
        pointers.shrink_to_fit();
        let used = PLACES.len() - registers.len();
        let saved = PLACES[UNSAVED.min(used)..used].to_vec();

        let shares = Registers::new(strip, nest)?;
        let crossing = crossing_values(strip);
        let mut homes = vec![None; strip.nodes.len() * shares.copies];
        for (position, node) in strip.nodes.iter().enumerate() {
            let is_pinned = shares.pins[position].is_some();
            let per_copy = usize::from(strip.levels[position]) > nest.strip;
            let count = if per_copy { shares.copies } else { 1 };
            for home in &mut homes[position * shares.copies..][..count] {
                *home = match node.class() {
                    Class::Scalar => Some(frame.scalar()),
                    Class::Mask if crossing[position] => Some(frame.scalar()),
                    Class::Vector if crossing[position] && !is_pinned => Some(frame.vector()),
                    Class::Mask | Class::Vector | Class::Effect => None,
                };
            }
        }
        let function = Function {
            strip,
            strip_loop: nest.strip,
            asm: Assembler::default(),
            frame,
            pointers,
            most_copies: shares.copies,
            pins: shares.pins,
            homes,
            pool: shares.pool,
            failures: Vec::new(),
            rare: Vec::new(),
            folds_lanes: nest.folds_lanes(),
            lanes: Vec::new(),
            broken: None,
        };
        Some(Emitter {
            kernel,
            nest,
            function,
            has_range,
            copies: shares.copies,
            saved,
            counters,
            buffers,
            error,
            begin,
            end,
        })
    }

    fn asm(&mut self) -> &mut Assembler {
        &mut self.function.asm
    }

    /// The code, and the whole pages of its frame.
    fn emit(mut self, probed_pages: i32) -> Result<Option<(Vec<u8>, i32)>, Broken> {
        let code = self.code(probed_pages);
        self.function.broken.map_or(Ok(code), Err)
    }

    fn code(&mut self, probed_pages: i32) -> Option<(Vec<u8>, i32)> {
        let saved = self.saved.clone();
        if self.has_range {
            let asm = self.asm();
            let some = asm.label();
            asm.compare(RSI, RDX);
            asm.jump_if(Condition::Less, some);
            asm.return_at_once();
            asm.place(some);
        }
        let asm = self.asm();
        asm.push(RBP);
        asm.load(RBP, RSP);
        for register in &saved {
            asm.push(*register);
        }
        asm.probe(probed_pages);
        let reserve = asm.reserve();
        asm.and_immediate(RSP, -64);
        self.enter()?;
        self.level(0, self.copies, false);
        self.asm().finish_function(&saved);
        self.function.frame.leave_blocks();
        for failure in std::mem::take(&mut self.function.failures) {
            self.failure(&failure);
        }
        emit_rare_code(&mut self.function)?;
        let bytes = self.function.frame.bytes()?;
        self.asm().set_reserve(reserve, bytes);
        Some((std::mem::take(&mut self.function.asm).finish(), bytes / 4096))
    }

    /// The arguments into the frame, run-time starts, pointers, pinned constants.
    fn enter(&mut self) -> Option<()> {
        let (buffers, error, begin, end) = (self.buffers, self.error, self.begin, self.end);
        let asm = self.asm();
        asm.store(Memory::at(RSP, buffers), RDI);
        asm.store(Memory::at(RSP, error), RCX);
        if let Some(factor) = self.nest.loops[0].given {
            let factor = i32::try_from(factor).ok()?;
            let asm = self.asm();
            for (register, slot) in [(RSI, begin), (RDX, end)] {
                if factor != 1 {
                    asm.multiply(register, register, factor);
                }
                asm.store(Memory::at(RSP, slot), register);
            }
        }
        let starts = self.starts()?;
        for group in 0..self.function.strip.groups.len() {
            self.pointer(group, &starts)?;
        }
        for position in 0..self.function.strip.nodes.len() {
            if let (Node::Constant(constant), Some(pin)) =
                (self.function.strip.nodes[position], self.function.pins[position])
            {
                self.function.load_constant(pin, constant);
            }
        }
        Some(())
    }

    /// Reads and checks the run-time starts; their places in the frame.
    fn starts(&mut self) -> Option<Vec<i32>> {
        let (buffers, error) = (self.buffers, self.error);
        let mut places = Vec::new();
        for (number, start) in self.kernel.starts.iter().enumerate() {
            if self.kernel.params.get(usize::from(start.param))?.dtype != DType::I64 {
                return None;
            }
            let (extent, limit) = (i32::try_from(start.extent).ok()?, i32::try_from(start.limit).ok()?);
            let place = self.function.frame.scalar();
            let asm = self.asm();
            let (from_begin, fits, bad, known) = (asm.label(), asm.label(), asm.label(), asm.label());
            asm.load(RAX, Memory::at(RSP, buffers));
            asm.load(RAX, Memory::at(RAX, 8 * i32::from(start.param)));
            asm.load(RAX, Memory::at(RAX, 0));
            asm.load(RCX, RAX);
            asm.compare_immediate(RAX, 0);
            asm.jump_if(Condition::NotLess, from_begin);
            asm.add_immediate(RAX, extent);
            asm.place(from_begin);
            if let Some(refused) = start.refused() {
                asm.compare_immediate(RCX, i32::try_from(refused).ok()?);
                asm.jump_if(Condition::Equal, bad);
            }
            asm.compare_immediate(RAX, limit);
            asm.jump_if(Condition::NotAbove, fits);
            asm.place(bad);
            asm.load(RAX, Memory::at(RSP, error));
            asm.compare_immediate(Memory::at(RAX, 0), 0);
            asm.jump_if(Condition::NotEqual, known);
            asm.store(Memory::at(RAX, 8), RCX);
            asm.set(Memory::at(RAX, 16), i32::try_from(number).ok()?);
            asm.set(Memory::at(RAX, 0), 1);
            asm.place(known);
            asm.set(RAX, 0);
            asm.place(fits);
            asm.store(Memory::at(RSP, place), RAX);
            places.push(place);
        }
        Some(places)
    }

    fn pointer(&mut self, group: usize, starts: &[i32]) -> Option<()> {
        let strip = self.function.strip;
        let (buffers, begin) = (self.buffers, self.begin);
        let description = &strip.groups[group];
        let place = self.function.pointers[group];
        let is_given = self.nest.loops[0].given.is_some() && self.nest.strip != 0;
        let asm = self.asm();
        match description.param {
            Some(param) => {
                asm.load(RAX, Memory::at(RSP, buffers));
                asm.load(RAX, Memory::at(RAX, 8 * i32::from(param)));
            }
            None => asm.set(RAX, 0),
        }
        for &(start, factor) in &description.starts {
            asm.multiply(RCX, Memory::at(RSP, *starts.get(usize::from(start))?), i32::try_from(factor).ok()?);
            asm.add(RAX, RCX);
        }
        if is_given && description.steps[0] != 0 {
            asm.multiply(RCX, Memory::at(RSP, begin), i32::try_from(description.steps[0]).ok()?);
            asm.add(RAX, RCX);
        }
        asm.store(place, RAX);
        Some(())
    }

    /// The code inside the first `level` loops.
    fn level(&mut self, level: usize, copies: usize, masked: bool) {
        let has_folds = self.nest.folds == level && !self.function.strip.accumulators.is_empty();
        if has_folds {
            self.for_each_accumulator(copies, |emitter, number, copy, register| {
                let _ = copy;
                let identity = emitter.function.strip.accumulators[number].identity;
                emitter.function.load_constant(register, Constant::Splat(identity));
            });
        }
        emit_block(&mut self.function, level, copies, masked);
        if level == self.nest.strip {
            self.strip_loop();
        } else if level < self.nest.loops.len() {
            self.scalar_loop(level, copies, masked);
        }
        if has_folds {
            let temporary = (self.function.pool.trailing_zeros() as u8, TAIL + 1);
            self.for_each_accumulator(copies, |emitter, number, copy, register| {
                let accumulator = emitter.function.strip.accumulators[number];
                if emitter.function.folds_lanes {
                    emitter.function.finish_lanes(accumulator, register, temporary);
                    return;
                }
                let mut source = register;
                if accumulator.element == Element::Truth {
                    source = TAIL + 2;
                    let last = Operand::Register(register);
                    emitter.asm().vector(VPTESTMD, source, register, last, Masking::All, None);
                }
                let (access, element) = (accumulator.access, accumulator.element);
                emitter.function.store_lanes(access, element, copy, source, masked, temporary);
            });
        }
    }

    fn for_each_accumulator(&mut self, copies: usize, mut visit: impl FnMut(&mut Self, usize, usize, u8)) {
        let copies = if self.function.folds_lanes { 1 } else { copies };
        for number in 0..self.function.strip.accumulators.len() {
            for copy in 0..copies {
                let register = self.function.accumulator(number, copy, copies);
                visit(self, number, copy, register);
            }
        }
    }

    /// Bytes that all iterations of a loop advance a group's pointer.
    fn advance(&self, group: usize, level: usize) -> i64 {
        let steps = &self.function.strip.groups[group].steps;
        self.nest.loops.get(level).map_or(0, |each| steps[level].wrapping_mul(each.extent as i64))
    }

    /// At the end of an iteration: pointers to where the next one begins, from where the loop inside left them.
    fn step(&mut self, level: usize) {
        for group in 0..self.function.strip.groups.len() {
            let step = self.function.strip.groups[group].steps[level] - self.advance(group, level + 1);
            if step == 0 {
                continue;
            }
            let place = self.function.pointers[group];
            match i32::try_from(step) {
                Ok(step) => self.asm().add_immediate(place, step),
                Err(_) => {
                    let offset = self.function.asm.block(&[step as u32, (step >> 32) as u32]);
                    let asm = self.asm();
                    asm.load(RAX, Memory::pool(offset));
                    asm.add(RAX, place);
                    asm.store(place, RAX);
                }
            }
        }
    }

    fn scalar_loop(&mut self, level: usize, copies: usize, masked: bool) {
        let counter = self.counters[level];
        let (begin, end) = (self.begin, self.end);
        let description = &self.nest.loops[level];
        let asm = self.asm();
        if description.given.is_some() {
            asm.load(RAX, Memory::at(RSP, end));
            asm.subtract(RAX, Memory::at(RSP, begin));
            asm.store(counter, RAX);
        } else {
            asm.set(counter, description.extent as i32);
        }
        let top = asm.here();
        self.level(level + 1, copies, masked);
        self.step(level);
        let asm = self.asm();
        asm.add_immediate(counter, -1);
        asm.jump_if(Condition::NotEqual, top);
    }

    /// One turn of the strip loop, `copies` strips or one that may not be whole.
    fn turn(&mut self, copies: usize, masked: bool) {
        let level = self.nest.strip;
        self.level(level + 1, copies, masked);
        self.step(level);
        self.asm().add_immediate(INDEX, (copies * LANES) as i32);
    }

    fn strip_loop(&mut self) {
        let description = &self.nest.loops[self.nest.strip];
        if description.given.is_some() {
            self.strips_of_range()
        } else {
            self.strips_of_extent(description.extent)
        }
    }

    fn strips_of_range(&mut self) {
        let (begin, end) = (self.begin, self.end);
        let width = (self.copies * LANES) as i32;
        let asm = self.asm();
        let (top, rest, done) = (asm.label(), asm.label(), asm.label());
        asm.load(INDEX, Memory::at(RSP, begin));
        asm.address(RAX, Memory::at(INDEX, width));
        asm.compare(RAX, Memory::at(RSP, end));
        asm.jump_if(Condition::Greater, rest);
        asm.place(top);
        self.turn(self.copies, false);
        let asm = self.asm();
        asm.address(RAX, Memory::at(INDEX, width));
        asm.compare(RAX, Memory::at(RSP, end));
        asm.jump_if(Condition::NotGreater, top);
        asm.place(rest);
        asm.compare(INDEX, Memory::at(RSP, end));
        asm.jump_if(Condition::NotLess, done);
        let top = asm.here();
        asm.load(RCX, Memory::at(RSP, end));
        self.set_tail_from_end();
        self.turn(1, true);
        let asm = self.asm();
        asm.compare(INDEX, Memory::at(RSP, end));
        asm.jump_if(Condition::Less, top);
        asm.place(done);
    }

    fn strips_of_extent(&mut self, extent: usize) {
        let width = self.copies * LANES;
        let (turns, rest) = (extent / width, extent % width);
        self.asm().set(INDEX, 0);
        if turns > 0 {
            let top = self.asm().here();
            self.turn(self.copies, false);
            if turns > 1 {
                let asm = self.asm();
                asm.compare_immediate(INDEX, (turns * width) as i32);
                asm.jump_if(Condition::Less, top);
            }
        }
        if rest == 0 {
            return;
        }
        if rest <= LANES {
            if rest < LANES {
                let asm = self.asm();
                asm.set(RAX, (1 << rest) - 1);
                asm.vex(KMOVW_FROM_GPR, TAIL, 0, RAX, None);
            }
            self.turn(1, rest < LANES);
            return;
        }
        let asm = self.asm();
        let top = asm.here();
        asm.set(RCX, extent as i32);
        self.set_tail_from_end();
        self.turn(1, true);
        let asm = self.asm();
        asm.compare_immediate(INDEX, extent as i32);
        asm.jump_if(Condition::Less, top);
    }

    /// The tail's mask, from the end in `rcx`: fewer than 256 elements are left.
    fn set_tail_from_end(&mut self) {
        let asm = self.asm();
        asm.subtract(RCX, INDEX);
        asm.set(RAX, -1);
        asm.vex(BZHI, RAX.0, RCX.0, RAX, None);
        asm.vex(KMOVW_FROM_GPR, TAIL, 0, RAX, None);
    }

    /// Reports an index out of range: the first such lane.
    fn failure(&mut self, failure: &Failure) {
        let error = self.error;
        self.asm().place(failure.entry);
        self.asm().vex(KMOVW_TO_GPR, RAX.0, 0, Operand::Register(failure.mask), None);
        self.asm().count_trailing_zeros();
        match failure.found {
            Found::Register(register) => {
                let slot = self.function.frame.vector();
                let memory = Memory::at(RSP, slot);
                let asm = self.asm();
                asm.vector(VMOVUPS_STORE, register, 0, memory, Masking::All, None);
                asm.load_int(RAX, memory.indexed(RAX.0, 2));
            }
            Found::Quads(access, copy) => {
                let base = self.function.base(access, RCX);
                let asm = self.asm();
                let memory = Memory::at(base, access.displacement);
                if access.stride == 0 {
                    asm.load(RAX, memory);
                } else {
                    asm.address(RCX, memory.indexed(INDEX.0, 3).plus((LANES * 8 * copy) as i32));
                    asm.load(RAX, Memory::at(RCX, 0).indexed(RAX.0, 3));
                }
            }
        }
        let asm = self.asm();
        asm.load(RCX, Memory::at(RSP, error));
        asm.compare_immediate(Memory::at(RCX, 0), 0);
        asm.jump_if(Condition::NotEqual, failure.back);
        asm.store(Memory::at(RCX, 8), RAX);
        asm.set(Memory::at(RCX, 16), failure.check.cast_signed());
        asm.set(Memory::at(RCX, 0), 1);
        asm.jump(failure.back);
    }
}

/// For each node, whether another block than its own uses it.
fn crossing_values(strip: &Strip) -> Vec<bool> {
    let mut crossing = vec![false; strip.nodes.len()];
    for (level, block) in strip.blocks.iter().enumerate() {
        for id in block {
            strip.nodes[id.index()].for_each_operand(|x| {
                let is_constant = matches!(strip.nodes[x.index()], Node::Constant(_));
                if !is_constant && usize::from(strip.levels[x.index()]) != level {
                    crossing[x.index()] = true;
                }
            });
        }
    }
    crossing
}

/// How registers are shared out.
struct Registers {
    copies: usize,
    pins: Vec<Option<u8>>,
    pool: u32,
}

impl Registers {
    fn new(strip: &Strip, nest: &Nest) -> Option<Registers> {
        let inner = nest.strip + 1..strip.blocks.len();
        let outer = 0..nest.strip + 1;
        let (mut inner_peak, mut inner_masks, mut outer_peak) = (0, 0, 0);
        for level in inner.clone() {
            let (vectors, masks) = peak(strip, level);
            inner_peak = inner_peak.max(vectors);
            inner_masks = inner_masks.max(masks);
        }
        for level in outer {
            outer_peak = outer_peak.max(peak(strip, level).0);
        }
        let size: usize = strip.blocks[inner.clone()].iter().map(Vec::len).sum();
        let extent = nest.loops[nest.strip].extent;
        let folds = strip.accumulators.len();
        let accumulators = |copies: usize| if nest.folds_lanes() { folds } else { folds * copies };
        // Registers beside the values: those that instructions with several steps, or spilled operands, need.
        let spare = 3;
        let fits = |copies: usize| {
            let limit = if copies == 4 { 16 } else { 160 };
            size <= limit
                && extent >= 2 * copies * LANES
                && accumulators(copies) + copies * inner_peak + spare <= 32
                && copies * inner_masks <= MASK_COUNT
        };
        let copies = [4, 2].into_iter().find(|&copies| fits(copies)).unwrap_or(1);
        let accumulators = accumulators(copies);
        if accumulators > 32 - 2 * LEAST_POOL {
            return None;
        }
        let needed = (copies * inner_peak).max(outer_peak) + spare;
        let count = (32 - accumulators).saturating_sub(needed.max(LEAST_POOL));
        let pins = pin(strip, nest, 32 - accumulators, count);
        let pinned = pins.iter().flatten().count();
        let pool = ((1u64 << (32 - accumulators - pinned)) - 1) as u32;
        Some(Registers { copies, pins, pool })
    }
}

/// Gives registers below `end` to the `count` values from outside that the strips' code reads most often.
fn pin(strip: &Strip, nest: &Nest, end: usize, count: usize) -> Vec<Option<u8>> {
    let mut reads = vec![0u32; strip.nodes.len()];
    for block in &strip.blocks[nest.strip + 1..] {
        for id in block {
            strip.nodes[id.index()].for_each_operand(|x| {
                let node = &strip.nodes[x.index()];
                let is_outside = usize::from(strip.levels[x.index()]) <= nest.strip;
                if is_outside && node.class() == Class::Vector {
                    reads[x.index()] += 1;
                }
            });
        }
    }
    let mut candidates: Vec<usize> = (0..reads.len()).filter(|&x| reads[x] > 0).collect();
    candidates.sort_by_key(|&x| (std::cmp::Reverse(reads[x]), x));
    let mut pins = vec![None; reads.len()];
    for (rank, &x) in candidates.iter().take(count).enumerate() {
        pins[x] = Some((end - 1 - rank) as u8);
    }
    pins
}

/// The most vectors and masks of a level that are alive at once.
fn peak(strip: &Strip, level: usize) -> (usize, usize) {
    let mut alive = vec![false; strip.nodes.len()];
    let mut counts = [0usize; 2];
    let mut peaks = [0usize; 2];
    let slot = |id: Id| {
        let node = &strip.nodes[id.index()];
        match node.class() {
            Class::Vector => (!matches!(node, Node::Constant(_))).then_some(0),
            Class::Mask => Some(1),
            Class::Scalar | Class::Effect => None,
        }
    };
    for &id in strip.blocks[level].iter().rev() {
        if let Some(slot) = slot(id).filter(|_| alive[id.index()]) {
            counts[slot] -= 1;
        }
        strip.nodes[id.index()].for_each_operand(|x| {
            let is_here = usize::from(strip.levels[x.index()]) == level;
            if let Some(slot) = slot(x).filter(|_| is_here && !alive[x.index()]) {
                alive[x.index()] = true;
                counts[slot] += 1;
                peaks[slot] = peaks[slot].max(counts[slot]);
            }
        });
    }
    (peaks[0], peaks[1])
}
