//! What a load consists of.

use std::str::FromStr;

use prism_core::config::nearest;
use rand::{Rng, RngExt};

/// What is done to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    Register,
    Enumerate,
    Multicast,
}

impl Operation {
    pub(crate) const ALL: [Self; 3] = [Self::Register, Self::Enumerate, Self::Multicast];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Enumerate => "enumerate",
            Self::Multicast => "multicast",
        }
    }
}

/// How much of each, in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix([u32; Operation::ALL.len()]);

impl Mix {
    /// Whether there is any of it.
    pub(crate) fn has(&self, operation: Operation) -> bool {
        self.0[operation as usize] > 0
    }

    /// The next operation.
    pub(crate) fn pick(&self, random: &mut impl Rng) -> Operation {
        let mut left = random.random_range(0..self.0.iter().sum::<u32>().max(1));
        for operation in Operation::ALL {
            let parts = self.0[operation as usize];
            if left < parts {
                return operation;
            }
            left -= parts;
        }
        Operation::Enumerate
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = [None; Operation::ALL.len()];
        for item in text.split(',') {
            let (name, part) = item.split_once('=').unwrap_or((item, ""));
            let name = name.trim();
            let operation = Operation::ALL
                .into_iter()
                .find(|operation| operation.name() == name);
            let operation = operation.ok_or_else(|| unknown(name))?;
            let part = part.trim().parse::<u32>().ok().filter(|part| *part <= 10_000);
            let part = part.ok_or_else(|| format!("expected parts such as `{name}=50`, at most 10000"))?;
            if parts[operation as usize].replace(part).is_some() {
                return Err(format!("`{name}` is given twice"));
            }
        }
        let parts = parts.map(Option::unwrap_or_default);
        if parts.iter().all(|part| *part == 0) {
            return Err("there is nothing to do in it".to_owned());
        }
        Ok(Self(parts))
    }
}

fn unknown(name: &str) -> String {
    let names = Operation::ALL.map(Operation::name);
    match nearest(name, names) {
        Some(near) => format!("`{name}` is no operation, did you mean `{near}`?"),
        None => format!("`{name}` is no operation, expected {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn parts_are_kept_and_the_same_seed_picks_the_same() {
        let mix: Mix = "register=50, enumerate=30,multicast=20".parse().unwrap();
        let picked = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..10_000).map(|_| mix.pick(&mut random)).collect::<Vec<_>>()
        };
        let counts = Operation::ALL.map(|operation| {
            let picked = picked(7);
            picked.iter().filter(|picked| **picked == operation).count()
        });
        for (count, expected) in counts.into_iter().zip([5_000_usize, 3_000, 2_000]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
        assert_eq!(picked(7), picked(7));
        assert_ne!(picked(7), picked(8));
    }

    #[test]
    fn what_is_not_named_is_not_done() {
        let mix: Mix = "multicast=1,register=0".parse().unwrap();
        assert!(mix.has(Operation::Multicast) && !mix.has(Operation::Register));
        let mut random = StdRng::seed_from_u64(1);
        assert!((0..100).all(|_| mix.pick(&mut random) == Operation::Multicast));
    }

    #[test]
    fn what_is_no_mix_says_why() {
        for (text, part) in [
            ("", "no operation"),
            ("registre=1", "did you mean `register`?"),
            ("register", "register=50"),
            ("register=-1", "register=50"),
            ("register=1,register=2", "twice"),
            ("register=0", "nothing to do"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(part), "`{text}`: {error}");
        }
    }
}
