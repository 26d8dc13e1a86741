//! What values say beyond their type, as it is indexed: versions, addresses, points in time, latitudes.

use std::{
    cmp::Ordering,
    net::IpAddr,
    ops::{Bound, RangeBounds},
};

use prism_filter::{
    Operator, ValueRef,
    notation::{Area, Network, Point, Version, address, instant},
};

use super::{field::narrow, key::is_short};

/// What one value says. Ordered by sort and then as filters compare such.
#[derive(Debug, Clone)]
pub(super) enum Reading {
    /// Of a place, in degrees.
    Latitude(f64),
    /// As an IPv4 address where it is one in disguise.
    Address(IpAddr),
    /// In nanoseconds since 1970.
    Instant(i128),
    Version(Box<Version<'static>>),
}

impl Reading {
    /// `None` for what says nothing, and for texts that are too long. No text says two things.
    pub(super) fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Object(_) => Point::of(value).map(|point| Self::Latitude(point.latitude())),
            ValueRef::String(text) if is_short(text) => {
                let version =
                    || Version::parse(text).map(|version| Self::Version(Box::new(version.into_owned())));
                let address = || address(text).map(Self::Address);
                version()
                    .or_else(address)
                    .or_else(|| instant(text).map(Self::Instant))
            }
            _ => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Latitude(_) => 0,
            Self::Address(_) => 1,
            Self::Instant(_) => 2,
            Self::Version(_) => 3,
        }
    }
}

impl Ord for Reading {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Latitude(one), Self::Latitude(other)) => one.total_cmp(other),
            (Self::Address(one), Self::Address(other)) => one.cmp(other),
            (Self::Instant(one), Self::Instant(other)) => one.cmp(other),
            (Self::Version(one), Self::Version(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Reading {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Reading {}

/// Readings of one sort between bounds.
#[derive(Debug, Clone)]
pub(crate) struct Readings {
    bounds: (Bound<Reading>, Bound<Reading>),
    /// Whether a value that says one of these is certainly meant.
    pub(super) exact: bool,
}

impl Readings {
    /// The versions that a comparison with `text` means.
    pub(crate) fn versions(operator: Operator, text: &str) -> Option<Self> {
        let version = Version::parse(text)?.into_owned();
        // No version comes before this one, and nothing after the versions.
        let least = Reading::Version(Box::new(Version::parse("0.0.0-0")?));
        Some(Self::ordered(
            operator,
            Reading::Version(Box::new(version)),
            (Bound::Included(least), Bound::Unbounded),
        ))
    }

    /// The addresses in a network.
    pub(crate) fn addresses(network: &str) -> Option<Self> {
        let network = Network::parse(network)?;
        let address = |address| Bound::Included(Reading::Address(address));
        Some(Self {
            bounds: (address(network.first()), address(network.last())),
            exact: true,
        })
    }

    /// The latitudes of the places in an area, and of others.
    pub(crate) fn latitudes(area: ValueRef<'_>) -> Option<Self> {
        let (south, north) = Area::of(area).ok()?.latitudes();
        let latitude = |degrees: f64| Bound::Included(Reading::Latitude(degrees));
        Some(Self {
            bounds: (latitude(south), latitude(north)),
            exact: false,
        })
    }

    /// The points in time that a comparison with one means, given in nanoseconds since 1970.
    pub(crate) fn instants(operator: Operator, instant: i128) -> Self {
        let all = [i128::MIN, i128::MAX].map(|end| Bound::Included(Reading::Instant(end)));
        let [first, last] = all;
        Self::ordered(operator, Reading::Instant(instant), (first, last))
    }

    fn ordered(operator: Operator, than: Reading, all: (Bound<Reading>, Bound<Reading>)) -> Self {
        use Operator::{Gt, Gte, Lt, Lte, SemverGt, SemverGte, SemverLt, SemverLte};
        let bounds = match operator {
            Lt | SemverLt => (all.0, Bound::Excluded(than)),
            Lte | SemverLte => (all.0, Bound::Included(than)),
            Gt | SemverGt => (Bound::Excluded(than), all.1),
            Gte | SemverGte => (Bound::Included(than), all.1),
            _ => (Bound::Included(than.clone()), Bound::Included(than)),
        };
        Self { bounds, exact: true }
    }

    pub(super) fn narrow(&mut self, other: &Self) {
        let (start, end) = &mut self.bounds;
        narrow((start, end), (&other.bounds.0, &other.bounds.1));
        self.exact &= other.exact;
    }

    /// Whether texts say such.
    pub(super) fn is_of_text(&self) -> bool {
        !matches!(self.bounds.0, Bound::Included(Reading::Latitude(_)))
    }
}

impl RangeBounds<Reading> for Readings {
    fn start_bound(&self) -> Bound<&Reading> {
        self.bounds.0.as_ref()
    }

    fn end_bound(&self) -> Bound<&Reading> {
        self.bounds.1.as_ref()
    }
}
