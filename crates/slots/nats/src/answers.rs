//! Answers of consumers that listen at the broker themselves: whose each is, and where it goes.
//!
//! Such a consumer acknowledges a message by replying to it. A group of messages whose answers are wanted is
//! remembered for a while after it was sent, by its number. An answer names the group and the place of a message in
//! it, and has to show the tag that only the receiver of this very message was given: so nobody answers for somebody
//! else, and numbers that are made up mean nothing.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prism_slot::{Arrival, Identity, MulticastId, PostSink};
use tokio::time::Instant;

/// How long after it was sent a message may be answered.
pub(crate) const MEMORY: Duration = Duration::from_secs(60);
/// For how many targets a slot remembers where answers go. The oldest make room.
pub(crate) const MOST_TARGETS: usize = 1_000_000;

/// Messages of one multicast, in the order of their numbers within a group, and where their answers go.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) multicast: MulticastId,
    pub(crate) identities: Vec<Identity>,
    pub(crate) post: PostSink,
}

/// The groups of one connection whose answers are wanted.
#[derive(Debug)]
pub(crate) struct Answers {
    key: RandomState,
    most_targets: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    groups: HashMap<u64, Asked>,
    /// When each was sent, the oldest first.
    order: VecDeque<(Instant, u64)>,
    targets: usize,
    closed: bool,
}

impl Answers {
    /// For at most so many targets.
    pub(crate) fn new(most_targets: usize) -> Self {
        Self {
            key: RandomState::new(),
            most_targets,
            kept: Mutex::default(),
        }
    }

    /// What an answer to message `index` of `group` has to show.
    pub(crate) fn tag(&self, group: u64, index: u32) -> u32 {
        // The upper half is as random as the lower one.
        (self.key.hash_one((group, index)) >> 32) as u32
    }

    /// Remembers a group that is about to be sent.
    pub(crate) fn keep(&self, group: u64, asked: Asked, now: Instant) {
        let mut kept = self.kept.lock();
        if kept.closed {
            return;
        }
        kept.forget(now);
        kept.targets += asked.identities.len();
        kept.order.push_back((now, group));
        kept.groups.insert(group, asked);
        while kept.targets > self.most_targets {
            kept.drop_oldest();
        }
    }

    /// Hands an answer to the post that it is for. Whatever else it is, is ignored.
    pub(crate) fn take(&self, group: u64, index: u32, tag: u32, body: Bytes, now: Instant) {
        if tag != self.tag(group, index) {
            return;
        }
        let mut kept = self.kept.lock();
        kept.forget(now);
        let Some(asked) = kept.groups.get(&group) else {
            return;
        };
        if let Some(identity) = asked.identities.get(index as usize) {
            // What does not fit is counted by the post itself.
            asked.post.push(Arrival::Answer {
                multicast: asked.multicast,
                identity: identity.clone(),
                body,
            });
        }
    }

    /// Forgets what is old enough.
    pub(crate) fn forget(&self, now: Instant) {
        self.kept.lock().forget(now);
    }

    /// Forgets everything, and remembers no more.
    pub(crate) fn close(&self) {
        *self.kept.lock() = Kept {
            closed: true,
            ..Kept::default()
        };
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        while self
            .order
            .front()
            .is_some_and(|(since, _)| now.saturating_duration_since(*since) >= MEMORY)
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front();
        let asked = oldest.and_then(|(_, group)| self.groups.remove(&group));
        self.targets -= asked.map_or(0, |asked| asked.identities.len());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use prism_slot::{Post, post};

    use super::*;

    fn asked(names: &[&str]) -> (Asked, Post) {
        let (sink, post) = post("here", 100, ());
        let identities = names.iter().map(|name| Identity::new(name).unwrap());
        let asked = Asked {
            multicast: MulticastId(7),
            identities: identities.collect(),
            post: sink,
        };
        (asked, post)
    }

    fn answered(post: &mut Post) -> Vec<(String, Bytes)> {
        let arrivals = std::iter::from_fn(|| post.next().now_or_never().flatten());
        arrivals
            .map(|arrival| match arrival {
                Arrival::Answer { identity, body, .. } => (identity.to_string(), body),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_answer_is_its_receivers_only() {
        let (answers, now) = (Answers::new(10), Instant::now());
        let (asked, mut post) = asked(&["a", "b"]);
        answers.keep(3, asked, now);
        for (group, index, tag) in [
            (3, 0, answers.tag(3, 1)),
            (3, 1, answers.tag(4, 1)),
            (3, 2, answers.tag(3, 2)),
            (4, 1, answers.tag(4, 1)),
            (3, 1, answers.tag(3, 1).wrapping_add(1)),
        ] {
            answers.take(group, index, tag, Bytes::new(), now);
        }
        assert_eq!(answered(&mut post), []);
        answers.take(3, 1, answers.tag(3, 1), "x".into(), now);
        assert_eq!(answered(&mut post), [("b".to_owned(), "x".into())]);
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let (answers, now) = (Answers::new(3), Instant::now());
        let mut posts = Vec::new();
        for (group, names) in [(0, &["a"][..]), (1, &["b", "c"]), (2, &["d"])] {
            let (asked, post) = asked(names);
            answers.keep(group, asked, now + Duration::from_secs(group));
            posts.push(post);
        }
        let mut answer = |group: u64, at| {
            answers.take(group, 0, answers.tag(group, 0), Bytes::new(), at);
            answered(&mut posts[usize::try_from(group).unwrap()]).len()
        };
        assert_eq!((answer(0, now), answer(1, now), answer(2, now)), (0, 1, 1));
        let later = now + MEMORY + Duration::from_secs(1);
        assert_eq!((answer(1, later), answer(2, later)), (0, 1));
        answers.close();
        assert_eq!(answer(2, later), 0);
    }

    /// What one group holds alone may be more than there is room for.
    #[test]
    fn a_group_beyond_all_bounds_is_not_remembered() {
        let answers = Answers::new(1);
        let (asked, _post) = asked(&["a", "b"]);
        answers.keep(0, asked, Instant::now());
        let kept = answers.kept.lock();
        assert!(kept.groups.is_empty() && kept.order.is_empty() && kept.targets == 0);
    }
}
