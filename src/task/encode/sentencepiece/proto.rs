//! The parts of a SentencePiece model file that encoding and decoding need, read from its protocol buffer.
//! It does not know how they are used. Field numbers are those of `sentencepiece_model.proto` (SentencePiece 0.2).

use crate::error::{Problem, Result};

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// What stands for text that has no piece.
    Unknown,
    /// A mark that text never becomes, such as `<s>`.
    Control,
    /// Text that is always a piece of its own.
    UserDefined,
    /// Text that is merged but never comes out.
    Unused,
    /// A byte: `<0x0A>`.
    Byte,
}

/// A piece of the vocabulary; its place in the list is its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Its text.
    pub text: String,
    /// Its score: log-probability, or minus the number of its merge.
    pub score: f32,
    /// What it is.
    pub kind: Kind,
}

/// How text is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// The likeliest division.
    Unigram,
    /// The best merge first.
    Bpe,
}

/// A model file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The vocabulary.
    pub pieces: Vec<Piece>,
    /// How text is divided.
    pub algorithm: Algorithm,
    /// True if unknown text becomes bytes.
    pub byte_fallback: bool,
    /// True if spaces end words instead of beginning them.
    pub space_as_suffix: bool,
    /// Replacements before encoding, compiled; empty if there are none.
    pub charsmap: Vec<u8>,
    /// True if a space goes before the text.
    pub dummy_prefix: bool,
    /// True if spaces are taken from both ends and runs of them become one.
    pub remove_extra_spaces: bool,
    /// True if spaces become `▁`.
    pub escape_spaces: bool,
}

/// A field's value.
enum Value<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
}

impl Model {
    /// Reads a model file; the problem says what is wrong with its bytes.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            space_as_suffix: false,
            charsmap: Vec::new(),
            dummy_prefix: true,
            remove_extra_spaces: true,
            escape_spaces: true,
        };
        each(bytes, &mut |field, value| match (field, value) {
            (1, Value::Bytes(piece)) => {
                model.pieces.push(read_piece(piece)?);
                Ok(())
            }
            (2, Value::Bytes(trainer)) => model.read_trainer(trainer),
            (3, Value::Bytes(normalizer)) => model.read_normalizer(normalizer),
            _ => Ok(()),
        })?;
        let unknown = model.pieces.iter().filter(|piece| piece.kind == Kind::Unknown).count();
        if unknown != 1 {
            return Err(Problem::new(format!("it has {unknown} pieces for unknown text")).expected("one"));
        }
        if model.byte_fallback && model.bytes().is_none() {
            return Err(Problem::new("it lacks pieces for bytes").expected("`<0x00>` to `<0xFF>`"));
        }
        Ok(model)
    }

    /// The ids of the pieces for all bytes, if all are there.
    pub fn bytes(&self) -> Option<Vec<u32>> {
        let mut ids = vec![None; 256];
        for (id, piece) in self.pieces.iter().enumerate().filter(|(_, piece)| piece.kind == Kind::Byte) {
            ids[usize::from(byte(&piece.text)?)] = u32::try_from(id).ok();
        }
        ids.into_iter().collect()
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Result<()> {
        each(bytes, &mut |field, value| {
            match (field, value) {
                (3, Value::Number(kind)) => {
                    self.algorithm = match kind {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => return Err(Problem::new("its model type is WORD, which is not read")),
                        4 => return Err(Problem::new("its model type is CHAR, which is not read")),
                        _ => return Err(Problem::new(format!("its model type {kind} is not known"))),
                    }
                }
                (24, Value::Number(flag)) => self.space_as_suffix = flag != 0,
                (35, Value::Number(flag)) => self.byte_fallback = flag != 0,
                _ => {}
            }
            Ok(())
        })
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        each(bytes, &mut |field, value| {
            match (field, value) {
                (2, Value::Bytes(map)) => self.charsmap = map.to_vec(),
                (3, Value::Number(flag)) => self.dummy_prefix = flag != 0,
                (4, Value::Number(flag)) => self.remove_extra_spaces = flag != 0,
                (5, Value::Number(flag)) => self.escape_spaces = flag != 0,
                _ => {}
            }
            Ok(())
        })
    }
}

/// The byte of `<0x0A>`.
pub fn byte(piece: &str) -> Option<u8> {
    u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}

fn read_piece(bytes: &[u8]) -> Result<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    each(bytes, &mut |field, value| {
        match (field, value) {
            (1, Value::Bytes(text)) => piece.text = utf8(text)?,
            (2, Value::Float(score)) if score.is_finite() => piece.score = score,
            (2, _) => return Err(Problem::new("the score of a piece is not a number")),
            (3, Value::Number(kind)) => {
                piece.kind = match kind {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    _ => return Err(Problem::new(format!("the kind {kind} of a piece is not known"))),
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    if piece.text.is_empty() {
        return Err(Problem::new("a piece is empty"));
    }
    Ok(piece)
}

fn utf8(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::new("a piece is not UTF-8"))
}

/// Calls `take` with each field of a message.
fn each(mut bytes: &[u8], take: &mut dyn FnMut(u64, Value<'_>) -> Result<()>) -> Result<()> {
    let cut = || Problem::new("it ends in the middle of a field");
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => {
                bytes = bytes.get(8..).ok_or_else(cut)?;
                continue;
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| cut())?;
                let (value, rest) = bytes.split_at_checked(length).ok_or_else(cut)?;
                bytes = rest;
                Value::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
                bytes = rest;
                Value::Float(f32::from_le_bytes(*value))
            }
            kind => return Err(Problem::new(format!("a field has the wire type {kind}"))),
        };
        take(key >> 3, value)?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| Problem::new("it ends in the middle of a number"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Problem::new("a number is longer than 64 bits"))
}
