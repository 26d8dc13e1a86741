//! A set of small numbers.

/// A set of small numbers, a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// Adds one; whether it was not there.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (word, bit) = place(number);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        let (word, bit) = place(number);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are in the other set too.
    pub(super) fn common(&self, other: &Self) -> u64 {
        let pairs = self.words.iter().zip(&other.words);
        pairs
            .map(|(one, other)| u64::from((one & other).count_ones()))
            .sum()
    }
}

fn place(number: u32) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(one in prop::collection::vec(0_u32..500, 0..80), other in prop::collection::vec(0_u32..900, 0..80)) {
            let bits = |numbers: &[u32]| {
                let (mut bits, mut set) = (Bits::default(), BTreeSet::new());
                for &number in numbers {
                    assert_eq!(bits.insert(number), set.insert(number));
                }
                (bits, set)
            };
            let ((one, one_set), (other, other_set)) = (bits(&one), bits(&other));
            prop_assert_eq!(one.count(), one_set.len() as u64);
            prop_assert_eq!(one.common(&other), one_set.intersection(&other_set).count() as u64);
            prop_assert!((0..1_000).all(|number| one.contains(number) == one_set.contains(&number)));
        }
    }
}
