//! Pieces of SVG: escaped text, text that fits, percentages, and the element around a picture.
//! It does not know what is drawn.
//!
//! Places across are percentages and places down are pixels, so that a picture takes whatever width there is and its
//! text keeps its size: on a phone as on a desk.

use std::fmt::Write as _;

/// Text that may stand in an element or in a quoted attribute. Marks that turn the direction of text are left out:
/// in a picture nothing would end their reach.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The width of text in units of the font's size, never too small for common fonts.
fn width(text: &str) -> f64 {
    let of = |c: char| match c {
        '\u{300}'..='\u{36f}' => 0.0,
        'i' | 'l' | 'I' | 'j' | 't' | 'f' | 'r' | ' ' | '.' | ',' | ':' | ';' | '|' | '!' | '\'' | '(' | ')' | '['
        | ']' => 0.36,
        'W' | 'M' | 'm' | 'w' | 'ш' | 'щ' | 'ж' | 'ю' | 'ы' | 'м' | 'Ш' | 'Щ' | 'Ж' | 'Ю' | 'Ы' | 'М' | '@' | '%' => {
            0.9
        }
        c if c.is_ascii_digit() || c.is_lowercase() => 0.57,
        c if c < '\u{1100}' => 0.7,
        _ => 1.05,
    };
    text.chars().map(of).sum()
}

/// The text, cut with an ellipsis where it is wider than so many pixels at this font size.
pub fn fit(text: &str, pixels: f64, size: f64) -> String {
    if width(text) * size <= pixels {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if (width(&out) + width(c.encode_utf8(&mut [0; 4])) + 0.8) * size > pixels {
            break;
        }
        out.push(c);
    }
    format!("{}…", out.trim_end())
}

/// A share as a percentage: `12.5%`.
pub fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A place inside a stretched field: `312.5`.
pub fn unit(share: f64) -> String {
    format!("{:.1}", share * 1000.0)
}

/// A number with the typographic minus.
pub fn minus(text: &str) -> String {
    text.replace('-', "−")
}

/// A remark as a sentence: with a capital and a full stop; nothing stays nothing.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

/// The element around a picture: read by its title and description, as one image.
pub fn frame(id: &str, title: &str, description: &str, height: f64, body: &str) -> String {
    // An id that holds nothing but these needs no quoting anywhere.
    let id: String = id.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg class=\"plot\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" width=\"100%\" height=\"{height:.0}\">\
         <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{body}</svg>",
        escape(title),
        escape(description)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        let escaped = escape("</text><script>\"'&\u{202e}\n");
        assert_eq!(escaped, "&lt;/text&gt;&lt;script&gt;&quot;&#39;&amp; ");
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(fit("LoRA r=4", 100.0, 13.0), "LoRA r=4");
        let cut = fit(&"Ш".repeat(500), 100.0, 13.0);
        assert!(cut.ends_with('…') && cut.chars().count() < 10, "{cut}");
        assert_eq!(fit("abc", 0.0, 13.0), "…");
    }

    #[test]
    fn shares_are_short() {
        assert_eq!([percent(0.125), percent(1.0), percent(0.0)], ["12.5%", "100%", "0%"]);
    }
}
