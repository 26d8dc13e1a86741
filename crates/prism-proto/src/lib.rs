//! What goes over the wire: the messages and services of `proto/`, generated at build time.
//!
//! Nothing here is written by hand but the module tree. Conversions to domain types live with the
//! crate that owns the domain type, in its `wire.rs`.

/// `prism.interfaces`: how a plugin lives under a proxy.
#[allow(missing_docs, clippy::all)]
pub mod interfaces {
    tonic::include_proto!("prism.interfaces");
}

/// `prism.pattern`: the multicast registry itself.
#[allow(missing_docs, clippy::all)]
pub mod pattern {
    tonic::include_proto!("prism.pattern");
}

/// `prism.internal`: between runners of the multicast registry, and in its ledgers.
#[allow(missing_docs, clippy::all)]
pub mod internal {
    tonic::include_proto!("prism.internal");
}

/// The encoded `FileDescriptorSet` of every interface, for gRPC reflection and proto JSON.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Each file below the proto root with the lower-case hex SHA-256 of its text.
pub const FILE_HASHES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/hashes.rs"));

/// The SHA-256 of one proto file, as an interface declaration carries it.
pub fn file_hash(file: &str) -> Option<&'static str> {
    FILE_HASHES
        .iter()
        .find(|(name, _)| *name == file)
        .map(|(_, hash)| *hash)
}
