//! Splits text into tokens with their places; both the graph form and formulas are made of them.
//!
//! A token never spans lines. Whether the end of a line matters is for the reader: [`Reader`] hides it between brackets.

use std::fmt;

use super::ParseError;

/// A piece of text that means something.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// `%name` or `%"any name"`.
    Name(String),
    /// `%12`: a node without a name.
    Unnamed(String),
    /// A letter or `_`, then letters, digits and `_`.
    Word(String),
    /// Digits, fraction and exponent without sign, or `0x` and hexadecimal digits; then letters of a suffix.
    Number(String, String),
    /// An operator or bracket.
    Sign(&'static str),
    /// The end of a line.
    Newline,
    /// The end of the text.
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Name(name) => write!(f, "`{}`", super::written_name(name)),
            Token::Unnamed(number) => write!(f, "`%{number}`"),
            Token::Word(word) => write!(f, "`{word}`"),
            Token::Number(digits, suffix) => write!(f, "`{digits}{suffix}`"),
            Token::Sign(sign) => write!(f, "`{sign}`"),
            Token::Newline => f.write_str("the end of the line"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Where a token stands, both counted from 1.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Longer ones first: the first that fits is taken.
const SIGNS: [&str; 27] = [
    "...", "**", "//", "<=", ">=", "==", "!=", "(", ")", "[", "]", "{", "}", ",", ":", ";", "=", "+", "-",
    "*", "/", "%", "@", "<", ">", "?", ".",
];

/// Characters of names that need no quotes.
pub(super) fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

fn is_word_character(c: &char) -> bool {
    c.is_alphanumeric() || *c == '_'
}

/// All tokens of a text, the last one [`Token::End`]. `#` begins a comment. Where there are no names with `%`, that is
/// the operator.
fn tokens(text: &str, names: bool) -> Result<Vec<(Token, Place)>, ParseError> {
    let mut tokens = Vec::new();
    let mut line = 0;
    for row in text.lines() {
        line += 1;
        let characters: Vec<char> = row.chars().collect();
        let mut at = 0;
        while at < characters.len() && characters[at] != '#' {
            if characters[at].is_whitespace() {
                at += 1;
                continue;
            }
            let place = Place { line, column: at + 1 };
            let (token, len) = token(&characters[at..], names).map_err(|found| ParseError {
                line,
                column: at + 1,
                expected: "a name, a number or an operator".to_string(),
                found,
                text: row.to_string(),
            })?;
            tokens.push((token, place));
            at += len;
        }
        tokens.push((Token::Newline, Place { line, column: characters.len() + 1 }));
    }
    let column = text.lines().last().map_or(0, |row| row.chars().count()) + 1;
    tokens.push((Token::End, Place { line: line.max(1), column }));
    Ok(tokens)
}

/// The first token of characters that begin with one, and its length; an error says what was found.
fn token(rest: &[char], names: bool) -> Result<(Token, usize), String> {
    let run = |from: usize, fits: &dyn Fn(&char) -> bool| {
        from + rest[from.min(rest.len())..].iter().take_while(|c| fits(c)).count()
    };
    let text = |from: usize, to: usize| rest[from..to].iter().collect::<String>();
    if names && rest[0] == '%' && rest.get(1) == Some(&'"') {
        return quoted(rest);
    }
    if names && rest[0] == '%' && rest.get(1).is_some_and(|&c| is_name_character(c)) {
        let end = run(1, &|&c| is_name_character(c));
        let name = text(1, end);
        let number = name.chars().all(|c| c.is_ascii_digit());
        return Ok((if number { Token::Unnamed(name) } else { Token::Name(name) }, end));
    }
    if rest[0].is_ascii_digit() {
        let digit = |c: &char| c.is_ascii_digit();
        let mut end = run(0, &digit);
        if text(0, end) == "0" && rest.get(1) == Some(&'x') {
            end = run(2, &|c| c.is_ascii_hexdigit());
        } else {
            if rest.get(end) == Some(&'.') && rest.get(end + 1).is_some_and(digit) {
                end = run(end + 1, &digit);
            }
            let signed = usize::from(matches!(rest.get(end + 1), Some('+' | '-')));
            if matches!(rest.get(end), Some('e' | 'E')) && rest.get(end + 1 + signed).is_some_and(digit) {
                end = run(end + 1 + signed, &digit);
            }
        }
        let suffix = run(end, &is_word_character);
        return Ok((Token::Number(text(0, end), text(end, suffix)), suffix));
    }
    if rest[0].is_alphabetic() || rest[0] == '_' {
        let end = run(0, &is_word_character);
        return Ok((Token::Word(text(0, end)), end));
    }
    let sign = SIGNS.iter().find(|sign| {
        let len = sign.len();
        rest.len() >= len && sign.chars().eq(rest[..len].iter().copied())
    });
    sign.map(|sign| (Token::Sign(sign), sign.len())).ok_or_else(|| format!("`{}`", rest[0]))
}

/// `%"..."` with the escapes that Rust writes.
fn quoted(rest: &[char]) -> Result<(Token, usize), String> {
    let mut name = String::new();
    let mut at = 2;
    while let Some(&c) = rest.get(at) {
        at += 1;
        match c {
            '"' => return Ok((Token::Name(name), at)),
            '\\' => {
                let escaped = rest.get(at).copied().ok_or("a name without its closing quote")?;
                at += 1;
                name.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    '\\' | '"' | '\'' => escaped,
                    'u' => {
                        let close = rest[at..].iter().position(|&c| c == '}');
                        let end = at + close.ok_or("an escape without its closing brace")?;
                        let digits: String = rest[at..end].iter().skip(1).collect();
                        at = end + 1;
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        code.ok_or_else(|| format!("the escape `\\u{{{digits}}}`"))?
                    }
                    other => return Err(format!("the escape `\\{other}`")),
                });
            }
            other => name.push(other),
        }
    }
    Err("a name without its closing quote".to_string())
}

/// Goes through the tokens of a text.
pub(super) struct Reader<'a> {
    text: &'a str,
    tokens: Vec<(Token, Place)>,
    at: usize,
    /// Brackets that are open; between them the end of a line means nothing.
    open: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a graph: names begin with `%`, lines matter.
    pub(super) fn of_graph(text: &'a str) -> Result<Reader<'a>, ParseError> {
        Ok(Reader { text, tokens: tokens(text, true)?, at: 0, open: 0 })
    }

    /// A reader of a formula: `%` is an operator, lines do not matter.
    pub(super) fn of_formula(text: &'a str) -> Result<Reader<'a>, ParseError> {
        let mut tokens = tokens(text, false)?;
        tokens.retain(|(token, _)| *token != Token::Newline);
        Ok(Reader { text, tokens, at: 0, open: 0 })
    }

    /// Where reading stands, for [`Reader::return_to`].
    pub(super) fn position(&self) -> (usize, usize) {
        (self.at, self.open)
    }

    /// Goes back to where reading once stood.
    pub(super) fn return_to(&mut self, (at, open): (usize, usize)) {
        self.at = at;
        self.open = open;
    }

    /// Goes on behind the next token that is that word; stays if there is none.
    pub(super) fn seek_word(&mut self, word: &str) -> bool {
        let found =
            self.tokens[self.at..].iter().position(|(token, _)| matches!(token, Token::Word(w) if w == word));
        self.at += found.map_or(0, |offset| offset + 1);
        found.is_some()
    }

    fn skip_newlines(&mut self) {
        while self.open > 0 && self.tokens[self.at].0 == Token::Newline {
            self.at += 1;
        }
    }

    /// The next token, without taking it.
    pub(super) fn peek(&mut self) -> &Token {
        self.skip_newlines();
        &self.tokens[self.at].0
    }

    /// Where the next token stands.
    pub(super) fn place(&mut self) -> Place {
        self.skip_newlines();
        self.tokens[self.at].1
    }

    /// Takes the next token. The end is never passed.
    pub(super) fn take(&mut self) -> Token {
        self.skip_newlines();
        let token = self.tokens[self.at].0.clone();
        match token {
            Token::Sign("(" | "[" | "{") => self.open += 1,
            Token::Sign(")" | "]" | "}") => self.open = self.open.saturating_sub(1),
            Token::End => return token,
            Token::Sign(_)
            | Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Newline => {}
        }
        self.at += 1;
        token
    }

    /// Takes the next token if it is that sign.
    pub(super) fn takes(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if found {
            self.take();
        }
        found
    }

    /// Takes that sign, or fails.
    pub(super) fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.takes(sign) { Ok(()) } else { Err(self.unexpected(format!("`{sign}`"))) }
    }

    /// Takes the brace that opens a block of lines, or fails: unlike between brackets, in a block lines matter.
    pub(super) fn enter_block(&mut self) -> Result<(), ParseError> {
        self.expect("{")?;
        self.open -= 1;
        Ok(())
    }

    /// The error that something else should stand here.
    pub(super) fn unexpected(&mut self, expected: impl Into<String>) -> ParseError {
        let place = self.place();
        let found = self.peek().to_string();
        self.error(place, expected, found)
    }

    /// An error at a place.
    pub(super) fn error(
        &self,
        place: Place,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> ParseError {
        ParseError {
            line: place.line,
            column: place.column,
            expected: expected.into(),
            found: found.into(),
            text: self.text.lines().nth(place.line - 1).unwrap_or("").to_string(),
        }
    }
}
