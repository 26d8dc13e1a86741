//! Versions, as Semantic Versioning 2.0.0 writes and orders them.
//!
//! The `semver` crate copies every pre-release and build of more than eight bytes to the heap, which a filter
//! would pay for each record that it asks. So this reads versions where they lie; that crate is the
//! reference in the tests.

use std::{borrow::Cow, cmp::Ordering};

/// A version, ordered by precedence: two that differ in their build metadata only are equal.
///
/// ```
/// # use prism_filter::notation::Version;
/// let version = |text| Version::parse(text).ok_or("not a version");
/// assert!(version("1.10.0-rc.2")? < version("1.10.0-rc.10")?);
/// assert!(version("1.10.0-rc.10")? < version("1.10.0")?);
/// assert_eq!(version("1.10.0+build.7")?, version("1.10.0")?);
/// assert!(Version::parse("1.10").is_none() && Version::parse("v1.10.0").is_none());
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone)]
pub struct Version<'a> {
    core: [u64; 3],
    /// Empty in a release.
    pre: Cow<'a, [u8]>,
}

impl<'a> Version<'a> {
    /// Reads a version; `None` for anything else. Each of the three numbers must fit into 64 bits.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::of(text.as_bytes())
    }

    pub(crate) fn of(text: &'a [u8]) -> Option<Self> {
        let (version, build) = split_once(text, b'+');
        let (core, pre) = split_once(version, b'-');
        let core = numbers(core)?;
        let known = build.is_none_or(|build| identifiers(build, |_| true))
            && pre.is_none_or(|pre| identifiers(pre, |one| !is_number(one) || is_canonical(one)));
        let pre = Cow::Borrowed(pre.unwrap_or_default());
        known.then_some(Self { core, pre })
    }

    /// The same apart from its text.
    pub fn into_owned(self) -> Version<'static> {
        let pre = Cow::Owned(self.pre.into_owned());
        Version { core: self.core, pre }
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_core = self.core.cmp(&other.core);
        by_core.then_with(|| compare_pre(&self.pre, &other.pre))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version<'_> {}

/// A release comes after all that lead to it.
fn compare_pre(one: &[u8], other: &[u8]) -> Ordering {
    match (one, other) {
        ([], []) => Ordering::Equal,
        ([], _) => Ordering::Greater,
        (_, []) => Ordering::Less,
        _ => parts(one).map(Rank::of).cmp(parts(other).map(Rank::of)),
    }
}

/// One identifier of a pre-release, as it is ordered: numbers, by value, before everything else.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    /// Without leading zeros, the longer of two numbers is the greater.
    Number(usize, &'a [u8]),
    Text(&'a [u8]),
}

impl<'a> Rank<'a> {
    fn of(identifier: &'a [u8]) -> Self {
        if is_number(identifier) {
            Self::Number(identifier.len(), identifier)
        } else {
            Self::Text(identifier)
        }
    }
}

fn numbers(core: &[u8]) -> Option<[u64; 3]> {
    let mut numbers = parts(core).map(number);
    let core = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(core)
}

fn number(digits: &[u8]) -> Option<u64> {
    if !is_number(digits) || !is_canonical(digits) {
        return None;
    }
    let mut digits = digits.iter().map(|digit| u64::from(digit - b'0'));
    digits.try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(digit))
}

fn is_number(identifier: &[u8]) -> bool {
    !identifier.is_empty() && identifier.iter().all(u8::is_ascii_digit)
}

/// Whether a number has no leading zeros.
fn is_canonical(number: &[u8]) -> bool {
    number.len() == 1 || number.first() != Some(&b'0')
}

fn identifiers(text: &[u8], is_allowed: impl Fn(&[u8]) -> bool) -> bool {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    parts(text).all(|one| !one.is_empty() && one.iter().all(known) && is_allowed(one))
}

fn parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'.')
}

fn split_once(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, text) {
        Some(index) => (&text[..index], Some(&text[index + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// As the specification orders them, each before the next.
    const ASCENDING: [&str; 11] = [
        "0.0.0-0",
        "0.0.0",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.9.0",
        "1.10.0",
    ];

    #[test]
    fn versions_are_ordered_as_specified() {
        for (at, one) in ASCENDING.iter().enumerate() {
            for (other_at, other) in ASCENDING.iter().enumerate() {
                let order = Version::parse(one).unwrap().cmp(&Version::parse(other).unwrap());
                assert_eq!(order, at.cmp(&other_at), "{one} and {other}");
            }
        }
    }

    fn texts() -> impl Strategy<Value = String> {
        let parts = vec![
            "0",
            "1",
            "2",
            "10",
            "01",
            "",
            "a",
            "b1",
            "0a",
            "-",
            "rc",
            "18446744073709551615",
            "18446744073709551616",
        ];
        let core = prop::collection::vec(select(parts.clone()), 2..5).prop_map(|parts| parts.join("."));
        let tail = prop::option::weighted(0.6, prop::collection::vec(select(parts), 1..4));
        let tail = tail.prop_map(|parts| parts.map(|parts| parts.join(".")));
        let written = (core, tail.clone(), tail).prop_map(|(core, pre, build)| {
            let pre = pre.map(|pre| format!("-{pre}")).unwrap_or_default();
            let build = build.map(|build| format!("+{build}")).unwrap_or_default();
            core + &pre + &build
        });
        let small = "[01]\\.[01]\\.[01](-[0-2a]{1,2}(\\.[0-2a]{1,2})?)?(\\+[a0]{1,2})?";
        prop_oneof![4 => small, 3 => written, 1 => "\\PC{0,12}", 1 => "[0-9.+a-]{0,12}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn versions_are_read_and_ordered_like_the_reference(one in texts(), other in texts()) {
            let reference = |text: &str| semver::Version::parse(text).ok();
            let read = |text| Version::parse(text);
            prop_assert_eq!(read(&one).is_some(), reference(&one).is_some(), "{}", one);
            if let (Some(a), Some(b), Some(c), Some(d)) = (read(&one), read(&other), reference(&one), reference(&other)) {
                prop_assert_eq!(a.cmp(&b), c.cmp_precedence(&d), "{} and {}", one, other);
                prop_assert_eq!(a.clone().into_owned().cmp(&b.into_owned()), c.cmp_precedence(&d));
            }
        }
    }
}
