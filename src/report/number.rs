//! Numbers as Python reads and writes them: `float("1_000")`, `repr(1e16)`, `format(x, ".4f")`.
//! It does not know tables. Source of the rules: Python's "Format Specification Mini-Language".

/// A parsed format specification: `[[fill]align][sign][z][0][width][grouping][.precision][type]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    fill: char,
    align: Option<char>,
    sign: char,
    no_negative_zero: bool,
    width: usize,
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// The widest number that a format may ask for, so that a format cannot ask for all memory.
const LIMIT: usize = 1000;

impl Format {
    /// Reads a specification; `None` if it is not one, or asks for more than 1000 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
        let (mut fill, mut align) = (' ', None);
        if is_align(chars.get(1)) {
            (fill, align, at) = (chars[0], Some(chars[1]), 2);
        } else if is_align(chars.first()) {
            (align, at) = (Some(chars[0]), 1);
        }
        let mut take = |wanted: &[char]| {
            let found = chars.get(at).copied().filter(|c| wanted.contains(c));
            at += usize::from(found.is_some());
            found
        };
        let sign = take(&['+', '-', ' ']).unwrap_or('-');
        let no_negative_zero = take(&['z']).is_some();
        if take(&['0']).is_some() && align.is_none() {
            (fill, align) = ('0', Some('='));
        }
        let digits = |at: &mut usize| -> Option<Option<usize>> {
            let start = *at;
            while chars.get(*at).is_some_and(char::is_ascii_digit) {
                *at += 1;
            }
            let text: String = chars[start..*at].iter().collect();
            if text.is_empty() { Some(None) } else { text.parse().ok().filter(|n| *n <= LIMIT).map(Some) }
        };
        let width = digits(&mut at)?.unwrap_or(0);
        let grouping = chars.get(at).copied().filter(|c| matches!(c, ',' | '_'));
        at += usize::from(grouping.is_some());
        let mut precision = None;
        if chars.get(at) == Some(&'.') {
            at += 1;
            precision = Some(digits(&mut at)??);
        }
        let kind = chars.get(at).copied();
        at += usize::from(kind.is_some());
        let known = kind.is_none_or(|kind| "eEfFgGn%d".contains(kind));
        (at == chars.len() && known).then_some(Self {
            fill,
            align,
            sign,
            no_negative_zero,
            width,
            grouping,
            precision,
            kind,
        })
    }

    /// `format(value, spec)` of a float; `None` where Python raises `ValueError`.
    pub fn float(&self, value: f64) -> Option<String> {
        if self.kind == Some('d') {
            return None;
        }
        let kind = self.kind.unwrap_or(' ');
        let scaled = if kind == '%' { value * 100.0 } else { value };
        let magnitude = scaled.abs();
        let mut body = if magnitude.is_nan() {
            "nan".to_owned()
        } else if magnitude.is_infinite() {
            "inf".to_owned()
        } else {
            match kind {
                'f' | 'F' | '%' => format!("{magnitude:.*}", self.precision.unwrap_or(6)),
                'e' | 'E' => scientific(magnitude, self.precision.unwrap_or(6)),
                'g' | 'G' | 'n' => general(magnitude, self.precision.unwrap_or(6), false),
                _ => match self.precision {
                    None => repr(magnitude),
                    Some(precision) => general(magnitude, precision, true),
                },
            }
        };
        let vanishes = !body.split(['e', 'E']).next().unwrap_or("").contains(|c: char| ('1'..='9').contains(&c));
        let negative = scaled.is_sign_negative()
            && !scaled.is_nan()
            && !(self.no_negative_zero && vanishes && magnitude.is_finite());
        if kind == '%' {
            body.push('%');
        }
        if matches!(kind, 'E' | 'G' | 'F') {
            body = body.to_uppercase();
        }
        Some(self.finish(negative, &body))
    }

    /// `format(value, spec)` of an integer; `None` where Python raises `ValueError`.
    pub fn integer(&self, value: i128) -> Option<String> {
        match self.kind {
            None | Some('d' | 'n') if self.precision.is_some() || self.no_negative_zero => None,
            None | Some('d' | 'n') => Some(self.finish(value < 0, &value.unsigned_abs().to_string())),
            Some(_) => self.float(value as f64),
        }
    }

    /// Puts sign, grouping and padding around the digits of a magnitude.
    fn finish(&self, negative: bool, body: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            (false, _) => "",
        };
        let whole = body.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = body.split_at(whole);
        let align = self.align.unwrap_or('>');
        let zeros = self.fill == '0' && align == '=';
        let mut digits = self.grouped(whole);
        if zeros && self.grouping.is_some() && !whole.is_empty() {
            // Python fills with grouped zeros: format(1234, "08,d") == "0,001,234"... up to the width.
            let mut padded = whole.to_owned();
            while sign.len() + digits.chars().count() + rest.chars().count() < self.width {
                padded.insert(0, '0');
                digits = self.grouped(&padded);
            }
        }
        let missing = self.width.saturating_sub(sign.len() + digits.chars().count() + rest.chars().count());
        let fill = |n: usize| self.fill.to_string().repeat(n);
        match align {
            '<' => format!("{sign}{digits}{rest}{}", fill(missing)),
            '^' => format!("{}{sign}{digits}{rest}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{sign}{}{digits}{rest}", fill(missing)),
            _ => format!("{}{sign}{digits}{rest}", fill(missing)),
        }
    }

    fn grouped(&self, digits: &str) -> String {
        let Some(separator) = self.grouping else { return digits.to_owned() };
        let mut out = String::new();
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push(separator);
            }
            out.push(c);
        }
        out
    }
}

/// `{magnitude:.{precision}e}`: one digit, the point, at least two digits of exponent.
fn scientific(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (mantissa, exponent) = split_exponent(&text);
    format!("{mantissa}{}", exponent_text(exponent))
}

/// `{magnitude:.{precision}g}`: significant digits, without trailing zeros. With `float_like`, the form of
/// a float without a type: at least one digit after the point.
fn general(magnitude: f64, precision: usize, float_like: bool) -> String {
    let precision = precision.max(1);
    let text = format!("{magnitude:.*e}", precision - 1);
    let (mantissa, exponent) = split_exponent(&text);
    let digits = i32::try_from(precision).unwrap_or(i32::MAX);
    let limit = if float_like { digits - 1 } else { digits };
    if exponent < -4 || exponent >= limit {
        return format!("{}{}", trim_zeros(mantissa), exponent_text(exponent));
    }
    let after = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    let fixed = format!("{magnitude:.after$}");
    let trimmed = trim_zeros(&fixed);
    if float_like && !trimmed.contains('.') { format!("{trimmed}.0") } else { trimmed.to_owned() }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn split_exponent(text: &str) -> (&str, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (mantissa, exponent.parse().unwrap_or(0))
}

fn exponent_text(exponent: i32) -> String {
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `repr(value)`: the shortest digits that read back as the same number.
pub fn repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shortest = format!("{value:e}");
    let digits = shortest.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    // Of two shortest forms equally near, Python takes the even one; the exact formatter does the same.
    let even = format!("{value:.*e}", digits.saturating_sub(1));
    let text = if even.parse() == Ok(value) { even } else { shortest };
    let (mantissa, exponent) = split_exponent(&text);
    if !(-4..16).contains(&exponent) {
        return format!("{mantissa}{}", exponent_text(exponent));
    }
    let after = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
    format!("{value:.*}", usize::try_from(after.max(1)).unwrap_or(1))
}

/// What `str.strip` takes away.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// `float(text)`: sign, underscores between digits, exponent, `inf`, `infinity`, `nan`, in ASCII.
pub fn read_float(text: &str) -> Option<f64> {
    let text = plain_digits(strip(text))?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let word = unsigned.to_ascii_lowercase();
    let is_word = matches!(word.as_str(), "inf" | "infinity" | "nan");
    let starts = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if is_word || starts { text.parse().ok() } else { None }
}

/// True if `int(text)` succeeds.
pub fn is_integer(text: &str) -> bool {
    let Some(text) = plain_digits(strip(text)) else { return false };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The text without the underscores that Python allows between two digits.
fn plain_digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_digit);
    let legal = (0..bytes.len()).all(|i| bytes[i] != b'_' || (digit(i.checked_sub(1)) && digit(Some(i + 1))));
    legal.then(|| text.replace('_', ""))
}

/// True for `1,000` and `-12,345.67`: tabulate's `_float_with_thousands_separators`.
pub fn has_thousands(text: &str) -> bool {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !fraction.is_none_or(all_digits) {
        return false;
    }
    if whole.is_empty() {
        // Only a whole part carries a sign, and without one the fraction must have digits.
        return unsigned.len() == text.len() && fraction.is_none_or(|f| !f.is_empty());
    }
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or("");
    (1..=3).contains(&first.len()) && all_digits(first) && groups.all(|g| g.len() == 3 && all_digits(g))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(spec: &str, value: f64) -> String {
        Format::parse(spec).and_then(|format| format.float(value)).unwrap_or_else(|| "refused".to_owned())
    }

    #[test]
    fn floats_are_formatted_as_python_does() {
        for (spec, value, expected) in [
            ("g", 0.305_555_555_555_555_6, "0.305556"),
            ("g", 1_000_000.0, "1e+06"),
            ("g", 0.000_01, "1e-05"),
            ("g", -0.0, "-0"),
            (".0f", 2.5, "2"),
            (".2f", 1.005, "1.00"),
            (".2%", 0.123_45, "12.35%"),
            ("+.1e", 12_345.0, "+1.2e+04"),
            ("08.2f", -2.345_6, "-0002.35"),
            ("z.1f", -0.01, "0.0"),
            (",.1f", 1_234_567.89, "1,234,567.9"),
            (".3", 1_234.0, "1.23e+03"),
            ("", 1e16, "1e+16"),
            ("*^9.1f", 0.5, "***0.5***"),
            ("G", f64::INFINITY, "INF"),
            ("d", 1.0, "refused"),
            ("?", 1.0, "refused"),
            ("99999f", 1.0, "refused"),
        ] {
            assert_eq!(float(spec, value), expected, "format({value}, {spec:?})");
        }
    }

    #[test]
    fn integers_are_formatted_as_python_does() {
        let integer = |spec: &str, value| Format::parse(spec).and_then(|format| format.integer(value));
        assert_eq!(integer(",", -1_234_567).as_deref(), Some("-1,234,567"));
        assert_eq!(integer("05d", 42).as_deref(), Some("00042"));
        assert_eq!(integer(".1f", 2).as_deref(), Some("2.0"));
        assert_eq!(integer(".1", 2), None);
    }

    #[test]
    fn texts_that_python_reads_as_numbers() {
        for text in ["1_000", " 7 ", "+5", "007"] {
            assert!(is_integer(text), "{text}");
        }
        for text in ["", "1.0", "1__0", "_1", "0x10", "1e5"] {
            assert!(!is_integer(text), "{text}");
        }
        assert_eq!(read_float("-1_0.5e2"), Some(-1050.0));
        assert_eq!(read_float("Infinity"), Some(f64::INFINITY));
        for text in ["", ".", "e5", "1e", "in", "1,5"] {
            assert_eq!(read_float(text), None, "{text}");
        }
        assert!(has_thousands("-1,234.5") && has_thousands(".5"));
        assert!(!has_thousands("12,34") && !has_thousands("-.5") && !has_thousands("1,0000"));
    }

    #[test]
    fn repr_is_the_shortest_form() {
        for (value, expected) in [(0.1, "0.1"), (5.0, "5.0"), (1e22, "1e+22"), (0.0001, "0.0001"), (0.000_01, "1e-05")]
        {
            assert_eq!(repr(value), expected);
        }
    }
}
