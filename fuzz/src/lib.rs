//! Fuzz targets. `cargo +nightly fuzz run <target>` from the repository's root; the corpora are committed, and
//! `cargo test -p mykube-tunnel corpus` and `cargo test -p mykube-relay-core corpus` replay them on stable Rust.

mod targets;

/// Runs one target.
pub fn run(name: &str, data: &[u8]) {
    match name {
        "relay_frames" => mykube_relay_core::frames::fuzz::run(data),
        _ => targets::run(name, data),
    }
}
