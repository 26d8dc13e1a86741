//! Where in a filter something is, for error messages.

use std::fmt;

use crate::path::abbreviate;

/// A condition's place in a filter; text only once somebody asks, since most filters have no errors.
#[derive(Clone, Copy)]
pub(crate) enum Location<'a> {
    /// The filter itself.
    Root,
    /// A member of a list.
    Member {
        of: &'a Location<'a>,
        list: &'static str,
        index: usize,
    },
    /// The inside of `$not`, or the field of a clause.
    Inside { of: &'a Location<'a>, name: &'a str },
}

impl<'a> Location<'a> {
    /// Member `index` of a list in here.
    pub(crate) fn member(&'a self, list: &'static str, index: usize) -> Self {
        Self::Member {
            of: self,
            list,
            index,
        }
    }

    /// What is called `name` in here.
    pub(crate) fn inside(&'a self, name: &'a str) -> Self {
        Self::Inside { of: self, name }
    }
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member {
                of: Self::Root,
                list,
                index,
            } => write!(f, "{list}[{index}]"),
            Self::Member { of, list, index } => write!(f, "{of}.{list}[{index}]"),
            Self::Inside { of: Self::Root, name } => f.write_str(&abbreviate(name)),
            Self::Inside { of, name } => write!(f, "{of}.{}", abbreviate(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_read_like_paths() {
        let root = Location::Root;
        let member = root.member("$or", 1);
        let not = member.inside("$not");
        assert_eq!(root.to_string(), "");
        assert_eq!(member.to_string(), "$or[1]");
        assert_eq!(not.inside("battery").to_string(), "$or[1].$not.battery");
        assert_eq!(not.member("$and", 0).to_string(), "$or[1].$not.$and[0]");
    }
}
