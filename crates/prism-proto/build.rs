//! Generates the messages and services from `proto/` with protox, so that no `protoc` is needed.
use std::{env, fs, path::PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};

const FILES: [&str; 3] = [
    "prism/interfaces/lifecycle.proto",
    "prism/interfaces/proxy_control_plane.proto",
    "prism/pattern/multicast_registry.proto",
];
/// What runners of the pattern say to each other and keep in ledgers: no interface, so not described to anybody.
const INTERNAL: &str = "prism/internal/delivery.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", root.display());

    let descriptors = protox::compile(FILES, [&root])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let everything = protox::compile(FILES.iter().copied().chain([INTERNAL]), [&root])?;

    let mut hashes = String::new();
    for file in FILES {
        let hash = hex::encode(Sha256::digest(fs::read(root.join(file))?));
        hashes.push_str(&format!("    ({file:?}, {hash:?}),\n"));
    }
    fs::write(out.join("hashes.rs"), format!("&[\n{hashes}]"))?;

    tonic_prost_build::configure()
        .bytes(".prism.pattern.MulticastRequest.payload")
        .bytes(".prism.pattern.SubscribeResponse.Delivery.payload")
        .bytes(".prism.pattern.SubscribeRequest.Answer.payload")
        .bytes(".prism.pattern.Reply.payload")
        .bytes(".prism.pattern.ListDeadLettersResponse.DeadLetter.payload")
        .bytes(".prism.internal")
        .compile_fds(everything)?;
    Ok(())
}
