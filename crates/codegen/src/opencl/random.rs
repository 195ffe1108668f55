//! Random numbers as OpenCL C: a work item for each counter writes the counter's four words, so that neighbouring work
//! items write neighbouring elements (see [`hypatia_graph::random`] for the order).

use std::fmt::Write;

use hypatia_graph::random::{BLOCK, KEY_STEPS, LANES, MULTIPLIERS, ROUNDS};

use super::emit::{GROUP, KernelText, head};
use crate::kernel::RandomKernel;

/// The text of a kernel; `None` where there is nothing to write.
pub(super) fn emit(kernel: &RandomKernel) -> Option<KernelText> {
    if kernel.is_empty() {
        return None;
    }
    let elements = kernel.len() as u64;
    let counters = (elements.div_ceil(BLOCK) * LANES) as usize;
    let mut text = head(&kernel.params, false, GROUP);
    let _ = write!(
        text,
        "    const ulong item = get_global_id(0), base = item / {LANES} * {BLOCK} + item % {LANES};
    const ulong counter = (ulong)p{counter}[0] + item;
    uint x0 = (uint)counter, x1 = (uint)(counter >> 32), x2 = 0, x3 = 0, k0 = {low}u, k1 = {high}u;
    for (int round = 0; round < {ROUNDS}; ++round) {{
        const uint high0 = mul_hi(x0, {m0}u), low0 = x0 * {m0}u, high1 = mul_hi(x2, {m1}u), low1 = x2 * {m1}u;
        x0 = high1 ^ x1 ^ k0;
        x1 = low1;
        x2 = high0 ^ x3 ^ k1;
        x3 = low0;
        k0 += {s0}u;
        k1 += {s1}u;
    }}
    const uint words[4] = {{x0, x1, x2, x3}};
    for (int w = 0; w < 4; ++w)
        if (base + {LANES} * w < {elements})
            p{out}[base + {LANES} * w] = (float)(words[w] >> 8) * 0x1p-24f;
}}
",
        counter = kernel.counter,
        out = kernel.out,
        low = kernel.key as u32,
        high = (kernel.key >> 32) as u32,
        m0 = MULTIPLIERS[0],
        m1 = MULTIPLIERS[1],
        s0 = KEY_STEPS[0],
        s1 = KEY_STEPS[1],
    );
    Some(KernelText { body: text, groups: counters.div_ceil(GROUP), group: GROUP })
}
