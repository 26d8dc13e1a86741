//! Rows by a value that has an order.
//!
//! Values that are neighbours share a block, which also knows all of its rows together. So whatever lies between
//! two bounds is found in the two blocks at its ends, value by value, and in those between as a whole: a range over
//! a million different values takes about as long as one over a thousand.

use std::{collections::BTreeMap, ops::Bound};

use roaring::{MultiOps, RoaringBitmap};

use super::postings::Postings;
use crate::directory::rows::RowId;

/// A block with more values is split.
const MAX_VALUES: usize = 1_024;
/// One with fewer is joined with a neighbour, where both together are far from being split again.
const MIN_VALUES: usize = MAX_VALUES / 8;

/// Rows by the value that they have; every row has at most one.
#[derive(Debug)]
pub(super) struct Ordered<V> {
    /// By a value that none in the block is less than.
    blocks: BTreeMap<V, Block<V>>,
}

#[derive(Debug)]
struct Block<V> {
    values: BTreeMap<V, Postings>,
    rows: RoaringBitmap,
    /// How many rows.
    count: u64,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        let blocks = BTreeMap::new();
        Self { blocks }
    }
}

impl<V: Ord + Clone> Ordered<V> {
    pub(super) fn get(&self, value: &V) -> Option<&Postings> {
        let (_, block) = self.blocks.range(..=value).next_back()?;
        block.values.get(value)
    }

    pub(super) fn insert(&mut self, value: V, id: RowId) {
        let Some(block) = self.block_for(&value) else {
            self.blocks.insert(value.clone(), Block::of(value, id));
            return;
        };
        block.insert(value, id);
        if let Some((first, upper)) = block.split() {
            self.blocks.insert(first, upper);
        }
    }

    /// The block that a value belongs into; `None` where there is no block at all.
    fn block_for(&mut self, value: &V) -> Option<&mut Block<V>> {
        if self.blocks.first_key_value()?.0 > value {
            let (_, first) = self.blocks.pop_first()?;
            self.blocks.insert(value.clone(), first);
        }
        self.blocks
            .range_mut(..=value)
            .next_back()
            .map(|(_, block)| block)
    }

    pub(super) fn remove(&mut self, value: &V, id: RowId) {
        let Some((lower, block)) = self.blocks.range_mut(..=value).next_back() else {
            return;
        };
        block.remove(value, id);
        if block.values.len() < MIN_VALUES {
            let lower = lower.clone();
            self.join(&lower);
        }
    }

    /// Takes a small block away, or joins it with a neighbour.
    fn join(&mut self, lower: &V) {
        let Some(block) = self.blocks.get(lower) else {
            return;
        };
        if block.values.is_empty() {
            self.blocks.remove(lower);
            return;
        }
        let room = (MAX_VALUES / 2).saturating_sub(block.values.len());
        let roomy =
            |(other, neighbour): (&V, &Block<V>)| (neighbour.values.len() <= room).then(|| other.clone());
        let after = (Bound::Excluded(lower), Bound::Unbounded);
        let (next, before) = (
            self.blocks.range::<V, _>(after).next(),
            self.blocks.range(..lower).next_back(),
        );
        let (left, right) = match (next.and_then(roomy), before.and_then(roomy)) {
            (Some(next), _) => (lower.clone(), next),
            (None, Some(before)) => (before, lower.clone()),
            (None, None) => return,
        };
        if let Some(right) = self.blocks.remove(&right)
            && let Some(left) = self.blocks.get_mut(&left)
        {
            left.append(right);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many rows have a value from `start` on, as long as it is `within`: true up to some value, and false for all
    /// after it.
    pub(super) fn count(&self, start: Bound<&V>, within: impl Fn(&V) -> bool) -> u64 {
        let count = |part: Part<'_, V>| match part {
            Part::Whole(block) => block.count,
            Part::Some(block) => block.some(start, &within).map(Postings::len).sum(),
        };
        self.parts(start, &within).map(count).sum()
    }

    /// Adds those rows.
    pub(super) fn add_to(&self, start: Bound<&V>, within: impl Fn(&V) -> bool, rows: &mut RoaringBitmap) {
        let (mut many, mut few) = (Vec::new(), Vec::new());
        for part in self.parts(start, &within) {
            match part {
                Part::Whole(block) => many.push(&block.rows),
                Part::Some(block) => {
                    for found in block.some(start, &within) {
                        match found {
                            Postings::One(id) => few.push(*id),
                            Postings::Few(ids) => few.extend_from_slice(ids),
                            Postings::Many(ids) => many.push(ids),
                        }
                    }
                }
            }
        }
        few.sort_unstable();
        rows.extend(few);
        if !many.is_empty() {
            *rows |= many.union();
        }
    }

    /// The blocks in which there may be such values.
    fn parts<'a>(
        &'a self,
        start: Bound<&'a V>,
        within: &'a impl Fn(&V) -> bool,
    ) -> impl Iterator<Item = Part<'a, V>> {
        let first = match start {
            Bound::Included(from) | Bound::Excluded(from) => self.blocks.range(..=from).next_back(),
            Bound::Unbounded => None,
        };
        let first = first.map_or(Bound::Unbounded, |(lower, _)| Bound::Included(lower));
        let blocks = self.blocks.range::<V, _>((first, Bound::Unbounded));
        blocks.map_while(move |(_, block)| block.part(start, within))
    }
}

/// What of a block lies within bounds.
enum Part<'a, V> {
    Whole(&'a Block<V>),
    Some(&'a Block<V>),
}

impl<V: Ord + Clone> Block<V> {
    fn of(value: V, id: RowId) -> Self {
        Self {
            values: BTreeMap::from([(value, Postings::One(id))]),
            rows: RoaringBitmap::from([id]),
            count: 1,
        }
    }

    fn insert(&mut self, value: V, id: RowId) {
        self.count += u64::from(self.rows.insert(id));
        self.values
            .entry(value)
            .and_modify(|rows| rows.insert(id))
            .or_insert(Postings::One(id));
    }

    fn remove(&mut self, value: &V, id: RowId) {
        self.count -= u64::from(self.rows.remove(id));
        if self.values.get_mut(value).is_some_and(|rows| rows.remove(id)) {
            self.values.remove(value);
        }
    }

    /// The upper half of a block that has grown too large, by its first value.
    fn split(&mut self) -> Option<(V, Self)> {
        let count = self.values.len();
        let middle = (count > MAX_VALUES).then(|| self.values.keys().nth(count / 2).cloned());
        let middle = middle.flatten()?;
        let values = self.values.split_off(&middle);
        let mut rows = RoaringBitmap::new();
        values.values().for_each(|found| found.add_to(&mut rows));
        self.rows -= &rows;
        let count = rows.len();
        self.count -= count;
        Some((middle, Self { values, rows, count }))
    }

    fn append(&mut self, mut next: Self) {
        self.values.append(&mut next.values);
        self.rows |= next.rows;
        self.count += next.count;
    }

    /// `None` where the values from `start` on are not within, here and in all blocks after it.
    fn part(&self, start: Bound<&V>, within: &impl Fn(&V) -> bool) -> Option<Part<'_, V>> {
        let Some((first, _)) = self.values.range::<V, _>((start, Bound::Unbounded)).next() else {
            // All of it comes before; the next one may have some.
            return Some(Part::Some(self));
        };
        if !within(first) {
            return None;
        }
        let all = [self.values.first_key_value(), self.values.last_key_value()];
        let [Some((least, _)), Some((most, _))] = all else {
            return None;
        };
        Some(if least == first && within(most) {
            Part::Whole(self)
        } else {
            Part::Some(self)
        })
    }

    /// The rows from `start` on that are within.
    fn some<'a>(
        &'a self,
        start: Bound<&'a V>,
        within: &'a impl Fn(&V) -> bool,
    ) -> impl Iterator<Item = &'a Postings> {
        let values = self.values.range::<V, _>((start, Bound::Unbounded));
        values
            .take_while(move |(value, _)| within(value))
            .map(|(_, rows)| rows)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few values, so that they repeat, and many, so that blocks are split.
    fn steps() -> impl Strategy<Value = Vec<(bool, u32, u32)>> {
        let step = (prop::bool::weighted(0.6), 0..3_000_u32, 0..4_000_u32);
        prop::collection::vec(step, 0..6_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// The same answers as by asking every row, whatever was inserted and removed, and no block without values.
        #[test]
        fn ranges_hold_what_is_in_them(
            steps in steps(),
            bounds in prop::collection::vec((0..3_100_u32, 0..3_100_u32, any::<bool>(), any::<bool>()), 1..8),
        ) {
            let (mut ordered, mut rows) = (Ordered::default(), BTreeMap::new());
            for (inserts, value, id) in steps {
                if let Some(before) = rows.remove(&id) {
                    ordered.remove(&before, id);
                }
                if inserts {
                    rows.insert(id, value);
                    ordered.insert(value, id);
                }
            }
            for (from, to, from_included, to_included) in bounds {
                let start = if from_included { Bound::Included(&from) } else { Bound::Excluded(&from) };
                let within = |value: &u32| if to_included { *value <= to } else { *value < to };
                let expected = rows.iter().filter(|(_, value)| {
                    within(value) && (**value > from || from_included && **value == from)
                });
                let expected: RoaringBitmap = expected.map(|(id, _)| *id).collect();
                prop_assert_eq!(ordered.count(start, within), expected.len());
                let mut found = RoaringBitmap::new();
                ordered.add_to(start, within, &mut found);
                prop_assert_eq!(found, expected);
            }
            prop_assert!(ordered.blocks.values().all(|block| !block.values.is_empty()));
            for (id, value) in &rows {
                prop_assert!(ordered.get(value).is_some_and(|found| found.len() > 0));
                ordered.remove(value, *id);
            }
            prop_assert!(ordered.is_empty());
        }
    }

    /// Otherwise a lookup would have to go through ever more of them.
    #[test]
    fn blocks_that_drained_are_joined() {
        let mut ordered = Ordered::default();
        for value in 0..100_000_u32 {
            ordered.insert(value, value);
        }
        let full = ordered.blocks.len();
        assert!((98..=200).contains(&full), "{full}");
        for value in (0..100_000).filter(|value| value % 100 != 0) {
            ordered.remove(&value, value);
        }
        let left = ordered.blocks.len();
        assert!(left <= 16, "{left} blocks for 1,000 values");
        assert_eq!(ordered.count(Bound::Included(&0), |_| true), 1_000);
    }
}
