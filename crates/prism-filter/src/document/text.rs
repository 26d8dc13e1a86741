//! Canonical JSON text: compact, keys in order of bytes, one spelling for each value.

use std::fmt::Arguments;

use super::layout::{self, Raw};

/// 2^63: doubles below it in magnitude that are whole are written as integers.
const INTEGERS_BELOW: f64 = 9_223_372_036_854_775_808.0;

/// Appends the text of a value.
pub(crate) fn write(out: &mut Vec<u8>, value: Raw<'_>) {
    match value.tag() {
        layout::NULL => out.extend_from_slice(b"null"),
        layout::FALSE => out.extend_from_slice(b"false"),
        layout::TRUE => out.extend_from_slice(b"true"),
        layout::NUMBER => write_number(out, value.number().unwrap_or_default()),
        layout::STRING => write_string(out, value.text().unwrap_or_default()),
        _ => write_container(out, value),
    }
}

/// The integer that a number is, unless it has a fraction or is too large to be written as one.
pub(crate) fn integer(number: f64) -> Option<i64> {
    (number.trunc() == number && number.abs() < INTEGERS_BELOW).then_some(number as i64)
}

fn write_container(out: &mut Vec<u8>, value: Raw<'_>) {
    if let Some(elements) = value.elements() {
        out.push(b'[');
        for (index, element) in elements.iter().enumerate() {
            separate(out, index);
            write(out, element);
        }
        out.push(b']');
    } else if let Some(fields) = value.fields() {
        out.push(b'{');
        for (index, (key, value)) in fields.iter().enumerate() {
            separate(out, index);
            write_string(out, key);
            out.push(b':');
            write(out, value);
        }
        out.push(b'}');
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_number(out: &mut Vec<u8>, number: f64) {
    match integer(number) {
        Some(integer) => append(out, format_args!("{integer}")),
        // The shortest digits that read back as this number, with an exponent where that is shorter.
        None => append(out, format_args!("{number:?}")),
    }
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    // Without an early end, so that it looks at many bytes at a time; most texts have nothing to escape.
    if !text.iter().fold(false, |found, &byte| found | is_escaped(byte)) {
        out.extend_from_slice(text);
        return out.push(b'"');
    }
    let mut written = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !is_escaped(byte) {
            continue;
        }
        out.extend_from_slice(&text[written..at]);
        written = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => append(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.extend_from_slice(&text[written..]);
    out.push(b'"');
}

fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

fn append(out: &mut Vec<u8>, text: Arguments<'_>) {
    // Writing to a `Vec` does not fail.
    let _ = std::io::Write::write_fmt(out, text);
}
