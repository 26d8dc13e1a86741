//! What an answer says of whether to hold calls back.

use std::error::Error;

use prism_core::failure::OVERLOADED;
use tonic::Status;

/// Whether the service refused a call so that others are held back; `None` where the service said nothing: what went
/// wrong on the way does not mean that calls are taken.
pub(super) fn refused<T>(answer: &Result<T, Status>) -> Option<bool> {
    match answer {
        Ok(_) => Some(false),
        Err(status) if status.source().is_some() => None,
        Err(status) => Some(status.metadata().contains_key(OVERLOADED)),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use prism_core::failure::{Failure, Reason};

    use super::*;

    #[test]
    fn only_what_the_service_says_counts() {
        let busy = Failure::new(Reason::Overloaded, "too much to do");
        let lost = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused(&Ok(())), Some(false));
        assert_eq!(refused::<()>(&Err(busy.clone().into())), Some(false));
        assert_eq!(refused::<()>(&Err(busy.hold_back().into())), Some(true));
        assert_eq!(refused::<()>(&Err(Status::from_error(lost.into()))), None);
    }
}
