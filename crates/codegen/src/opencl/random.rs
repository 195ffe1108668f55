//! Random numbers as OpenCL C: each work item computes the four words of one counter.
//!
//! The bits are those of [`hypatia_graph::random::uniform_element`] on every device: the generator is exact in integers,
//! and 24 bits are exact in a float. Neighbouring work items write neighbouring elements.

use std::fmt::Write;

use hypatia_graph::random::{BLOCK, KEY_STEPS, LANES, MULTIPLIERS, ROUNDS, counters_used};

use super::emit::{self, GROUP, KernelText};
use crate::kernel::RandomKernel;

/// The text of a random kernel; `None` where there is nothing to do.
pub(super) fn emit(kernel: &RandomKernel) -> Option<KernelText> {
    let len = kernel.len() as u64;
    if len == 0 {
        return None;
    }
    let counters = counters_used(len);
    let RandomKernel { key, counter, out, .. } = kernel;
    let [m0, m1] = MULTIPLIERS;
    let [s0, s1] = KEY_STEPS;
    let (k0, k1) = (*key as u32, (*key >> 32) as u32);
    let mut text = emit::head(&kernel.params, false, GROUP);
    // Work items past the last counter would write nothing: every one of their elements lies past the end.
    let _ = write!(
        text,
        "    const ulong number = get_global_id(0);
    const ulong counter = (ulong)p{counter}[0] + number;
    uint x0 = (uint)counter, x1 = (uint)(counter >> 32), x2 = 0, x3 = 0;
    uint k0 = {k0:#x}u, k1 = {k1:#x}u;
    for (int round = 0; round < {ROUNDS}; ++round) {{
        const uint low0 = {m0:#x}u * x0, high0 = mul_hi({m0:#x}u, x0);
        const uint low1 = {m1:#x}u * x2, high1 = mul_hi({m1:#x}u, x2);
        x0 = high1 ^ x1 ^ k0;
        x1 = low1;
        x2 = high0 ^ x3 ^ k1;
        x3 = low0;
        k0 += {s0:#x}u;
        k1 += {s1:#x}u;
    }}
    const ulong first = number / {LANES} * {BLOCK} + number % {LANES};
"
    );
    for word in 0..4 {
        let at = LANES * word;
        let _ = writeln!(
            text,
            "    if (first + {at} < {len})\n        p{out}[first + {at}] = (float)(x{word} >> 8) * 5.9604644775390625e-8f;"
        );
    }
    text.push_str("}\n");
    Some(KernelText { body: text, groups: counters.div_ceil(GROUP as u64) as usize, group: GROUP })
}
