//! Percent-encoding: reversible, and one form for each text.

use bytes::{BufMut, BytesMut};

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `text`: bytes that are plain as they are, others as `%` and two upper case hexadecimal digits. `%` itself
/// must not be plain.
pub(crate) fn write(text: &str, is_plain: impl Fn(u8) -> bool, encoded: &mut BytesMut) {
    let mut rest = text.as_bytes();
    // Runs of plain bytes, which most texts consist of, are copied at once.
    while let Some(odd) = rest.iter().position(|byte| !is_plain(*byte)) {
        let byte = rest[odd];
        let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
        encoded.put_slice(&rest[..odd]);
        encoded.put_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        rest = &rest[odd + 1..];
    }
    encoded.put_slice(rest);
}

/// The text that [`write`] appends as `encoded`; `None` for what it never appends.
pub(crate) fn read(encoded: &str, is_plain: impl Fn(u8) -> bool) -> Option<String> {
    let mut text = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let decoded = digit(rest.next()?)? << 4 | digit(rest.next()?)?;
            if is_plain(decoded) {
                return None;
            }
            text.push(decoded);
        } else if is_plain(byte) {
            text.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(text).ok()
}

fn digit(byte: u8) -> Option<u8> {
    let value = DIGITS.iter().position(|digit| *digit == byte)?;
    u8::try_from(value).ok()
}
