//! What is known of all the targets of a multicast, in two bytes each.

use std::{ops::Range, sync::Arc};

use hashbrown::HashMap;

use super::state::{End, Stage, State};

/// What is known of targets, by their places. Few have a cause in words; those are kept apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct States {
    known: Vec<(Stage, Option<End>)>,
    whys: HashMap<usize, Arc<str>>,
}

impl States {
    /// Of so many targets, nothing being known of them.
    pub(crate) fn of(count: usize) -> Self {
        Self {
            known: vec![(Stage::default(), None); count],
            whys: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// What is known of one, but for the cause in words.
    pub(crate) fn brief(&self, place: usize) -> State {
        let (stage, end) = self.known[place];
        State {
            stage,
            end,
            why: None,
        }
    }

    /// What is known of one.
    pub(crate) fn get(&self, place: usize) -> State {
        let why = match self.whys.is_empty() {
            true => None,
            false => self.whys.get(&place).cloned(),
        };
        State {
            why,
            ..self.brief(place)
        }
    }

    pub(crate) fn set(&mut self, place: usize, state: State) {
        let State { stage, end, why } = state;
        self.known[place] = (stage, end);
        match why {
            Some(why) => drop(self.whys.insert(place, why)),
            None if self.whys.is_empty() => {}
            None => drop(self.whys.remove(&place)),
        }
    }

    pub(crate) fn range(&self, range: Range<usize>) -> impl ExactSizeIterator<Item = State> {
        range.map(|place| self.get(place))
    }

    /// All of them, but for the causes in words.
    pub(crate) fn briefs(&self) -> impl ExactSizeIterator<Item = State> {
        (0..self.len()).map(|place| self.brief(place))
    }
}

impl FromIterator<State> for States {
    fn from_iter<T: IntoIterator<Item = State>>(all: T) -> Self {
        let mut states = Self::default();
        for (place, state) in all.into_iter().enumerate() {
            states.known.push(Default::default());
            states.set(place, state);
        }
        states
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let briefs = states.briefs().map(|state| (state.end, state.why));
        assert_eq!(
            briefs.filter(|(end, why)| end.is_some() && why.is_none()).count(),
            2
        );
        states.set(1, stored.clone());
        assert_eq!(states.get(1), stored, "the cause is gone with its state");
        assert!(states.whys.is_empty());
        assert_eq!(
            States::of(2),
            [State::default(), State::default()].into_iter().collect()
        );
    }

    #[test]
    fn two_bytes_are_enough() {
        assert_eq!(size_of::<(Stage, Option<End>)>(), 2);
    }
}
