//! Reads the text form of graphs.
//!
//! Every statement is checked as it is read: names are defined once and before their use, operators have the attributes
//! of their kind, and types are inferred again and compared with those written. What the reader returns is therefore
//! well typed; whether leaves and updates fit each other is left to [`crate::verify`].

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::ParseError;
use super::lexer::{Place, Reader, Token};
use crate::array::{Array, element_count, fits_in_memory};
use crate::body::Body;
use crate::diagnostic::Diagnostic;
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, NodeId};
use crate::infer::infer;
use crate::interp::{check_extents, check_size};
use crate::leaf::{Leaf, LeafKind, SharedCell, fresh_leaf_id};
use crate::op::{
    Backward, Border, Bound, ConvAxis, Dim, Dims, Disconnected, Fold, Grad, LeafId, Op, Scan, ScanResult,
    SliceAxis, Start, WindowAxis, Write,
};
use crate::scalar::ScalarFn;
use crate::shape::{Axes, Extent, MAX_RANK, TensorType};

/// Reads a graph from its text form (see [`crate::text`]). Shared variables get zeros as values; no node has a site.
///
/// An error says where the text is no graph or is ill typed, what could stand there and what was found.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser {
        reader: Reader::of_graph(text)?,
        graph: Graph::new(),
        nodes: BTreeMap::new(),
        leaves: BTreeMap::new(),
        bodies: BTreeMap::new(),
        shared: BTreeMap::new(),
        draft: None,
        depth: 0,
    };
    parser.statements()?;
    if parser.reader.peek() == &Token::End {
        Ok(parser.graph)
    } else {
        Err(parser.reader.unexpected(STATEMENTS))
    }
}

/// What a graph consists of.
const STATEMENTS: &str = "`input`, `shared`, `constant`, `body`, `output`, `update` or the name of a node";
/// What the body of a scan consists of.
const STATEMENTS_OF_BODIES: &str = "`sequence`, `captured`, `carry`, `constant`, `body`, `row`, `until`, `next`, `updates`, the name of a node or `}`";

/// Scans in scans beyond this are refused: passes over bodies are recursive.
const MAX_DEPTH: usize = 16;

/// A name as a key: numbers of unnamed nodes are no names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Named(String),
    Unnamed(String),
}

struct Parser<'a> {
    reader: Reader<'a>,
    graph: Graph,
    /// The node of each name and the line that defines it.
    nodes: BTreeMap<Key, (NodeId, usize)>,
    leaves: BTreeMap<NodeId, LeafId>,
    /// The bodies that are complete, with the line of each.
    bodies: BTreeMap<String, (Arc<Body>, usize)>,
    /// The shared variables of the function.
    shared: BTreeMap<Key, Arc<Leaf>>,
    /// What is known of the body being read, beside its graph.
    draft: Option<UnplacedStep>,
    /// How many bodies are being read, one in another.
    depth: usize,
}

#[derive(Default)]
struct UnplacedStep {
    sequences: usize,
    condition: Option<NodeId>,
    updated: Vec<Arc<Leaf>>,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    /// Lines up to the end or to a brace that closes a block.
    fn statements(&mut self) -> Parsed<()> {
        loop {
            match self.reader.peek() {
                Token::End | Token::Sign("}") => return Ok(()),
                Token::Newline => {
                    self.reader.take();
                }
                Token::Name(_) | Token::Unnamed(_) | Token::Word(_) | Token::Number(..) | Token::Sign(_) => {
                    self.statement()?;
                }
            }
        }
    }

    fn statement(&mut self) -> Parsed<()> {
        let keyword = match self.reader.peek() {
            Token::Name(_) | Token::Unnamed(_) => None,
            Token::Word(word) => Some(word.clone()),
            Token::Number(..) | Token::Sign(_) | Token::Newline | Token::End => Some(String::new()),
        };
        match (keyword.as_deref(), self.draft.is_some()) {
            (None, _) => self.definition()?,
            (Some("constant" | "unlisted"), _) => self.declaration()?,
            (Some("input" | "shared"), false) => self.declaration()?,
            (Some("sequence" | "captured" | "carry"), true) => self.declaration()?,
            (Some("body"), _) => self.body()?,
            (Some("output"), false) | (Some("row"), true) => {
                self.reader.take();
                let id = self.operand()?;
                self.graph.outputs.push(id);
            }
            (Some("until"), true) => self.condition()?,
            (Some("updates"), true) => self.updates()?,
            (Some("update"), false) | (Some("next"), true) => self.update()?,
            (Some(_), false) => return Err(self.reader.unexpected(STATEMENTS)),
            (Some(_), true) => return Err(self.reader.unexpected(STATEMENTS_OF_BODIES)),
        }
        match self.reader.peek() {
            Token::Newline | Token::End => Ok(()),
            Token::Name(_) | Token::Unnamed(_) | Token::Word(_) | Token::Number(..) | Token::Sign(_) => {
                Err(self.reader.unexpected("the end of the line"))
            }
        }
    }

    /// `body b0 { .. }`
    fn body(&mut self) -> Parsed<()> {
        self.reader.take();
        let place = self.reader.place();
        let token = self.reader.take();
        let Token::Word(name) = token else {
            return Err(self.reader.error(place, "the name of a body, such as `b0`", token.to_string()));
        };
        if let Some((_, line)) = self.bodies.get(&name) {
            let found = format!("the name of the body that ends in line {line}");
            return Err(self.reader.error(place, "a new name", found));
        }
        if self.depth == MAX_DEPTH {
            let expected = format!("at most {MAX_DEPTH} scans in each other");
            return Err(self.reader.error(place, expected, "one more"));
        }
        self.reader.enter_block()?;
        self.depth += 1;
        let graph = std::mem::take(&mut self.graph);
        let nodes = std::mem::take(&mut self.nodes);
        let leaves = std::mem::take(&mut self.leaves);
        let draft = self.draft.replace(UnplacedStep::default());
        self.statements()?;
        let place = self.reader.place();
        if !self.reader.takes("}") {
            return Err(self.reader.unexpected(STATEMENTS_OF_BODIES));
        }
        self.depth -= 1;
        let mut inner = std::mem::replace(&mut self.graph, graph);
        self.nodes = nodes;
        self.leaves = leaves;
        let UnplacedStep { sequences, condition, updated } =
            std::mem::replace(&mut self.draft, draft).unwrap_or_default();
        inner.outputs.extend(condition);
        let mut body = Body::new(inner, sequences, condition.is_some());
        body.updated = updated;
        self.bodies.insert(name, (Arc::new(body), place.line));
        Ok(())
    }

    /// `until %0`
    fn condition(&mut self) -> Parsed<()> {
        let keyword = self.reader.place();
        self.reader.take();
        let place = self.reader.place();
        let id = self.operand()?;
        let ty = self.graph.ty(id).clone();
        if ty != TensorType::scalar(DType::Bool) {
            return Err(self.reader.error(place, "a condition of type `bool[]`", format!("`{ty}`")));
        }
        match &mut self.draft {
            Some(UnplacedStep { condition: condition @ None, .. }) => {
                *condition = Some(id);
                Ok(())
            }
            Some(_) | None => Err(self.reader.error(keyword, "one condition", "a second one")),
        }
    }

    /// `updates %W`: a shared variable of the function, whatever the body calls so.
    fn updates(&mut self) -> Parsed<()> {
        self.reader.take();
        let place = self.reader.place();
        let token = self.reader.peek().clone();
        let key = self.name()?;
        let Some(leaf) = self.shared.get(&key) else {
            let expected = "the name of a shared variable of the function";
            return Err(self.reader.error(place, expected, token.to_string()));
        };
        if let Some(draft) = &mut self.draft {
            draft.updated.push(leaf.clone());
        }
        Ok(())
    }

    /// A name that is not yet taken.
    fn new_name(&mut self) -> Parsed<Key> {
        let place = self.reader.place();
        let key = self.name()?;
        match self.nodes.get(&key) {
            Some((_, line)) => {
                let found = format!("the name that line {line} defines");
                Err(self.reader.error(place, "a new name", found))
            }
            None => Ok(key),
        }
    }

    fn name(&mut self) -> Parsed<Key> {
        let key = match self.reader.peek() {
            Token::Name(name) => Key::Named(name.clone()),
            Token::Unnamed(number) => Key::Unnamed(number.clone()),
            Token::Word(_) | Token::Number(..) | Token::Sign(_) | Token::Newline | Token::End => {
                return Err(self.reader.unexpected("a name such as `%x`"));
            }
        };
        self.reader.take();
        Ok(key)
    }

    fn known_name(&mut self) -> Parsed<NodeId> {
        let place = self.reader.place();
        let token = self.reader.peek().clone();
        let key = self.name()?;
        self.nodes.get(&key).map(|(id, _)| *id).ok_or_else(|| {
            self.reader.error(place, "a name that a line above defines", format!("the unknown {token}"))
        })
    }

    fn declaration(&mut self) -> Parsed<()> {
        let keyword_place = self.reader.place();
        let keyword = self.reader.take();
        let line = keyword_place.line;
        let key = self.new_name()?;
        self.reader.expect(":")?;
        let place = self.reader.place();
        let ty = self.ty()?;
        let is = |word: &str| matches!(&keyword, Token::Word(found) if found == word);
        let kind = if is("shared") {
            let shape = self.allocatable(&ty, place)?;
            let memory = |fault: Diagnostic| self.reader.error(place, fault.title, ty.to_string());
            LeafKind::Shared(Arc::new(SharedCell::new(Array::zeros(ty.dtype, &shape).map_err(memory)?)))
        } else if is("constant") {
            let shape = self.allocatable(&ty, place)?;
            self.reader.expect("=")?;
            LeafKind::Constant(Arc::new(self.elements(ty.dtype, &shape)?))
        } else if is("carry") {
            LeafKind::Carry
        } else {
            LeafKind::Input
        };
        let name = match &key {
            Key::Named(name) => Some(name.as_str().into()),
            Key::Unnamed(_) => None,
        };
        let leaf = Arc::new(Leaf { id: fresh_leaf_id(), name, ty, site: None, kind });
        let id = self.graph.add_leaf(&leaf);
        if is("input") || is("sequence") || is("captured") {
            self.graph.inputs.push(leaf.id);
        }
        if let Some(draft) = self.draft.as_mut().filter(|_| is("sequence")) {
            draft.sequences += 1;
            if draft.sequences < self.graph.inputs.len() {
                let expected = "sequences before captured values";
                return Err(self.reader.error(
                    keyword_place,
                    expected,
                    "a captured value before this sequence",
                ));
            }
        }
        self.leaves.insert(id, leaf.id);
        if let (LeafKind::Shared(_), None) = (&leaf.kind, &self.draft) {
            self.shared.insert(key.clone(), leaf);
        }
        self.nodes.insert(key, (id, line));
        Ok(())
    }

    /// The extents of a type whose values are about to be made.
    fn allocatable(&mut self, ty: &TensorType, place: Place) -> Parsed<SmallVec<[usize; 4]>> {
        let Some(shape) = ty.extents() else {
            return Err(self.reader.error(place, "a type with known extents", format!("`{ty}`")));
        };
        match check_size(&Op::StopGradient, &shape, ty.dtype) {
            Ok(()) => Ok(shape),
            Err(_) => Err(self.reader.error(place, "a value that fits in memory", format!("`{ty}`"))),
        }
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        let dtype = self.dtype()?;
        let place = self.reader.place();
        let shape = self.list(|parser| {
            Ok(match parser.dim()? {
                Dim::Known(n) => Extent::Known(n),
                Dim::Operand => Extent::Unknown,
            })
        })?;
        if shape.len() > MAX_RANK {
            let found = format!("{}", shape.len());
            return Err(self.reader.error(place, format!("at most {MAX_RANK} extents"), found));
        }
        let known: Vec<usize> = shape.iter().filter_map(|extent| extent.known()).collect();
        if !fits_in_memory(&known) {
            return Err(self.reader.error(
                place,
                "extents of a tensor that fits in memory",
                format!("{known:?}"),
            ));
        }
        Ok(TensorType { dtype, shape: shape.into() })
    }

    fn dtype(&mut self) -> Parsed<DType> {
        let found = match self.reader.peek() {
            Token::Word(word) => DType::from_name(word),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        let Some(dtype) = found else {
            let names = DType::ALL.map(|dtype| format!("`{dtype}`")).join(", ");
            return Err(self.reader.unexpected(format!("an element type ({names})")));
        };
        self.reader.take();
        Ok(dtype)
    }

    /// Items between `[` and `]`.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.reader.expect("[")?;
        let mut items = Vec::new();
        if self.reader.takes("]") {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.reader.takes("]") {
                return Ok(items);
            }
            if !self.reader.takes(",") {
                return Err(self.reader.unexpected("`,` or `]`"));
            }
        }
    }

    /// An unsigned number of at most `limit`.
    fn unsigned(&mut self, what: &str, limit: u64) -> Parsed<u64> {
        let value = match self.reader.peek() {
            Token::Number(digits, suffix) if suffix.is_empty() => digits.parse::<u64>().ok(),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        let Some(value) = value.filter(|value| *value <= limit) else {
            return Err(self.reader.unexpected(format!("{what} (at most {limit})")));
        };
        self.reader.take();
        Ok(value)
    }

    fn signed(&mut self, what: &str) -> Parsed<i64> {
        let place = self.reader.place();
        let sign = if self.reader.takes("-") { "-" } else { "" };
        let value = match self.reader.peek() {
            Token::Number(digits, suffix) if suffix.is_empty() => format!("{sign}{digits}").parse().ok(),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        let Some(value) = value else {
            let found = self.reader.unexpected(what).found;
            return Err(self.reader.error(place, what, found));
        };
        self.reader.take();
        Ok(value)
    }

    fn dim(&mut self) -> Parsed<Dim> {
        if self.reader.takes("?") {
            return Ok(Dim::Operand);
        }
        self.unsigned("an extent or `?`", 1 << 48).map(|n| Dim::Known(n as usize))
    }

    /// The elements of a constant array.
    fn elements(&mut self, dtype: DType, shape: &[usize]) -> Parsed<Array> {
        let place = self.reader.place();
        let values = self.list(|parser| parser.element(dtype))?;
        if values.len() != element_count(shape) {
            let expected = format!("{} elements", element_count(shape));
            return Err(self.reader.error(place, expected, values.len().to_string()));
        }
        let memory = |fault: Diagnostic| self.reader.error(place, fault.title, format!("{shape:?}"));
        let mut array = Array::zeros(dtype, shape).map_err(memory)?;
        for (position, value) in values.into_iter().enumerate() {
            array.set(position, value);
        }
        Ok(array)
    }

    /// A literal of a type that is known without a suffix.
    fn element(&mut self, dtype: DType) -> Parsed<Literal> {
        let place = self.reader.place();
        let negative = self.reader.takes("-");
        let token = self.reader.take();
        let value = match &token {
            Token::Word(word) => match self.word_literal(word, dtype, negative)? {
                Some(value) => Some(value),
                None if word == "true" && dtype == DType::Bool && !negative => Some(Literal::Bool(true)),
                None if word == "false" && dtype == DType::Bool && !negative => Some(Literal::Bool(false)),
                None => None,
            },
            Token::Number(digits, suffix) if suffix.is_empty() => number_literal(digits, dtype, negative),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        value
            .ok_or_else(|| self.reader.error(place, format!("an element of type {dtype}"), token.to_string()))
    }

    /// The literals `inf`, `nan` and `nan(0x7fc00001)`, the last with its bits.
    fn word_literal(&mut self, word: &str, dtype: DType, negative: bool) -> Parsed<Option<Literal>> {
        if !dtype.is_float() {
            return Ok(None);
        }
        if word == "inf" {
            let value = if negative { f64::NEG_INFINITY } else { f64::INFINITY };
            return Ok(Some(Literal::from_f64(value, dtype)));
        }
        if word != "nan" || negative {
            return Ok(None);
        }
        let canonical = match dtype {
            DType::F32 => Literal::F32(f32::NAN.to_bits()),
            DType::Bool | DType::U8 | DType::I32 | DType::I64 | DType::F64 => {
                Literal::F64(f64::NAN.to_bits())
            }
        };
        if !self.reader.takes("(") {
            return Ok(Some(canonical));
        }
        let place = self.reader.place();
        let token = self.reader.take();
        let bits = match &token {
            Token::Number(digits, suffix) if suffix.is_empty() => {
                digits.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok())
            }
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        let value = match (canonical, bits) {
            (Literal::F32(_), Some(bits)) => u32::try_from(bits).ok().map(Literal::F32),
            (_, bits) => bits.map(Literal::F64),
        };
        let value = value.filter(|value| value.to_f64().is_nan()).ok_or_else(|| {
            self.reader.error(place, format!("the bits of a NaN of type {dtype}"), token.to_string())
        })?;
        self.reader.expect(")")?;
        Ok(Some(value))
    }

    /// A literal with its element type, if one stands here.
    fn literal(&mut self) -> Parsed<Option<Literal>> {
        let place = self.reader.place();
        let negative = self.reader.takes("-");
        let token = self.reader.peek().clone();
        let value = match &token {
            Token::Number(digits, suffix) => {
                self.reader.take();
                let dtype = DType::from_name(suffix.strip_prefix('_').unwrap_or(suffix));
                dtype.and_then(|dtype| number_literal(digits, dtype, negative))
            }
            Token::Word(word) if word == "true" && !negative => {
                self.reader.take();
                Some(Literal::Bool(true))
            }
            Token::Word(word) if word == "false" && !negative => {
                self.reader.take();
                Some(Literal::Bool(false))
            }
            Token::Word(word) => {
                let parts = word.split_once('_').filter(|(value, _)| matches!(*value, "inf" | "nan"));
                let parts = parts.and_then(|(value, dtype)| Some((value, DType::from_name(dtype)?)));
                match parts {
                    Some((value, dtype)) => {
                        self.reader.take();
                        self.word_literal(value, dtype, negative)?
                    }
                    None if negative => None,
                    None => return Ok(None),
                }
            }
            Token::Name(_) | Token::Unnamed(_) | Token::Sign(_) | Token::Newline | Token::End
                if !negative =>
            {
                return Ok(None);
            }
            Token::Name(_) | Token::Unnamed(_) | Token::Sign(_) | Token::Newline | Token::End => None,
        };
        value.map(Some).ok_or_else(|| {
            let expected = "a literal with its element type, such as `2.0f32`";
            self.reader.error(place, expected, token.to_string())
        })
    }

    fn operand(&mut self) -> Parsed<NodeId> {
        if let Some(value) = self.literal()? {
            return Ok(self.graph.add(Op::Literal(value), &[], None));
        }
        match self.reader.peek() {
            Token::Name(_) | Token::Unnamed(_) => self.known_name(),
            Token::Word(_) | Token::Number(..) | Token::Sign(_) | Token::Newline | Token::End => {
                Err(self.reader.unexpected("a name such as `%x`, or a literal such as `2.0f32`"))
            }
        }
    }

    fn update(&mut self) -> Parsed<()> {
        self.reader.take();
        let place = self.reader.place();
        let token = self.reader.peek().clone();
        let id = self.known_name()?;
        let Some(&leaf) = self.leaves.get(&id) else {
            let found = format!("{token}, which is computed");
            let expected =
                if self.draft.is_some() { "the name of a carry" } else { "the name of a shared variable" };
            return Err(self.reader.error(place, expected, found));
        };
        self.reader.expect("=")?;
        let value = self.operand()?;
        self.graph.updates.push((leaf, value));
        Ok(())
    }

    /// `%name = op{attributes}(operands) : type`, or `%name = literal`.
    fn definition(&mut self) -> Parsed<()> {
        let line = self.reader.place().line;
        let key = self.new_name()?;
        self.reader.expect("=")?;
        let id = match self.literal()? {
            Some(value) => self.graph.add(Op::Literal(value), &[], None),
            None => self.application()?,
        };
        if let Key::Named(name) = &key {
            self.graph.set_name(id, name.as_str().into());
        }
        self.nodes.insert(key, (id, line));
        Ok(())
    }

    fn application(&mut self) -> Parsed<NodeId> {
        let place = self.reader.place();
        let op = self.op()?;
        self.reader.expect("(")?;
        let mut operands: SmallVec<[NodeId; 4]> = SmallVec::new();
        if !self.reader.takes(")") {
            loop {
                operands.push(self.operand()?);
                if self.reader.takes(")") {
                    break;
                }
                if !self.reader.takes(",") {
                    return Err(self.reader.unexpected("`,` or `)`"));
                }
            }
        }
        let inferred = {
            let types: SmallVec<[&TensorType; 4]> = operands.iter().map(|id| self.graph.ty(*id)).collect();
            check_extents(&op).and_then(|()| infer(&op, &types))
        };
        let ty = inferred.map_err(|fault| {
            let related: Vec<String> =
                fault.related.iter().map(|related| format!("{} {}", related.label, related.text)).collect();
            let found = format!("that {} ({})", fault.title, related.join(", "));
            self.reader.error(place, format!("operands that `{}` takes", op.name()), found)
        })?;
        let known: Vec<usize> = ty.shape.iter().filter_map(|extent| extent.known()).collect();
        if !fits_in_memory(&known) {
            return Err(self.reader.error(place, "a result that fits in memory", format!("`{ty}`")));
        }
        if self.reader.takes(":") {
            let place = self.reader.place();
            let written = self.ty()?;
            if written != ty {
                return Err(self.reader.error(
                    place,
                    format!("`{ty}`, the type of this node"),
                    format!("`{written}`"),
                ));
            }
        }
        Ok(self.graph.add(op, &operands, None))
    }

    /// The beginning of the attribute `key`: `{key=` for the first one, `, key=` for those that follow.
    fn key(&mut self, before: &str, key: &str) -> Parsed<()> {
        self.reader.expect(before)?;
        if !matches!(self.reader.peek(), Token::Word(word) if word == key) {
            return Err(self.reader.unexpected(format!("the attribute `{key}`")));
        }
        self.reader.take();
        self.reader.expect("=")
    }

    fn axis(&mut self) -> Parsed<u8> {
        self.unsigned("an axis", MAX_RANK as u64 - 1).map(|axis| axis as u8)
    }

    /// `{name=axis}`
    fn single(&mut self, name: &str) -> Parsed<u8> {
        self.key("{", name)?;
        let axis = self.axis()?;
        self.reader.expect("}")?;
        Ok(axis)
    }

    fn dims(&mut self, before: &str) -> Parsed<Dims> {
        self.key(before, "dims")?;
        let dims = self.list(Self::dim)?;
        self.reader.expect("}")?;
        Ok(dims.into())
    }

    /// An operator with its attributes.
    fn op(&mut self) -> Parsed<Op> {
        let place = self.reader.place();
        let token = self.reader.take();
        let wrong = |reader: &Reader<'_>| reader.error(place, "an operator or a literal", token.to_string());
        let Token::Word(name) = &token else { return Err(wrong(&self.reader)) };
        if let Some(f) = ScalarFn::from_name(name) {
            return Ok(Op::Map(f));
        }
        let fold = Fold::ALL.into_iter().find(|fold| fold.name() == name.as_str());
        if fold.is_some() || name == "mean" {
            self.key("{", "axes")?;
            let axes: Axes = self.list(Self::axis)?.into_iter().map(usize::from).collect();
            self.reader.expect("}")?;
            return Ok(fold.map_or(Op::Mean(axes), |fold| Op::Reduce(fold, axes)));
        }
        if let Some(along) = Op::ALONG_AN_AXIS.iter().find(|along| along(0).name() == name.as_str()) {
            return Ok(along(self.single("axis")?));
        }
        Ok(match name.as_str() {
            "iota" => Op::Iota(self.dims("{")?),
            "cast" => {
                self.key("{", "dtype")?;
                let dtype = self.dtype()?;
                self.reader.expect("}")?;
                Op::Cast(dtype)
            }
            "dot" => Op::Dot,
            "conv" => Op::Conv(self.convolved()?),
            "broadcast" => {
                self.key("{", "axes")?;
                let axes = self.list(Self::axis)?.into();
                Op::Broadcast { axes, dims: self.dims(",")? }
            }
            "reshape" => Op::Reshape(self.dims("{")?),
            "permute" => {
                self.key("{", "axes")?;
                let axes = self.list(Self::axis)?.into();
                self.reader.expect("}")?;
                Op::Permute(axes)
            }
            "slice" => Op::Slice(self.ranges()?),
            "set_slice" => Op::SetSlice(self.ranges()?, Write::Set),
            "inc_slice" => Op::SetSlice(self.ranges()?, Write::Add),
            "window" => Op::Window(self.windows()?),
            "set_window" => Op::SetWindow(self.windows()?, Write::Set),
            "inc_window" => Op::SetWindow(self.windows()?, Write::Add),
            "gather" => Op::Gather { batch: self.single("batch")? },
            "scatter" => Op::Scatter { batch: self.single("batch")?, write: Write::Set },
            "scatter_add" => Op::Scatter { batch: self.single("batch")?, write: Write::Add },
            "random" => {
                self.key("{", "key")?;
                let key = self.unsigned("a key", u64::MAX)?;
                Op::Random { key, dims: self.dims(",")? }
            }
            "stop_gradient" => Op::StopGradient,
            "scan" => Op::Scan(Box::new(self.scan()?)),
            "grad" => Op::Grad(Box::new(self.grad()?)),
            _ => return Err(wrong(&self.reader)),
        })
    }

    /// `{borders=[0:0, half], strides=[1, 2], spreads=[1, 1], dilations=[1, 1]}`
    fn convolved(&mut self) -> Parsed<Box<[ConvAxis]>> {
        let place = self.reader.place();
        self.key("{", "borders")?;
        let borders = self.list(|parser| {
            let named = match parser.reader.peek() {
                Token::Word(word) if word == "half" => Border::Half,
                Token::Word(word) if word == "full" => Border::Full,
                Token::Name(_)
                | Token::Unnamed(_)
                | Token::Word(_)
                | Token::Number(..)
                | Token::Sign(_)
                | Token::Newline
                | Token::End => {
                    let low = parser.signed("`half`, `full` or the zeros before the input")?;
                    parser.reader.expect(":")?;
                    return Ok(Border::Padded(low, parser.signed("the zeros behind the input")?));
                }
            };
            parser.reader.take();
            Ok(named)
        })?;
        let mut steps = Vec::new();
        for key in ["strides", "spreads", "dilations"] {
            self.key(",", key)?;
            steps.push(self.list(|parser| parser.unsigned("a distance", ConvAxis::LARGEST as u64))?);
        }
        self.reader.expect("}")?;
        if let Some(other) = steps.iter().find(|list| list.len() != borders.len()) {
            let found = format!("{} and {}", borders.len(), other.len());
            return Err(self.reader.error(place, "as many distances of each kind as borders", found));
        }
        let axes = borders.into_iter().enumerate().map(|(axis, border)| {
            let [stride, spread, dilation] = [0, 1, 2].map(|kind: usize| steps[kind][axis] as usize);
            ConvAxis { border, stride, spread, dilation }
        });
        Ok(axes.collect())
    }

    /// `{ranges=[1:?, ::-1, 3, ?, 0:2/5]}`: ranges, single positions, and parts of an extent.
    fn ranges(&mut self) -> Parsed<Box<[SliceAxis]>> {
        self.key("{", "ranges")?;
        let ranges = self.list(|parser| {
            let start = parser.bound()?;
            if start != Bound::End && !matches!(parser.reader.peek(), Token::Sign(":")) {
                return Ok(SliceAxis::At(start));
            }
            parser.reader.expect(":")?;
            let stop = parser.bound()?;
            if parser.reader.takes("/") {
                let of = parser.unsigned("an extent", 1 << 48)? as usize;
                let known = |bound| if let Bound::Known(n) = bound { usize::try_from(n).ok() } else { None };
                return match (known(start), known(stop)) {
                    (Some(start), Some(stop)) => Ok(SliceAxis::Part { start, stop, of }),
                    _ => Err(parser.reader.unexpected("a part with two bounds")),
                };
            }
            let step = if parser.reader.takes(":") { parser.signed("a step")? } else { 1 };
            Ok(SliceAxis::Range { start, stop, step })
        })?;
        self.reader.expect("}")?;
        Ok(ranges.into())
    }

    fn bound(&mut self) -> Parsed<Bound> {
        if self.reader.takes("?") {
            return Ok(Bound::Operand);
        }
        match self.reader.peek() {
            Token::Sign(":" | "," | "]") => Ok(Bound::End),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => self.signed("a bound, `?` or nothing").map(Bound::Known),
        }
    }

    /// `{starts=[0, ?, ?:], lengths=[2, 1, 3], steps=[1, 1, 1]}`, the steps left out where all are 1. `?:` begins a range.
    fn windows(&mut self) -> Parsed<Box<[WindowAxis]>> {
        let place = self.reader.place();
        self.key("{", "starts")?;
        let starts = self.list(|parser| {
            Ok(match parser.dim()? {
                Dim::Known(n) => Start::Known(n),
                Dim::Operand if parser.reader.takes(":") => Start::Range,
                Dim::Operand => Start::Operand,
            })
        })?;
        self.key(",", "lengths")?;
        let lengths = self.list(|parser| parser.unsigned("a length", 1 << 48))?;
        let steps = match self.reader.peek() {
            Token::Sign(",") => {
                self.key(",", "steps")?;
                self.list(|parser| parser.signed("a step"))?
            }
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => vec![1; starts.len()],
        };
        self.reader.expect("}")?;
        if lengths.len() != starts.len() || steps.len() != starts.len() {
            let found = format!("{}, {} and {}", starts.len(), lengths.len(), steps.len());
            return Err(self.reader.error(place, "equally many starts, lengths and steps", found));
        }
        let axes = starts.into_iter().zip(lengths).zip(steps);
        Ok(axes.map(|((start, len), step)| WindowAxis { start, len: len as usize, step }).collect())
    }

    /// `{body=b0, result=rows 0, steps=5, truncate=2, checkpointed=true}`, the last two left out where they are not set.
    fn scan(&mut self) -> Parsed<Scan> {
        self.key("{", "body")?;
        let place = self.reader.place();
        let token = self.reader.take();
        let body = match &token {
            Token::Word(name) => self.bodies.get(name).map(|(body, _)| body.clone()),
            Token::Name(_)
            | Token::Unnamed(_)
            | Token::Number(..)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        let Some(body) = body else {
            let expected = "the name of a body that stands above";
            return Err(self.reader.error(place, expected, token.to_string()));
        };
        self.key(",", "result")?;
        let kinds =
            [("rows", ScanResult::Rows(0)), ("last", ScanResult::Last(0)), ("steps", ScanResult::Steps)];
        let result = match self.choice(&kinds)? {
            ScanResult::Rows(_) => ScanResult::Rows(self.unsigned("an output", u64::from(u16::MAX))? as u16),
            ScanResult::Last(_) => ScanResult::Last(self.unsigned("a carry", u64::from(u16::MAX))? as u16),
            ScanResult::Steps => ScanResult::Steps,
        };
        self.key(",", "steps")?;
        let steps = self.dim()?;
        let mut backward = Backward::default();
        while self.reader.takes(",") {
            let place = self.reader.place();
            let token = self.reader.take();
            self.reader.expect("=")?;
            match &token {
                Token::Word(word) if word == "truncate" && backward == Backward::default() => {
                    backward.truncate = Some(self.unsigned("a number of steps", u64::from(u32::MAX))? as u32);
                }
                Token::Word(word) if word == "checkpointed" && !backward.checkpointed => {
                    backward.checkpointed = self.choice(&[("true", true)])?;
                }
                Token::Name(_)
                | Token::Unnamed(_)
                | Token::Word(_)
                | Token::Number(..)
                | Token::Sign(_)
                | Token::Newline
                | Token::End => {
                    let expected = "the attribute `truncate` or `checkpointed`";
                    return Err(self.reader.error(place, expected, token.to_string()));
                }
            }
        }
        self.reader.expect("}")?;
        Ok(Scan { body, steps, result, backward })
    }

    fn grad(&mut self) -> Parsed<Grad> {
        let mut count = |before: &str, key: &str| {
            self.key(before, key)?;
            self.unsigned("a number", u64::from(u16::MAX)).map(|n| n as u16)
        };
        let index = count("{", "index")?;
        let variables = count(",", "variables")?;
        let known = count(",", "known")?;
        let constants = count(",", "constants")?;
        self.key(",", "cost")?;
        let has_cost = self.choice(&[("true", true), ("false", false)])?;
        self.key(",", "disconnected")?;
        let disconnected = self.choice(&[("raise", Disconnected::Raise), ("zero", Disconnected::Zero)])?;
        self.reader.expect("}")?;
        Ok(Grad { index, variables, known, constants, has_cost, disconnected })
    }

    /// One of several words.
    fn choice<T: Copy>(&mut self, choices: &[(&str, T)]) -> Parsed<T> {
        let place = self.reader.place();
        let token = self.reader.take();
        let chosen = choices.iter().find(|(word, _)| matches!(&token, Token::Word(found) if found == word));
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let expected: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            self.reader.error(place, expected.join(" or "), token.to_string())
        })
    }
}

/// The literal of digits without sign.
fn number_literal(digits: &str, dtype: DType, negative: bool) -> Option<Literal> {
    let text = format!("{}{digits}", if negative { "-" } else { "" });
    match dtype {
        DType::Bool => None,
        DType::U8 => text.parse().ok().map(Literal::U8),
        DType::I32 => text.parse().ok().map(Literal::I32),
        DType::I64 => text.parse().ok().map(Literal::I64),
        DType::F32 => text.parse::<f32>().ok().map(|x| Literal::F32(x.to_bits())),
        DType::F64 => text.parse::<f64>().ok().map(|x| Literal::F64(x.to_bits())),
    }
}
