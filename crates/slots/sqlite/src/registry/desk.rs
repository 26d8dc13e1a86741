//! One call at work on the registry of a namespace.

use prism_slot::{Epoch, Error, Position, Timestamp, lease::LeaseClock};

use super::{FeedLimits, Head};
use crate::{error::Fault, step::Step};

/// A step on the registry of one namespace, at one moment.
pub(super) struct Desk<'s, 'a> {
    pub(super) step: &'s mut Step<'a>,
    pub(super) ns: i64,
    pub(super) now: Timestamp,
    pub(super) limits: FeedLimits,
}

impl<'s, 'a> Desk<'s, 'a> {
    /// Advances the lease clock, and refuses a call for another epoch.
    pub(super) fn new(
        step: &'s mut Step<'a>,
        ns: i64,
        now: Timestamp,
        limits: FeedLimits,
        expected: Option<Epoch>,
    ) -> Result<Self, Fault> {
        let current = step.head(ns, now)?.epoch;
        if expected.is_some_and(|expected| expected != current) {
            return Err(Error::EpochChanged { current }.into());
        }
        let desk = Self {
            step,
            ns,
            now,
            limits,
        };
        Ok(desk)
    }

    pub(super) fn head(&mut self) -> Result<&Head, Fault> {
        Ok(self.step.head(self.ns, self.now)?)
    }

    pub(super) fn change_head(&mut self) -> Result<&mut Head, Fault> {
        self.step.change_head(self.ns)
    }

    pub(super) fn clock(&mut self) -> Result<LeaseClock, Fault> {
        Ok(self.head()?.clock)
    }

    pub(super) fn position(&mut self) -> Result<Position, Fault> {
        Ok(self.head()?.position())
    }

    pub(super) fn next_position(&mut self) -> Result<Position, Fault> {
        let position = self.position()?;
        Ok(Position {
            revision: position.revision.next(),
            ..position
        })
    }
}
