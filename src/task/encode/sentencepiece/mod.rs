//! SentencePiece's `tokenizer.model`: unigram and BPE, byte fallback, normalisation, spaces, exactly as its own
//! library divides a text. It does not know special tokens in texts, prompts or models.
//!
//! The library itself is C++ built by CMake, its ports to Rust are young and hardly used, and a translation into a
//! pipeline of `tokenizers` (as transformers makes it) differs where replacements cross graphemes and where merges
//! have equal scores. `tests/sentencepiece` holds what the library answers.

mod bpe;
mod normalize;
mod proto;
mod trie;
mod unigram;

use crate::error::Result;
use normalize::{Normalizer, SPACE};
use proto::{Algorithm, Kind, Model, Piece};
use trie::Trie;

/// A model that encodes and decodes.
#[derive(Debug)]
pub struct SentencePiece {
    vocabulary: Vocabulary,
    normalizer: Normalizer,
    algorithm: Algorithm,
    /// Ids of all bytes, where unknown text becomes bytes.
    bytes: Option<Vec<u32>>,
}

/// What dividing needs to know of the pieces.
#[derive(Debug)]
struct Vocabulary {
    pieces: Vec<Piece>,
    /// Pieces that text may become: normal, the user's own, unused.
    trie: Trie,
    /// The user's own.
    own: Trie,
    unknown: u32,
    lowest: f32,
}

impl Vocabulary {
    fn score(&self, id: u32) -> f32 {
        self.pieces[id as usize].score
    }

    fn is_unused(&self, id: u32) -> bool {
        self.pieces[id as usize].kind == Kind::Unused
    }

    fn is_own(&self, id: u32) -> bool {
        self.pieces[id as usize].kind == Kind::UserDefined
    }
}

impl SentencePiece {
    /// Reads the bytes of a model file. `dummy_prefix` overrides whether a space goes in front of a text.
    pub fn read(bytes: &[u8], dummy_prefix: Option<bool>) -> Result<Self> {
        let mut model = Model::read(bytes)?;
        model.dummy_prefix = dummy_prefix.unwrap_or(model.dummy_prefix);
        let of = |kinds: &[Kind]| {
            let pieces = (0..).zip(&model.pieces).filter(|(_, piece)| kinds.contains(&piece.kind));
            Trie::new(pieces.map(|(id, piece)| (piece.text.as_str(), id)))
        };
        let own = || of(&[Kind::UserDefined]);
        let scores = || model.pieces.iter().filter(|piece| piece.kind == Kind::Normal).map(|piece| piece.score);
        Ok(Self {
            normalizer: Normalizer::new(&model, own())?,
            algorithm: model.algorithm,
            bytes: if model.byte_fallback { model.bytes() } else { None },
            vocabulary: Vocabulary {
                trie: of(&[Kind::Normal, Kind::UserDefined, Kind::Unused]),
                own: own(),
                unknown: (0..)
                    .zip(&model.pieces)
                    .find(|(_, piece)| piece.kind == Kind::Unknown)
                    .map_or(0, |(id, _)| id),
                lowest: scores().fold(f32::MAX, f32::min),
                pieces: model.pieces,
            },
        })
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.vocabulary.pieces.len()
    }

    /// The id of a piece.
    pub fn id(&self, text: &str) -> Option<u32> {
        (0..).zip(&self.vocabulary.pieces).find(|(_, piece)| piece.text == text).map(|(id, _)| id)
    }

    /// Marks that text never becomes, with their ids: control pieces, and that for unknown text.
    pub fn special(&self) -> impl Iterator<Item = (u32, &str)> {
        let pieces = (0..).zip(&self.vocabulary.pieces);
        let special = pieces.filter(|(_, piece)| matches!(piece.kind, Kind::Control | Kind::Unknown));
        special.map(|(id, piece)| (id, piece.text.as_str()))
    }

    /// Ids of a text; `prefix` is false for a text that goes on, before which no space is put.
    pub fn encode(&self, text: &str, prefix: bool) -> Vec<u32> {
        let text = self.normalizer.normalize(text, prefix);
        let parts = match self.algorithm {
            Algorithm::Unigram => unigram::divide(&text, &self.vocabulary),
            Algorithm::Bpe => bpe::divide(&text, &self.vocabulary),
        };
        let mut ids = Vec::with_capacity(parts.len());
        for part in parts {
            match (self.vocabulary.trie.get(&text.as_bytes()[part.clone()]), &self.bytes) {
                (Some(id), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(text[part].bytes().map(|byte| bytes[usize::from(byte)])),
                // A run of unknown text is one piece.
                (None, None) if ids.last() == Some(&self.vocabulary.unknown) => {}
                (None, None) => ids.push(self.vocabulary.unknown),
            }
        }
        ids
    }

    /// The text of ids; special ones, and those that are not in the vocabulary, are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let (mut beginning, mut space_taken) = (true, false);
        for id in ids {
            let Some(piece) = self.vocabulary.pieces.get(*id as usize) else { continue };
            match piece.kind {
                Kind::Control | Kind::Unknown => continue,
                Kind::Byte => {
                    bytes.extend(proto::byte(&piece.text));
                    continue;
                }
                Kind::Normal | Kind::UserDefined | Kind::Unused => {}
            }
            flush(&mut bytes, &mut text);
            beginning = beginning && !space_taken && text.is_empty();
            let mut piece = piece.text.as_str();
            if beginning && (self.normalizer.has_dummy_prefix() || self.normalizer.removes_extra_spaces()) {
                let rest = piece.strip_prefix(SPACE);
                // Where extra spaces are removed, all at the beginning are.
                space_taken = rest.is_some() && !self.normalizer.removes_extra_spaces();
                piece = rest.unwrap_or(piece);
            }
            text.push_str(&piece.replace(SPACE, " "));
        }
        flush(&mut bytes, &mut text);
        text
    }
}

/// Bytes become text; one that is no part of a character becomes `U+FFFD` by itself.
fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(good) => {
                text.push_str(good);
                break;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(good));
                text.push(char::REPLACEMENT_CHARACTER);
                rest = bad.get(1..).unwrap_or_default();
            }
        }
    }
    bytes.clear();
}
