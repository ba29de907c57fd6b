//! A table as data: what templates hand to `grid` or `markdown_table`.
//! It does not know how it is drawn.

use serde::Serialize;
use serde_json::Value;

/// Headers, and rows of texts, numbers or nothing (`null`).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sheet {
    /// One for each column.
    pub headers: Vec<String>,
    /// As many cells in each as there are headers.
    pub rows: Vec<Vec<Value>>,
}

impl Sheet {
    /// Rows become columns; the corner stays.
    #[must_use]
    pub fn transposed(&self, corner: &str) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mut headers = vec![corner.to_owned()];
        headers.extend(self.rows.iter().filter_map(|row| row.first()).map(text));
        let rows = self.headers.iter().enumerate().skip(1).map(|(c, header)| {
            let mut row = vec![Value::from(header.as_str())];
            row.extend(self.rows.iter().map(|cells| cells.get(c).cloned().unwrap_or(Value::Null)));
            row
        });
        Self { headers, rows: rows.collect() }
    }
}
