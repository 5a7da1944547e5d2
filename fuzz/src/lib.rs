//! Fuzz targets. `cargo +nightly fuzz run <target>` from the repository's root; the corpora are committed, and
//! `cargo test -p mykube-tunnel corpus` and `cargo test -p mykube-relay corpus` replay them on stable Rust.

mod targets;

/// The relay's codec, as the relay has it.
#[path = "../../relay/src/ws"]
#[allow(dead_code, reason = "the relay uses the rest")]
mod ws {
    pub(crate) mod codec;
    pub(crate) mod frames;
    #[path = "../../../fuzz/src/relay.rs"]
    pub(crate) mod replay;
}

/// Runs one target.
pub fn run(name: &str, data: &[u8]) {
    match name {
        "relay_frames" => ws::replay::run(data),
        _ => targets::run(name, data),
    }
}
