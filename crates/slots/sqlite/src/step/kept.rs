//! Values of a transaction that are kept in memory, and can be had as they were before the last call.

use std::collections::HashMap;

/// A value, and whether it is to be written.
type Entry<V> = (V, bool);

/// Values by namespace.
pub(crate) struct Kept<V> {
    values: HashMap<i64, Entry<V>>,
    /// Of those that the call at work has touched, how they were before.
    before: Vec<(i64, Option<Entry<V>>)>,
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self {
            values: HashMap::new(),
            before: Vec::new(),
        }
    }
}

impl<V: Clone> Kept<V> {
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.before.clear();
    }

    /// A call begins.
    pub(crate) fn save(&mut self) {
        self.before.clear();
    }

    /// Takes back what the call did.
    pub(crate) fn restore(&mut self) {
        for (ns, entry) in self.before.drain(..).rev() {
            match entry {
                Some(entry) => self.values.insert(ns, entry),
                None => self.values.remove(&ns),
            };
        }
    }

    fn touch(&mut self, ns: i64) {
        if !self.before.iter().any(|(touched, _)| *touched == ns) {
            self.before.push((ns, self.values.get(&ns).cloned()));
        }
    }

    pub(crate) fn get(&self, ns: i64) -> Option<&V> {
        self.values.get(&ns).map(|(value, _)| value)
    }

    pub(crate) fn insert(&mut self, ns: i64, value: V, is_changed: bool) {
        self.touch(ns);
        self.values.insert(ns, (value, is_changed));
    }

    /// For changes that need not be written by themselves.
    pub(crate) fn peek(&mut self, ns: i64) -> Option<&mut V> {
        self.touch(ns);
        self.values.get_mut(&ns).map(|(value, _)| value)
    }

    /// For changes that are to be written.
    pub(crate) fn change(&mut self, ns: i64) -> Option<&mut V> {
        self.touch(ns);
        let (value, is_changed) = self.values.get_mut(&ns)?;
        *is_changed = true;
        Some(value)
    }

    /// All of them, and whether they are to be written.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i64, &V, bool)> {
        self.values
            .iter()
            .map(|(ns, (value, is_changed))| (*ns, value, *is_changed))
    }

    /// What is to be written.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (i64, &V)> {
        let changed = self.values.iter().filter(|(_, (_, is_changed))| *is_changed);
        changed.map(|(ns, (value, _))| (*ns, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_did_can_be_taken_back() {
        let mut kept = Kept::default();
        kept.insert(1, "a", false);
        kept.save();
        if let Some(value) = kept.change(1) {
            *value = "b";
        }
        kept.insert(2, "c", true);
        assert_eq!(kept.changed().count(), 2);
        kept.restore();
        assert_eq!(
            (kept.get(1), kept.get(2), kept.changed().count()),
            (Some(&"a"), None, 0)
        );
    }
}
