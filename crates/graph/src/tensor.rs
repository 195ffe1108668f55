//! Free-standing expressions: cheap handles over shared nodes, as users write them.
//!
//! A [`Tensor`] may appear in many functions; [`crate::collect`] gathers what a function reaches into a [`crate::Graph`].
//! Building never fails: an ill-typed node keeps a diagnostic, and nodes above it keep quiet.
//! Broadcasting is made explicit here and only here. Dropping walks iteratively, so chains may be of any length.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock, Weak};

use smallvec::{SmallVec, smallvec};

use crate::array::{Array, Element, IntoArray};
use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::{DType, Literal};
use crate::infer::infer;
use crate::leaf::{DefaultUpdate, Leaf, LeafKind, SharedCell, fresh_leaf_id};
use crate::made::{self, Made};
use crate::op::{self, Dim, Op};
use crate::scalar::{Domain, ScalarFn};
use crate::shape::{Extent, TensorType};
use crate::text::shown::{abridged, shown};

/// A symbolic tensor. It displays as its formula, down to a depth.
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Expression>);

/// A node of an expression.
pub(crate) struct Expression {
    pub(crate) op: Op,
    pub(crate) operands: SmallVec<[Tensor; 2]>,
    pub(crate) ty: TensorType,
    pub(crate) site: Site,
    pub(crate) leaf: Option<Arc<Leaf>>,
    pub(crate) name: OnceLock<Arc<str>>,
    /// A plain Rust number: it takes the element type of what it meets.
    weak: bool,
    /// Which rows exist, where this is known only when a scan has run.
    made: Option<Box<Made>>,
    /// What is wrong with this node itself.
    pub(crate) fault: Option<Box<Diagnostic>>,
    /// Whether this node or one below it has a fault.
    pub(crate) poisoned: bool,
}

impl Drop for Expression {
    fn drop(&mut self) {
        if self.operands.is_empty() {
            return;
        }
        let mut pending: Vec<Tensor> = self.operands.drain(..).collect();
        pending.extend(self.made.take().map(|made| made.steps));
        while let Some(tensor) = pending.pop() {
            if let Some(mut expression) = Arc::into_inner(tensor.0) {
                pending.extend(expression.operands.drain(..));
                pending.extend(expression.made.take().map(|made| made.steps));
            }
        }
    }
}

/// A variable that keeps its value between calls of functions. It stands wherever a [`Tensor`] may.
#[derive(Clone)]
pub struct Shared {
    tensor: Tensor,
    leaf: Arc<Leaf>,
    cell: Arc<SharedCell>,
}

impl std::ops::Deref for Shared {
    type Target = Tensor;
    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// An input of the given element type and extents (`None` for one that is known only at the call).
#[track_caller]
pub fn input(name: &str, dtype: DType, shape: &[Option<usize>]) -> Tensor {
    let shape: Vec<Extent> = shape.iter().map(|&n| n.into()).collect();
    input_of_type(name, TensorType::new(dtype, &shape))
}

/// An input of the given type.
#[track_caller]
pub fn input_of_type(name: &str, ty: TensorType) -> Tensor {
    let site = Location::caller();
    leaf_tensor(Some(name.into()), ty, LeafKind::Input, site).0
}

macro_rules! input_constructors {
    ($($(#[doc = $doc:literal])+ $name:ident [$($extent:expr),*];)*) => {$(
        $(#[doc = $doc])+
        #[track_caller]
        pub fn $name<T: Element>(name: &str) -> Tensor {
            input(name, T::DTYPE, &[$($extent),*])
        }
    )*};
}
input_constructors! {
    /// An input of rank 0.
    scalar [];
    /// An input `[?]`.
    vector [None];
    /// An input `[?, ?]`.
    matrix [None, None];
    /// An input `[1, ?]`, repeated along the first axis beside matrices.
    row [Some(1), None];
    /// An input `[?, 1]`, repeated along the second axis beside matrices.
    col [None, Some(1)];
    /// An input `[?, ?, ?]`.
    tensor3 [None, None, None];
    /// An input `[?, ?, ?, ?]`.
    tensor4 [None, None, None, None];
}

/// A shared variable with that initial value. Its element type and shape stay as they are; `name` stands in messages
/// and checkpoints.
#[track_caller]
pub fn shared(name: &str, value: impl IntoArray) -> Shared {
    let site = Location::caller();
    let (value, fault) = match value.into_array() {
        Ok(value) => (value, None),
        Err(fault) => (Array::scalar(0f32), Some(fault)),
    };
    let ty = TensorType::known(value.dtype(), value.shape());
    let cell = Arc::new(SharedCell::new(value));
    let (tensor, leaf) = leaf_tensor(Some(name.into()), ty, LeafKind::Shared(cell.clone()), site);
    let tensor = match fault {
        Some(fault) => faulty(fault, smallvec![], tensor.ty().clone(), site),
        None => tensor,
    };
    Shared { tensor, leaf, cell }
}

/// A constant array.
#[track_caller]
pub fn constant(value: impl IntoArray) -> Tensor {
    let site = Location::caller();
    let value = match value.into_array() {
        Ok(value) => value,
        Err(fault) => return faulty(fault, smallvec![], TensorType::scalar(DType::F32), site),
    };
    if value.rank() == 0 {
        return build(Op::Literal(value.get(0)), smallvec![], site);
    }
    let ty = TensorType::known(value.dtype(), value.shape());
    leaf_tensor(None, ty, LeafKind::Constant(Arc::new(value)), site).0
}

fn leaf_tensor(name: Option<Arc<str>>, ty: TensorType, kind: LeafKind, site: Site) -> (Tensor, Arc<Leaf>) {
    let (dtype, fault) = (ty.dtype, ty.fault());
    let leaf = Arc::new(Leaf { id: fresh_leaf_id(), name, ty, site: Some(site), kind });
    let tensor = match fault {
        Some(fault) => faulty(fault, smallvec![], TensorType::scalar(dtype), site),
        None => Tensor::of_leaf(&leaf),
    };
    (tensor, leaf)
}

impl Shared {
    /// The leaf that stands for it in graphs.
    pub fn leaf(&self) -> &Arc<Leaf> {
        &self.leaf
    }

    /// The state behind it.
    pub fn cell(&self) -> &Arc<SharedCell> {
        &self.cell
    }

    /// The shared variable of a leaf, if it is one.
    pub fn of_leaf(leaf: &Arc<Leaf>) -> Option<Shared> {
        let LeafKind::Shared(cell) = &leaf.kind else { return None };
        Some(Shared { tensor: Tensor::of_leaf(leaf), leaf: leaf.clone(), cell: cell.clone() })
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        self.leaf.name.as_deref().unwrap_or("")
    }

    /// A copy of the present value. An error says which device could not give it, or what is wrong with the value it was
    /// made with.
    pub fn get_value(&self) -> Result<Array, Diagnostic> {
        if let Some(fault) = self.fault() {
            return Err(fault.clone());
        }
        let mut state = self.cell.lock();
        state.fetch().map_err(|e| {
            Diagnostic::new(format!(
                "the value of {} could not be read from its device: {e}",
                self.leaf.label()
            ))
        })?;
        Ok(state.host.clone())
    }

    /// Replaces the value. An error where element type or shape differ.
    #[track_caller]
    pub fn set_value(&self, value: impl IntoArray) -> Result<(), Diagnostic> {
        if let Some(fault) = self.fault() {
            return Err(fault.clone());
        }
        let value = value.into_array()?;
        let found = TensorType::known(value.dtype(), value.shape());
        if !self.leaf.ty.accepts(&found) {
            return Err(Diagnostic::new(format!("a value of another type was set on {}", self.leaf.label()))
                .at(Some(Location::caller()))
                .with("expected", self.leaf.ty.to_string(), self.leaf.site)
                .with("found", found.to_string(), None));
        }
        let mut state = self.cell.lock();
        state.host = value;
        state.remote = None;
        state.version += 1;
        Ok(())
    }

    /// Sets the update that every function which reads this variable makes unless it is told otherwise; `None` for no
    /// update.
    pub fn set_default_update(&self, update: Option<Tensor>) {
        self.keep_default_update(update, &[]);
    }

    /// As [`Shared::set_default_update`], for variables whose updates are results of one scan and so read each other:
    /// they do not keep each other. Once one of them is gone, and with it the scan, there is no update.
    pub(crate) fn set_default_update_among(&self, update: Tensor, partners: &[Shared]) {
        self.keep_default_update(Some(update), partners);
    }

    fn keep_default_update(&self, update: Option<Tensor>, partners: &[Shared]) {
        // The update lives in the variable's state. An update that reads the variable would keep it alive for ever, so it
        // is kept with a leaf in its place that has its identity and not its state.
        let leaves: Vec<&Arc<Leaf>> = partners
            .iter()
            .map(Shared::leaf)
            .filter(|leaf| leaf.id != self.leaf.id)
            .chain([&self.leaf])
            .collect();
        let stand_in = |leaf: &&Arc<Leaf>| {
            let (name, ty) = (leaf.name.clone(), leaf.ty.clone());
            Arc::new(Leaf { name, ty, kind: LeafKind::Input, id: leaf.id, site: leaf.site })
        };
        let stand_ins: Vec<Arc<Leaf>> = leaves.iter().map(stand_in).collect();
        let kept = update.map(|update| DefaultUpdate {
            value: with_leaves(&update, &stand_ins),
            partners: leaves[..leaves.len() - 1].iter().map(|leaf| Arc::downgrade(leaf)).collect(),
        });
        // What was there is dropped after the lock is given back: other variables may go with it.
        let replaced = std::mem::replace(&mut *self.cell.default_update(), kept);
        drop(replaced);
    }

    /// The update set by [`Shared::set_default_update`].
    pub fn default_update(&self) -> Option<Tensor> {
        let kept = self.cell.default_update().clone()?;
        let mut leaves: Vec<Arc<Leaf>> = kept.partners.iter().map(Weak::upgrade).collect::<Option<_>>()?;
        leaves.push(self.leaf.clone());
        Some(with_leaves(&kept.value, &leaves))
    }
}

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({self}: {})", self.ty())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({}: {})", abridged(self.name(), 80), self.leaf.ty)
    }
}

/// The expression with `leaves` in the places of leaves of their identities. What does not depend on these stays the same.
fn with_leaves(root: &Tensor, leaves: &[Arc<Leaf>]) -> Tensor {
    let mut replaced: HashMap<usize, Tensor> = HashMap::new();
    let mut pending = vec![(root, false)];
    while let Some((tensor, entered)) = pending.pop() {
        if replaced.contains_key(&tensor.key()) {
            continue;
        }
        if !entered {
            pending.push((tensor, true));
            pending.extend(tensor.operands().iter().map(|operand| (operand, false)));
            continue;
        }
        let new = match tensor.leaf() {
            Some(own) => match leaves.iter().find(|leaf| leaf.id == own.id) {
                Some(leaf) => Tensor::of_leaf(leaf),
                None => tensor.clone(),
            },
            None => rebuilt(tensor, leaves, &replaced),
        };
        replaced.insert(tensor.key(), new);
    }
    replaced.remove(&root.key()).unwrap_or_else(|| root.clone())
}

/// A node on the operands that stand for its own, and with `leaves` among the variables that a scan updates.
fn rebuilt(tensor: &Tensor, leaves: &[Arc<Leaf>], replaced: &HashMap<usize, Tensor>) -> Tensor {
    let own = &tensor.0;
    let operands: SmallVec<[Tensor; 2]> =
        own.operands.iter().map(|operand| replaced.get(&operand.key()).unwrap_or(operand).clone()).collect();
    let mut body = None;
    if let Op::Scan(scan) = &own.op
        && let Some(new) = scan.body.with_updated(leaves)
    {
        body = Some(Op::Scan(Box::new(op::Scan { body: new, ..(**scan).clone() })));
    }
    if body.is_none() && own.operands.iter().zip(&operands).all(|(a, b)| a.key() == b.key()) {
        return tensor.clone();
    }
    Tensor(Arc::new(Expression {
        op: body.unwrap_or_else(|| own.op.clone()),
        operands,
        ty: own.ty.clone(),
        site: own.site,
        leaf: None,
        made: own.made.clone(),
        name: own.name.clone(),
        weak: own.weak,
        fault: own.fault.clone(),
        poisoned: own.poisoned,
    }))
}

/// A node with that operator; its type is inferred, a violated typing rule becomes its fault.
pub(crate) fn build(op: Op, mut operands: SmallVec<[Tensor; 2]>, site: Site) -> Tensor {
    for operand in operands.iter_mut().filter(|t| t.0.weak) {
        *operand = cast_at(operand, operand.settled_dtype(), site);
    }
    match operands.iter().any(|operand| operand.0.made.is_some()) {
        true => made::build_with(op, operands, site),
        false => build_plainly(op, operands, None, site),
    }
}

/// The same where it is known which rows exist.
pub(crate) fn build_plainly(
    op: Op,
    operands: SmallVec<[Tensor; 2]>,
    made: Option<Made>,
    site: Site,
) -> Tensor {
    let site = of_user(site, &operands);
    let inferred = {
        let types: SmallVec<[&TensorType; 4]> = operands.iter().map(|t| &t.0.ty).collect();
        infer(&op, &types)
    };
    match inferred {
        Ok(ty) => assemble(op, operands, ty, made, None, site),
        Err(fault) => {
            let fault = place(fault, &operands, site);
            let ty = operands.first().map_or(TensorType::scalar(DType::F32), |t| t.0.ty.clone());
            assemble(op, operands, ty, None, Some(fault), site)
        }
    }
}

/// The nearest known line of a user. A function that is called through a pointer (`.map(Tensor::tanh)`) does not see its
/// caller but a line of the library: the line that built its operand is the nearest then.
fn of_user(site: Site, operands: &[Tensor]) -> Site {
    // This file's name as the compiler wrote it, in front of which the library's sources have the same path.
    const THIS: &str = file!();
    let sources = THIS.strip_suffix("tensor.rs").unwrap_or(THIS);
    let library = |site: Site| site.file().strip_prefix(sources).is_some_and(|file| !file.contains("tests"));
    if !library(site) {
        return site;
    }
    operands.iter().map(|operand| operand.0.site).find(|site| !library(site)).unwrap_or(site)
}

fn assemble(
    op: Op,
    operands: SmallVec<[Tensor; 2]>,
    ty: TensorType,
    made: Option<Made>,
    fault: Option<Diagnostic>,
    site: Site,
) -> Tensor {
    let below = operands.iter().any(|t| t.0.poisoned);
    let poisoned = below || fault.is_some();
    // What stands on an ill-typed node has no type to speak of: one message is enough.
    let fault = fault.filter(|_| !below).map(Box::new);
    let name = OnceLock::new();
    let made = made.map(Box::new);
    Tensor(Arc::new(Expression {
        op,
        operands,
        ty,
        site,
        leaf: None,
        name,
        weak: false,
        made,
        fault,
        poisoned,
    }))
}

/// A node that stands for a mistake.
pub(crate) fn faulty(
    fault: Diagnostic,
    operands: SmallVec<[Tensor; 2]>,
    ty: TensorType,
    site: Site,
) -> Tensor {
    let site = of_user(site, &operands);
    let fault = place(fault, &operands, site);
    assemble(Op::StopGradient, operands, ty, None, Some(fault), site)
}

/// Says where the operands that a message speaks of were built.
fn place(mut fault: Diagnostic, operands: &[Tensor], site: Site) -> Diagnostic {
    let mut next = 0;
    for related in &mut fault.related {
        let found = operands[next..].iter().position(|t| t.0.ty.to_string() == related.text);
        if let Some(offset) = found {
            let operand = &operands[next + offset];
            next += offset + 1;
            related.at = Some(operand.0.site);
            if let Some(name) = operand.0.name.get() {
                related.text = format!("{} `{name}`", related.text);
            }
        }
    }
    fault.at(Some(site))
}

/// Elementwise function of broadcast operands, converted to their common type.
#[track_caller]
pub(crate) fn map(f: ScalarFn, operands: &[&Tensor]) -> Tensor {
    let site = Location::caller();
    if let Some(found) = round_already(f, operands, site)
        .or_else(|| of_numbers(f, operands, site))
        .or_else(|| compared_with_number(f, operands, site))
    {
        return found;
    }
    let typed = match unify_dtypes(f, operands, site) {
        Ok(typed) => typed,
        Err(fault) => {
            let ty = operands[operands.len() - 1].0.ty.clone();
            return faulty(fault, operands.iter().map(|t| (*t).clone()).collect(), ty, site);
        }
    };
    map_typed(f, &typed, site)
}

/// Elementwise function of broadcast operands of the types it takes.
fn map_typed(f: ScalarFn, typed: &[Tensor], site: Site) -> Tensor {
    match broadcast_together(f.name(), typed, site) {
        Ok(operands) => build(Op::Map(f), operands, site),
        Err(fault) => faulty(fault, typed.iter().cloned().collect(), typed[0].0.ty.clone(), site),
    }
}

/// Roundings of integers: these are round, and as floats some would be other numbers.
fn round_already(f: ScalarFn, operands: &[&Tensor], site: Site) -> Option<Tensor> {
    let rounds = [ScalarFn::Floor, ScalarFn::Ceil, ScalarFn::Trunc, ScalarFn::Round].contains(&f);
    match operands {
        [x] if rounds && x.0.ty.dtype.is_int() => Some((*x).clone()),
        [x] if rounds && x.0.ty.dtype == DType::Bool => Some(cast_at(x, DType::I64, site)),
        _ => None,
    }
}

/// A function of plain numbers alone is a plain number: floats are computed in double precision, and rounded to the
/// element type of what they meet.
fn of_numbers(f: ScalarFn, operands: &[&Tensor], site: Site) -> Option<Tensor> {
    let first = usize::from(f.domain() == Domain::Select);
    let number = |(i, t): (usize, &&Tensor)| t.0.op.literal().filter(|_| t.0.weak || i < first);
    let mut numbers: SmallVec<[Literal; 3]> =
        operands.iter().enumerate().map(number).collect::<Option<_>>()?;
    let common = numbers[first..].iter().map(|x| x.dtype()).reduce(DType::promote)?;
    let wanted = match f.domain() {
        Domain::Float | Domain::Test => DType::F64,
        Domain::Number if common == DType::Bool => DType::I64,
        Domain::Number | Domain::Bits | Domain::Compare | Domain::Select => common,
    };
    for value in &mut numbers[first..] {
        *value = value.cast(wanted);
    }
    if let (Literal::I64(x), Literal::I64(y)) = (numbers[0], numbers[numbers.len() - 1])
        && f.overflows(x, y)
    {
        let shown: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let fault = Diagnostic::new(format!("the result of `{f}` of numbers does not fit `i64`"))
            .with("found", shown.join(", "), None)
            .hint("write one of them as a float, for example `1.0` for `1`");
        return Some(faulty(fault, smallvec![], TensorType::scalar(DType::I64), site));
    }
    let value = f.eval(&numbers)?;
    // What leaves the range of doubles stays a formula, which may be part of one that does not: `log(1 + exp(1000))`.
    let found = value.to_f64();
    let is_given = |wanted: fn(f64) -> bool| numbers.iter().any(|x| wanted(x.to_f64()));
    let overflows = !found.is_finite() && !is_given(|x| !x.is_finite());
    let underflows =
        found == 0.0 && [ScalarFn::Exp, ScalarFn::Exp2, ScalarFn::Sigmoid, ScalarFn::Pow].contains(&f);
    let leaves =
        value.dtype().is_float() && (overflows || underflows && !is_given(|x| x == 0.0 || x.is_infinite()));
    (!leaves).then(|| Tensor::number(value, site))
}

/// An integer tensor (or truth values) compared with a plain number, exactly, whatever the number. `None` of what the
/// common type compares exactly.
fn compared_with_number(f: ScalarFn, operands: &[&Tensor], site: Site) -> Option<Tensor> {
    let [x, y] = operands else { return None };
    if f.domain() != Domain::Compare || x.0.weak == y.0.weak {
        return None;
    }
    let (x, number, f) = if y.0.weak { (*x, *y, f) } else { (*y, *x, f.swapped()) };
    let (Op::Literal(number), false) = (&number.0.op, x.0.ty.dtype.is_float()) else { return None };
    if x.0.ty.dtype == DType::Bool {
        let float = number.dtype().is_float().then(|| cast_at(x, DType::I64, site));
        return float.and_then(|x| compared_with_number(f, &[&x, &Tensor::number(*number, site)], site));
    }
    let dtype = x.0.ty.dtype;
    let (least, most) = dtype.int_range()?;
    let (below, above, floor) = match number.to_i64() {
        Some(n) => (n < least, n > most, n),
        // The ends are exact as doubles, but for the largest i64, which the next double stands for.
        None => {
            let n = number.to_f64();
            (n < least as f64, n >= most as f64 + 1.0, n.floor() as i64)
        }
    };
    if number.to_i64().is_some() && !below && !above {
        return None;
    }
    let is_nan = number.to_f64().is_nan();
    let is_whole = number.to_f64().fract() == 0.0;
    let (lt, le, gt, ge) = (f == ScalarFn::Lt, f == ScalarFn::Le, f == ScalarFn::Gt, f == ScalarFn::Ge);
    let known = if is_nan {
        Some(f == ScalarFn::Ne)
    } else if above {
        Some(lt || le || f == ScalarFn::Ne)
    } else if below {
        Some(gt || ge || f == ScalarFn::Ne)
    } else if !(is_whole || lt || le || gt || ge) {
        Some(f == ScalarFn::Ne)
    } else {
        None
    };
    if let Some(known) = known {
        let truth = build(Op::Literal(Literal::Bool(known)), smallvec![], site);
        return Some(crate::compose::spread(&truth, &[], x.rank(), Some(x), site));
    }
    // Between two integers: what is below the number is up to the lower one.
    let f = if is_whole {
        f
    } else if lt || le {
        ScalarFn::Le
    } else {
        ScalarFn::Gt
    };
    let bound = build(Op::Literal(Literal::from_i64(floor, dtype)), smallvec![], site);
    Some(map_typed(f, &[x.clone(), bound], site))
}

/// Whether an element type has that number; floats have all, rounded.
fn holds(dtype: DType, number: Literal) -> bool {
    if dtype.is_float() {
        return true;
    }
    match number.to_i64() {
        Some(n) => Literal::from_i64(n, dtype).to_i64() == Some(n),
        None => {
            let x = number.to_f64();
            x.fract() == 0.0 && x < 2f64.powi(63) && Literal::from_f64(x, dtype).to_f64() == x
        }
    }
}

/// A plain number as a literal of that type, or what is wrong with it: `what` meets it.
pub(crate) fn number_as(number: Literal, dtype: DType, what: &str) -> Result<Literal, Diagnostic> {
    let cast = number.cast(dtype);
    let overflows = number.to_f64().is_finite() && !cast.to_f64().is_finite();
    if holds(dtype, number) && !overflows {
        return Ok(cast);
    }
    let expected = match dtype.int_range() {
        Some((least, most)) => format!("an integer from {least} to {most}"),
        None if overflows => format!("a number that `{dtype}` does not round to infinity"),
        None => "a truth value".to_string(),
    };
    let fault = Diagnostic::new(format!("the number of `{what}` is no `{dtype}`"))
        .with("expected", expected, None)
        .with("found", number.to_string(), None);
    let wider = if number.dtype().is_float() { "F32" } else { "I64" };
    Err(fault.hint(format!("convert the tensor to a type that has the number: `.cast(DType::{wider})`")))
}

/// The common type of tensors and plain numbers, which follow the tensors.
pub(crate) fn common_dtype<'a>(tensors: impl Iterator<Item = &'a Tensor> + Clone) -> DType {
    let strong = tensors.clone().filter(|t| !t.0.weak).map(|t| t.0.ty.dtype).reduce(DType::promote);
    let weak = tensors.filter(|t| t.0.weak).map(|t| t.0.ty.dtype).reduce(DType::promote);
    match (strong, weak) {
        (Some(strong), Some(weak)) if weak.is_float() && !strong.is_float() => DType::F32,
        (Some(DType::Bool), Some(weak)) => weak,
        (Some(strong), _) => strong,
        (None, Some(DType::F64)) => DType::F32,
        (None, weak) => weak.unwrap_or(DType::F32),
    }
}

/// The operands of `f` converted to the types it takes: a plain number follows its partners, integers become `f32`
/// where only floats are taken. A number that an integer type does not have is an error.
fn unify_dtypes(f: ScalarFn, operands: &[&Tensor], site: Site) -> Result<SmallVec<[Tensor; 2]>, Diagnostic> {
    let first = usize::from(f.domain() == Domain::Select);
    let values = operands.get(first..).unwrap_or(&[]);
    let common = common_dtype(values.iter().copied());
    let wanted = match f.domain() {
        Domain::Float | Domain::Test if !common.is_float() => DType::F32,
        Domain::Number if common == DType::Bool => DType::I64,
        Domain::Float | Domain::Test | Domain::Number | Domain::Bits | Domain::Compare | Domain::Select => {
            common
        }
    };
    let mut typed: SmallVec<[Tensor; 2]> = operands[..first].iter().map(|t| (*t).clone()).collect();
    for value in values {
        if let Some(fault) = value.number_fault(wanted, f.name()) {
            return Err(fault);
        }
        typed.push(cast_at(value, wanted, site));
    }
    Ok(typed)
}

pub(crate) fn cast_at(x: &Tensor, dtype: DType, site: Site) -> Tensor {
    match x.0.op.literal().filter(|_| x.0.weak) {
        Some(value) => build(Op::Literal(value.cast(dtype)), smallvec![], site),
        None if x.0.ty.dtype == dtype => x.clone(),
        None => build(Op::Cast(dtype), smallvec![x.clone()], site),
    }
}

/// Repeats the operands to their common shape: axes are aligned from the last, an extent of 1 is repeated.
fn broadcast_together(
    name: &str,
    operands: &[Tensor],
    site: Site,
) -> Result<SmallVec<[Tensor; 2]>, Diagnostic> {
    let rank = operands.iter().map(Tensor::rank).max().unwrap_or(0);
    let mut target: SmallVec<[Target<'_>; 4]> = SmallVec::new();
    for axis in 0..rank {
        let mut chosen = Target::Known(1);
        for operand in operands {
            let Some(own) = (axis + operand.rank()).checked_sub(rank) else { continue };
            match (operand.0.ty.shape[own], chosen) {
                (Extent::Known(1), _) => {}
                (Extent::Known(n), Target::Known(m)) if m != 1 && m != n => {
                    return Err(mismatch(name, operands));
                }
                (Extent::Known(n), _) => chosen = Target::Known(n),
                (Extent::Unknown, Target::Known(1)) => chosen = Target::Of(operand, own),
                (Extent::Unknown, _) => {}
            }
        }
        target.push(chosen);
    }
    Ok(operands.iter().map(|operand| broadcast_operand(operand, &target, site)).collect())
}

/// The extent that broadcasting aims at along one axis.
#[derive(Copy, Clone)]
enum Target<'a> {
    Known(usize),
    Of(&'a Tensor, usize),
}

fn broadcast_operand(operand: &Tensor, target: &[Target<'_>], site: Site) -> Tensor {
    let lead = target.len() - operand.rank();
    let repeats = |(own, extent): (usize, &Extent)| {
        *extent == Extent::Known(1) && !matches!(target[lead + own], Target::Known(1))
    };
    if lead == 0 && !operand.0.ty.shape.iter().enumerate().any(repeats) {
        return operand.clone();
    }
    let mut operands: SmallVec<[Tensor; 2]> = smallvec![operand.clone()];
    let dims = target.iter().map(|t| match *t {
        Target::Known(n) => Dim::Known(n),
        Target::Of(tensor, axis) => {
            operands.push(build(Op::Extent(axis as u8), smallvec![tensor.clone()], site));
            Dim::Operand
        }
    });
    let dims = dims.collect();
    let axes = (lead..target.len()).map(|axis| axis as u8).collect();
    build(Op::Broadcast { axes, dims }, operands, site)
}

fn mismatch(name: &str, operands: &[Tensor]) -> Diagnostic {
    let labels: &[&str] = match operands.len() {
        2 => &["left", "right"],
        _ => &["condition", "then", "else"],
    };
    let mut fault = Diagnostic::new(format!("operands of `{name}` differ in shape"));
    for (label, operand) in labels.iter().zip(operands) {
        fault = fault.with(*label, operand.0.ty.to_string(), None);
    }
    let [left, right] = operands else { return fault };
    let reversed: SmallVec<[Extent; 4]> = right.0.ty.shape.iter().rev().copied().collect();
    if reversed == left.0.ty.shape {
        let right = right.0.name.get().map_or("the right operand".to_owned(), |name| format!("`{name}`"));
        return fault.hint(format!("the transpose of {right} would match: use `.t()`"));
    }
    fault
}

impl Tensor {
    /// The type: element type and extents.
    pub fn ty(&self) -> &TensorType {
        &self.0.ty
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.0.ty.dtype
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.ty.rank()
    }

    /// What it does.
    pub(crate) fn op(&self) -> &Op {
        &self.0.op
    }

    /// On what.
    pub(crate) fn operands(&self) -> &[Tensor] {
        &self.0.operands
    }

    /// The line that built it.
    pub fn site(&self) -> Site {
        self.0.site
    }

    /// The leaf behind it, if it is an input, a shared variable or a constant array.
    pub fn leaf(&self) -> Option<&Arc<Leaf>> {
        self.0.leaf.as_ref()
    }

    /// What is wrong with this very node, if anything.
    pub fn fault(&self) -> Option<&Diagnostic> {
        self.0.fault.as_deref()
    }

    /// Gives it a name for messages, text and profiles. The first name stays; inputs and shared variables have theirs.
    pub fn named(self, name: &str) -> Tensor {
        self.0.name.get_or_init(|| name.into());
        self
    }

    /// The name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.0.name.get().map(|name| &**name)
    }

    /// The extent along an axis as an `i64` scalar; the number of rows made where a scan may end early.
    #[track_caller]
    pub fn extent(&self, axis: usize) -> Tensor {
        let site = Location::caller();
        if let Some(count) = self.rows_made(axis, site) {
            return count;
        }
        match self.0.ty.shape.get(axis) {
            Some(Extent::Known(n)) => build(Op::Literal(Literal::I64(*n as i64)), smallvec![], site),
            _ => build(Op::Extent(axis.min(255) as u8), smallvec![self.clone()], site),
        }
    }

    /// Converts the elements, as [`Literal::cast`] does.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        cast_at(self, dtype, Location::caller())
    }

    /// The handle of a leaf.
    pub(crate) fn of_leaf(leaf: &Arc<Leaf>) -> Tensor {
        Tensor(Arc::new(Expression {
            op: Op::Leaf(leaf.id),
            operands: smallvec![],
            ty: leaf.ty.clone(),
            site: leaf.site.unwrap_or(Location::caller()),
            leaf: Some(leaf.clone()),
            name: leaf.name.clone().map_or_else(OnceLock::new, OnceLock::from),
            weak: false,
            made: None,
            fault: None,
            poisoned: false,
        }))
    }

    /// What is wrong with a plain number where `what` gives it that element type; `None` of other tensors.
    pub(crate) fn number_fault(&self, dtype: DType, what: &str) -> Option<Diagnostic> {
        let number = self.0.op.literal().filter(|_| self.0.weak)?;
        number_as(number, dtype, what).err()
    }

    /// Whether it is a plain number, which takes the element type of what it meets.
    pub(crate) fn is_weak(&self) -> bool {
        self.0.weak
    }

    /// A plain number as what it is where it meets nothing: `f32`, `i64` or `bool`; anything else as it is.
    #[track_caller]
    pub(crate) fn settled(&self) -> Tensor {
        if self.0.weak { self.cast(self.settled_dtype()) } else { self.clone() }
    }

    fn settled_dtype(&self) -> DType {
        if self.0.weak && self.0.ty.dtype == DType::F64 { DType::F32 } else { self.0.ty.dtype }
    }

    /// A plain number.
    fn number(value: Literal, site: Site) -> Tensor {
        Tensor(Arc::new(Expression {
            op: Op::Literal(value),
            operands: smallvec![],
            ty: TensorType::scalar(value.dtype()),
            site,
            leaf: None,
            name: OnceLock::new(),
            weak: true,
            made: None,
            fault: None,
            poisoned: false,
        }))
    }

    /// Which rows exist, where this is known only when a scan has run.
    pub(crate) fn made(&self) -> Option<&Made> {
        self.0.made.as_deref()
    }

    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl From<&Tensor> for Tensor {
    fn from(tensor: &Tensor) -> Tensor {
        tensor.clone()
    }
}

impl From<&Shared> for Tensor {
    fn from(shared: &Shared) -> Tensor {
        shared.tensor.clone()
    }
}

impl From<Shared> for Tensor {
    fn from(shared: Shared) -> Tensor {
        shared.tensor.clone()
    }
}

macro_rules! weak_number {
    ($($ty:ty => $as:ty),*) => {$(
        impl From<$ty> for Tensor {
            /// A number takes the element type of what it meets: `x * 2.0` has the type of `x`. A function of numbers
            /// alone is a number, in double precision until it meets something; where it meets nothing it is `f32`,
            /// `i64` or `bool`. A number that an integer type does not have is an error, but for comparisons, which are
            /// exact.
            #[track_caller]
            fn from(value: $ty) -> Tensor {
                let value: $as = value.into();
                Tensor::number(Literal::from(value), Location::caller())
            }
        }
    )*};
}
weak_number!(f64 => f64, f32 => f64, i64 => i64, i32 => i64, u8 => i64, bool => bool);

impl From<f64> for Literal {
    fn from(value: f64) -> Literal {
        Literal::F64(value.to_bits())
    }
}

impl From<i64> for Literal {
    fn from(value: i64) -> Literal {
        Literal::I64(value)
    }
}

impl From<bool> for Literal {
    fn from(value: bool) -> Literal {
        Literal::Bool(value)
    }
}

macro_rules! operator {
    ($trait:ident $method:ident $f:ident; $($left:ty),*) => {
        $(impl<R: Into<Tensor>> std::ops::$trait<R> for $left {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, right: R) -> Tensor {
                map(ScalarFn::$f, &[&Tensor::from(self), &right.into()])
            }
        })*
    };
    (numbers $trait:ident $method:ident $f:ident; $($number:ty),*) => {
        $(operator!(number $trait $method $f $number; Tensor, &Tensor, Shared, &Shared);)*
    };
    (number $trait:ident $method:ident $f:ident $number:ty; $($right:ty),*) => {
        $(impl std::ops::$trait<$right> for $number {
            type Output = Tensor;
            #[track_caller]
            fn $method(self, right: $right) -> Tensor {
                map(ScalarFn::$f, &[&Tensor::from(self), &Tensor::from(right)])
            }
        })*
    };
}
macro_rules! operators {
    ($($trait:ident $method:ident $f:ident),*) => {$(
        operator!($trait $method $f; Tensor, &Tensor, Shared, &Shared);
        // One float and one integer type only: with more, the type of `1.0` in `(1.0 - &x).log()` could not be inferred.
        operator!(numbers $trait $method $f; f64, i32);
    )*};
}
operators!(Add add Add, Sub sub Sub, Mul mul Mul, Div div Div, Rem rem Mod);

macro_rules! bit_operators {
    ($($trait:ident $method:ident $f:ident),*) => {$(
        operator!($trait $method $f; Tensor, &Tensor, Shared, &Shared);
    )*};
}
bit_operators!(BitAnd bitand And, BitOr bitor Or, BitXor bitxor Xor);

macro_rules! unary_operators {
    ($($trait:ident $method:ident $f:ident: $($ty:ty),*;)*) => {$($(
        impl std::ops::$trait for $ty {
            type Output = Tensor;
            #[track_caller]
            fn $method(self) -> Tensor {
                map(ScalarFn::$f, &[&Tensor::from(self)])
            }
        }
    )*)*};
}
unary_operators! {
    Neg neg Neg: Tensor, &Tensor, Shared, &Shared;
    Not not Not: Tensor, &Tensor, Shared, &Shared;
}
