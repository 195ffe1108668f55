//! Registers for straight-line code, given while the code is emitted.
//!
//! A block's nodes are walked once; where a strip is unrolled, the copies of a node follow each other, so that the long
//! dependency chains of polynomials overlap. A value lives in a register until its last use. When none is free, the
//! value whose next use is farthest goes to the stack (Belady 1966), once: nodes never change, so a second eviction
//! costs nothing. Constants are read from the pool, spilled values from the stack, in the instruction that uses them
//! wherever it allows a memory operand.
//!
//! Always true between blocks: only pinned values and accumulators are in registers; a value used in another block than
//! its own is pinned or has a home on the stack.

use hypatia_graph::{Broken, broken};

use super::encode::*;
use super::strip::{
    Access, Accumulator, Checked, Class, Constant, Element, Id, Join, Narrowing, Node, Strip, joined_zeros,
};

/// The mask of the lanes that exist, in strips that are not whole.
pub(super) const TAIL: u8 = 1;
/// Masks that values may take: not `k0`, which cannot govern lanes, and not the tail.
const MASKS: u32 = 0b1111_1100;
/// How many masks values may take.
pub(super) const MASK_COUNT: usize = MASKS.count_ones() as usize;
/// The index of the first element of the strip along its axis.
pub(super) const INDEX: Gpr = RDX;

const NOWHERE: u8 = u8::MAX;
const NOBODY: usize = usize::MAX;

/// Where a scalar lives while the loops run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Register(Gpr),
    /// Bytes from the stack pointer.
    Stack(i32),
}

impl From<Place> for Operand {
    fn from(place: Place) -> Operand {
        match place {
            Place::Register(register) => register.into(),
            Place::Stack(offset) => Memory::at(RSP, offset).into(),
        }
    }
}

/// The stack frame: scalars first, vectors from [`Frame::VECTORS`] on.
#[derive(Default)]
pub(super) struct Frame {
    scalars: i32,
    vectors: i32,
    most_vectors: i32,
}

impl Frame {
    const VECTORS: i32 = 1024;
    /// A kernel that needs more is refused.
    const LIMIT: i32 = 1 << 15;

    pub(super) fn scalar(&mut self) -> i32 {
        self.scalars += 8;
        self.scalars - 8
    }

    pub(super) fn vector(&mut self) -> i32 {
        self.vectors += 64;
        self.most_vectors = self.most_vectors.max(self.vectors);
        Frame::VECTORS + self.vectors - 64
    }

    /// From here on places of vectors are apart from those of all blocks.
    pub(super) fn leave_blocks(&mut self) {
        self.vectors = self.most_vectors;
    }

    /// The bytes to reserve, a multiple of 64; `None` if too many.
    pub(super) fn bytes(&self) -> Option<i32> {
        let bytes = if self.most_vectors == 0 {
            (self.scalars + 63) & !63
        } else {
            Frame::VECTORS + self.most_vectors
        };
        (self.scalars <= Frame::VECTORS && bytes <= Frame::LIMIT).then_some(bytes)
    }
}

/// An index found out of range: code that is jumped to and jumps back.
pub(super) struct Failure {
    pub(super) entry: Label,
    pub(super) back: Label,
    /// The lanes in question.
    pub(super) mask: u8,
    pub(super) found: Found,
    pub(super) check: u32,
}

/// A use of rare code: it is jumped to and jumps back. The operands stay in their registers until then.
pub(super) struct RareUse {
    pub(super) entry: Label,
    pub(super) back: Label,
    pub(super) code: u16,
    pub(super) mask: u8,
    pub(super) operands: [u8; 2],
    pub(super) usual: u8,
    pub(super) result: u8,
}

/// Where the index is.
pub(super) enum Found {
    /// In the lanes of a vector register.
    Register(u8),
    /// In memory, for that copy.
    Quads(Access, usize),
}

/// What all blocks of a function share.
pub(super) struct Function<'a> {
    pub(super) strip: &'a Strip,
    /// The position of the strip loop: nodes of higher levels are computed for each copy.
    pub(super) strip_loop: usize,
    pub(super) asm: Assembler,
    pub(super) frame: Frame,
    /// The place of each group's pointer.
    pub(super) pointers: Vec<Place>,
    /// The most copies of a strip that any variant has.
    pub(super) most_copies: usize,
    /// Registers of values that stay in them throughout.
    pub(super) pins: Vec<Option<u8>>,
    /// Stack places of values used in other blocks, by node and copy.
    pub(super) homes: Vec<Option<i32>>,
    /// Registers that blocks may use.
    pub(super) pool: u32,
    pub(super) failures: Vec<Failure>,
    pub(super) rare: Vec<RareUse>,
    /// Whether the folds run along the lanes.
    pub(super) folds_lanes: bool,
    pub(super) lanes: Vec<(i32, PoolOffset)>,
    /// What was found that cannot be: the code is worth nothing.
    pub(super) broken: Option<Broken>,
}

impl Function<'_> {
    /// The register of an accumulator; copies have their own where the folds do not run along the lanes.
    pub(super) fn accumulator(&self, number: usize, copy: usize, copies: usize) -> u8 {
        31 - (number * copies + copy) as u8
    }

    fn is_per_copy(&self, id: Id) -> bool {
        usize::from(self.strip.levels[id.index()]) > self.strip_loop
    }

    fn home(&self, id: Id, copy: usize) -> Option<i32> {
        let copy = if self.is_per_copy(id) { copy } else { 0 };
        self.homes[id.index() * self.most_copies + copy]
    }

    /// A constant as memory operand.
    pub(super) fn constant(&mut self, constant: Constant) -> Memory {
        match constant {
            Constant::Splat(bits) => Memory::pool(self.asm.word(bits)).broadcast(),
            Constant::Lanes(factor) => {
                if let Some(&(_, offset)) = self.lanes.iter().find(|(known, _)| *known == factor) {
                    return Memory::pool(offset);
                }
                let words: [u32; 16] =
                    std::array::from_fn(|lane| factor.wrapping_mul(lane as i32).cast_unsigned());
                let offset = self.asm.block(&words);
                self.lanes.push((factor, offset));
                Memory::pool(offset)
            }
        }
    }

    /// Loads a constant into a register.
    pub(super) fn load_constant(&mut self, register: u8, constant: Constant) {
        match constant {
            Constant::Splat(0) => {
                self.asm.vector(VPXORD, register, register, Operand::Register(register), Masking::All, None);
            }
            Constant::Splat(bits) => {
                let memory = Memory::pool(self.asm.word(bits));
                self.asm.vector(VBROADCASTSS, register, 0, memory, Masking::All, None);
            }
            Constant::Lanes(_) => {
                let memory = self.constant(constant);
                self.asm.vector(VMOVUPS, register, 0, memory, Masking::All, None);
            }
        }
    }

    /// The first of the strip's elements, for accesses with stride 0 or 1; may use `rax`.
    pub(super) fn address(&mut self, access: Access, copy: usize) -> Memory {
        let base = self.base(access, RAX);
        let memory = Memory::at(base, access.displacement);
        if access.stride == 0 {
            return memory;
        }
        let shift = access.size.trailing_zeros() as u8;
        memory.indexed(INDEX.0, shift).plus(16 * copy as i32 * access.size)
    }

    /// The first of the strip's elements, for any stride and without an index register; uses `rax`.
    fn plain_address(&mut self, access: Access, copy: usize) -> Memory {
        let base = self.base(access, RAX);
        if access.stride == 0 {
            return Memory::at(base, access.displacement);
        }
        let bytes = access.stride * access.size;
        if base == RAX {
            self.asm.multiply(RCX, INDEX, bytes);
            self.asm.add(RAX, RCX);
        } else {
            self.asm.multiply(RAX, INDEX, bytes);
            self.asm.add(RAX, base);
        }
        Memory::at(RAX, access.displacement + 16 * copy as i32 * bytes)
    }

    /// A register that holds the group's pointer plus the offset.
    pub(super) fn base(&mut self, access: Access, scratch: Gpr) -> Gpr {
        let place = self.pointers[access.group];
        if let Some(offset) = access.offset {
            self.asm.load(scratch, place);
            let home = self.home_of_scalar(offset);
            self.asm.add(scratch, home);
            return scratch;
        }
        match place {
            Place::Register(register) => register,
            Place::Stack(_) => {
                self.asm.load(scratch, place);
                scratch
            }
        }
    }

    /// Where a scalar is, which always has a place of its own.
    fn home_of_scalar(&mut self, id: Id) -> Memory {
        let home = self.homes[id.index() * self.most_copies];
        if home.is_none() {
            self.broken = Some(broken!("a place for the scalar {id:?}"));
        }
        Memory::at(RSP, home.unwrap_or(0))
    }

    /// Writes lanes that are in a vector register, or a truth value in a mask; uses the two vector registers.
    pub(super) fn store_lanes(
        &mut self,
        access: Access,
        element: Element,
        copy: usize,
        source: u8,
        masked: bool,
        temporary: (u8, u8),
    ) {
        let masking = if masked { Masking::Merge(TAIL) } else { Masking::All };
        let (vector, mask) = temporary;
        if access.stride != 1 {
            let memory = self.plain_address(access, copy);
            self.load_constant(vector, Constant::Lanes(access.stride));
            self.set_all_lanes(mask, masked);
            let memory = memory.indexed(vector, 2);
            self.asm.vector(VSCATTERDPS, source, 0, memory, Masking::Merge(mask), None);
            return;
        }
        let memory = self.address(access, copy);
        match element {
            Element::Word => self.asm.vector(VMOVUPS_STORE, source, 0, memory, masking, None),
            Element::Byte => {
                self.asm.vector(VPMOVDB, source, 0, Operand::Register(vector), Masking::All, None);
                self.asm.vector(VMOVDQU8_STORE.xmm(), vector, 0, memory, masking, None);
            }
            Element::Truth => {
                let ones = Memory::pool(self.asm.block(&[0x0101_0101; 4]));
                self.asm.vector(VMOVDQU8.xmm(), vector, 0, ones, Masking::Zero(source), None);
                self.asm.vector(VMOVDQU8_STORE.xmm(), vector, 0, memory, masking, None);
            }
            Element::Quad => {
                self.asm.vector(VPMOVSXDQ, vector, 0, Operand::Register(source), Masking::All, None);
                self.asm.vector(VMOVDQU64_STORE, vector, 0, memory, masking, None);
                self.asm.vector(VEXTRACTI64X4, source, 0, Operand::Register(vector), Masking::All, Some(1));
                self.asm.vector(VPMOVSXDQ, vector, 0, Operand::Register(vector), Masking::All, None);
                let masking = self.upper_tail(mask, masked, Masking::Merge);
                self.asm.vector(VMOVDQU64_STORE, vector, 0, memory.plus(64), masking, None);
            }
        }
    }

    /// A mask of the lanes that exist, to be consumed.
    fn set_all_lanes(&mut self, mask: u8, masked: bool) {
        if masked {
            self.asm.vex(KMOVW, mask, 0, Operand::Register(TAIL), None);
        } else {
            self.asm.vex(KXNORW, mask, mask, Operand::Register(mask), None);
        }
    }

    /// The masking of lanes 8 to 15.
    fn upper_tail(&mut self, mask: u8, masked: bool, masking: fn(u8) -> Masking) -> Masking {
        if !masked {
            return Masking::All;
        }
        self.asm.vex(KSHIFTRW, mask, 0, Operand::Register(TAIL), Some(8));
        masking(mask)
    }

    /// Joins a register to an accumulator, with vectors of that length; uses the mask.
    pub(super) fn join(&mut self, join: Join, accumulator: u8, value: u8, length: u8, mask: u8) {
        let last = Operand::Register(value);
        match join {
            Join::Plain(form) => {
                self.asm.vector(form.of_length(length), accumulator, accumulator, last, Masking::All, None);
            }
            Join::Float(form) => {
                // The instruction returns its second source, the accumulator, unless the value is strictly beyond it.
                let (equal, unordered) = (0, 3);
                let old = Operand::Register(accumulator);
                self.asm.vector(VCMPPS.of_length(length), mask, value, old, Masking::All, Some(equal));
                self.asm.vector(form.of_length(length), accumulator, value, old, Masking::All, None);
                let zeros = joined_zeros(form).of_length(length);
                self.asm.vector(zeros, accumulator, accumulator, last, Masking::Merge(mask), None);
                self.asm.vector(VCMPPS.of_length(length), mask, value, last, Masking::All, Some(unordered));
                self.asm.vector(VMOVAPS.of_length(length), accumulator, 0, last, Masking::Merge(mask), None);
            }
        }
    }

    /// Joins the lanes of an accumulator in halves and writes the result; uses the two registers and `rax`.
    pub(super) fn finish_lanes(&mut self, accumulator: Accumulator, register: u8, temporary: (u8, u8)) {
        let (vector, mask) = temporary;
        let last = Operand::Register(vector);
        self.asm.vector(VEXTRACTI64X4, register, 0, last, Masking::All, Some(1));
        self.join(accumulator.join, register, vector, 1, mask);
        self.asm.vector(VEXTRACTI32X4.ymm(), register, 0, last, Masking::All, Some(1));
        self.join(accumulator.join, register, vector, 0, mask);
        for halves in [0b01_00_11_10, 0b10_11_00_01] {
            let source = Operand::Register(register);
            self.asm.vector(VPSHUFD.xmm(), vector, 0, source, Masking::All, Some(halves));
            self.join(accumulator.join, register, vector, 0, mask);
        }
        let base = self.base(accumulator.access, RCX);
        let memory = Memory::at(base, accumulator.access.displacement);
        if accumulator.element == Element::Word {
            self.asm.vector(VMOVSS_STORE, register, 0, memory, Masking::All, None);
            return;
        }
        self.asm.vector(VMOVD, register, 0, RAX, Masking::All, None);
        if accumulator.element == Element::Quad {
            self.asm.load_int(RAX, RAX);
            self.asm.store(memory, RAX);
        } else {
            self.asm.store_byte(memory);
        }
    }
}

/// The registers of one class.
struct File {
    free: u32,
    /// Registers that the node at hand uses.
    locked: u32,
    owner: [usize; 32],
}

impl File {
    fn new(free: u32) -> File {
        File { free, locked: 0, owner: [NOBODY; 32] }
    }
}

/// A block being emitted.
pub(super) struct Block<'f, 'a> {
    function: &'f mut Function<'a>,
    copies: usize,
    masked: bool,
    items: Vec<(Id, usize)>,
    /// Positions of uses of each value, those of one value consecutive and rising.
    uses: Vec<u32>,
    /// Where each value's uses that are still to come begin and end.
    pending: Vec<(u32, u32)>,
    register: Vec<u8>,
    slot: Vec<Option<i32>>,
    vectors: File,
    masks: File,
}

/// Emits the nodes of a level.
pub(super) fn emit_block(function: &mut Function<'_>, level: usize, copies: usize, masked: bool) {
    let strip = function.strip;
    if strip.blocks[level].is_empty() {
        return;
    }
    let copies = if level > function.strip_loop { copies } else { 1 };
    let mut items = Vec::with_capacity(strip.blocks[level].len() * copies);
    for &id in &strip.blocks[level] {
        items.extend((0..copies).map(|copy| (id, copy)));
    }
    let values = strip.nodes.len() * copies;
    let vectors = function.frame.vectors;
    let pool = function.pool;
    let mut block = Block {
        function,
        copies,
        masked,
        items,
        uses: Vec::new(),
        pending: vec![(0, 0); values],
        register: vec![NOWHERE; values],
        slot: vec![None; values],
        vectors: File::new(pool),
        masks: File::new(MASKS),
    };
    block.find_uses();
    for position in 0..block.items.len() {
        let (id, copy) = block.items[position];
        block.node(id, copy);
        block.vectors.free |= std::mem::take(&mut block.vectors.locked) & block.unowned(Class::Vector);
        block.masks.free |= std::mem::take(&mut block.masks.locked) & block.unowned(Class::Mask);
    }
    function.frame.vectors = vectors;
}

impl Block<'_, '_> {
    /// A value: a node of a copy.
    fn key(&self, id: Id, copy: usize) -> usize {
        id.index() * self.copies + if self.function.is_per_copy(id) { copy } else { 0 }
    }

    fn find_uses(&mut self) {
        let strip = self.function.strip;
        for position in 0..self.items.len() {
            let (id, copy) = self.items[position];
            strip.nodes[id.index()].for_each_operand(|x| {
                let key = self.key(x, copy);
                self.pending[key].1 += 1;
            });
        }
        let mut begin = 0;
        for range in &mut self.pending {
            let count = range.1;
            *range = (begin, begin);
            begin += count;
        }
        self.uses = vec![0; begin as usize];
        for position in 0..self.items.len() {
            let (id, copy) = self.items[position];
            strip.nodes[id.index()].for_each_operand(|x| {
                let key = self.key(x, copy);
                self.uses[self.pending[key].1 as usize] = position as u32;
                self.pending[key].1 += 1;
            });
        }
    }

    fn unowned(&self, class: Class) -> u32 {
        let file = if class == Class::Mask { &self.masks } else { &self.vectors };
        let pool = if class == Class::Mask { MASKS } else { self.function.pool };
        (0..32).filter(|&r| pool >> r & 1 == 1 && file.owner[r] == NOBODY).fold(0, |set, r| set | 1 << r)
    }

    fn file(&mut self, class: Class) -> &mut File {
        if class == Class::Mask { &mut self.masks } else { &mut self.vectors }
    }

    fn class(&self, id: Id) -> Class {
        self.function.strip.nodes[id.index()].class()
    }

    /// A register for the node at hand; the value in it, if any, goes to the stack.
    fn allocate(&mut self, class: Class) -> u8 {
        let free = self.file(class).free;
        if free != 0 {
            let register = free.trailing_zeros() as u8;
            let file = self.file(class);
            file.free &= !(1 << register);
            file.locked |= 1 << register;
            return register;
        }
        let pool = if class == Class::Mask { MASKS } else { self.function.pool };
        let file = if class == Class::Mask { &self.masks } else { &self.vectors };
        let candidates = (0..32u8)
            .filter(|&r| (pool & !file.locked) >> r & 1 == 1 && file.owner[usize::from(r)] != NOBODY);
        let next_use = |key: usize| {
            let (next, end) = self.pending[key];
            if next == end { u32::MAX } else { self.uses[next as usize] }
        };
        // A node locks at most seven vectors and four masks, fewer than there are.
        let Some(victim) = candidates.max_by_key(|&r| next_use(file.owner[usize::from(r)])) else {
            self.function.broken = Some(broken!("a register that is not locked"));
            return 0;
        };
        let owner = file.owner[usize::from(victim)];
        self.spill(owner, victim, class);
        let file = self.file(class);
        file.owner[usize::from(victim)] = NOBODY;
        file.locked |= 1 << victim;
        victim
    }

    fn spill(&mut self, key: usize, register: u8, class: Class) {
        self.register[key] = NOWHERE;
        let node = &self.function.strip.nodes[key / self.copies];
        let is_done = self.pending[key].0 == self.pending[key].1;
        let id = Id((key / self.copies) as u32);
        let is_stored = self.slot[key].is_some() || self.function.home(id, key % self.copies).is_some();
        if is_stored || is_done || matches!(node, Node::Constant(_)) {
            return;
        }
        let offset =
            if class == Class::Mask { self.function.frame.scalar() } else { self.function.frame.vector() };
        self.slot[key] = Some(offset);
        self.store_slot(register, class, offset);
    }

    fn store_slot(&mut self, register: u8, class: Class, offset: i32) {
        let memory = Memory::at(RSP, offset);
        if class == Class::Mask {
            self.function.asm.vex(KMOVW_STORE, register, 0, memory, None);
        } else {
            self.function.asm.vector(VMOVUPS_STORE, register, 0, memory, Masking::All, None);
        }
    }

    /// Where a value is in memory, which it is if it is in no register.
    fn memory(&mut self, id: Id, copy: usize) -> Memory {
        if let Node::Constant(constant) = self.function.strip.nodes[id.index()] {
            return self.function.constant(constant);
        }
        let key = self.key(id, copy);
        let slot = self.slot[key].or_else(|| self.function.home(id, copy));
        if slot.is_none() {
            self.function.broken = Some(broken!("node {id:?} in a register or in memory"));
        }
        Memory::at(RSP, slot.unwrap_or(0))
    }

    /// The register that holds a value, if one does.
    fn held(&self, id: Id, copy: usize) -> Option<u8> {
        let register = self.register[self.key(id, copy)];
        self.function.pins[id.index()].or((register != NOWHERE).then_some(register))
    }

    /// A value in a register.
    fn get(&mut self, id: Id, copy: usize) -> u8 {
        let class = self.class(id);
        if let Some(register) = self.held(id, copy) {
            self.file(class).locked |= 1 << register;
            return register;
        }
        let register = self.allocate(class);
        if let Node::Constant(constant) = self.function.strip.nodes[id.index()] {
            self.function.load_constant(register, constant);
        } else {
            let memory = self.memory(id, copy);
            if class == Class::Mask {
                self.function.asm.vex(KMOVW, register, 0, memory, None);
            } else {
                self.function.asm.vector(VMOVUPS, register, 0, memory, Masking::All, None);
            }
        }
        let key = self.key(id, copy);
        self.register[key] = register;
        self.file(class).owner[usize::from(register)] = key;
        register
    }

    /// A vector in a register or in memory.
    fn get_operand(&mut self, id: Id, copy: usize) -> Operand {
        if self.held(id, copy).is_some() {
            Operand::Register(self.get(id, copy))
        } else {
            self.memory(id, copy).into()
        }
    }

    /// The operands have been read for the last time by this node: registers of values without further uses are free.
    fn release_operands(&mut self, id: Id, copy: usize) {
        let node = self.function.strip.nodes[id.index()];
        node.for_each_operand(|x| {
            let key = self.key(x, copy);
            self.pending[key].0 += 1;
            let register = self.register[key];
            if self.pending[key].0 == self.pending[key].1 && register != NOWHERE {
                self.register[key] = NOWHERE;
                let class = self.class(x);
                let file = self.file(class);
                file.owner[usize::from(register)] = NOBODY;
                file.locked &= !(1 << register);
                file.free |= 1 << register;
            }
        });
    }

    /// The register for the node's result.
    fn define(&mut self, id: Id, copy: usize) -> u8 {
        if let Some(pin) = self.function.pins[id.index()] {
            return pin;
        }
        let class = self.class(id);
        let register = self.allocate(class);
        self.own(id, copy, register);
        register
    }

    fn own(&mut self, id: Id, copy: usize, register: u8) {
        let key = self.key(id, copy);
        let class = self.class(id);
        self.register[key] = register;
        let file = self.file(class);
        file.owner[usize::from(register)] = key;
        file.free &= !(1 << register);
        file.locked |= 1 << register;
    }

    /// After the node's result is in its register: brings it home if it has one, drops it if nobody here wants it.
    fn finish(&mut self, id: Id, copy: usize, register: u8) {
        if self.function.pins[id.index()].is_some() {
            return;
        }
        let class = self.class(id);
        if let Some(home) = self.function.home(id, copy) {
            self.store_slot(register, class, home);
        }
        let key = self.key(id, copy);
        if self.pending[key].0 == self.pending[key].1 {
            self.register[key] = NOWHERE;
            self.file(class).owner[usize::from(register)] = NOBODY;
        }
    }

    /// A register for a moment within this node.
    fn temporary(&mut self, class: Class) -> u8 {
        self.allocate(class)
    }

    /// Whether the value is in a register that this node may overwrite.
    fn dies(&self, id: Id, copy: usize) -> bool {
        let key = self.key(id, copy);
        let (next, end) = self.pending[key];
        let here = self.uses[next as usize];
        let last = self.uses[end as usize - 1];
        self.register[key] != NOWHERE && here == last && self.function.pins[id.index()].is_none()
    }

    fn vector(&mut self, form: Form, d: u8, second: u8, last: impl Into<Operand>, masking: Masking) {
        self.function.asm.vector(form, d, second, last, masking, None);
    }

    fn tail(&self, masking: fn(u8) -> Masking) -> Masking {
        if self.masked { masking(TAIL) } else { Masking::All }
    }

    fn node(&mut self, id: Id, copy: usize) {
        let node = self.function.strip.nodes[id.index()];
        match node {
            // Operands are nodes of rare code, which is emitted apart.
            Node::Constant(_) | Node::Operand(_) => {}
            Node::Rarely { code, mask, operands, usual } => {
                self.rarely(id, copy, code, mask, operands, usual)
            }
            Node::Load(access, element) => self.load(id, copy, access, element),
            Node::LoadQuad(access, narrowing) => self.load_quads(id, copy, access, narrowing),
            Node::Gather(access, distance) => self.gather(id, copy, access, distance),
            Node::Position(access) => self.position(id, copy, access),
            Node::Offset(x, bytes) => {
                let x = self.get(x, copy);
                self.function.asm.vector(VMOVD, x, 0, RAX, Masking::All, None);
                self.function.asm.load_int(RAX, RAX);
                self.function.asm.multiply(RAX, RAX, bytes);
                let home = self.function.home_of_scalar(id);
                self.function.asm.store(home, RAX);
                self.release_operands(id, copy);
            }
            Node::Unary(form, x, immediate) => {
                let x = self.get_operand(x, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.function.asm.vector(form, d, 0, x, Masking::All, immediate);
                self.finish(id, copy, d);
            }
            Node::Shift(extension, x, count) => {
                let x = self.get_operand(x, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.function.asm.vector(SHIFT_DWORDS, extension, d, x, Masking::All, Some(count));
                self.finish(id, copy, d);
            }
            Node::Binary(form, x, y) => {
                let x = self.get(x, copy);
                let y = self.get_operand(y, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.vector(form, d, x, y, Masking::All);
                self.finish(id, copy, d);
            }
            Node::Fma(x, y, z) => self.fma(id, copy, x, y, z),
            Node::Select(mask, x, y) => self.select(id, copy, mask, x, y),
            Node::Compare(form, x, y, predicate) => {
                let x = self.get(x, copy);
                let y = self.get_operand(y, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.function.asm.vector(form, d, x, y, Masking::All, Some(predicate));
                self.finish(id, copy, d);
            }
            Node::Test(x) => {
                let x = self.get(x, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.vector(VPTESTMD, d, x, Operand::Register(x), Masking::All);
                self.finish(id, copy, d);
            }
            Node::MaskBinary(form, x, y) => {
                let x = self.get(x, copy);
                let y = self.get(y, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.function.asm.vex(form, d, x, Operand::Register(y), None);
                self.finish(id, copy, d);
            }
            Node::MaskNot(x) => {
                let x = self.get(x, copy);
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.function.asm.vex(KNOTW, d, 0, Operand::Register(x), None);
                self.finish(id, copy, d);
            }
            Node::Check(mask, checked, check) => self.check(id, copy, mask, checked, check),
            Node::Store(access, element, x) => {
                let source = self.get(x, copy);
                let needs_vector = access.stride != 1 || element != Element::Word;
                let vector = if needs_vector { self.temporary(Class::Vector) } else { NOWHERE };
                let needs_mask = access.stride != 1 || element == Element::Quad;
                let mask = if needs_mask { self.temporary(Class::Mask) } else { NOWHERE };
                self.function.store_lanes(access, element, copy, source, self.masked, (vector, mask));
                self.release_operands(id, copy);
            }
            Node::Accumulate(number, x) => self.accumulate(id, copy, usize::from(number), x),
        }
    }

    fn load(&mut self, id: Id, copy: usize, access: Access, element: Element) {
        let memory = self.function.address(access, copy);
        self.release_operands(id, copy);
        let d = self.define(id, copy);
        let zeroing = self.tail(Masking::Zero);
        match element {
            // Quads are read by another node.
            Element::Word | Element::Quad => {
                if access.stride == 0 {
                    self.vector(VBROADCASTSS, d, 0, memory, Masking::All);
                } else {
                    self.vector(VMOVUPS, d, 0, memory, zeroing);
                }
            }
            Element::Byte if access.stride == 0 => {
                self.function.asm.load_byte(RAX, memory);
                self.vector(VPBROADCASTD, d, 0, RAX, Masking::All);
            }
            Element::Byte => self.vector(VPMOVZXBD, d, 0, memory, zeroing),
            Element::Truth if access.stride == 0 => {
                self.function.asm.load_byte(RAX, memory);
                self.function.asm.negate(RAX);
                self.function.asm.vex(KMOVW_FROM_GPR, d, 0, RAX, None);
            }
            Element::Truth => {
                let bytes = self.temporary(Class::Vector);
                self.vector(VMOVDQU8.xmm(), bytes, 0, memory, zeroing);
                self.vector(VPTESTMB.xmm(), d, bytes, Operand::Register(bytes), Masking::All);
            }
        }
        self.finish(id, copy, d);
    }

    fn load_quads(&mut self, id: Id, copy: usize, access: Access, narrowing: Narrowing) {
        let memory = self.function.address(access, copy);
        self.release_operands(id, copy);
        let d = self.define(id, copy);
        let form = if narrowing == Narrowing::Wrap { VPMOVQD } else { VPMOVSQD };
        let upper = self.temporary(Class::Vector);
        if access.stride == 0 {
            self.vector(VPBROADCASTQ, upper, 0, memory, Masking::All);
            self.vector(form, upper, 0, Operand::Register(d), Masking::All);
            self.vector(form, upper, 0, Operand::Register(upper), Masking::All);
        } else {
            let zeroing = self.tail(Masking::Zero);
            self.vector(VMOVDQU64, d, 0, memory, zeroing);
            let mask = self.temporary(Class::Mask);
            let zeroing = self.function.upper_tail(mask, self.masked, Masking::Zero);
            self.vector(VMOVDQU64, upper, 0, memory.plus(64), zeroing);
            self.vector(form, d, 0, Operand::Register(d), Masking::All);
            self.vector(form, upper, 0, Operand::Register(upper), Masking::All);
        }
        self.function.asm.vector(VINSERTI64X4, d, d, Operand::Register(upper), Masking::All, Some(1));
        self.finish(id, copy, d);
    }

    fn gather(&mut self, id: Id, copy: usize, access: Access, distance: Id) {
        let distance = self.get(distance, copy);
        let memory = self.function.plain_address(access, copy).indexed(distance, 2);
        let d = self.define(id, copy);
        let mask = self.temporary(Class::Mask);
        self.function.set_all_lanes(mask, self.masked);
        // The old lanes do not matter, but waiting for them would.
        self.function.load_constant(d, Constant::Splat(0));
        self.vector(VGATHERDPS, d, 0, memory, Masking::Merge(mask));
        self.release_operands(id, copy);
        self.finish(id, copy, d);
    }

    fn position(&mut self, id: Id, copy: usize, access: Access) {
        let place = self.function.pointers[access.group];
        let displacement = access.displacement + 16 * copy as i32 * access.stride;
        let asm = &mut self.function.asm;
        if access.stride == 0 {
            asm.load(RAX, place);
        } else {
            asm.multiply(RAX, INDEX, access.stride);
            asm.add(RAX, place);
        }
        if displacement != 0 {
            asm.add_immediate(RAX, displacement);
        }
        self.release_operands(id, copy);
        let d = self.define(id, copy);
        self.vector(VPBROADCASTD, d, 0, RAX, Masking::All);
        if access.stride != 0 {
            let lanes = self.function.constant(Constant::Lanes(access.stride));
            self.vector(VPADDD, d, d, lanes, Masking::All);
        }
        self.finish(id, copy, d);
    }

    /// `d = x y + z`. The instructions overwrite one of their sources and read one from memory.
    fn fma(&mut self, id: Id, copy: usize, x: Id, y: Id, z: Id) {
        let in_memory = |block: &Self, v: Id| block.held(v, copy).is_none();
        let (x, y) = if in_memory(self, x) { (y, x) } else { (x, y) };
        let is_pinned = self.function.pins[id.index()].is_some();
        let (dying, form, second, last) = if !is_pinned && self.dies(z, copy) {
            (z, VFMADD231PS, x, y)
        } else if !is_pinned && self.dies(x, copy) {
            if in_memory(self, y) { (x, VFMADD132PS, z, y) } else { (x, VFMADD213PS, y, z) }
        } else if !is_pinned && self.dies(y, copy) {
            (y, VFMADD213PS, x, z)
        } else {
            return self.fma_of_living(id, copy, x, y, z);
        };
        let d = self.get(dying, copy);
        let second = self.get(second, copy);
        let last = self.get_operand(last, copy);
        self.release_operands(id, copy);
        self.own(id, copy, d);
        self.vector(form, d, second, last, Masking::All);
        self.finish(id, copy, d);
    }

    /// The same where no source may be overwritten: the summand is copied.
    fn fma_of_living(&mut self, id: Id, copy: usize, x: Id, y: Id, z: Id) {
        let x = self.get(x, copy);
        let y = self.get_operand(y, copy);
        let z_held = self.held(z, copy);
        if let Some(register) = z_held {
            self.vectors.locked |= 1 << register;
        }
        let d = self.define(id, copy);
        match (z_held, self.function.strip.nodes[z.index()]) {
            (Some(register), _) => self.vector(VMOVAPS, d, 0, Operand::Register(register), Masking::All),
            (None, Node::Constant(constant)) => self.function.load_constant(d, constant),
            (None, _) => {
                let memory = self.memory(z, copy);
                self.vector(VMOVUPS, d, 0, memory, Masking::All);
            }
        }
        self.vector(VFMADD231PS, d, x, y, Masking::All);
        self.release_operands(id, copy);
        self.finish(id, copy, d);
    }

    fn select(&mut self, id: Id, copy: usize, mask: Id, x: Id, y: Id) {
        let mask = self.get(mask, copy);
        let nodes = &self.function.strip.nodes;
        let is_zero = nodes[y.index()] == Node::Constant(Constant::Splat(0));
        if is_zero {
            let x_node = nodes[x.index()];
            let held = self.held(x, copy).is_some();
            if let (Node::Constant(Constant::Splat(bits)), false) = (x_node, held) {
                let memory = Memory::pool(self.function.asm.word(bits));
                self.release_operands(id, copy);
                let d = self.define(id, copy);
                self.vector(VBROADCASTSS, d, 0, memory, Masking::Zero(mask));
                return self.finish(id, copy, d);
            }
            let x = self.get(x, copy);
            self.release_operands(id, copy);
            let d = self.define(id, copy);
            self.vector(VMOVAPS, d, 0, Operand::Register(x), Masking::Zero(mask));
            return self.finish(id, copy, d);
        }
        let y = self.get(y, copy);
        let x = self.get_operand(x, copy);
        self.release_operands(id, copy);
        let d = self.define(id, copy);
        self.vector(VBLENDMPS, d, y, x, Masking::Merge(mask));
        self.finish(id, copy, d);
    }

    fn rarely(&mut self, id: Id, copy: usize, code: u16, mask: Id, operands: [Id; 2], usual: Id) {
        let mask = self.get(mask, copy);
        let operands = operands.map(|x| self.get(x, copy));
        let usual = self.get(usual, copy);
        self.release_operands(id, copy);
        let result = self.define(id, copy);
        let asm = &mut self.function.asm;
        let (entry, back) = (asm.label(), asm.label());
        asm.vex(KORTESTW, mask, 0, Operand::Register(mask), None);
        asm.jump_if(Condition::NotEqual, entry);
        if result != usual {
            asm.vector(VMOVAPS, result, 0, Operand::Register(usual), Masking::All, None);
        }
        asm.place(back);
        self.function.rare.push(RareUse { entry, back, code, mask, operands, usual, result });
        self.finish(id, copy, result);
    }

    fn check(&mut self, id: Id, copy: usize, mask: Id, checked: Checked, check: u32) {
        let mut lanes = self.get(mask, copy);
        let is_per_copy = self.function.is_per_copy(id);
        if self.masked && is_per_copy {
            let existing = self.temporary(Class::Mask);
            self.function.asm.vex(KANDW, existing, lanes, Operand::Register(TAIL), None);
            lanes = existing;
        }
        let found = match checked {
            Checked::Lanes(x) => Found::Register(self.get(x, copy)),
            Checked::Quads(access) => Found::Quads(access, copy),
        };
        let asm = &mut self.function.asm;
        let (entry, back) = (asm.label(), asm.label());
        asm.vex(KORTESTW, lanes, 0, Operand::Register(lanes), None);
        asm.jump_if(Condition::NotEqual, entry);
        asm.place(back);
        self.function.failures.push(Failure { entry, back, mask: lanes, found, check });
        self.release_operands(id, copy);
    }

    fn accumulate(&mut self, id: Id, copy: usize, number: usize, x: Id) {
        let accumulator = self.function.strip.accumulators[number];
        let mut value = self.get(x, copy);
        let along_lanes = self.function.folds_lanes;
        if self.masked && along_lanes {
            // Lanes that do not exist join the value of nothing.
            let existing = self.temporary(Class::Vector);
            self.function.load_constant(existing, Constant::Splat(accumulator.identity));
            self.vector(VMOVAPS, existing, 0, Operand::Register(value), Masking::Merge(TAIL));
            value = existing;
        }
        let register = if along_lanes {
            self.function.accumulator(number, 0, 1)
        } else {
            self.function.accumulator(number, copy, self.copies)
        };
        let mask = match accumulator.join {
            Join::Plain(_) => NOWHERE,
            Join::Float(_) => self.temporary(Class::Mask),
        };
        self.function.join(accumulator.join, register, value, 2, mask);
        self.release_operands(id, copy);
    }
}
