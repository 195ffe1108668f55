//! The machine-code encoder: the few instruction forms that the AVX-512 emitter uses, labels, and a constant pool.
//!
//! [`Form`] describes a vector instruction as the Intel manual writes it (map, prefix, width bit, opcode); one function
//! encodes them all. Displacements in EVEX instructions are always 32 bits wide, which avoids the compressed form.
//! Constants lie behind the code and are addressed relative to the instruction pointer, so that the finished bytes run
//! at any address. Deliberately absent: every instruction that the emitter has no use for.

use std::collections::HashMap;

/// A general register.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Gpr(pub(super) u8);

pub(super) const RAX: Gpr = Gpr(0);
pub(super) const RCX: Gpr = Gpr(1);
pub(super) const RDX: Gpr = Gpr(2);
pub(super) const RBX: Gpr = Gpr(3);
pub(super) const RSP: Gpr = Gpr(4);
pub(super) const RBP: Gpr = Gpr(5);
pub(super) const RSI: Gpr = Gpr(6);
pub(super) const RDI: Gpr = Gpr(7);

/// A position in the code that jumps name before it is known.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

/// Where a constant lies: bytes from the beginning of the pool.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct PoolOffset(u32);

/// What an address is relative to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Base {
    Register(Gpr),
    Pool(PoolOffset),
}

/// An operand in memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Memory {
    base: Base,
    /// Register number (general, or vector in gathers) and the binary logarithm of its factor.
    index: Option<(u8, u8)>,
    displacement: i32,
    /// Whether the 32-bit element goes to all lanes.
    broadcast: bool,
}

impl Memory {
    /// `[base + displacement]`.
    pub(super) fn at(base: Gpr, displacement: i32) -> Memory {
        Memory { base: Base::Register(base), index: None, displacement, broadcast: false }
    }

    /// The constant at that place.
    pub(super) fn pool(offset: PoolOffset) -> Memory {
        Memory { base: Base::Pool(offset), index: None, displacement: 0, broadcast: false }
    }

    /// With `index << shift` added; the index is a general register, in gathers and scatters a vector.
    pub(super) fn indexed(self, index: u8, shift: u8) -> Memory {
        Memory { index: Some((index, shift)), ..self }
    }

    /// The 32-bit element there, in all lanes.
    pub(super) fn broadcast(self) -> Memory {
        Memory { broadcast: true, ..self }
    }

    /// That many bytes further.
    pub(super) fn plus(self, bytes: i32) -> Memory {
        Memory { displacement: self.displacement + bytes, ..self }
    }
}

/// The last source operand of an instruction, or its destination where it stores.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Operand {
    /// A register of the class that the instruction takes.
    Register(u8),
    /// Memory.
    Memory(Memory),
}

impl From<Gpr> for Operand {
    fn from(register: Gpr) -> Operand {
        Operand::Register(register.0)
    }
}

impl From<Memory> for Operand {
    fn from(memory: Memory) -> Operand {
        Operand::Memory(memory)
    }
}

/// An EVEX or VEX instruction without its operands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Form {
    map: u8,
    prefix: u8,
    wide: bool,
    /// 0, 1, 2: 128, 256, 512 bits.
    length: u8,
    opcode: u8,
}

const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;
const M0F: u8 = 1;
const M0F38: u8 = 2;
const M0F3A: u8 = 3;

const fn form(map: u8, prefix: u8, opcode: u8) -> Form {
    Form { map, prefix, wide: false, length: 2, opcode }
}

const fn wide(map: u8, prefix: u8, opcode: u8) -> Form {
    Form { map, prefix, wide: true, length: 2, opcode }
}

impl Form {
    /// The same on 256-bit registers.
    pub(super) const fn ymm(self) -> Form {
        Form { length: 1, ..self }
    }

    /// The same on registers of 128, 256, 512 bits for a length of 0, 1, 2.
    pub(super) const fn of_length(self, length: u8) -> Form {
        Form { length, ..self }
    }

    /// The same on 128-bit registers.
    pub(super) const fn xmm(self) -> Form {
        Form { length: 0, ..self }
    }
}

// Arithmetic: destination, first source, second source (register, memory or broadcast).
pub(super) const VADDPS: Form = form(M0F, NONE, 0x58);
pub(super) const VMULPS: Form = form(M0F, NONE, 0x59);
pub(super) const VSUBPS: Form = form(M0F, NONE, 0x5c);
pub(super) const VMINPS: Form = form(M0F, NONE, 0x5d);
pub(super) const VDIVPS: Form = form(M0F, NONE, 0x5e);
pub(super) const VMAXPS: Form = form(M0F, NONE, 0x5f);
pub(super) const VFMADD132PS: Form = form(M0F38, P66, 0x98);
pub(super) const VFMADD213PS: Form = form(M0F38, P66, 0xa8);
pub(super) const VFMADD231PS: Form = form(M0F38, P66, 0xb8);
pub(super) const VPANDD: Form = form(M0F, P66, 0xdb);
pub(super) const VPORD: Form = form(M0F, P66, 0xeb);
pub(super) const VPXORD: Form = form(M0F, P66, 0xef);
pub(super) const VPSUBD: Form = form(M0F, P66, 0xfa);
pub(super) const VPADDD: Form = form(M0F, P66, 0xfe);
pub(super) const VPMINSD: Form = form(M0F38, P66, 0x39);
pub(super) const VPMAXSD: Form = form(M0F38, P66, 0x3d);
pub(super) const VPMULLD: Form = form(M0F38, P66, 0x40);
/// Second source where the mask is set, elsewhere the first.
pub(super) const VBLENDMPS: Form = form(M0F38, P66, 0x65);
// One source.
pub(super) const VSQRTPS: Form = form(M0F, NONE, 0x51);
pub(super) const VCVTDQ2PS: Form = form(M0F, NONE, 0x5b);
pub(super) const VCVTTPS2DQ: Form = form(M0F, PF3, 0x5b);
pub(super) const VPABSD: Form = form(M0F38, P66, 0x1e);
/// With the rounding as immediate.
pub(super) const VRNDSCALEPS: Form = form(M0F3A, P66, 0x08);
/// Shifts by an immediate; the first operand is an opcode extension, the second the destination.
pub(super) const SHIFT_DWORDS: Form = form(M0F, P66, 0x72);
// Comparisons into a mask, with the predicate as immediate.
pub(super) const VCMPPS: Form = form(M0F, NONE, 0xc2);
pub(super) const VPCMPUD: Form = form(M0F3A, P66, 0x1e);
pub(super) const VPCMPD: Form = form(M0F3A, P66, 0x1f);
pub(super) const VPTESTMD: Form = form(M0F38, P66, 0x27);
pub(super) const VPTESTMB: Form = form(M0F38, P66, 0x26);
// Moves.
pub(super) const VMOVUPS: Form = form(M0F, NONE, 0x10);
pub(super) const VMOVUPS_STORE: Form = form(M0F, NONE, 0x11);
pub(super) const VMOVAPS: Form = form(M0F, NONE, 0x28);
pub(super) const VMOVSS_STORE: Form = form(M0F, PF3, 0x11).xmm();
pub(super) const VMOVDQU8: Form = form(M0F, PF2, 0x6f);
pub(super) const VMOVDQU8_STORE: Form = form(M0F, PF2, 0x7f);
pub(super) const VMOVDQU64: Form = wide(M0F, PF3, 0x6f);
pub(super) const VMOVDQU64_STORE: Form = wide(M0F, PF3, 0x7f);
pub(super) const VBROADCASTSS: Form = form(M0F38, P66, 0x18);
pub(super) const VPBROADCASTQ: Form = wide(M0F38, P66, 0x59);
/// From a general register.
pub(super) const VPBROADCASTD: Form = form(M0F38, P66, 0x7c);
/// To a general register, which is the last operand.
pub(super) const VMOVD: Form = form(M0F, P66, 0x7e).xmm();
pub(super) const VPMOVZXBD: Form = form(M0F38, P66, 0x31);
pub(super) const VPMOVSXDQ: Form = form(M0F38, P66, 0x25);
// Narrowing: the destination is the last operand.
pub(super) const VPMOVSQD: Form = form(M0F38, PF3, 0x25);
pub(super) const VPMOVQD: Form = form(M0F38, PF3, 0x35);
pub(super) const VPMOVDB: Form = form(M0F38, PF3, 0x31);
pub(super) const VINSERTI64X4: Form = wide(M0F3A, P66, 0x3a);
/// The destination is the last operand.
pub(super) const VEXTRACTI64X4: Form = wide(M0F3A, P66, 0x3b);
/// The destination is the last operand.
pub(super) const VEXTRACTI32X4: Form = form(M0F3A, P66, 0x39);
pub(super) const VPSHUFD: Form = form(M0F, P66, 0x70);
pub(super) const VGATHERDPS: Form = form(M0F38, P66, 0x92);
pub(super) const VSCATTERDPS: Form = form(M0F38, P66, 0xa2);
// Masks; two-source ones have the length bit set.
pub(super) const KANDW: Form = form(M0F, NONE, 0x41).ymm();
pub(super) const KANDNW: Form = form(M0F, NONE, 0x42).ymm();
pub(super) const KNOTW: Form = form(M0F, NONE, 0x44).xmm();
pub(super) const KORW: Form = form(M0F, NONE, 0x45).ymm();
pub(super) const KXNORW: Form = form(M0F, NONE, 0x46).ymm();
pub(super) const KXORW: Form = form(M0F, NONE, 0x47).ymm();
pub(super) const KMOVW: Form = form(M0F, NONE, 0x90).xmm();
pub(super) const KMOVW_STORE: Form = form(M0F, NONE, 0x91).xmm();
pub(super) const KMOVW_FROM_GPR: Form = form(M0F, NONE, 0x92).xmm();
pub(super) const KMOVW_TO_GPR: Form = form(M0F, NONE, 0x93).xmm();
pub(super) const KORTESTW: Form = form(M0F, NONE, 0x98).xmm();
pub(super) const KSHIFTRW: Form = wide(M0F3A, P66, 0x30).xmm();
/// Destination, count, source: the source's lowest `count` bits.
pub(super) const BZHI: Form = form(M0F38, NONE, 0xf5).xmm();

/// Opcode extensions of [`SHIFT_DWORDS`].
pub(super) const SHIFT_RIGHT_LOGICAL: u8 = 2;
pub(super) const SHIFT_RIGHT_ARITHMETIC: u8 = 4;
pub(super) const SHIFT_LEFT: u8 = 6;

/// How a mask governs the destination's lanes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Masking {
    /// All lanes are written.
    All,
    /// Only lanes of that mask register are written.
    Merge(u8),
    /// Lanes outside that mask register become zero.
    Zero(u8),
}

/// Conditions of jumps, by their codes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    /// Zero.
    Equal = 4,
    /// Not zero.
    NotEqual = 5,
    /// Unsigned.
    NotAbove = 6,
    /// Signed.
    Less = 12,
    /// Signed.
    NotLess = 13,
    /// Signed.
    NotGreater = 14,
    /// Signed.
    Greater = 15,
}

/// Code under construction.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<u8>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
    pool: Vec<u8>,
    words: HashMap<u32, PoolOffset>,
    /// Position of a displacement, end of its instruction, constant.
    references: Vec<(usize, usize, PoolOffset)>,
}

impl Assembler {
    /// The place of a 32-bit constant.
    pub(super) fn word(&mut self, bits: u32) -> PoolOffset {
        if let Some(&offset) = self.words.get(&bits) {
            return offset;
        }
        let offset = self.block(&[bits]);
        self.words.insert(bits, offset);
        offset
    }

    /// The place of consecutive 32-bit constants.
    pub(super) fn block(&mut self, words: &[u32]) -> PoolOffset {
        let offset = PoolOffset(self.pool.len() as u32);
        for word in words {
            self.pool.extend_from_slice(&word.to_le_bytes());
        }
        offset
    }

    /// A label without a place yet.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places the label here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// A new label, here.
    pub(super) fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }

    /// The code with its constants behind it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for (at, label) in self.jumps {
            // Every label is placed by the function that made it.
            let target = self.labels[label.0].unwrap_or(at + 4);
            let distance = target as i64 - (at as i64 + 4);
            self.code[at..at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
        }
        while !self.code.len().is_multiple_of(4) {
            self.code.push(0xcc);
        }
        let pool = self.code.len();
        for (at, end, offset) in self.references {
            let distance = (pool + offset.0 as usize) as i64 - end as i64;
            self.code[at..at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
        }
        self.code.extend_from_slice(&self.pool);
        self.code
    }

    fn byte(&mut self, byte: u8) {
        self.code.push(byte);
    }

    fn dword(&mut self, value: i32) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }

    /// ModRM, SIB and displacement; `after` counts the bytes of the instruction that follow them.
    fn operand(&mut self, reg: u8, operand: Operand, after: usize) {
        let reg = (reg & 7) << 3;
        match operand {
            Operand::Register(register) => self.byte(0xc0 | reg | (register & 7)),
            Operand::Memory(Memory { base: Base::Pool(offset), .. }) => {
                self.byte(reg | 5);
                let at = self.code.len();
                self.references.push((at, at + 4 + after, offset));
                self.dword(0);
            }
            Operand::Memory(Memory { base: Base::Register(base), index, displacement, .. }) => {
                let none = displacement == 0 && base.0 & 7 != 5;
                let mode = if none { 0 } else { 0x80 };
                if index.is_some() || base.0 & 7 == 4 {
                    let (index, shift) = index.unwrap_or((4, 0));
                    self.byte(mode | reg | 4);
                    self.byte(shift << 6 | (index & 7) << 3 | (base.0 & 7));
                } else {
                    self.byte(mode | reg | (base.0 & 7));
                }
                if !none {
                    self.dword(displacement);
                }
            }
        }
    }

    /// An EVEX instruction: `reg` and `second` as the form says, `last` a vector (or general) register or memory.
    pub(super) fn vector(
        &mut self,
        form: Form,
        reg: u8,
        second: u8,
        last: impl Into<Operand>,
        masking: Masking,
        immediate: Option<u8>,
    ) {
        let last = last.into();
        // Bits 3 and 4 of the registers, stored inverted: base and index of memory, or the two of a register.
        let (low, high, mut second_high, broadcast) = match last {
            Operand::Register(register) => (register >> 3 & 1, register >> 4 & 1, second >> 4 & 1, false),
            Operand::Memory(memory) => {
                let base = if let Base::Register(base) = memory.base { base.0 >> 3 & 1 } else { 0 };
                let index = memory.index.map_or(0, |(index, _)| index);
                (base, index >> 3 & 1, second >> 4 & 1, memory.broadcast)
            }
        };
        if form == VGATHERDPS || form == VSCATTERDPS {
            second_high = if let Operand::Memory(Memory { index: Some((index, _)), .. }) = last {
                index >> 4 & 1
            } else {
                0
            };
        }
        let (mask, zero) = match masking {
            Masking::All => (0, 0),
            Masking::Merge(mask) => (mask, 0),
            Masking::Zero(mask) => (mask, 1),
        };
        self.byte(0x62);
        self.byte(
            (reg >> 3 & 1 ^ 1) << 7 | (high ^ 1) << 6 | (low ^ 1) << 5 | (reg >> 4 & 1 ^ 1) << 4 | form.map,
        );
        self.byte(u8::from(form.wide) << 7 | (!second & 15) << 3 | 4 | form.prefix);
        self.byte(zero << 7 | form.length << 5 | u8::from(broadcast) << 4 | (second_high ^ 1) << 3 | mask);
        self.byte(form.opcode);
        self.operand(reg, last, usize::from(immediate.is_some()));
        if let Some(immediate) = immediate {
            self.byte(immediate);
        }
    }

    /// A VEX instruction on masks or general registers.
    pub(super) fn vex(
        &mut self,
        form: Form,
        reg: u8,
        second: u8,
        last: impl Into<Operand>,
        immediate: Option<u8>,
    ) {
        let last = last.into();
        let (base, index) = extension_bits(last);
        self.byte(0xc4);
        self.byte((reg >> 3 & 1 ^ 1) << 7 | (index ^ 1) << 6 | (base ^ 1) << 5 | form.map);
        self.byte(u8::from(form.wide) << 7 | (!second & 15) << 3 | form.length << 2 | form.prefix);
        self.byte(form.opcode);
        self.operand(reg, last, usize::from(immediate.is_some()));
        if let Some(immediate) = immediate {
            self.byte(immediate);
        }
    }

    /// A legacy instruction with 64-bit operands.
    fn legacy(&mut self, opcode: &[u8], reg: u8, last: impl Into<Operand>, after: usize) {
        let last = last.into();
        let (base, index) = extension_bits(last);
        self.byte(0x48 | (reg >> 3 & 1) << 2 | index << 1 | base);
        self.code.extend_from_slice(opcode);
        self.operand(reg, last, after);
    }

    /// `destination = source`.
    pub(super) fn load(&mut self, destination: Gpr, source: impl Into<Operand>) {
        self.legacy(&[0x8b], destination.0, source, 0);
    }

    /// `destination = source`.
    pub(super) fn store(&mut self, destination: impl Into<Operand>, source: Gpr) {
        self.legacy(&[0x89], source.0, destination, 0);
    }

    /// The lowest byte of `rax` to memory.
    pub(super) fn store_byte(&mut self, destination: Memory) {
        self.legacy(&[0x88], RAX.0, destination, 0);
    }

    /// A byte, with zeros before it.
    pub(super) fn load_byte(&mut self, destination: Gpr, source: Memory) {
        self.legacy(&[0x0f, 0xb6], destination.0, source, 0);
    }

    /// A 32-bit integer, with its sign before it.
    pub(super) fn load_int(&mut self, destination: Gpr, source: impl Into<Operand>) {
        self.legacy(&[0x63], destination.0, source, 0);
    }

    /// `destination = value`, sign-extended.
    pub(super) fn set(&mut self, destination: impl Into<Operand>, value: i32) {
        self.legacy(&[0xc7], 0, destination, 4);
        self.dword(value);
    }

    /// `destination += value`.
    pub(super) fn add_immediate(&mut self, destination: impl Into<Operand>, value: i32) {
        self.legacy(&[0x81], 0, destination, 4);
        self.dword(value);
    }

    /// `destination += source`.
    pub(super) fn add(&mut self, destination: Gpr, source: impl Into<Operand>) {
        self.legacy(&[0x03], destination.0, source, 0);
    }

    /// `destination -= source`.
    pub(super) fn subtract(&mut self, destination: Gpr, source: impl Into<Operand>) {
        self.legacy(&[0x2b], destination.0, source, 0);
    }

    /// `destination = source * factor`.
    pub(super) fn multiply(&mut self, destination: Gpr, source: impl Into<Operand>, factor: i32) {
        self.legacy(&[0x69], destination.0, source, 4);
        self.dword(factor);
    }

    /// `-destination`.
    pub(super) fn negate(&mut self, destination: Gpr) {
        self.legacy(&[0xf7], 3, destination, 0);
    }

    /// Sets the flags of `x - y`.
    pub(super) fn compare(&mut self, x: Gpr, y: impl Into<Operand>) {
        self.legacy(&[0x3b], x.0, y, 0);
    }

    /// Sets the flags of `x - value`.
    pub(super) fn compare_immediate(&mut self, x: impl Into<Operand>, value: i32) {
        self.legacy(&[0x81], 7, x, 4);
        self.dword(value);
    }

    /// The address itself.
    pub(super) fn address(&mut self, destination: Gpr, memory: Memory) {
        self.legacy(&[0x8d], destination.0, memory, 0);
    }

    /// `destination &= value`.
    pub(super) fn and_immediate(&mut self, destination: Gpr, value: i32) {
        self.legacy(&[0x81], 4, destination, 4);
        self.dword(value);
    }

    /// The number of zero bits below the lowest set bit of `rax`.
    pub(super) fn count_trailing_zeros(&mut self) {
        self.byte(0xf3);
        self.legacy(&[0x0f, 0xbc], RAX.0, RAX, 0);
    }

    /// Saves a register.
    pub(super) fn push(&mut self, register: Gpr) {
        self.code.extend_from_slice(&[0x40 | register.0 >> 3, 0x50 | (register.0 & 7)]);
    }

    /// Restores a register.
    pub(super) fn pop(&mut self, register: Gpr) {
        self.code.extend_from_slice(&[0x40 | register.0 >> 3, 0x58 | (register.0 & 7)]);
    }

    /// Makes room for `bytes` below the stack pointer, to be set by [`Assembler::set_reserve`].
    pub(super) fn reserve(&mut self) -> usize {
        self.legacy(&[0x81], 5, RSP, 4);
        self.dword(0);
        self.code.len() - 4
    }

    /// Touches that many pages below the stack pointer, so that a large frame does not step over the guard page.
    pub(super) fn probe(&mut self, pages: i32) {
        for page in 1..=pages {
            self.compare_immediate(Memory::at(RSP, -4096 * page), 0);
        }
    }

    /// Sets the room that [`Assembler::reserve`] makes.
    pub(super) fn set_reserve(&mut self, at: usize, bytes: i32) {
        self.code[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Jumps if the flags say so.
    pub(super) fn jump_if(&mut self, condition: Condition, label: Label) {
        self.code.extend_from_slice(&[0x0f, 0x80 | condition as u8]);
        self.jumps.push((self.code.len(), label));
        self.dword(0);
    }

    /// Jumps.
    pub(super) fn jump(&mut self, label: Label) {
        self.byte(0xe9);
        self.jumps.push((self.code.len(), label));
        self.dword(0);
    }

    /// Clears the upper parts of the vector registers and returns.
    pub(super) fn finish_function(&mut self, saved: &[Gpr]) {
        self.code.extend_from_slice(&[0xc5, 0xf8, 0x77]);
        self.address(RSP, Memory::at(RBP, -8 * saved.len() as i32));
        for register in saved.iter().rev() {
            self.pop(*register);
        }
        self.pop(RBP);
        self.byte(0xc3);
    }

    /// Returns at once, before anything was saved.
    pub(super) fn return_at_once(&mut self) {
        self.byte(0xc3);
    }
}

/// The fourth bits of base (or register) and index.
fn extension_bits(operand: Operand) -> (u8, u8) {
    match operand {
        Operand::Register(register) => (register >> 3 & 1, 0),
        Operand::Memory(memory) => {
            let base = if let Base::Register(base) = memory.base { base.0 >> 3 & 1 } else { 0 };
            (base, memory.index.map_or(0, |(index, _)| index >> 3 & 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Masking::{All, Merge, Zero};
    use super::*;

    type Row = (&'static str, &'static str, fn(&mut Assembler));

    /// Text and bytes from the GNU assembler, by `tests/reference/avx512_encodings.py`.
    #[test]
    fn bytes_are_those_of_the_gnu_assembler() {
        fn r(register: u8) -> Operand {
            Operand::Register(register)
        }
        let rows: &[Row] = &[
            ("vaddps zmm17, zmm3, zmm30", "62 81 64 48 58 ce", |a| a.vector(VADDPS, 17, 3, r(30), All, None)),
            ("vfmadd213ps zmm9, zmm31, dword ptr [r12]{1to16}", "62 52 05 50 a8 0c 24", |a| {
                a.vector(VFMADD213PS, 9, 31, Memory::at(Gpr(12), 0).broadcast(), All, None)
            }),
            ("{disp32} vmovups zmm20{k1}{z}, [r13+rdx*4+64]", "62 c1 7c c9 10 a4 95 40 00 00 00", |a| {
                a.vector(VMOVUPS, 20, 0, Memory::at(Gpr(13), 64).indexed(2, 2), Zero(1), None)
            }),
            ("vmovups [rsp], zmm8", "62 71 7c 48 11 04 24", |a| {
                a.vector(VMOVUPS_STORE, 8, 0, Memory::at(RSP, 0), All, None)
            }),
            ("{disp32} vmovups [rsp+1088], zmm31", "62 61 7c 48 11 bc 24 40 04 00 00", |a| {
                a.vector(VMOVUPS_STORE, 31, 0, Memory::at(RSP, 1088), All, None)
            }),
            ("vcmpps k5, zmm16, zmm1, 30", "62 f1 7c 40 c2 e9 1e", |a| {
                a.vector(VCMPPS, 5, 16, r(1), All, Some(30))
            }),
            ("vpcmpud k2, zmm2, zmm19, 5", "62 b3 6d 48 1e d3 05", |a| {
                a.vector(VPCMPUD, 2, 2, r(19), All, Some(5))
            }),
            ("vblendmps zmm4{k6}, zmm28, zmm5", "62 f2 1d 46 65 e5", |a| {
                a.vector(VBLENDMPS, 4, 28, r(5), Merge(6), None)
            }),
            ("vpsrad zmm22, zmm11, 23", "62 d1 4d 40 72 e3 17", |a| {
                a.vector(SHIFT_DWORDS, SHIFT_RIGHT_ARITHMETIC, 22, r(11), All, Some(23))
            }),
            ("vrndscaleps zmm1, zmm18, 9", "62 b3 7d 48 08 ca 09", |a| {
                a.vector(VRNDSCALEPS, 1, 0, r(18), All, Some(9))
            }),
            ("vbroadcastss zmm6{k7}{z}, [rdi]", "62 f2 7d cf 18 37", |a| {
                a.vector(VBROADCASTSS, 6, 0, Memory::at(RDI, 0), Zero(7), None)
            }),
            ("vpbroadcastd zmm24, eax", "62 62 7d 48 7c c0", |a| {
                a.vector(VPBROADCASTD, 24, 0, RAX, All, None)
            }),
            ("vgatherdps zmm3{k2}, [r9+zmm25*4]", "62 92 7d 42 92 1c 89", |a| {
                a.vector(VGATHERDPS, 3, 0, Memory::at(Gpr(9), 0).indexed(25, 2), Merge(2), None)
            }),
            ("{disp32} vscatterdps [rax+zmm14*4+8]{k3}, zmm29", "62 22 7d 4b a2 ac b0 08 00 00 00", |a| {
                a.vector(VSCATTERDPS, 29, 0, Memory::at(RAX, 8).indexed(14, 2), Merge(3), None)
            }),
            ("vpmovsqd ymm13, zmm26", "62 42 7e 48 25 d5", |a| a.vector(VPMOVSQD, 26, 0, r(13), All, None)),
            ("vinserti64x4 zmm2, zmm2, ymm21, 1", "62 b3 ed 48 3a d5 01", |a| {
                a.vector(VINSERTI64X4, 2, 2, r(21), All, Some(1))
            }),
            ("vextracti32x4 xmm7, ymm27, 1", "62 63 7d 28 39 df 01", |a| {
                a.vector(VEXTRACTI32X4.ymm(), 27, 0, r(7), All, Some(1))
            }),
            ("vmovd eax, xmm23", "62 e1 7d 08 7e f8", |a| a.vector(VMOVD, 23, 0, RAX, All, None)),
            ("vptestmb k4, xmm5, xmm5", "62 f2 55 08 26 e5", |a| {
                a.vector(VPTESTMB.xmm(), 4, 5, r(5), All, None)
            }),
            ("vmovdqu8 xmm12{k3}{z}, [rsi]", "62 71 7f 8b 6f 26", |a| {
                a.vector(VMOVDQU8.xmm(), 12, 0, Memory::at(RSI, 0), Zero(3), None)
            }),
            ("vpshufd xmm15, xmm31, 0x4e", "62 11 7d 08 70 ff 4e", |a| {
                a.vector(VPSHUFD.xmm(), 15, 0, r(31), All, Some(0x4e))
            }),
            ("{vex3} kandnw k3, k4, k7", "c4 e1 5c 42 df", |a| a.vex(KANDNW, 3, 4, r(7), None)),
            ("{vex3} knotw k2, k6", "c4 e1 78 44 d6", |a| a.vex(KNOTW, 2, 0, r(6), None)),
            ("kshiftrw k5, k1, 8", "c4 e3 f9 30 e9 08", |a| a.vex(KSHIFTRW, 5, 0, r(1), Some(8))),
            ("{vex3} kmovw k1, eax", "c4 e1 78 92 c8", |a| a.vex(KMOVW_FROM_GPR, 1, 0, RAX, None)),
            ("{vex3} kmovw eax, k6", "c4 e1 78 93 c6", |a| a.vex(KMOVW_TO_GPR, RAX.0, 0, r(6), None)),
            ("{vex3} kmovw [rsp], k2", "c4 e1 78 91 14 24", |a| {
                a.vex(KMOVW_STORE, 2, 0, Memory::at(RSP, 0), None)
            }),
            ("{vex3} kortestw k3, k3", "c4 e1 78 98 db", |a| a.vex(KORTESTW, 3, 0, r(3), None)),
            ("bzhi eax, eax, ecx", "c4 e2 70 f5 c0", |a| a.vex(BZHI, RAX.0, RCX.0, RAX, None)),
            ("{disp32} mov r11, [rsp+8]", "4c 8b 9c 24 08 00 00 00", |a| a.load(Gpr(11), Memory::at(RSP, 8))),
            ("mov [r12], rsi", "49 89 34 24", |a| a.store(Memory::at(Gpr(12), 0), RSI)),
            ("{disp32} mov qword ptr [rcx+8], 5", "48 c7 81 08 00 00 00 05 00 00 00", |a| {
                a.set(Memory::at(RCX, 8), 5)
            }),
            ("add r15, -6400", "49 81 c7 00 e7 ff ff", |a| a.add_immediate(Gpr(15), -6400)),
            ("{disp32} add qword ptr [rsp+32], 4000", "48 81 84 24 20 00 00 00 a0 0f 00 00", |a| {
                a.add_immediate(Memory::at(RSP, 32), 4000)
            }),
            ("imul rcx, r10, 1200", "49 69 ca b0 04 00 00", |a| a.multiply(RCX, Gpr(10), 1200)),
            ("{disp32} imul rax, [rsp+24], -4000", "48 69 84 24 18 00 00 00 60 f0 ff ff", |a| {
                a.multiply(RAX, Memory::at(RSP, 24), -4000)
            }),
            ("movsxd rax, dword ptr [rsp+rax*4]", "48 63 04 84", |a| {
                a.load_int(RAX, Memory::at(RSP, 0).indexed(0, 2))
            }),
            ("movzx rax, byte ptr [r8]", "49 0f b6 00", |a| a.load_byte(RAX, Memory::at(Gpr(8), 0))),
            ("lea rcx, [rcx+rdx*8+128]", "48 8d 8c d1 80 00 00 00", |a| {
                a.address(RCX, Memory::at(RCX, 128).indexed(2, 3))
            }),
            ("{disp32} cmp rdx, [rsp+24]", "48 3b 94 24 18 00 00 00", |a| {
                a.compare(RDX, Memory::at(RSP, 24))
            }),
            ("{load} sub rcx, rdx", "48 2b ca", |a| a.subtract(RCX, RDX)),
            ("and rsp, -6400", "48 81 e4 00 e7 ff ff", |a| a.and_immediate(RSP, -6400)),
            ("neg rax", "48 f7 d8", |a| a.negate(RAX)),
            ("tzcnt rax, rax", "f3 48 0f bc c0", |a| a.count_trailing_zeros()),
            ("push r14", "41 56", |a| a.push(Gpr(14))),
            ("rex pop rbx", "40 5b", |a| a.pop(RBX)),
        ];
        for (text, bytes, encode) in rows {
            let mut asm = Assembler::default();
            encode(&mut asm);
            let encoded: Vec<String> = asm.code.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(encoded.join(" "), *bytes, "{text}");
        }
    }

    #[test]
    fn constants_are_addressed_from_the_end_of_the_instruction() {
        let mut asm = Assembler::default();
        let word = asm.word(0x3f80_0000);
        assert_eq!(asm.word(0x3f80_0000), word);
        asm.vector(VRNDSCALEPS, 0, 0, Memory::pool(word).broadcast(), All, Some(8));
        let code = asm.finish();
        // 11 bytes of instruction, one of padding, the constant.
        assert_eq!(code.len(), 16);
        assert_eq!(code[6..11], [1, 0, 0, 0, 8]);
        assert_eq!(code[12..], 1f32.to_le_bytes());
    }
}
