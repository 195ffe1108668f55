//! Convolutions as OpenCL C: each work item computes one element of the result.
//!
//! Neighbouring work items compute neighbouring places of one image and filter, so that they read neighbouring elements of
//! the input and the same elements of the filters. Terms are added with fused multiply-add, channel by channel, each channel's
//! sum apart.

use std::fmt::Write;

use super::emit::{self, GROUP, KernelText};
use super::scalar;
use crate::kernel::{ConvolutionKernel, Kernel, Strided};

/// The text of a convolution; `None` where there is nothing to do.
pub(super) fn emit(kernel: &ConvolutionKernel) -> Option<KernelText> {
    let results = kernel.results();
    let count: usize = results.iter().product();
    if count == 0 && kernel.starts.is_empty() {
        return None;
    }
    let index = emit::index_type(largest_position(kernel));
    let sum = scalar::register_type(kernel.dtype);
    let lead = kernel.lead.len();
    let mut text = emit::head(&kernel.params, emit::is_fallible(&Kernel::Convolution(kernel.clone())), GROUP);
    text.push_str(&emit::starts(&kernel.starts, index));
    if count == 0 {
        text.push_str("}\n");
        return Some(KernelText { body: text, groups: 1, group: GROUP });
    }
    let _ = write!(
        text,
        "    const {index} out = get_global_id(0);\n    if (out >= {count})\n        return;\n    {index} rest = out;\n"
    );
    for (axis, n) in results.iter().enumerate().rev() {
        let _ = writeln!(text, "    const {index} i{axis} = rest % {n};\n    rest /= {n};");
    }
    // Along leading axes, then along images, channels and spatial axes; the same of the filters.
    let begin = |operand: &Strided, own: usize| {
        let mut terms = vec![emit::affine(&operand.position, &[])];
        let strides = operand.strides.iter().enumerate().take(lead);
        terms.extend(strides.map(|(axis, stride)| format!("({stride}) * i{axis}")));
        terms.push(format!("({}) * i{own}", operand.strides[lead]));
        terms.join(" + ")
    };
    let (x, w) = (begin(&kernel.x, lead), begin(&kernel.w, lead + 1));
    let _ = writeln!(text, "    {sum} total = 0;");
    let _ = writeln!(text, "    for ({index} c = 0; c < {}; ++c) {{\n    {sum} sum = 0;", kernel.channels);
    let channel = |operand: &Strided| format!("({}) * c", operand.strides[lead + 1]);
    let (mut from, mut by) =
        (format!("{x} + {}", channel(&kernel.x)), format!("{w} + {}", channel(&kernel.w)));
    for (number, axis) in kernel.axes.iter().enumerate() {
        let at = lead + 2 + number;
        let _ = writeln!(text, "    for ({index} t{number} = 0; t{number} < {}; ++t{number}) {{", axis.taps);
        let _ = writeln!(
            text,
            "    const {index} q{number} = i{at} * {} + t{number} * {} - ({});\n    if (q{number} < 0 || q{number} % {} != 0 || q{number} / {} >= {})\n        continue;",
            axis.stride, axis.dilation, axis.low, axis.spread, axis.spread, axis.input
        );
        let _ = write!(from, " + ({}) * (q{number} / {})", kernel.x.strides[at], axis.spread);
        let _ = write!(by, " + ({}) * t{number}", kernel.w.strides[at]);
    }
    let _ = writeln!(text, "    sum = fma(p{}[{from}], p{}[{by}], sum);", kernel.x.param, kernel.w.param);
    text.push_str(&"    }\n".repeat(kernel.axes.len()));
    let _ = write!(text, "    total += sum;\n    }}\n    p{}[out] = total;\n}}\n", kernel.out);
    Some(KernelText { body: text, groups: count.div_ceil(GROUP), group: GROUP })
}

fn largest_position(kernel: &ConvolutionKernel) -> i128 {
    let operand = |operand: &Strided, extents: &[usize]| {
        let along = operand.strides.iter().zip(extents);
        emit::reach(&operand.position, &[], &kernel.starts)
            + along.map(|(stride, n)| i128::from(*stride).abs() * *n as i128).sum::<i128>()
    };
    let padded = |axis: &hypatia_kernels::convolution::Axis| {
        (axis.result * axis.stride + axis.taps * axis.dilation) as i128 + axis.low.unsigned_abs() as i128
    };
    let results = kernel.results().iter().product::<usize>() as i128 + GROUP as i128;
    let positions = kernel.axes.iter().map(padded).max();
    let operands = operand(&kernel.x, &kernel.input()).max(operand(&kernel.w, &kernel.taps()));
    operands.max(results).max(positions.unwrap_or_default())
}
