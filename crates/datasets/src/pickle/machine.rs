//! The stack machine that runs the opcodes of a pickle (`Lib/pickletools.py` of Python describes them).
//!
//! Every operand is checked; an opcode that would call or import something other than NumPy's constructors is an
//! error. All growth is charged to the budget before it happens.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use super::array::{Array, ElementType};
use super::{Name, Object, PickleDocument, PickleError, PickleErrorKind, Value};
use crate::count::Counted;

type Step<T> = Result<T, PickleErrorKind>;

/// What a value on the stack is charged, in bytes: itself and its later place in a container.
const VALUE_COST: u64 = 2 * size_of::<Value>() as u64;
/// What an object is charged beside its content.
const OBJECT_COST: u64 = size_of::<Object>() as u64;
/// What an entry of the memo is charged.
const MEMO_COST: u64 = 32;
/// Longest piece of the file's own text in a message.
const QUOTED_CHARS: usize = 80;

pub(super) struct Machine<'a, R> {
    input: &'a mut R,
    /// Bytes consumed from the input.
    offset: &'a mut u64,
    budget: u64,
    charged: u64,
    stack: Vec<Value>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    objects: Vec<Object>,
}

impl<'a, R: Read> Machine<'a, R> {
    pub(super) fn new(input: &'a mut R, offset: &'a mut u64, budget: u64) -> Self {
        let (stack, marks, objects) = (Vec::new(), Vec::new(), Vec::new());
        Self { input, offset, budget, charged: 0, stack, marks, memo: HashMap::new(), objects }
    }

    /// Runs until the opcode STOP; `None` if the input holds nothing more.
    pub(super) fn run(mut self) -> Result<Option<PickleDocument>, PickleError> {
        let mut begun = false;
        loop {
            let offset = *self.offset;
            let error = |kind| PickleError { offset, kind };
            let opcode = match self.next_opcode().map_err(error)? {
                Some(opcode) => opcode,
                None if !begun => return Ok(None),
                None => return Err(error(PickleErrorKind::Truncated)),
            };
            begun = true;
            if opcode == b'.' {
                let root = self.pop().map_err(error)?;
                return Ok(Some(PickleDocument { objects: self.objects, root }));
            }
            self.execute(opcode).map_err(error)?;
        }
    }

    fn next_opcode(&mut self) -> Step<Option<u8>> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PickleErrorKind::Read(error)),
            }
        }
        *self.offset += 1;
        Ok(Some(byte[0]))
    }

    fn execute(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            // Frame of the machine.
            0x80 => match self.byte()? {
                0..=4 => Ok(()),
                protocol => Err(PickleErrorKind::Protocol(protocol)),
            },
            0x95 => self.bytes::<8>().map(|_| ()),
            b'(' => {
                self.charge(VALUE_COST)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.pop_to_mark().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            // Numbers.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.bytes()?);
                self.push(Value::Int(number.into()))
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.bytes()?);
                self.push(Value::Int(number.into()))
            }
            b'I' | b'L' => self.decimal_integer(opcode),
            0x8a => {
                let length = u64::from(self.byte()?);
                self.long(length)
            }
            0x8b => {
                let length = self.length_i32()?;
                self.long(length)
            }
            b'G' => {
                let number = f64::from_be_bytes(self.bytes()?);
                self.push(Value::Float(number))
            }
            b'F' => {
                let line = self.line()?;
                let number = line.parse().map_err(|_| number_error("a float", &line))?;
                self.push(Value::Float(number))
            }
            // Strings.
            b'U' | b'C' => {
                let length = u64::from(self.byte()?);
                self.byte_string(length)
            }
            b'T' => {
                let length = self.length_i32()?;
                self.byte_string(length)
            }
            b'B' => {
                let length = u32::from_le_bytes(self.bytes()?);
                self.byte_string(length.into())
            }
            0x8e => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.byte_string(length)
            }
            b'S' => {
                let line = self.line_bytes()?;
                let bytes = unescape_bytes(&line)?;
                self.push_object(Object::Bytes(Arc::new(bytes)))
            }
            0x8c => {
                let length = u64::from(self.byte()?);
                self.text(length)
            }
            b'X' => {
                let length = u32::from_le_bytes(self.bytes()?);
                self.text(length.into())
            }
            0x8d => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.text(length)
            }
            b'V' => {
                let line = self.line_bytes()?;
                let text = unescape_text(&line)?;
                self.push_object(Object::Text(text))
            }
            // Containers.
            b']' => self.push_object(Object::List(Vec::new())),
            b')' => self.push_object(Object::Tuple(Vec::new())),
            b'}' => self.push_object(Object::Dict(Vec::new())),
            b'l' => {
                let values = self.pop_to_mark()?;
                self.push_object(Object::List(values))
            }
            b't' => {
                let values = self.pop_to_mark()?;
                self.push_object(Object::Tuple(values))
            }
            0x85..=0x87 => {
                let values = self.pop_many(usize::from(opcode - 0x84))?;
                self.push_object(Object::Tuple(values))
            }
            b'd' => {
                let values = self.pop_to_mark()?;
                self.push_object(Object::Dict(Vec::new()))?;
                self.extend_dict(values)
            }
            b'a' => {
                let value = self.pop()?;
                self.extend_list(vec![value])
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                self.extend_list(values)
            }
            b's' => {
                let values = self.pop_many(2)?;
                self.extend_dict(values)
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                self.extend_dict(values)
            }
            // Memo.
            b'p' => {
                let index = self.memo_index()?;
                self.memoize(index)
            }
            b'q' => {
                let index = self.byte()?;
                self.memoize(index.into())
            }
            b'r' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.memoize(index.into())
            }
            0x94 => self.memoize(self.memo.len() as u64),
            b'g' => {
                let index = self.memo_index()?;
                self.recall(index)
            }
            b'h' => {
                let index = self.byte()?;
                self.recall(index.into())
            }
            b'j' => {
                let index = u32::from_le_bytes(self.bytes()?);
                self.recall(index.into())
            }
            // Names and what is made with them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_name(&module, &name)
            }
            0x93 => self.stack_global(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(PickleErrorKind::ForbiddenName(quote(&format!("{module}.{name}"))))
            }
            b'o' => Err(PickleErrorKind::ForbiddenOpcode("OBJ")),
            0x81 => Err(PickleErrorKind::ForbiddenOpcode("NEWOBJ")),
            0x92 => Err(PickleErrorKind::ForbiddenOpcode("NEWOBJ_EX")),
            b'P' => Err(PickleErrorKind::ForbiddenOpcode("PERSID")),
            b'Q' => Err(PickleErrorKind::ForbiddenOpcode("BINPERSID")),
            0x82..=0x84 => Err(PickleErrorKind::ForbiddenOpcode("EXT")),
            unknown => Err(PickleErrorKind::Opcode(unknown)),
        }
    }

    // Input.

    fn byte(&mut self) -> Step<u8> {
        self.next_opcode()?.ok_or(PickleErrorKind::Truncated)
    }

    fn bytes<const N: usize>(&mut self) -> Step<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| {
            // The end of the input itself carries no inner error; that of a gzip file inside it does.
            if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
                PickleErrorKind::Truncated
            } else {
                PickleErrorKind::Read(error)
            }
        })?;
        *self.offset += N as u64;
        Ok(bytes)
    }

    /// `length` bytes; memory grows with what is there, not with what is claimed.
    fn block(&mut self, length: u64) -> Step<Vec<u8>> {
        self.charge(length)?;
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(length).read_to_end(&mut bytes).map_err(PickleErrorKind::Read)?;
        *self.offset += read as u64;
        if read as u64 == length { Ok(bytes) } else { Err(PickleErrorKind::Truncated) }
    }

    fn length_i32(&mut self) -> Step<u64> {
        let length = i32::from_le_bytes(self.bytes()?);
        u64::try_from(length).map_err(|_| number_error("a length", &length.to_string()))
    }

    /// The bytes up to the next line feed, without it.
    fn line_bytes(&mut self) -> Step<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => {
                    self.charge(1)?;
                    line.push(byte);
                }
            }
        }
    }

    fn line(&mut self) -> Step<String> {
        String::from_utf8(self.line_bytes()?).map_err(|_| PickleErrorKind::Encoding("a line of UTF-8"))
    }

    fn memo_index(&mut self) -> Step<u64> {
        let line = self.line()?;
        line.parse().map_err(|_| number_error("a number of the memo", &line))
    }

    // Stack, memo, budget.

    fn charge(&mut self, bytes: u64) -> Step<()> {
        self.charged = self.charged.saturating_add(bytes);
        if self.charged > self.budget { Err(PickleErrorKind::Budget(self.budget)) } else { Ok(()) }
    }

    fn push(&mut self, value: Value) -> Step<()> {
        self.charge(VALUE_COST)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_object(&mut self, object: Object) -> Step<()> {
        self.charge(OBJECT_COST)?;
        let index = u32::try_from(self.objects.len()).map_err(|_| PickleErrorKind::Budget(self.budget))?;
        self.objects.push(object);
        self.push(Value::Object(index))
    }

    /// The height below which the current opcode may not reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value> {
        match self.stack.last() {
            Some(value) if self.stack.len() > self.floor() => Ok(*value),
            Some(_) | None => Err(operand_error("a value on the stack", "none".to_owned())),
        }
    }

    fn pop(&mut self) -> Step<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value>> {
        let above = self.stack.len() - self.floor();
        if above < count {
            return Err(operand_error("more values on the stack", above.to_string()));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value>> {
        let height =
            self.marks.pop().ok_or_else(|| operand_error("a mark on the stack", "none".to_owned()))?;
        Ok(self.stack.split_off(height))
    }

    fn memoize(&mut self, index: u64) -> Step<()> {
        self.charge(MEMO_COST)?;
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Step<()> {
        let value = *self.memo.get(&index).ok_or(PickleErrorKind::Memo(index))?;
        self.push(value)
    }

    fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(index) => Some(&self.objects[index as usize]),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => None,
        }
    }

    fn object_mut(&mut self, value: Value) -> Option<&mut Object> {
        match value {
            Value::Object(index) => Some(&mut self.objects[index as usize]),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => None,
        }
    }

    fn describe(&self, value: Value) -> String {
        match value {
            Value::None => "None".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Object(index) => match &self.objects[index as usize] {
                Object::Bytes(_) | Object::Text(_) => "a string".to_owned(),
                Object::List(_) => "a list".to_owned(),
                Object::Tuple(_) => "a tuple".to_owned(),
                Object::Dict(_) => "a dictionary".to_owned(),
                Object::Array(array) => array.to_string(),
                Object::ElementType { .. } => "an array type".to_owned(),
                Object::Name(name) => format!("the name {name}"),
            },
        }
    }

    fn wrong(&self, expected: &'static str, value: Value) -> PickleErrorKind {
        operand_error(expected, self.describe(value))
    }

    // Values.

    /// INT and LONG of protocol 0; `I00` and `I01` are the booleans.
    fn decimal_integer(&mut self, opcode: u8) -> Step<()> {
        let line = self.line()?;
        let digits = if opcode == b'L' { line.trim_end_matches('L') } else { &line };
        let value = match (opcode, digits) {
            (b'I', "00") => Value::Bool(false),
            (b'I', "01") => Value::Bool(true),
            _ => Value::Int(digits.parse().map_err(|_| number_error("an integer of 64 bits", &line))?),
        };
        self.push(value)
    }

    /// A little-endian integer in two's complement.
    fn long(&mut self, length: u64) -> Step<()> {
        let bytes = self.block(length)?;
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let mut word = [fill; 8];
        let (used, rest) = bytes.split_at(bytes.len().min(8));
        word[..used.len()].copy_from_slice(used);
        let number = i64::from_le_bytes(word);
        if rest.iter().any(|byte| *byte != fill) || (number < 0) != negative {
            return Err(number_error(
                "an integer of 64 bits",
                &format!("one of {}", Counted(length, "byte")),
            ));
        }
        self.push(Value::Int(number))
    }

    fn byte_string(&mut self, length: u64) -> Step<()> {
        let bytes = self.block(length)?;
        self.push_object(Object::Bytes(Arc::new(bytes)))
    }

    fn text(&mut self, length: u64) -> Step<()> {
        let bytes = self.block(length)?;
        let text = String::from_utf8(bytes).map_err(|_| PickleErrorKind::Encoding("text in UTF-8"))?;
        self.push_object(Object::Text(text))
    }

    fn extend_list(&mut self, values: Vec<Value>) -> Step<()> {
        let target = self.top()?;
        match self.object_mut(target) {
            Some(Object::List(list)) => {
                list.extend(values);
                Ok(())
            }
            Some(_) | None => Err(self.wrong("a list to append to", target)),
        }
    }

    fn extend_dict(&mut self, values: Vec<Value>) -> Step<()> {
        let (pairs, odd) = values.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(operand_error("a value for each key", "a key without one".to_owned()));
        }
        let target = self.top()?;
        match self.object_mut(target) {
            Some(Object::Dict(entries)) => {
                entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            Some(_) | None => Err(self.wrong("a dictionary to add to", target)),
        }
    }

    // Names.

    fn push_name(&mut self, module: &str, name: &str) -> Step<()> {
        let resolved = match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Name::Reconstruct,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Name::Scalar,
            ("numpy", "ndarray") => Name::NdArray,
            ("numpy", "dtype") => Name::DType,
            ("_codecs", "encode") => Name::Encode,
            _ => return Err(PickleErrorKind::ForbiddenName(quote(&format!("{module}.{name}")))),
        };
        self.push_object(Object::Name(resolved))
    }

    fn stack_global(&mut self) -> Step<()> {
        let operands = self.pop_many(2)?;
        let text = |value: Value| match self.object(value) {
            Some(Object::Text(text)) => Ok(text.clone()),
            Some(_) | None => Err(self.wrong("the name of a module and of its member", value)),
        };
        let (module, name) = (text(operands[0])?, text(operands[1])?);
        self.push_name(&module, &name)
    }

    /// Applies a name to its arguments.
    fn reduce(&mut self) -> Step<()> {
        let operands = self.pop_many(2)?;
        let Some(Object::Name(name)) = self.object(operands[0]) else {
            return Err(self.wrong("the name of a constructor", operands[0]));
        };
        let name = *name;
        let Some(Object::Tuple(arguments)) = self.object(operands[1]) else {
            return Err(self.wrong("a tuple of arguments", operands[1]));
        };
        match (name, arguments.as_slice()) {
            (Name::Reconstruct, [class, _, _]) => match self.object(*class) {
                Some(Object::Name(Name::NdArray)) => self.push_object(Object::Array(Array::empty())),
                Some(_) | None => Err(self.wrong("numpy.ndarray as the class of an array", *class)),
            },
            (Name::DType, [code, ..]) => {
                let code = self.short_text(*code)?;
                let (big_endian, code) = match code.strip_prefix(['<', '|', '=']) {
                    Some(rest) => (false, rest.to_owned()),
                    None => (code.starts_with('>'), code.trim_start_matches('>').to_owned()),
                };
                let element = ElementType::from_code(&code)
                    .ok_or_else(|| PickleErrorKind::ElementType(quote(&code)))?;
                self.push_object(Object::ElementType { element, big_endian })
            }
            (Name::Scalar, [element, bytes]) => {
                let (element, big_endian) = self.element_type(*element)?;
                let array = Array::new(Vec::new(), element, big_endian, false, &self.byte_contents(*bytes)?)?;
                self.push(scalar(&array)?)
            }
            (Name::Encode, [text, encoding]) => {
                let encoding = self.short_text(*encoding)?;
                let Some(Object::Text(text)) = self.object(*text) else {
                    return Err(self.wrong("text to encode", *text));
                };
                if !matches!(encoding.as_str(), "latin1" | "latin-1" | "iso-8859-1") {
                    return Err(operand_error("the encoding latin1", quote(&encoding)));
                }
                let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                let bytes = bytes.map_err(|_| PickleErrorKind::Encoding("text within latin1"))?;
                self.charge(bytes.len() as u64)?;
                self.push_object(Object::Bytes(Arc::new(bytes)))
            }
            (Name::Reconstruct | Name::Scalar | Name::NdArray | Name::DType | Name::Encode, _) => {
                Err(operand_error("the arguments that NumPy writes", format!("other ones for {name}")))
            }
        }
    }

    /// Sets the state of the array or array type on the stack.
    fn build(&mut self) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        let Some(Object::Tuple(state_values)) = self.object(state) else {
            return Err(self.wrong("a tuple as state", state));
        };
        let built = match (self.object(target), state_values.as_slice()) {
            (Some(Object::Array(_)), [_, shape, element, order, bytes] | [shape, element, order, bytes]) => {
                let (shape, element, order, bytes) = (*shape, *element, *order, *bytes);
                self.array(shape, element, order, bytes)?
            }
            (Some(Object::ElementType { element, .. }), [_, order, subtype, names, fields, ..]) => {
                if [subtype, names, fields].into_iter().any(|part| *part != Value::None) {
                    return Err(PickleErrorKind::ElementType("with fields or of arrays".to_owned()));
                }
                Object::ElementType { element: *element, big_endian: self.short_text(*order)? == ">" }
            }
            (Some(_) | None, _) => return Err(self.wrong("an array or array type with its state", target)),
        };
        if let Some(object) = self.object_mut(target) {
            *object = built;
        }
        Ok(())
    }

    fn array(&mut self, shape: Value, element: Value, order: Value, bytes: Value) -> Step<Object> {
        let Some(Object::Tuple(extents)) = self.object(shape) else {
            return Err(self.wrong("a tuple of extents", shape));
        };
        let extent = |value: &Value| match value {
            Value::Int(extent) => usize::try_from(*extent).map_err(|_| self.wrong("an extent", *value)),
            Value::None | Value::Bool(_) | Value::Float(_) | Value::Object(_) => {
                Err(self.wrong("an extent", *value))
            }
        };
        let extents = extents.iter().map(extent).collect::<Step<Vec<usize>>>()?;
        let (element, big_endian) = self.element_type(element)?;
        let column_major = match order {
            Value::Bool(flag) => flag,
            Value::Int(flag) => flag != 0,
            Value::None | Value::Float(_) | Value::Object(_) => {
                return Err(self.wrong("the order of an array as a boolean", order));
            }
        };
        let bytes = self.byte_contents(bytes)?;
        // The shape, and a reordered copy of the bytes.
        self.charge(8 * extents.len() as u64)?;
        if big_endian || column_major {
            self.charge(2 * bytes.len() as u64)?;
        }
        Ok(Object::Array(Array::new(extents, element, big_endian, column_major, &bytes)?))
    }

    fn element_type(&self, value: Value) -> Step<(ElementType, bool)> {
        match self.object(value) {
            Some(Object::ElementType { element, big_endian }) => Ok((*element, *big_endian)),
            Some(_) | None => Err(self.wrong("an array type", value)),
        }
    }

    fn byte_contents(&self, value: Value) -> Step<Arc<Vec<u8>>> {
        match self.object(value) {
            Some(Object::Bytes(bytes)) => Ok(Arc::clone(bytes)),
            Some(_) | None => Err(self.wrong("the bytes of an array", value)),
        }
    }

    fn short_text(&self, value: Value) -> Step<String> {
        match self.object(value) {
            Some(Object::Text(text)) => Ok(quote(text)),
            Some(Object::Bytes(bytes)) => {
                Ok(quote(&String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_CHARS)])))
            }
            Some(_) | None => Err(self.wrong("a short text", value)),
        }
    }
}

fn scalar(array: &Array) -> Step<Value> {
    Ok(match array.element() {
        ElementType::Bool => Value::Bool(array.to_i64()[0] != 0),
        ElementType::Float32 | ElementType::Float64 => Value::Float(array.to_f64()[0]),
        ElementType::Int8
        | ElementType::Int16
        | ElementType::Int32
        | ElementType::Int64
        | ElementType::UInt8
        | ElementType::UInt16
        | ElementType::UInt32 => Value::Int(array.to_i64()[0]),
        ElementType::UInt64 => match array.to_i64()[0] {
            number @ 0.. => Value::Int(number),
            _ => return Err(number_error("an integer of 64 bits", "a larger unsigned one")),
        },
    })
}

fn operand_error(expected: &'static str, found: String) -> PickleErrorKind {
    PickleErrorKind::Operand { expected, found }
}

fn number_error(expected: &'static str, found: &str) -> PickleErrorKind {
    PickleErrorKind::Number { expected, found: quote(found) }
}

/// Text of the file for a message: control characters escaped, and cut to a bearable length.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_default).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push_str("...");
    }
    quoted
}

/// The bytes that a quoted Python 2 string stands for.
fn unescape_bytes(line: &[u8]) -> Step<Vec<u8>> {
    const EXPECTED: PickleErrorKind = PickleErrorKind::Encoding("a quoted string with Python's escapes");
    let inner = match line.trim_ascii() {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err(EXPECTED),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let [escape, tail @ ..] = rest else { return Err(EXPECTED) };
        rest = tail;
        bytes.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' => *escape,
            b'x' => {
                let (digits, tail) = rest.split_at_checked(2).ok_or(EXPECTED)?;
                rest = tail;
                parse_digits(digits, 16).and_then(|code| u8::try_from(code).ok()).ok_or(EXPECTED)?
            }
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
                let (digits, tail) = rest.split_at(more);
                rest = tail;
                let value = digits.iter().fold(u32::from(escape - b'0'), |v, d| v * 8 + u32::from(d - b'0'));
                u8::try_from(value).map_err(|_| EXPECTED)?
            }
            _ => return Err(EXPECTED),
        });
    }
    Ok(bytes)
}

/// The text that Python's `raw-unicode-escape` stands for: latin1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape_text(line: &[u8]) -> Step<String> {
    const EXPECTED: PickleErrorKind = PickleErrorKind::Encoding("text in raw-unicode-escape");
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let digits = match (byte, rest) {
            (b'\\', [b'u', ..]) => 4,
            (b'\\', [b'U', ..]) => 8,
            _ => {
                text.push(char::from(*byte));
                continue;
            }
        };
        let (code, tail) = rest[1..].split_at_checked(digits).ok_or(EXPECTED)?;
        rest = tail;
        let character = parse_digits(code, 16).and_then(char::from_u32).ok_or(EXPECTED)?;
        text.push(character);
    }
    Ok(text)
}

fn parse_digits(digits: &[u8], radix: u32) -> Option<u32> {
    digits
        .iter()
        .try_fold(0_u32, |value, digit| Some(value.checked_mul(radix)? + char::from(*digit).to_digit(radix)?))
}
