//! Some of the targets of a multicast.

use std::ops::Range;

/// Targets by their places, in the order in which they are sent to. Mostly they follow one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Batch {
    /// All of these.
    Run(Range<usize>),
    /// These alone.
    Some(Vec<usize>),
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Run(run) => run.len(),
            Self::Some(places) => places.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = usize> {
        (0..self.len()).map(|at| match self {
            Self::Run(run) => run.start + at,
            Self::Some(places) => places[at],
        })
    }

    /// Those of them that are such; what is given where all are.
    pub(crate) fn filter(self, is_such: impl Fn(usize) -> bool) -> Self {
        if self.iter().all(&is_such) {
            return self;
        }
        Self::Some(self.iter().filter(|place| is_such(*place)).collect())
    }
}

impl From<Vec<usize>> for Batch {
    fn from(places: Vec<usize>) -> Self {
        Self::Some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stays_one_where_nothing_is_left_out() {
        let run = Batch::Run(3..6);
        assert_eq!(run.iter().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(run.clone().filter(|place| place > 2), run);
        let odd = run.filter(|place| place % 2 == 1);
        assert_eq!((odd.len(), odd), (2, Batch::Some(vec![3, 5])));
        let some = Batch::from(vec![7, 2, 9]);
        assert_eq!(some.clone().filter(|_| true), some, "in their order");
        assert!(some.filter(|place| place > 9).is_empty());
    }
}
