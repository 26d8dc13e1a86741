//! What is said of the caller is believed only of a proxy that this process is registered with.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;
use parking_lot::RwLock;
use prism_core::caller::{PEER, PRINCIPAL, PROOF, Proof};

use crate::engine::LinkId;

/// By what the proxies are known that this process is registered with. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Proofs(Arc<RwLock<HashMap<Proof, LinkId>>>);

impl Proofs {
    /// Knows the proxy of a link by this from now on, or not at all. It stays known while its stream is
    /// broken: it goes on forwarding calls.
    pub(crate) fn replace(&self, link: LinkId, proof: Option<Proof>) {
        let mut known = self.0.write();
        known.retain(|_, of| *of != link);
        known.extend(proof.map(|proof| (proof, link)));
    }

    fn knows(&self, shown: &str) -> bool {
        self.0.read().contains_key(shown)
    }

    /// Takes out what is said of the caller unless a proxy says it, and in any case by what that is known.
    pub(super) fn keep_what_is_vouched_for(&self, headers: &mut HeaderMap) {
        let proof = headers.remove(PROOF);
        let shown = proof.as_ref().and_then(|proof| proof.to_str().ok());
        if !shown.is_some_and(|shown| self.knows(shown)) {
            headers.remove(PRINCIPAL);
            headers.remove(PEER);
        }
    }
}
