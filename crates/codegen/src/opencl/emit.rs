//! Kernels as OpenCL C 1.2.
//!
//! A loop kernel gives each element of its *parallel* axes a work item, which loops over the other, *serial* axes in
//! row-major order. Parallel axes are the kept ones; of a kernel that writes at computed positions, those along which
//! no two iterations meet in an element. Where the innermost axis is reduced, sixteen work items share an element: each
//! keeps one of the [`LANES`] partial results, and they are joined in local memory in the order of the kernel form.
//! Extents, strides and offsets are constants of the text; equal kernels have equal text and are emitted once.
//!
//! Parameters come as buffer and byte offset, so that many of them can lie in one arena. The text relies on
//! every address lying in its buffer, which [`crate::kernel`] promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use hypatia_graph::op::Write as WriteMode;
use hypatia_graph::{Broken, DType, Fold, Literal, ScalarFn, broken};

use super::convolution;
use super::product::{self, Form};
use super::random;
use super::scalar::{self, Helper};
use crate::kernel::{
    Address, Affine, Instruction, Kernel, LANES, LoopKernel, Param, Program, RuntimeStart, Store, StoreKind,
    Value,
};

/// Work items in a group of a loop kernel.
pub(super) const GROUP: usize = 64;

/// The text of a program, and how its steps are launched.
pub(super) struct Module {
    /// OpenCL C.
    pub(super) source: String,
    /// The names of the kernels.
    pub(super) names: Vec<String>,
    /// What each step launches, by its number; scans launch nothing themselves.
    pub(super) launches: Vec<Vec<Launch>>,
}

/// One kernel over a range of work items.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// Which kernel, by its place in [`Module::names`].
    pub(super) kernel: usize,
    /// Groups.
    pub(super) groups: usize,
    /// Work items in a group.
    pub(super) group: usize,
    /// Whether the kernel takes the error buffer and the number of its step after its buffers.
    pub(super) fallible: bool,
}

/// Emits a program that is valid.
pub(super) fn emit(program: &Program, form: Form) -> Result<Module, Broken> {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut texts: Vec<(String, String)> = Vec::new();
    let mut helpers = BTreeSet::new();
    let mut launches = Vec::new();
    for (_, step) in program.all_steps() {
        let mut of_step = Vec::new();
        for part in parts(&step.kernel) {
            let text = match &part {
                Kernel::Loop(kernel) => ScanText::emit(kernel, &mut helpers),
                Kernel::Product(kernel) => product::emit(kernel, form),
                Kernel::Convolution(kernel) => Ok(convolution::emit(kernel)),
                Kernel::Random(kernel) => Ok(random::emit(kernel)),
                Kernel::Scan(_) => Ok(None),
            };
            let Some(text) = text.map_err(|broken| broken.with_input(&step.kernel))? else { continue };
            let kernel = *known.entry(text.body.clone()).or_insert_with(|| {
                texts.push((format!("{part}"), text.body));
                texts.len() - 1
            });
            of_step.push(Launch {
                kernel,
                groups: text.groups,
                group: text.group,
                fallible: is_fallible(&step.kernel),
            });
        }
        launches.push(of_step);
    }
    let names: Vec<String> = (0..texts.len()).map(|n| format!("k{n}")).collect();
    let mut source = preamble(program, &helpers);
    for (name, (comment, body)) in names.iter().zip(&texts) {
        let _ = write!(source, "\n/*\n{comment}*/\n{}", body.replacen("NAME", name, 1));
    }
    Ok(Module { source, names, launches })
}

/// Whether a run can find an index out of range.
pub(super) fn is_fallible(kernel: &Kernel) -> bool {
    !kernel.starts().is_empty() || kernel.checks_indices()
}

/// Whether any buffer or value of the program is float64.
pub(super) fn uses_float64(program: &Program) -> bool {
    program.all_steps().iter().any(|(_, step)| {
        step.kernel.params().iter().any(|param| param.dtype == DType::F64)
            || matches!(&step.kernel, Kernel::Loop(kernel) if kernel.types.contains(&DType::F64))
    })
}

/// A kernel that folds and also writes at computed positions is two kernels here.
fn parts(kernel: &Kernel) -> Vec<Kernel> {
    if let Kernel::Loop(whole) = kernel {
        let is_at = |store: &Store| matches!(store.kind, StoreKind::At { .. });
        let is_fold = |store: &Store| matches!(store.kind, StoreKind::Fold(_) | StoreKind::ArgMax);
        if whole.stores.iter().any(is_at) && whole.stores.iter().any(is_fold) {
            let with = |at: bool| {
                let stores = whole.stores.iter().filter(|s| is_at(s) == at).cloned().collect();
                Kernel::Loop(LoopKernel { stores, ..whole.clone() })
            };
            return vec![with(false), with(true)];
        }
    }
    vec![kernel.clone()]
}

fn preamble(program: &Program, helpers: &BTreeSet<Helper>) -> String {
    let mut text = String::new();
    if uses_float64(program) {
        text.push_str("#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n");
    }
    text.push_str("#pragma OPENCL FP_CONTRACT OFF\n");
    if program.steps.iter().any(|step| is_fallible(&step.kernel)) {
        text.push_str(REPORT);
    }
    for helper in helpers {
        if let Some(definition) = scalar::define(*helper) {
            let _ = write!(text, "\n{definition}");
        }
    }
    text
}

/// Keeps the first report of a run: the number of the step plus one, the value, the check.
const REPORT: &str = "
static void report(__global long *error, int step, long value, long check)
{
    if (atomic_cmpxchg((volatile __global int *)error, 0, step + 1) == 0) {
        error[1] = value;
        error[2] = check;
    }
}

static long checked(long value, long extent, long limit, long refused, long check, __global long *error, int step)
{
    long position = value < 0 ? value + extent : value;
    if (position >= 0 && position < limit && value != refused)
        return position;
    report(error, step, value, check);
    return 0;
}
";

/// A value that is out of range anyway.
const NONE_REFUSED: &str = "LONG_MIN";

/// The text of one kernel, with `NAME` for its name, and its launch.
pub(super) struct KernelText {
    /// From `__kernel` to the closing brace.
    pub(super) body: String,
    /// Groups.
    pub(super) groups: usize,
    /// Work items in a group.
    pub(super) group: usize,
}

/// The head of a kernel up to typed pointers `p0, p1, ...`.
pub(super) fn head(params: &[Param], fallible: bool, group: usize) -> String {
    let mut arguments: Vec<String> =
        (0..params.len()).map(|n| format!("__global uchar *b{n}, ulong o{n}")).collect();
    if fallible {
        arguments.push("__global long *error, int step".to_string());
    }
    let mut text = format!(
        "__kernel __attribute__((reqd_work_group_size({group}, 1, 1)))\nvoid NAME({})\n{{\n",
        arguments.join(", ")
    );
    for (n, param) in params.iter().enumerate() {
        let ty = scalar::memory_type(param.dtype);
        let constant = if param.written { "" } else { "const " };
        let _ =
            writeln!(text, "    __global {constant}{ty} *p{n} = (__global {constant}{ty} *)(b{n} + o{n});");
    }
    text
}

/// The checked starts `s0, s1, ...` of type `index`.
pub(super) fn starts(starts: &[RuntimeStart], index: &str) -> String {
    let mut text = String::new();
    for (n, start) in starts.iter().enumerate() {
        let (param, extent, limit) = (start.param, start.extent, start.limit + 1);
        let refused = start.refused().map_or(NONE_REFUSED.to_string(), |value| format!("{value}L"));
        let _ = writeln!(
            text,
            "    const {index} s{n} = ({index})checked(p{param}[0], {extent}L, {limit}L, {refused}, {n}L, error, step);"
        );
    }
    text
}

/// A position as an expression, given the terms of the axes.
pub(super) fn affine(position: &Affine, axes: &[String]) -> String {
    let mut terms: Vec<String> = Vec::new();
    let mut term = |factor: i64, name: &str| match factor {
        0 => {}
        1 => terms.push(name.to_string()),
        _ if factor < 0 => terms.push(format!("({factor}) * {name}")),
        _ => terms.push(format!("{factor} * {name}")),
    };
    for (start, factor) in &position.starts {
        term(*factor, &format!("s{start}"));
    }
    for (factor, axis) in position.strides.iter().zip(axes) {
        term(*factor, axis);
    }
    if position.offset != 0 || terms.is_empty() {
        terms.push(position.offset.to_string());
    }
    terms.join(" + ")
}

/// The largest magnitude a position can take on the way.
pub(super) fn reach(position: &Affine, extents: &[usize], starts: &[RuntimeStart]) -> i128 {
    let axes = position.strides.iter().zip(extents).map(|(s, e)| i128::from(*s).abs() * *e as i128);
    let begins = position
        .starts
        .iter()
        .map(|(start, factor)| i128::from(*factor).abs() * starts[usize::from(*start)].limit as i128);
    i128::from(position.offset).abs() + axes.sum::<i128>() + begins.sum::<i128>()
}

/// The type that holds every position of a kernel: 32 bits where they are enough.
pub(super) fn index_type(largest: i128) -> &'static str {
    if largest < i128::from(i32::MAX) { "int" } else { "long" }
}

/// A loop kernel while it is written.
struct ScanText<'a> {
    kernel: &'a LoopKernel,
    helpers: &'a mut BTreeSet<Helper>,
    index: &'static str,
    axes: Vec<String>,
    text: String,
    depth: usize,
}

impl ScanText<'_> {
    fn emit(kernel: &LoopKernel, helpers: &mut BTreeSet<Helper>) -> Result<Option<KernelText>, Broken> {
        let axes: Vec<usize> = (0..kernel.extents.len()).collect();
        let parallel: Vec<usize> = axes
            .iter()
            .copied()
            .filter(|axis| !kernel.reduced[*axis] && is_parallel(kernel, *axis))
            .collect();
        let serial: Vec<usize> = axes.iter().copied().filter(|axis| !parallel.contains(axis)).collect();
        let items: usize = parallel.iter().map(|axis| kernel.extents[*axis]).product();
        if items == 0 && kernel.starts.is_empty() {
            return Ok(None);
        }
        let folds = kernel.stores.iter().any(|s| matches!(s.kind, StoreKind::Fold(_) | StoreKind::ArgMax));
        let lanes = folds && kernel.reduced.last() == Some(&true);
        let share = if lanes { LANES } else { 1 };
        let mut writer = ScanText {
            kernel,
            helpers,
            index: index_type(largest_position(kernel).max((items.max(1) * share) as i128)),
            axes: axes.iter().map(|axis| format!("i{axis}")).collect(),
            text: head(&kernel.params, is_fallible(&Kernel::Loop(kernel.clone())), GROUP),
            depth: 1,
        };
        writer.text.push_str(&starts(&kernel.starts, writer.index));
        writer.decode(&parallel, items, lanes);
        writer.accumulators(lanes);
        if lanes {
            writer.open(&format!("if (item < {items}) {{"));
        }
        for axis in &serial {
            let (index, extent, lane) =
                (writer.index, kernel.extents[*axis], lanes && axis + 1 == axes.len());
            let (from, by) = if lane { ("lane", LANES) } else { ("0", 1) };
            writer.open(&format!("for ({index} i{axis} = {from}; i{axis} < {extent}; i{axis} += {by}) {{"));
        }
        writer.body()?;
        writer.stores()?;
        for _ in &serial {
            writer.close();
        }
        if lanes {
            writer.close();
            writer.join_lanes(items)?;
        } else {
            writer.results();
        }
        writer.text.push_str("}\n");
        let groups = (items * share).div_ceil(GROUP).max(1);
        Ok(Some(KernelText { body: writer.text, groups, group: GROUP }))
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.text, "{:indent$}{text}", "", indent = 4 * self.depth);
    }

    fn open(&mut self, text: &str) {
        self.line(text);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line("}");
    }

    /// The work item's place on each parallel axis. Items past the end leave, unless the group has to meet later.
    fn decode(&mut self, parallel: &[usize], items: usize, lanes: bool) {
        let index = self.index;
        if lanes {
            self.line(&format!("const int member = get_local_id(0), lane = member % {LANES};"));
            self.line(&format!("const {index} item = get_global_id(0) / {LANES};"));
        } else {
            self.line(&format!("const {index} item = get_global_id(0);"));
            self.line(&format!("if (item >= {items})"));
            self.line("    return;");
        }
        let mut inner = 1;
        for (place, axis) in parallel.iter().enumerate().rev() {
            let extent = self.kernel.extents[*axis].max(1);
            let outer = if inner == 1 { "item".to_string() } else { format!("item / {inner}") };
            let text = if place == 0 { outer } else { format!("{outer} % {extent}") };
            self.line(&format!("const {index} i{axis} = {text};"));
            inner *= extent;
        }
    }

    /// The variables that folds are gathered in, and the local memory in which lanes meet.
    fn accumulators(&mut self, lanes: bool) {
        for (n, store) in self.kernel.stores.iter().enumerate() {
            let dtype = self.kernel.types[store.value.index()];
            let ty = scalar::register_type(dtype);
            let memory = scalar::memory_type(dtype);
            if let StoreKind::Fold(fold) = store.kind {
                self.line(&format!("{ty} a{n} = {};", scalar::literal(fold.identity(dtype))));
            } else if store.kind == StoreKind::ArgMax {
                self.line(&format!("{ty} a{n} = {};", scalar::literal(Literal::from_i64(0, dtype))));
                self.line(&format!("long q{n} = -1;"));
                if lanes {
                    self.line(&format!("__local long r{n}[{GROUP}];"));
                }
            } else {
                continue;
            }
            if lanes {
                self.line(&format!("__local {memory} l{n}[{GROUP}];"));
            }
        }
    }

    fn body(&mut self) -> Result<(), Broken> {
        for (n, instruction) in self.kernel.body.iter().enumerate() {
            let dtype = self.kernel.types[n];
            let expression = match instruction {
                Instruction::Literal(value) => scalar::literal(*value),
                Instruction::Load(address) => self.load(address, None),
                Instruction::LoadAt { address, index, stride } => self.load(address, Some((*index, *stride))),
                Instruction::Position(position) => format!("(long)({})", affine(position, &self.axes)),
                Instruction::Index { index, extent, .. } => {
                    let check = self.kernel.starts.len() + n;
                    format!("checked({index}, {extent}L, {extent}L, {NONE_REFUSED}, {check}L, error, step)")
                }
                Instruction::Map(function, operands) => {
                    let names: Vec<String> = operands.iter().map(Value::to_string).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let of = self.kernel.types[operands[operands.len() - 1].index()];
                    scalar::call(*function, of, &names, self.helpers)
                        .ok_or_else(|| broken!("{function} of a type on which it is defined", of))?
                }
                Instruction::Cast(to, value) => {
                    scalar::cast(self.kernel.types[value.index()], *to, &value.to_string(), self.helpers)
                }
            };
            self.line(&format!("const {} v{n} = {expression};", scalar::register_type(dtype)));
        }
        Ok(())
    }

    fn load(&self, address: &Address, at: Option<(Value, i64)>) -> String {
        let param = &self.kernel.params[usize::from(address.param)];
        // Only an index out of range leads here; it has been reported.
        if param.len == 0 {
            return scalar::literal(Literal::from_i64(0, param.dtype));
        }
        let element = format!("p{}[{}]", address.param, self.position(address, at));
        if param.dtype == DType::Bool { format!("{element} != 0") } else { element }
    }

    fn position(&self, address: &Address, at: Option<(Value, i64)>) -> String {
        let mut text = affine(&address.position, &self.axes);
        if let Some((index, stride)) = at {
            let _ = write!(text, " + ({stride}) * ({}){index}", self.index);
        }
        text
    }

    /// What every iteration does with its values.
    fn stores(&mut self) -> Result<(), Broken> {
        let kernel = self.kernel;
        for (n, store) in kernel.stores.iter().enumerate() {
            let value = store.value.to_string();
            let dtype = kernel.types[store.value.index()];
            match &store.kind {
                StoreKind::Plain => {
                    let position = self.position(&store.address, None);
                    self.line(&format!("p{}[{position}] = {value};", store.address.param));
                }
                StoreKind::Fold(fold) => {
                    let joined = self.join(*fold, dtype, &format!("a{n}"), &value)?;
                    self.line(&format!("a{n} = {joined};"));
                }
                StoreKind::ArgMax => {
                    let axis = (0..kernel.extents.len()).find(|axis| kernel.reduced[*axis]);
                    let along = axis.map_or_else(|| "0".to_string(), |axis| format!("i{axis}"));
                    let exceeds = exceeds(dtype, &value, &format!("a{n}"));
                    self.open(&format!("if (q{n} < 0 || {exceeds}) {{"));
                    self.line(&format!("a{n} = {value};"));
                    self.line(&format!("q{n} = {along};"));
                    self.close();
                }
                StoreKind::At { index, stride, write } => {
                    let param = &kernel.params[usize::from(store.address.param)];
                    if param.len == 0 {
                        continue;
                    }
                    let position = self.position(&store.address, Some((*index, *stride)));
                    let element = format!("p{}[{position}]", store.address.param);
                    let value = match write {
                        WriteMode::Set => value,
                        WriteMode::Add => {
                            let add = if dtype == DType::Bool { ScalarFn::Or } else { ScalarFn::Add };
                            scalar::call(add, dtype, &[&element, &value], self.helpers)
                                .ok_or_else(|| broken!("elements that can be added", dtype))?
                        }
                    };
                    self.line(&format!("{element} = {value};"));
                }
            }
        }
        Ok(())
    }

    fn join(&mut self, fold: Fold, dtype: DType, x: &str, y: &str) -> Result<String, Broken> {
        scalar::call(fold.join(), dtype, &[x, y], self.helpers)
            .ok_or_else(|| broken!("elements that {fold:?} is defined on", dtype))
    }

    /// Writes the folds of a work item that has gathered them alone.
    fn results(&mut self) {
        for (n, store) in self.kernel.stores.iter().enumerate() {
            let result = match store.kind {
                StoreKind::Plain | StoreKind::At { .. } => continue,
                StoreKind::Fold(_) => format!("a{n}"),
                StoreKind::ArgMax => format!("q{n} < 0 ? 0 : q{n}"),
            };
            let position = self.position(&store.address, None);
            self.line(&format!("p{}[{position}] = {result};", store.address.param));
        }
    }

    /// Joins the partial results of the lanes in halves, and lets the first lane write.
    fn join_lanes(&mut self, items: usize) -> Result<(), Broken> {
        let kernel = self.kernel;
        let folds: Vec<(usize, &Store)> = kernel
            .stores
            .iter()
            .enumerate()
            .filter(|(_, s)| matches!(s.kind, StoreKind::Fold(_) | StoreKind::ArgMax))
            .collect();
        for (n, store) in &folds {
            self.line(&format!("l{n}[member] = a{n};"));
            if store.kind == StoreKind::ArgMax {
                self.line(&format!("r{n}[member] = q{n};"));
            }
        }
        self.open(&format!("for (int apart = {}; apart > 0; apart /= 2) {{", LANES / 2));
        self.line("barrier(CLK_LOCAL_MEM_FENCE);");
        self.open("if (lane < apart) {");
        for (n, store) in &folds {
            let dtype = kernel.types[store.value.index()];
            let (low, high) = (format!("l{n}[member]"), format!("l{n}[member + apart]"));
            if let StoreKind::Fold(fold) = store.kind {
                let joined = self.join(fold, dtype, &low, &high)?;
                self.line(&format!("{low} = {joined};"));
            } else {
                let (before, after) = (format!("r{n}[member]"), format!("r{n}[member + apart]"));
                let (beats, beaten) = (exceeds(dtype, &high, &low), exceeds(dtype, &low, &high));
                self.line(&format!(
                    "if ({after} >= 0 && ({before} < 0 || ({beats}) || (!({beaten}) && {after} < {before}))) {{"
                ));
                self.line(&format!("    {low} = {high};"));
                self.line(&format!("    {before} = {after};"));
                self.line("}");
            }
        }
        self.close();
        self.close();
        self.open(&format!("if (lane == 0 && item < {items}) {{"));
        for (n, store) in &folds {
            let result = if store.kind == StoreKind::ArgMax {
                format!("r{n}[member] < 0 ? 0 : r{n}[member]")
            } else {
                format!("l{n}[member]")
            };
            let position = self.position(&store.address, None);
            self.line(&format!("p{}[{position}] = {result};", store.address.param));
        }
        self.close();
        Ok(())
    }
}

/// Whether `value` comes before `best` as the largest: larger, or the first NaN.
fn exceeds(dtype: DType, value: &str, best: &str) -> String {
    if dtype.is_float() {
        format!("({best} == {best} && ({value} > {best} || {value} != {value}))")
    } else {
        format!("{value} > {best}")
    }
}

fn largest_position(kernel: &LoopKernel) -> i128 {
    let at = |address: &Address, stride: i64| {
        let len = kernel.params[usize::from(address.param)].len as i128;
        reach(&address.position, &kernel.extents, &kernel.starts) + i128::from(stride.signum()).abs() * len
    };
    let body = kernel.body.iter().map(|instruction| match instruction {
        Instruction::Load(address) => at(address, 0),
        Instruction::LoadAt { address, stride, .. } => at(address, *stride),
        Instruction::Position(position) => reach(position, &kernel.extents, &kernel.starts),
        Instruction::Literal(_)
        | Instruction::Index { .. }
        | Instruction::Map(..)
        | Instruction::Cast(..) => 0,
    });
    let stores = kernel.stores.iter().map(|store| match store.kind {
        StoreKind::At { stride, .. } => at(&store.address, stride),
        StoreKind::Plain | StoreKind::Fold(_) | StoreKind::ArgMax => at(&store.address, 0),
    });
    let extents = kernel.extents.iter().map(|extent| *extent as i128 + LANES as i128);
    body.chain(stores).chain(extents).max().unwrap_or(0)
}

/// Whether iterations that differ on this axis never write one element through a store at a computed position. The
/// strides of the address, and that of the index, must count like the digits of a number.
fn is_parallel(kernel: &LoopKernel, axis: usize) -> bool {
    kernel.stores.iter().all(|store| {
        let StoreKind::At { index, stride, .. } = &store.kind else { return true };
        let strides = &store.address.position.strides;
        let Some(Instruction::Index { extent: steps, .. }) = kernel.body.get(index.index()) else {
            return false;
        };
        if strides.get(axis).is_none_or(|stride| *stride == 0) || *stride == 0 {
            return false;
        }
        let mut digits: Vec<(i128, i128)> = strides
            .iter()
            .zip(&kernel.extents)
            .chain([(stride, steps)])
            .filter(|(stride, extent)| **stride != 0 && **extent > 1)
            .map(|(stride, extent)| (i128::from(*stride).abs(), *extent as i128))
            .collect();
        digits.sort_unstable();
        let mut below = 0;
        digits.into_iter().all(|(stride, extent)| {
            let apart = stride > below;
            below += stride * (extent - 1);
            apart
        })
    })
}
