//! Scans chosen by hand, in the text form, and scans written out step by step.
//!
//! The table has one of everything that a scan may do: every kind of parameter and result, steps that end early or are
//! not made, values handed on without being computed, scans in scans. [`unrolled`] makes of a graph one without scans,
//! which every engine and the differentiator knew before there were any.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Dim, Scan, ScanResult, Start, WindowAxis, known_dims};
use hypatia_graph::text::parse;
use hypatia_graph::{DType, Graph, LeafId, Literal, NodeId, Op, TensorType};

use crate::samples::Sample;
use crate::values::Generator;

/// A title and a graph.
type Row = (&'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "map",
        "
input %x: f32[6, 5]
body b0 {
  sequence %x: f32[5]
  %0 = tanh(%x)
  %1 = sqr(%0)
  %2 = add(%0, %1)
  row %2
}
%0 = scan{body=b0, result=rows 0, steps=6}(%x)
output %0",
    ),
    (
        "cumulative sum",
        "
input %x: f32[9, 3]
input %h: f32[3]
body b0 {
  sequence %x: f32[3]
  carry %h: f32[3]
  %0 = add(%x, %h)
  row %0
  next %h = %0
}
%0 = scan{body=b0, result=rows 0, steps=9}(%x, %h)
%1 = scan{body=b0, result=last 0, steps=9}(%x, %h)
%2 = scan{body=b0, result=steps, steps=9}(%x, %h)
output %0
output %1
output %2",
    ),
    (
        "scalar sums of every type",
        "
input %a: f64[7]
input %b: i32[7]
input %c: i64[7]
input %d: u8[7]
input %e: bool[7]
body b0 {
  sequence %a: f64[]
  sequence %b: i32[]
  sequence %c: i64[]
  sequence %d: u8[]
  sequence %e: bool[]
  carry %f: f64[]
  carry %g: i32[]
  carry %h: i64[]
  carry %i: u8[]
  carry %j: bool[]
  %0 = add(%a, %f)
  %1 = mul(%b, %g)
  %2 = sub(%h, %c)
  %3 = add(%d, %i)
  %4 = xor(%e, %j)
  row %f
  row %1
  row %h
  row %3
  row %4
  next %f = %0
  next %g = %1
  next %h = %2
  next %i = %3
  next %j = %4
}
%0 = scan{body=b0, result=rows 0, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%1 = scan{body=b0, result=rows 1, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%2 = scan{body=b0, result=rows 2, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%3 = scan{body=b0, result=rows 3, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%4 = scan{body=b0, result=rows 4, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%5 = scan{body=b0, result=last 3, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
%6 = scan{body=b0, result=last 4, steps=7}(%a, %b, %c, %d, %e, 0.5f64, 3i32, 7i64, 250u8, true)
output %0
output %1
output %2
output %3
output %4
output %5
output %6",
    ),
    (
        "recurrent network",
        "
input %x: f32[7, 4, 6]
input %h: f32[4, 5]
shared %W: f32[6, 5]
shared %U: f32[5, 5]
input %V: f32[5, 3]
body b0 {
  sequence %x: f32[4, 6]
  captured %W: f32[6, 5]
  captured %U: f32[5, 5]
  captured %V: f32[5, 3]
  carry %h: f32[4, 5]
  %0 = dot(%x, %W)
  %1 = dot(%h, %U)
  %2 = add(%0, %1)
  %3 = cos(%2)
  %4 = tanh(%3)
  %5 = dot(%4, %V)
  %6 = sigmoid(%5)
  row %4
  row %6
  next %h = %4
}
%0 = scan{body=b0, result=rows 0, steps=7}(%x, %W, %U, %V, %h)
%1 = scan{body=b0, result=rows 1, steps=7}(%x, %W, %U, %V, %h)
%2 = scan{body=b0, result=last 0, steps=7}(%x, %W, %U, %V, %h)
output %0
output %1
output %2",
    ),
    (
        "wide recurrent network, last state alone",
        "
input %x: f32[20, 16, 40]
input %h: f32[16, 70]
input %W: f32[40, 70]
input %U: f32[70, 70]
body b0 {
  sequence %x: f32[16, 40]
  captured %W: f32[40, 70]
  captured %U: f32[70, 70]
  carry %h: f32[16, 70]
  %0 = dot(%x, %W)
  %1 = dot(%h, %U)
  %2 = add(%0, %1)
  %3 = tanh(%2)
  next %h = %3
}
%0 = scan{body=b0, result=last 0, steps=20}(%x, %W, %U, %h)
output %0",
    ),
    (
        "chain of products with transposed weights",
        "
input %v: f32[3, 20]
input %W: f32[20, 17]
body b0 {
  captured %W: f32[20, 17]
  carry %v: f32[3, 20]
  %0 = dot(%v, %W)
  %1 = sigmoid(%0)
  %2 = permute{axes=[1, 0]}(%W)
  %3 = dot(%1, %2)
  %4 = sigmoid(%3)
  row %3
  next %v = %4
}
%0 = scan{body=b0, result=rows 0, steps=5}(%W, %v)
%1 = window{starts=[4, 0, 0], lengths=[1, 3, 20]}(%0)
%2 = scan{body=b0, result=last 0, steps=5}(%W, %v)
output %1
output %2",
    ),
    (
        "sum of outer products",
        "
input %x: f32[8, 4, 6]
input %y: f32[8, 4, 5]
input %s: f32[6, 5]
body b0 {
  sequence %x: f32[4, 6]
  sequence %y: f32[4, 5]
  carry %s: f32[6, 5]
  %0 = permute{axes=[1, 0]}(%x)
  %1 = dot(%0, %y)
  %2 = add(%s, %1)
  next %s = %2
}
%0 = scan{body=b0, result=last 0, steps=8}(%x, %y, %s)
output %0",
    ),
    (
        "several taps",
        "
input %x: f64[10]
input %p: f64[]
input %q: f64[]
input %r: f64[]
%0 = window{starts=[0], lengths=[8]}(%x)
%1 = window{starts=[2], lengths=[8]}(%x)
body b0 {
  sequence %before: f64[]
  sequence %after: f64[]
  carry %first: f64[]
  carry %second: f64[]
  carry %third: f64[]
  %0 = mul(%before, %third)
  %1 = sub(%0, %after)
  %2 = sin(%first)
  %3 = add(%1, %2)
  row %3
  next %first = %3
  next %second = %first
  next %third = %second
}
%2 = scan{body=b0, result=rows 0, steps=8}(%0, %1, %p, %q, %r)
%3 = scan{body=b0, result=last 2, steps=8}(%0, %1, %p, %q, %r)
output %2
output %3",
    ),
    (
        "carries that change places",
        "
input %a: f32[37]
input %b: f32[37]
input %c: f32[37]
body b0 {
  carry %a: f32[37]
  carry %b: f32[37]
  carry %c: f32[37]
  %0 = broadcast{axes=[], dims=[37]}(0.5f32)
  %1 = mul(%a, %0)
  next %a = %b
  next %b = %c
  next %c = %1
}
%0 = scan{body=b0, result=last 0, steps=5}(%a, %b, %c)
%1 = scan{body=b0, result=last 1, steps=5}(%a, %b, %c)
%2 = scan{body=b0, result=last 2, steps=5}(%a, %b, %c)
output %0
output %1
output %2",
    ),
    (
        "carries that read each other",
        "
input %a: f32[4, 4]
input %b: f32[4, 4]
body b0 {
  carry %a: f32[4, 4]
  carry %b: f32[4, 4]
  %0 = dot(%a, %b)
  %1 = tanh(%0)
  %2 = permute{axes=[1, 0]}(%a)
  %3 = add(%2, %b)
  row %a
  next %a = %1
  next %b = %3
}
%0 = scan{body=b0, result=rows 0, steps=6}(%a, %b)
%1 = scan{body=b0, result=last 0, steps=6}(%a, %b)
%2 = scan{body=b0, result=last 1, steps=6}(%a, %b)
output %0
output %1
output %2",
    ),
    (
        "values that are not computed",
        "
input %x: f32[4, 3]
input %w: f32[3]
input %h: f32[3]
body b0 {
  sequence %x: f32[3]
  captured %w: f32[3]
  carry %h: f32[3]
  carry %kept: f32[3]
  constant %c: f32[3] = [1.0, -0.0, nan]
  row %x
  row %w
  row %h
  row %c
  row 7i64
  row %x
  row %kept
  next %h = %x
  next %kept = %kept
}
%0 = scan{body=b0, result=rows 0, steps=4}(%x, %w, %h, %w)
%1 = scan{body=b0, result=rows 1, steps=4}(%x, %w, %h, %w)
%2 = scan{body=b0, result=rows 2, steps=4}(%x, %w, %h, %w)
%3 = scan{body=b0, result=rows 3, steps=4}(%x, %w, %h, %w)
%4 = scan{body=b0, result=rows 4, steps=4}(%x, %w, %h, %w)
%5 = scan{body=b0, result=rows 5, steps=4}(%x, %w, %h, %w)
%6 = scan{body=b0, result=rows 6, steps=4}(%x, %w, %h, %w)
%7 = scan{body=b0, result=last 0, steps=4}(%x, %w, %h, %w)
%8 = scan{body=b0, result=last 1, steps=4}(%x, %w, %h, %w)
output %0
output %1
output %2
output %3
output %4
output %5
output %6
output %7
output %8",
    ),
    (
        "a condition met half way",
        "
input %x: f32[3]
body b0 {
  carry %x: f32[3]
  carry %count: i64[]
  %0 = broadcast{axes=[], dims=[3]}(1.5f32)
  %1 = abs(%x)
  %2 = add(%1, %0)
  %3 = max{axes=[0]}(%2)
  %4 = add(%count, 1i64)
  %5 = gt(%3, 8.0f32)
  row %2
  row %4
  row %count
  until %5
  next %x = %2
  next %count = %4
}
%0 = scan{body=b0, result=rows 0, steps=20}(%x, 0i64)
%1 = scan{body=b0, result=rows 1, steps=20}(%x, 0i64)
%2 = scan{body=b0, result=rows 2, steps=20}(%x, 0i64)
%3 = scan{body=b0, result=last 0, steps=20}(%x, 0i64)
%4 = scan{body=b0, result=last 1, steps=20}(%x, 0i64)
%5 = scan{body=b0, result=steps, steps=20}(%x, 0i64)
output %0
output %1
output %2
output %3
output %4
output %5",
    ),
    (
        "conditions met at once and never",
        "
input %x: f64[5]
body b0 {
  sequence %x: f64[]
  carry %sum: f64[]
  %0 = add(%x, %sum)
  %1 = eq(%x, %x)
  row %0
  until %1
  next %sum = %0
}
body b1 {
  sequence %x: f64[]
  carry %sum: f64[]
  %0 = add(%x, %sum)
  %1 = ne(%x, %x)
  row %0
  until %1
  next %sum = %0
}
body b2 {
  sequence %x: f64[]
  row %x
  until true
}
%0 = scan{body=b0, result=rows 0, steps=5}(%x, 0.5f64)
%1 = scan{body=b0, result=steps, steps=5}(%x, 0.5f64)
%2 = scan{body=b1, result=rows 0, steps=5}(%x, 0.5f64)
%3 = scan{body=b1, result=last 0, steps=5}(%x, 0.5f64)
%4 = scan{body=b1, result=steps, steps=5}(%x, 0.5f64)
%5 = scan{body=b2, result=rows 0, steps=5}(%x)
output %0
output %1
output %2
output %3
output %4
output %5",
    ),
    (
        "no step",
        "
input %x: f32[0, 3]
input %h: f32[2, 3]
body b0 {
  sequence %x: f32[3]
  carry %h: f32[2, 3]
  carry %n: i64[]
  %0 = broadcast{axes=[1], dims=[2, 3]}(%x)
  %1 = add(%0, %h)
  %2 = gt(%n, 3i64)
  row %1
  row %n
  until %2
  next %h = %1
  next %n = 5i64
}
%0 = scan{body=b0, result=rows 0, steps=0}(%x, %h, 4i64)
%1 = scan{body=b0, result=rows 1, steps=0}(%x, %h, 4i64)
%2 = scan{body=b0, result=last 0, steps=0}(%x, %h, 4i64)
%3 = scan{body=b0, result=last 1, steps=0}(%x, %h, 4i64)
%4 = scan{body=b0, result=steps, steps=0}(%x, %h, 4i64)
output %0
output %1
output %2
output %3
output %4",
    ),
    (
        "one step and two",
        "
input %x: f32[2, 3]
input %h: f32[3]
%0 = window{starts=[0, 0], lengths=[1, 3]}(%x)
body b0 {
  sequence %x: f32[3]
  carry %h: f32[3]
  %0 = mul(%x, %h)
  row %h
  next %h = %0
}
%1 = scan{body=b0, result=rows 0, steps=1}(%0, %h)
%2 = scan{body=b0, result=last 0, steps=1}(%0, %h)
%3 = scan{body=b0, result=steps, steps=1}(%0, %h)
%4 = scan{body=b0, result=rows 0, steps=2}(%x, %h)
%5 = scan{body=b0, result=last 0, steps=2}(%x, %h)
output %1
output %2
output %3
output %4
output %5",
    ),
    (
        "steps by operands, extents found when called",
        "
input %x: f32[?, ?]
input %n: i64[]
%0 = extent{axis=0}(%x)
body b0 {
  sequence %x: f32[?]
  captured %n: i64[]
  carry %h: i64[]
  %0 = extent{axis=0}(%x)
  %1 = broadcast{axes=[1], dims=[?, ?]}(%x, %n, %0)
  %2 = add(%h, %n)
  row %1
  row %2
  next %h = %2
}
%1 = scan{body=b0, result=rows 0, steps=?}(%x, %n, %0, %0)
%2 = scan{body=b0, result=rows 1, steps=?}(%x, %n, %0, %0)
body b1 {
  carry %y: i64[]
  %0 = mul(%y, 3i64)
  next %y = %0
}
%3 = scan{body=b1, result=last 0, steps=?}(2i64, %n)
output %1
output %2
output %3",
    ),
    (
        "scans in scans",
        "
input %x: f32[4, 5, 3]
input %w: f32[3]
input %s: f32[3]
body outer {
  sequence %rows: f32[5, 3]
  captured %w: f32[3]
  carry %s: f32[3]
  body inner {
    sequence %row: f32[3]
    captured %w: f32[3]
    captured %s: f32[3]
    carry %h: f32[3]
    %0 = mul(%h, %w)
    %1 = add(%0, %row)
    %2 = mul(%1, %s)
    %3 = tanh(%2)
    row %0
    next %h = %3
  }
  %0 = scan{body=inner, result=rows 0, steps=5}(%rows, %w, %s, %w)
  %1 = scan{body=inner, result=last 0, steps=5}(%rows, %w, %s, %w)
  row %0
  row %s
  next %s = %1
}
%0 = scan{body=outer, result=rows 0, steps=4}(%x, %w, %s)
%1 = scan{body=outer, result=rows 1, steps=4}(%x, %w, %s)
%2 = scan{body=outer, result=last 0, steps=4}(%x, %w, %s)
output %0
output %1
output %2",
    ),
    (
        "scans in scans in scans, some of which end early",
        "
input %limit: i64[3]
body b0 {
  sequence %limit: i64[]
  carry %total: i64[]
  body b1 {
    captured %limit: i64[]
    carry %n: i64[]
    body b2 {
      captured %n: i64[]
      captured %limit: i64[]
      carry %i: i64[]
      %0 = add(%i, %n)
      %1 = ge(%0, %limit)
      row %0
      until %1
      next %i = %0
    }
    %0 = scan{body=b2, result=steps, steps=4}(%n, %limit, 0i64)
    %1 = scan{body=b2, result=rows 0, steps=4}(%n, %limit, 0i64)
    %2 = sum{axes=[0]}(%1)
    %3 = add(%n, %0)
    %4 = gt(%2, 9i64)
    row %2
    until %4
    next %n = %3
  }
  %0 = scan{body=b1, result=rows 0, steps=3}(%limit, 1i64)
  %1 = scan{body=b1, result=last 0, steps=3}(%limit, 1i64)
  %2 = sum{axes=[0]}(%0)
  %3 = add(%total, %2)
  row %0
  row %1
  next %total = %3
}
%0 = scan{body=b0, result=rows 0, steps=3}(%limit, 0i64)
%1 = scan{body=b0, result=rows 1, steps=3}(%limit, 0i64)
%2 = scan{body=b0, result=last 0, steps=3}(%limit, 0i64)
output %0
output %1
output %2",
    ),
    (
        "scans after scans, and one body twice",
        "
input %x: f64[6]
input %y: f64[6]
body b0 {
  sequence %x: f64[]
  carry %h: f64[]
  %0 = add(%h, %x)
  row %0
  next %h = %0
}
%0 = scan{body=b0, result=rows 0, steps=6}(%x, 0.0f64)
%1 = scan{body=b0, result=rows 0, steps=6}(%y, 0.0f64)
%2 = scan{body=b0, result=last 0, steps=6}(%y, 0.0f64)
%3 = scan{body=b0, result=rows 0, steps=6}(%0, %2)
%4 = slice{ranges=[:3]}(%0)
%5 = scan{body=b0, result=last 0, steps=3}(%4, %2)
output %1
output %3
output %5",
    ),
    (
        "random numbers",
        "
input %p: f32[5, 4]
shared %counter: i64[]
body b0 {
  sequence %p: f32[4]
  carry %counter: i64[]
  %0 = random{key=99, dims=[4]}(%counter)
  %1 = add(%counter, 1i64)
  %2 = random{key=99, dims=[4]}(%1)
  %3 = add(%1, 1i64)
  %4 = lt(%0, %p)
  %5 = cast{dtype=f32}(%4)
  row %5
  row %2
  next %counter = %3
}
%0 = scan{body=b0, result=rows 0, steps=5}(%p, %counter)
%1 = scan{body=b0, result=rows 1, steps=5}(%p, %counter)
%2 = scan{body=b0, result=last 0, steps=5}(%p, %counter)
output %0
output %1
update %counter = %2",
    ),
    (
        "rows by index, read and written",
        "
input %table: f32[3, 4]
input %i: i64[6, 2]
input %counts: i64[3]
body b0 {
  sequence %i: i64[2]
  captured %table: f32[3, 4]
  carry %changed: f32[3, 4]
  carry %counts: i64[3]
  %0 = gather{batch=0}(%table, %i)
  %1 = scatter_add{batch=0}(%changed, %i, %0)
  %2 = broadcast{axes=[], dims=[2]}(1i64)
  %3 = scatter_add{batch=0}(%counts, %i, %2)
  %4 = gather{batch=0}(%1, %i)
  %5 = scatter{batch=0}(%1, %i, %4)
  row %0
  next %changed = %5
  next %counts = %3
}
%0 = scan{body=b0, result=rows 0, steps=6}(%i, %table, %table, %counts)
%1 = scan{body=b0, result=last 0, steps=6}(%i, %table, %table, %counts)
%2 = scan{body=b0, result=last 1, steps=6}(%i, %table, %table, %counts)
output %0
output %1
output %2",
    ),
    (
        "windows that move",
        "
input %x: f32[12, 3]
input %y: f32[12]
body b0 {
  captured %x: f32[12, 3]
  carry %i: i64[]
  carry %y: f32[12]
  %0 = mul(%i, 3i64)
  %1 = window{starts=[?, 0], lengths=[3, 3]}(%x, %0)
  %2 = sum{axes=[1]}(%1)
  %3 = set_window{starts=[?], lengths=[3]}(%y, %2, %0)
  %4 = add(%i, 1i64)
  %5 = inc_window{starts=[?], lengths=[3]}(%3, %2, %i)
  row %2
  next %i = %4
  next %y = %5
}
%0 = scan{body=b0, result=rows 0, steps=4}(%x, 0i64, %y)
%1 = scan{body=b0, result=last 1, steps=4}(%x, 0i64, %y)
output %0
output %1",
    ),
    (
        "part of a carry written again and again",
        "
input %h: f32[5, 70]
body b0 {
  carry %h: f32[5, 70]
  carry %i: i64[]
  %0 = window{starts=[?, 0], lengths=[1, 70]}(%h, %i)
  %1 = window{starts=[0, 69], lengths=[1, 70], steps=[1, -1]}(%0)
  %2 = add(%i, 1i64)
  %3 = mod(%2, 5i64)
  %4 = set_window{starts=[?, 0], lengths=[1, 70]}(%h, %1, %3)
  next %h = %4
  next %i = %3
}
%0 = scan{body=b0, result=last 0, steps=7}(%h, 0i64)
output %0",
    ),
    (
        "reductions, positions and layouts",
        "
input %x: f32[4, 6, 5]
body b0 {
  sequence %x: f32[6, 5]
  carry %best: i64[6]
  carry %before: f32[5, 6]
  %0 = argmax{axis=1}(%x)
  %1 = maximum(%0, %best)
  %2 = max{axes=[1]}(%x)
  %3 = broadcast{axes=[0], dims=[6, 5]}(%2)
  %4 = sub(%x, %3)
  %5 = exp(%4)
  %6 = sum{axes=[1]}(%5)
  %7 = broadcast{axes=[0], dims=[6, 5]}(%6)
  %8 = div(%5, %7)
  %9 = permute{axes=[1, 0]}(%8)
  %10 = concat{axis=0}(%9, %before)
  %11 = reshape{dims=[60]}(%10)
  %12 = window{starts=[59], lengths=[30], steps=[-2]}(%11)
  %13 = reshape{dims=[5, 6]}(%12)
  row %11
  row %1
  row %2
  next %best = %1
  next %before = %13
}
%0 = broadcast{axes=[], dims=[6]}(0i64)
%1 = broadcast{axes=[], dims=[5, 6]}(0.25f32)
%2 = scan{body=b0, result=rows 0, steps=4}(%x, %0, %1)
%3 = scan{body=b0, result=rows 1, steps=4}(%x, %0, %1)
%4 = scan{body=b0, result=rows 2, steps=4}(%x, %0, %1)
%5 = scan{body=b0, result=last 1, steps=4}(%x, %0, %1)
output %2
output %3
output %4
output %5",
    ),
    (
        "extents of none",
        "
input %x: f32[3, 0, 2]
input %h: f32[0]
body b0 {
  sequence %x: f32[0, 2]
  carry %h: f32[0]
  %0 = sum{axes=[1]}(%x)
  %1 = add(%h, %0)
  %2 = sum{axes=[0]}(%1)
  row %1
  row %2
  next %h = %1
}
%0 = scan{body=b0, result=rows 0, steps=3}(%x, %h)
%1 = scan{body=b0, result=rows 1, steps=3}(%x, %h)
%2 = scan{body=b0, result=last 0, steps=3}(%x, %h)
output %0
output %1
output %2",
    ),
    (
        "work that does not depend on the step",
        "
input %x: f32[5, 3]
input %w: f32[3, 3]
shared %b: f32[3]
body b0 {
  sequence %x: f32[3]
  captured %w: f32[3, 3]
  captured %b: f32[3]
  carry %h: f32[3]
  %0 = exp(%w)
  %1 = dot(%0, %w)
  %2 = sum{axes=[0]}(%1)
  %3 = add(%2, %b)
  %4 = tanh(%3)
  %5 = mul(%h, %4)
  %6 = add(%5, %x)
  row %3
  next %h = %6
}
%0 = scan{body=b0, result=rows 0, steps=5}(%x, %w, %b, %b)
%1 = scan{body=b0, result=last 0, steps=5}(%x, %w, %b, %b)
output %0
output %1
update %b = %1",
    ),
    (
        "a sampler of a restricted Boltzmann machine",
        "
input %v: f32[3, 20]
shared %W: f32[20, 11]
shared %a: f32[20]
shared %b: f32[11]
shared %counter: i64[]
body b0 {
  captured %W: f32[20, 11]
  captured %a: f32[20]
  captured %b: f32[11]
  carry %v: f32[3, 20]
  carry %counter: i64[]
  %0 = dot(%v, %W)
  %1 = broadcast{axes=[1], dims=[3, 11]}(%b)
  %2 = add(%0, %1)
  %3 = sigmoid(%2)
  %4 = random{key=5, dims=[3, 11]}(%counter)
  %5 = lt(%4, %3)
  %6 = cast{dtype=f32}(%5)
  %7 = permute{axes=[1, 0]}(%W)
  %8 = dot(%6, %7)
  %9 = broadcast{axes=[1], dims=[3, 20]}(%a)
  %10 = add(%8, %9)
  %11 = sigmoid(%10)
  %12 = add(%counter, 1i64)
  %13 = random{key=5, dims=[3, 20]}(%12)
  %14 = lt(%13, %11)
  %15 = cast{dtype=f32}(%14)
  %16 = add(%12, 1i64)
  row %11
  next %v = %15
  next %counter = %16
}
%0 = scan{body=b0, result=last 0, steps=15}(%W, %a, %b, %v, %counter)
%1 = scan{body=b0, result=last 1, steps=15}(%W, %a, %b, %v, %counter)
%2 = scan{body=b0, result=rows 0, steps=15}(%W, %a, %b, %v, %counter)
%3 = window{starts=[14, 0, 0], lengths=[1, 3, 20]}(%2)
output %0
output %3
update %counter = %1",
    ),
    (
        "gradients within a step",
        "
input %x: f32[4]
body b0 {
  carry %x: f32[4]
  %0 = sqr(%x)
  %1 = cos(%0)
  %2 = sum{axes=[0]}(%1)
  %3 = grad{index=0, variables=1, known=0, constants=0, cost=true, disconnected=raise}(%2, %x)
  %4 = broadcast{axes=[], dims=[4]}(0.1f32)
  %5 = mul(%3, %4)
  %6 = sub(%x, %5)
  row %2
  next %x = %6
}
%0 = scan{body=b0, result=rows 0, steps=6}(%x)
%1 = scan{body=b0, result=last 0, steps=6}(%x)
output %0
output %1",
    ),
];

/// The scans of the table, with inputs: floats of moderate size and small integers that are indices of every axis.
pub fn fixed() -> Vec<Sample> {
    let sample = |(title, text): &Row| {
        let graph = parse(text).unwrap_or_else(|e| panic!("{title}: {e}"));
        let mut generator = Generator(title.len() as u64);
        let inputs = graph.inputs.iter().map(|id| {
            let ty = graph.leaf(*id).map_or(TensorType::scalar(DType::F32), |leaf| leaf.ty.clone());
            let shape: Vec<usize> = ty.shape.iter().map(|extent| extent.known().unwrap_or(3)).collect();
            let (low, high) = if ty.dtype.is_float() { (-1.5, 1.5) } else { (0.0, 3.0) };
            generator.array(ty.dtype, &shape, low, high)
        });
        let inputs = inputs.collect();
        for leaf in graph.leaves() {
            if let LeafKind::Shared(cell) = &leaf.kind {
                let mut state = cell.lock();
                let shape = state.host.shape().to_vec();
                state.host = generator.array(leaf.ty.dtype, &shape, -1.0, 2.0);
            }
        }
        Sample { title: (*title).to_string(), graph, inputs, elementwise: false }
    };
    ROWS.iter().map(sample).collect()
}

/// The graph with every scan written out: a copy of the body for each step, rows stacked by concatenation. The numbers
/// of steps must be known and no scan may have a condition to end at.
///
/// # Errors
/// A scan that cannot be written out.
pub fn unrolled(graph: &Graph) -> Result<Graph, String> {
    let mut fault = None;
    // The values of each scan: rows of every output, last values of the carries.
    let mut made: BTreeMap<(usize, Vec<NodeId>), Steps> = BTreeMap::new();
    let result = graph.rebuilt(|out, from, id, operands| {
        let Op::Scan(scan) = &from.node(id).op else { return out.add_like(from, id, operands) };
        let key = (Arc::as_ptr(&scan.body) as usize, operands.to_vec());
        if !made.contains_key(&key) {
            match write_out(out, scan, operands) {
                Ok(steps) => {
                    made.insert(key.clone(), steps);
                }
                Err(reason) => {
                    fault.get_or_insert(reason);
                    return out.add_like(from, id, operands);
                }
            }
        }
        let steps = &made[&key];
        match scan.result {
            ScanResult::Last(carry) => steps.last[usize::from(carry)],
            ScanResult::Steps => out.add(Op::Literal(Literal::I64(steps.count as i64)), &[], None),
            ScanResult::Rows(output) => stack(out, &steps.rows, usize::from(output), scan),
        }
    });
    match fault {
        Some(reason) => Err(reason),
        None => Ok(result),
    }
}

struct Steps {
    count: usize,
    /// For each step the outputs.
    rows: Vec<Vec<NodeId>>,
    last: Vec<NodeId>,
}

fn write_out(out: &mut Graph, scan: &Scan, operands: &[NodeId]) -> Result<Steps, String> {
    let body = &*scan.body;
    let Dim::Known(count) = scan.steps else { return Err("the number of steps is not known".into()) };
    if body.until {
        return Err("a scan with a condition to end at cannot be written out".into());
    }
    let inner = unrolled(&body.graph)?;
    let (inputs, initial) = operands.split_at(body.inputs());
    let mut carries = initial.to_vec();
    let mut rows = Vec::new();
    for step in 0..count {
        let mut values: BTreeMap<LeafId, NodeId> = BTreeMap::new();
        for (position, (leaf, value)) in body.parameters().zip(inputs.iter().chain(&carries)).enumerate() {
            let value = if position < body.sequences { element(out, *value, step) } else { *value };
            values.insert(leaf, value);
        }
        let mut placed: Vec<NodeId> = Vec::new();
        for (id, node) in inner.nodes() {
            let operands: Vec<NodeId> = node.operands.iter().map(|o| placed[o.index()]).collect();
            let copy = match &node.op {
                Op::Leaf(leaf) if values.contains_key(leaf) => values[leaf],
                _ => out.add_like(&inner, id, &operands),
            };
            placed.push(copy);
        }
        rows.push(inner.outputs.iter().map(|id| placed[id.index()]).collect());
        carries = inner.updates.iter().map(|(_, id)| placed[id.index()]).collect();
    }
    Ok(Steps { count, rows, last: carries })
}

/// Element `step` of a sequence.
fn element(out: &mut Graph, sequence: NodeId, step: usize) -> NodeId {
    let ty = out.ty(sequence).clone();
    let extents = ty.extents().unwrap_or_default();
    let mut axes: Vec<WindowAxis> = extents.iter().map(|n| WindowAxis::whole(*n)).collect();
    axes[0] = WindowAxis { start: Start::Known(step), len: 1, step: 1 };
    let part = out.add(Op::Window(axes.into()), &[sequence], None);
    let shape: Vec<usize> = ty.shape[1..].iter().filter_map(|extent| extent.known()).collect();
    out.add(Op::Reshape(known_dims(&shape)), &[part], None)
}

fn stack(out: &mut Graph, rows: &[Vec<NodeId>], output: usize, scan: &Scan) -> NodeId {
    let ty = scan.body.graph.ty(scan.body.rows()[output]).clone();
    let row: Vec<usize> = ty.shape.iter().filter_map(|extent| extent.known()).collect();
    let dims: Vec<usize> = std::iter::once(1).chain(row.iter().copied()).collect();
    let parts: Vec<NodeId> =
        rows.iter().map(|row| out.add(Op::Reshape(known_dims(&dims)), &[row[output]], None)).collect();
    if parts.is_empty() {
        let none: Vec<usize> = std::iter::once(0).chain(row).collect();
        return out.add_uniform(Literal::from_i64(0, ty.dtype), &none, None);
    }
    out.add(Op::Concat(0), &parts, None)
}

#[cfg(test)]
mod tests;
