//! What is known of one target, and how it grows.

use std::sync::Arc;

/// What the system knows of a message on its way to one identity, in order. At most once a message is accepted, and
/// never stored; otherwise it is the other way round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The identity was in the target set.
    #[default]
    Resolved = 1,
    /// The messaging slot accepted it, with somebody listening.
    Accepted = 2,
    /// The durability slot has persisted it.
    Stored = 3,
    /// It was written to a live session of the identity.
    Handed = 4,
    /// The identity acknowledged it.
    Acked = 5,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Resolved,
        Self::Accepted,
        Self::Stored,
        Self::Handed,
        Self::Acked,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage as u8 == number)
    }
}

macro_rules! ends {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal $reason:literal $kind:ident $text:literal,)*) => {
        /// Why a message comes no further, or why that is not known.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum End { $($(#[doc = $doc])* $name = $number,)* }

        impl End {
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub(crate) fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Machine-readable.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }

            /// For people.
            fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

/// What an end stands against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It says how an attempt went; news of the message itself is better.
    Attempt,
    /// The message is gone; only that it was acknowledged before stands above that.
    Final,
}

ends! {
    /// Nobody was listening.
    NoSubscriber = 1 "NO_SUBSCRIBER" Attempt "nobody is subscribed for the identity",
    /// Certainly not sent.
    NotSent = 2 "NOT_SENT" Attempt "not sent",
    /// Certainly not stored.
    NotStored = 3 "NOT_STORED" Attempt "not stored",
    /// The inbox takes no more.
    InboxFull = 4 "INBOX_FULL" Attempt "the identity's inbox is full",
    /// It may or may not have been sent or stored.
    Unknown = 5 "UNKNOWN_OUTCOME" Attempt "it is not known whether it arrived",
    /// It made room for others in a full inbox.
    Displaced = 6 "DISPLACED" Final "it made room for a newer message in a full inbox",
    /// Its time was over.
    Expired = 7 "EXPIRED" Final "it expired before it was acknowledged",
    /// It was handed out as often as it may be.
    MaxDeliver = 8 "MAX_DELIVER" Final "it was handed out as often as it may be, and is a dead letter",
    /// The consumer did not want it, though it was stored.
    Terminated = 9 "TERMINATED" Final "the consumer refused it, and it is a dead letter",
    /// The identity is somebody else's now.
    OtherHolder = 10 "OTHER_HOLDER" Final "the identity has another owner now, and it is a dead letter",
    /// It was taken back.
    Cancelled = 11 "CANCELLED" Final "the multicast was cancelled",
    /// The consumer did not want it, and it was not stored.
    Refused = 12 "REFUSED" Final "the consumer refused it",
    /// The identity's registration was removed, and its inbox with it.
    Unregistered = 13 "UNREGISTERED" Final "the identity was unregistered before it was acknowledged",
}

/// What became of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not delivered yet, and may still be.
    Pending,
    /// Certainly not delivered.
    Failed,
    /// Not known either way.
    Timeout,
    /// Delivered, as far as was asked for.
    Delivered,
}

/// News of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It has come this far.
    Reached(Stage),
    /// It comes no further.
    Ended(End, Option<Arc<str>>),
}

impl News {
    /// The cause in words, if there is one.
    pub(crate) fn why(self) -> Option<Arc<str>> {
        match self {
            Self::Reached(_) => None,
            Self::Ended(_, why) => why,
        }
    }
}

/// What is known of one target, but for the cause in words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) stage: Stage,
    pub(crate) end: Option<End>,
}

impl Brief {
    /// Learns something; whether it was news. The order in which things are learnt does not matter, but for the
    /// ends of several attempts, of which the last one counts unless an earlier one may have got through.
    #[inline]
    pub(crate) fn learn(&mut self, news: &News) -> bool {
        match news {
            News::Reached(stage) if *stage > self.stage => {
                self.stage = *stage;
                let outlives = |end: &End| end.kind() == Kind::Final && *stage < Stage::Acked;
                self.end = self.end.filter(outlives);
                true
            }
            News::Reached(_) => false,
            News::Ended(end, _) => {
                // An attempt that failed says nothing where an earlier one did not, or may not have.
                let may_have_passed = self.stage > Stage::Resolved || self.end == Some(End::Unknown);
                let is_moot = end.kind() == Kind::Attempt && may_have_passed;
                if self.stage == Stage::Acked || self.is_final() || is_moot || self.end == Some(*end) {
                    return false;
                }
                self.end = Some(*end);
                true
            }
        }
    }

    /// Whether the message is gone.
    pub(crate) fn is_final(self) -> bool {
        self.end.is_some_and(|end| end.kind() == Kind::Final)
    }

    /// Whether nothing more is expected of it, as far as `required` goes.
    pub(crate) fn is_decided(self, required: Stage) -> bool {
        self.stage >= required || self.end.is_some()
    }

    /// Whether it says that sending failed or was stopped. That holds once nobody sends any more, and not before.
    pub(crate) fn is_of_sending(self) -> bool {
        let is_such = |end| {
            matches!(
                end,
                End::NotSent | End::NotStored | End::InboxFull | End::Cancelled
            )
        };
        self.stage == Stage::Resolved && self.end.is_some_and(is_such)
    }

    /// What became of the target, where it may `is_open` still be delivered to if nothing more is known of it, and
    /// nobody sends any more once it `is_settled`.
    pub(crate) fn status(self, required: Stage, is_settled: bool, is_open: impl FnOnce() -> bool) -> Status {
        match self.end {
            _ if self.stage >= required => Status::Delivered,
            Some(End::Unknown) => Status::Timeout,
            Some(_) if !is_settled && self.is_of_sending() => Status::Pending,
            Some(_) => Status::Failed,
            None if is_open() => Status::Pending,
            None => Status::Timeout,
        }
    }
}

/// What is known of one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) stage: Stage,
    pub(crate) end: Option<End>,
    pub(crate) why: Option<Arc<str>>,
}

impl State {
    pub(crate) fn brief(&self) -> Brief {
        let (stage, end) = (self.stage, self.end);
        Brief { stage, end }
    }

    /// Learns something, as [`Brief::learn`].
    pub(crate) fn learn(&mut self, news: News) -> bool {
        let mut brief = self.brief();
        let is_news = brief.learn(&news);
        if brief.end != self.end {
            self.why = news.why();
        }
        (self.stage, self.end) = (brief.stage, brief.end);
        is_news
    }

    /// The news that it is, for somebody who knows nothing of the target.
    pub(crate) fn news(&self) -> impl Iterator<Item = News> {
        let ended = self.end.map(|end| News::Ended(end, self.why.clone()));
        std::iter::once(News::Reached(self.stage)).chain(ended)
    }

    /// Machine-readable, where there is something to say.
    pub(crate) fn reason(&self, status: Status) -> &'static str {
        match (status, self.end) {
            (Status::Delivered | Status::Pending, _) => "",
            (_, Some(end)) => end.reason(),
            (_, None) => "NOT_CONFIRMED",
        }
    }

    /// The same for people.
    pub(crate) fn error(&self, status: Status) -> Option<String> {
        match (status, self.end) {
            (Status::Delivered | Status::Pending, _) => None,
            (_, None) => Some("it was sent, and has not been confirmed as far as was asked for".to_owned()),
            (_, Some(end)) => Some(match &self.why {
                Some(why) => format!("{}: {why}", end.text()),
                None => end.text().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learnt(news: impl IntoIterator<Item = News>) -> State {
        let mut state = State::default();
        for item in news {
            state.learn(item);
        }
        state
    }

    fn news() -> impl Strategy<Value = News> {
        let stage = proptest::sample::select(Stage::ALL.to_vec()).prop_map(News::Reached);
        let finals: Vec<End> = End::ALL
            .iter()
            .copied()
            .filter(|end| end.kind() == Kind::Final)
            .collect();
        let end = proptest::sample::select(finals).prop_map(|end| News::Ended(end, None));
        prop_oneof![3 => stage, 1 => end]
    }

    #[test]
    fn numbers_are_read_back() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(stage as u8), Some(stage));
        }
        for end in End::ALL {
            assert_eq!(End::from_number(*end as u8), Some(*end));
        }
        assert_eq!((Stage::from_number(0), End::from_number(0)), (None, None));
    }

    /// A lost receipt leaves a lower stage, and a late one does not take back what is known.
    #[test]
    fn what_is_known_only_grows() {
        let state = learnt([News::Reached(Stage::Acked), News::Reached(Stage::Handed)]);
        assert_eq!(state.stage, Stage::Acked);
        let state = learnt([News::Reached(Stage::Acked), News::Ended(End::Expired, None)]);
        assert_eq!(
            state.brief().status(Stage::Acked, true, || true),
            Status::Delivered
        );
        let state = learnt([News::Ended(End::Unknown, None), News::Reached(Stage::Stored)]);
        assert_eq!(
            (state.end, state.brief().status(Stage::Acked, true, || true)),
            (None, Status::Pending)
        );
        let state = learnt([News::Ended(End::Terminated, None), News::Reached(Stage::Handed)]);
        assert_eq!(state.brief().status(Stage::Acked, true, || true), Status::Failed);
        // What may have been stored at first is not known to be absent because it certainly was not a second time.
        let state = learnt([News::Ended(End::Unknown, None), News::Ended(End::NotStored, None)]);
        assert_eq!(
            state.brief().status(Stage::Acked, true, || false),
            Status::Timeout
        );
        let state = learnt([News::Ended(End::NotStored, None), News::Ended(End::Unknown, None)]);
        assert_eq!(
            state.brief().status(Stage::Acked, true, || false),
            Status::Timeout
        );
        let state = learnt([News::Reached(Stage::Accepted), News::Ended(End::NotSent, None)]);
        assert_eq!(
            state.brief().status(Stage::Accepted, true, || false),
            Status::Delivered
        );
    }

    #[test]
    fn statuses_say_only_what_is_known() {
        let fresh = State::default();
        assert_eq!(
            fresh.brief().status(Stage::Accepted, true, || true),
            Status::Pending
        );
        assert_eq!(
            fresh.brief().status(Stage::Accepted, true, || false),
            Status::Timeout
        );
        let accepted = learnt([News::Reached(Stage::Accepted)]);
        let status = accepted.brief().status(Stage::Handed, true, || false);
        assert_eq!(
            (status, accepted.reason(status)),
            (Status::Timeout, "NOT_CONFIRMED")
        );
        let nobody = learnt([News::Ended(End::NoSubscriber, None)]);
        assert_eq!(
            nobody.brief().status(Stage::Accepted, true, || true),
            Status::Failed
        );
        // Somebody may still store it, so long as that is not over.
        for end in [End::NotSent, End::NotStored, End::InboxFull, End::Cancelled] {
            let failed = learnt([News::Ended(end, None)]).brief();
            let told = [true, false].map(|is_settled| failed.status(Stage::Acked, is_settled, || true));
            assert_eq!(told, [Status::Failed, Status::Pending]);
        }
        let taken_back = learnt([News::Reached(Stage::Stored), News::Ended(End::Cancelled, None)]);
        assert_eq!(
            taken_back.brief().status(Stage::Acked, false, || true),
            Status::Failed
        );
        let why = learnt([News::Ended(End::Unknown, Some("the link was cut".into()))]);
        let status = why.brief().status(Stage::Accepted, true, || true);
        assert_eq!(status, Status::Timeout);
        assert_eq!(
            why.error(status).as_deref(),
            Some("it is not known whether it arrived: the link was cut")
        );
    }

    proptest! {
        /// Two runners that learnt the same in different orders agree once they have told each other.
        #[test]
        fn runners_come_to_agree(all in proptest::collection::vec(news(), 0..6), split in 0..6_usize) {
            let split = split.min(all.len());
            let whole = learnt(all.clone());
            let (mut one, other) = (learnt(all[..split].to_vec()), learnt(all[split..].to_vec()));
            let tell = |one: &mut State, other: &State| {
                other.news().fold(false, |is_news, news| is_news | one.learn(news))
            };
            tell(&mut one, &other);
            prop_assert_eq!(one.stage, whole.stage);
            prop_assert_eq!(one.end.is_some(), whole.end.is_some());
            prop_assert!(!tell(&mut one.clone(), &one), "nothing is news twice");
        }
    }
}
