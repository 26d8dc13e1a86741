//! What holds when something fails, for people: made from the cases that prove it and what backends declare.

use super::{
    Fault,
    cases::{FaultCase, Reach},
    fault::Scene,
    inbox, ledger, messaging, registry,
};
use crate::{InboxCapability, LedgerCapability, MessagingCapability, RegistryCapability};

/// What one case proves.
#[derive(Debug, Clone)]
pub struct Promise {
    /// What befalls the backend.
    pub fault: Fault,
    /// What holds then.
    pub holds: &'static str,
    /// Of which backends, by their place among the capabilities given.
    pub of: Vec<usize>,
}

/// Of registry slots.
pub fn registries(capabilities: &[RegistryCapability]) -> Vec<Promise> {
    promises(registry::FAULTS, capabilities)
}

/// Of messaging slots.
pub fn brokers(capabilities: &[MessagingCapability]) -> Vec<Promise> {
    promises(messaging::FAULTS, capabilities)
}

/// Of durability slots.
pub fn inboxes(capabilities: &[InboxCapability]) -> Vec<Promise> {
    promises(inbox::FAULTS, capabilities)
}

/// Of ledgers.
pub fn ledgers(capabilities: &[LedgerCapability]) -> Vec<Promise> {
    promises(ledger::FAULTS, capabilities)
}

fn promises<C: Reach, O: ?Sized>(cases: &[FaultCase<C, Scene<O>>], capabilities: &[C]) -> Vec<Promise> {
    let promise = |case: &FaultCase<C, Scene<O>>| Promise {
        fault: case.fault,
        holds: case.holds,
        of: (0..capabilities.len())
            .filter(|place| case.applies(&capabilities[*place]))
            .collect(),
    };
    cases.iter().map(promise).collect()
}
