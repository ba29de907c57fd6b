//! Prefixes of a text that are in a list: of pieces, and of the compiled replacements of a model file.
//! It does not know what is done with them.

use std::collections::BTreeMap;

/// Texts by their bytes.
#[derive(Debug, Default)]
pub struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Bytes that may follow, in order, each with its node.
    next: Vec<(u8, u32)>,
    value: Option<u32>,
}

impl Trie {
    /// Of these texts with their values.
    pub fn new<'a>(texts: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let mut trie = Self { nodes: vec![Node::default()] };
        // In order, so that each node's bytes come in order.
        let sorted: BTreeMap<&str, u32> = texts.into_iter().collect();
        for (text, value) in sorted {
            let mut at = 0;
            for byte in text.bytes() {
                at = match trie.nodes[at].next.last() {
                    Some((last, node)) if *last == byte => *node as usize,
                    _ => {
                        let node = trie.nodes.len();
                        trie.nodes.push(Node::default());
                        // No vocabulary that is read has 2³² bytes.
                        trie.nodes[at].next.push((byte, node as u32));
                        node
                    }
                };
            }
            trie.nodes[at].value = Some(value);
        }
        trie
    }

    /// Values of all prefixes of `bytes`, shortest first, with their lengths.
    pub fn prefixes<'t>(&'t self, bytes: &'t [u8]) -> impl Iterator<Item = (usize, u32)> + 't {
        let mut at = self.nodes.first();
        bytes
            .iter()
            .enumerate()
            .map_while(move |(i, byte)| {
                let node = at?;
                let found = node.next.binary_search_by_key(byte, |(byte, _)| *byte).ok()?;
                at = self.nodes.get(node.next[found].1 as usize);
                at.map(|node| node.value.map(|value| (i + 1, value)))
            })
            .flatten()
    }

    /// The value of exactly these bytes.
    pub fn get(&self, bytes: &[u8]) -> Option<u32> {
        let mut node = self.nodes.first()?;
        for byte in bytes {
            let found = node.next.binary_search_by_key(byte, |(byte, _)| *byte).ok()?;
            node = self.nodes.get(node.next[found].1 as usize)?;
        }
        node.value
    }

    /// The longest prefix of `bytes`.
    pub fn longest(&self, bytes: &[u8]) -> Option<usize> {
        self.prefixes(bytes).map(|(length, _)| length).last()
    }
}

/// A compiled list of replacements: a double array (`darts-clone`) and the texts that replace, as
/// `Normalizer::DecodePrecompiledCharsMap` reads them.
#[derive(Debug)]
pub struct CharsMap {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl CharsMap {
    /// Reads the bytes of a model file; `None` if they are not such a list.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (units, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let (units, left) = units.as_chunks::<4>();
        let whole = left.is_empty() && !units.is_empty() && texts.last() == Some(&0);
        whole.then(|| Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            texts: texts.to_vec(),
        })
    }

    /// The longest beginning of `bytes` that is replaced: its length, and what comes instead.
    pub fn longest(&self, bytes: &[u8]) -> Option<(usize, &str)> {
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (i, byte) in bytes.iter().enumerate() {
            at ^= usize::from(*byte);
            let Some(&unit) = self.units.get(at) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(*byte) {
                break;
            }
            at ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.units.get(at)? & !(1 << 31);
                found = Some((i + 1, value as usize));
            }
        }
        let (length, start) = found?;
        let text = self.texts.get(start..)?;
        let text = &text[..text.iter().position(|byte| *byte == 0)?];
        Some((length, std::str::from_utf8(text).ok()?))
    }
}
