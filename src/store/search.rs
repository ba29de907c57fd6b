//! Records of one step kind, whatever their keys: what a step that never ran is compared with.
//! It does not know which of them is wanted.

use std::fs;

use super::{Record, Store};

impl Store {
    /// Hands every sound record of a kind to `each`, in the order of the keys; after `most` records of any kind it
    /// stops. What cannot be read is left out.
    pub fn records_of(&self, kind: &str, most: usize, mut each: impl FnMut(Record)) {
        let names = |folder: &std::path::Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            paths
        };
        // Most records are of other kinds, and are not worth being taken apart.
        let wanted = format!("\"kind\":{}", serde_json::Value::from(kind));
        let folders = names(&self.root().join("records"));
        for file in folders.iter().flat_map(|folder| names(folder)).take(most) {
            let Ok(text) = fs::read(&file) else { continue };
            if !text.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                continue;
            }
            if let Ok(record) = Record::parse(&text)
                && record.manifest["kind"] == kind
            {
                each(record);
            }
        }
    }
}
