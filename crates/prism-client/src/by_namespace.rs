//! What there is one of for each namespace that is used.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// One for each namespace, for as long as somebody holds it.
pub(crate) struct ByNamespace<T>(Mutex<HashMap<String, Weak<T>>>);

impl<T> Default for ByNamespace<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByNamespace<T> {
    /// The one of this namespace, made where there is none.
    pub(crate) fn of(&self, namespace: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock();
        if let Some(one) = all.get(namespace).and_then(Weak::upgrade) {
            return one;
        }
        let one = Arc::new(make());
        all.retain(|_, other| other.strong_count() > 0);
        all.insert(namespace.to_owned(), Arc::downgrade(&one));
        one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_for_as_long_as_it_is_held() {
        let all = ByNamespace::default();
        let first = all.of("a", || 1);
        assert!(Arc::ptr_eq(&first, &all.of("a", || 2)));
        drop(first);
        assert_eq!(*all.of("b", || 3), 3);
        assert_eq!(all.0.lock().len(), 1);
    }
}
