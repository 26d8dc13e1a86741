//! What a proxy says of a caller when it forwards a call, and by what its runner knows that a proxy says it.

use std::{borrow::Borrow, fmt, sync::Arc};

use sha2::{Digest, Sha256};

use crate::id::SessionToken;

/// Request metadata: who the caller is, as an authenticated proxy says.
pub const PRINCIPAL: &str = "x-prism-principal";

/// Request metadata: the IP address that the caller called the proxy from.
pub const PEER: &str = "x-prism-peer";

/// Request metadata: the [`Proof`] that a proxy forwards the call. Without it the two above are a lie.
pub const PROOF: &str = "x-prism-proof";

/// What a proxy shows with every call that it forwards to a runner, and nobody else can.
///
/// It is made from the token that the proxy gave the runner over the control stream. The token cannot be made
/// from it: whoever reads calls cannot take the runner's place.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proof(Arc<str>);

impl Proof {
    /// The proof of the proxy that issued this token.
    pub fn of(token: &SessionToken) -> Self {
        let mut hash = Sha256::new_with_prefix(b"prism: this call was forwarded\0");
        hash.update(token.to_wire());
        Self(hex::encode(&hash.finalize()[..16]).into())
    }

    /// As in the request metadata.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Proof {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_the_same_at_both_ends_and_tells_nothing() {
        let token = SessionToken::generate();
        let received = SessionToken::from_wire(token.to_wire()).unwrap();
        let proof = Proof::of(&token);
        assert_eq!(proof, Proof::of(&received));
        assert_ne!(proof, Proof::of(&SessionToken::generate()));
        assert_eq!(proof.as_str().len(), 32);
        assert!(!proof.as_str().contains(&hex::encode(token.to_wire())));
        assert_eq!(format!("{proof:?}"), "Proof(hidden)");
    }
}
