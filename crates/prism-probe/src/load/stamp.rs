//! What a payload says of itself.

use std::{fmt, time::Duration};

/// The first word of every payload.
const MARK: &str = "prism-load";

/// One run, told from all others; it is in the identities and in the payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run(u32);

impl Run {
    /// One that nobody else has. Not from a seed: the same load a second time is another run.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// The name of an identity of this run.
    pub(crate) fn name(self, number: u32) -> String {
        format!("load-{self}-{number:06}")
    }

    /// Which of this run's identities has that name.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let (run, number) = name.strip_prefix("load-")?.split_once('-')?;
        (u32::from_str_radix(run, 16) == Ok(self.0)).then(|| number.parse().ok())?
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// By which a subscriber knows what it has received, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: Run,
    /// Which multicast of the run.
    pub(crate) number: u32,
    /// When it was due, counted from the beginning of the run.
    pub(crate) due: Duration,
}

impl Stamp {
    /// As a payload of at least so many bytes.
    pub(crate) fn payload(&self, bytes: usize) -> Vec<u8> {
        let text = format!("{MARK} {} {} {} ", self.run, self.number, self.due.as_nanos());
        let mut payload = text.into_bytes();
        payload.resize(payload.len().max(bytes), b'.');
        payload
    }

    /// What a payload says; `None` for one that is not of a load.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let mut words = payload.splitn(5, |byte| *byte == b' ');
        let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        if word()? != MARK {
            return None;
        }
        Some(Self {
            run: Run(u32::from_str_radix(word()?, 16).ok()?),
            number: word()?.parse().ok()?,
            due: Duration::from_nanos(word()?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let stamp = Stamp {
            run: Run(0x1a2b),
            number: 77,
            due: Duration::from_micros(1_500_001),
        };
        for bytes in [0, 64, 4_096] {
            let payload = stamp.payload(bytes);
            assert!(payload.len() >= bytes);
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
        for other in [
            &b""[..],
            b"hello",
            b"prism-load x y z",
            b"prism-load 1 2",
            b"\xff \xff",
        ] {
            assert_eq!(Stamp::read(other), None);
        }
    }

    #[test]
    fn names_are_numbers_of_their_run_only() {
        let run = Run(0xbeef);
        assert_eq!(run.name(12), "load-0000beef-000012");
        for number in [0, 12, 1_000_000] {
            assert_eq!(run.number(&run.name(number)), Some(number));
        }
        assert_eq!(run.number(&Run(1).name(12)), None);
        assert_eq!(run.number("alice"), None);
    }
}
