//! What is held back, by namespace.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use prism_core::{failure::OVERLOADED, overload::Throttle};
use tonic::Status;

/// The throttles of a client. One lives as long as somebody uses its namespace.
#[derive(Default)]
pub(crate) struct Throttles(Mutex<HashMap<String, Weak<Throttle>>>);

impl Throttles {
    pub(super) fn of(&self, namespace: &str) -> Arc<Throttle> {
        let mut throttles = self.0.lock();
        if let Some(throttle) = throttles.get(namespace).and_then(Weak::upgrade) {
            return throttle;
        }
        let throttle = Arc::new(Throttle::default());
        throttles.retain(|_, throttle| throttle.strong_count() > 0);
        throttles.insert(namespace.to_owned(), Arc::downgrade(&throttle));
        throttle
    }
}

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

    #[test]
    fn a_namespace_has_one_for_as_long_as_it_is_used() {
        let throttles = Throttles::default();
        let first = throttles.of("a");
        assert!(Arc::ptr_eq(&first, &throttles.of("a")));
        drop(first);
        throttles.of("b");
        assert_eq!(throttles.0.lock().len(), 1);
    }
}
