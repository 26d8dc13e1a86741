//! What is asked of what a value says beyond its type.

use super::predicate::Order;
use crate::{
    Clause, Operator,
    document::Raw,
    notation::{Area, Network, Point, Version, address, from_millis, instant},
};

/// What is asked of what a value says: as a version, a place, an address or a point in time. One that says
/// no such thing is never meant.
#[derive(Clone)]
pub(super) enum Reading {
    Version(Order, Version<'static>),
    Within(Area),
    Network(Network),
    /// In milliseconds since 1970.
    Time(Order, i64),
    /// An operand that cannot be read; no clause has such.
    Nothing,
}

impl Reading {
    pub(super) fn of(clause: &Clause) -> Self {
        let operand = clause.operand().view();
        let text = operand.as_str().unwrap_or_default();
        let read = match clause.operator() {
            Operator::Within => Area::of(operand).ok().map(Self::Within),
            Operator::Cidr => Network::parse(text).map(Self::Network),
            operator => {
                Version::parse(text).map(|version| Self::Version(Order::of(operator), version.into_owned()))
            }
        };
        read.unwrap_or(Self::Nothing)
    }

    /// A point in time before or after another one.
    pub(super) fn time(operator: Operator, millis: i64) -> Self {
        Self::Time(Order::of(operator), millis)
    }

    /// Whether a value of the metadata says such. Apart from the questions that are answered in a few
    /// nanoseconds, which its code would slow down.
    #[inline(never)]
    pub(super) fn holds(&self, value: Raw<'_>) -> bool {
        match (self, value.text()) {
            (_, Some(text)) => self.holds_for_text(text),
            (Self::Within(area), None) => Point::read(value).is_some_and(|point| area.contains(point)),
            (Self::Time(order, bound), None) => value
                .number()
                .is_some_and(|number| order.admits(number.total_cmp(&(*bound as f64)))),
            _ => false,
        }
    }

    /// Whether a text says such.
    #[inline(never)]
    pub(super) fn holds_for_text(&self, text: &[u8]) -> bool {
        match self {
            Self::Version(order, bound) => {
                Version::of(text).is_some_and(|version| order.admits(version.cmp(bound)))
            }
            Self::Network(network) => read(text, address).is_some_and(|address| network.contains(address)),
            Self::Time(order, bound) => {
                read(text, instant).is_some_and(|instant| order.admits(instant.cmp(&from_millis(*bound))))
            }
            Self::Within(_) | Self::Nothing => false,
        }
    }
}

/// Reads text of a record, which is UTF-8.
fn read<T>(text: &[u8], read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    read(std::str::from_utf8(text).ok()?)
}
