//! What is known of all the targets of a multicast, in two bytes each.

use std::{ops::Range, sync::Arc};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::state::{Brief, News, State};

/// Of so many targets it takes no memory of its own.
const FEW: usize = 16;

/// What is known of targets, by their places. Few have a cause in words; those are kept apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct States {
    briefs: SmallVec<[Brief; FEW]>,
    whys: HashMap<usize, Arc<str>>,
}

impl States {
    /// Of so many targets, nothing being known of them.
    pub(crate) fn of(count: usize) -> Self {
        Self {
            briefs: SmallVec::from_elem(Brief::default(), count),
            whys: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.briefs.len()
    }

    /// All of them, but for the causes in words.
    pub(crate) fn briefs(&self) -> &[Brief] {
        &self.briefs
    }

    /// What is known of one.
    pub(crate) fn get(&self, place: usize) -> State {
        let Brief { stage, end } = self.briefs[place];
        let why = match self.whys.is_empty() {
            true => None,
            false => self.whys.get(&place).cloned(),
        };
        State { stage, end, why }
    }

    /// Learns something of one; what was known of it, if that was news.
    #[inline]
    pub(crate) fn learn(&mut self, place: usize, news: News) -> Option<Brief> {
        let brief = self.briefs.get_mut(place)?;
        let before = *brief;
        if !brief.learn(&news) {
            return None;
        }
        if brief.end != before.end {
            match news.why() {
                Some(why) => drop(self.whys.insert(place, why)),
                None if self.whys.is_empty() => {}
                None => drop(self.whys.remove(&place)),
            }
        }
        Some(before)
    }

    pub(crate) fn range(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = State> {
        range.map(|place| self.get(place))
    }
}

impl Clone for States {
    fn clone(&self) -> Self {
        Self {
            briefs: SmallVec::from_slice(&self.briefs),
            whys: self.whys.clone(),
        }
    }
}

impl FromIterator<State> for States {
    fn from_iter<T: IntoIterator<Item = State>>(all: T) -> Self {
        let mut states = Self::default();
        for (place, state) in all.into_iter().enumerate() {
            states.briefs.push(state.brief());
            states.whys.extend(state.why.map(|why| (place, why)));
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{End, Stage};

    fn failed(why: Option<&str>) -> State {
        State {
            stage: Stage::Resolved,
            end: Some(End::NotSent),
            why: why.map(Into::into),
        }
    }

    /// Causes go with the states that they belong to, and with nothing else.
    #[test]
    fn what_is_put_in_comes_out() {
        let stored = State {
            stage: Stage::Stored,
            ..State::default()
        };
        let all = [
            stored.clone(),
            failed(Some("gone")),
            State::default(),
            failed(None),
        ];
        let mut states: States = all.iter().cloned().collect();
        assert_eq!(states.range(0..4).collect::<Vec<_>>(), all);
        assert_eq!(states.range(1..3).collect::<Vec<_>>(), all[1..3]);
        let before = states.learn(1, News::Reached(Stage::Stored));
        assert_eq!(before, Some(failed(None).brief()));
        assert_eq!(states.get(1), stored, "the cause is gone with its state");
        assert!(states.whys.is_empty());
        let full = News::Ended(End::NotStored, Some("full".into()));
        assert_eq!(states.learn(3, full.clone()), Some(failed(None).brief()));
        assert_eq!(states.get(3).why.as_deref(), Some("full"));
        assert_eq!(states.learn(3, full), None, "it is known");
        assert_eq!(
            states.learn(4, News::Reached(Stage::Acked)),
            None,
            "there is none"
        );
        assert_eq!(
            States::of(2),
            [State::default(), State::default()].into_iter().collect()
        );
    }

    #[test]
    fn two_bytes_are_enough() {
        assert_eq!(size_of::<Brief>(), 2);
    }
}
