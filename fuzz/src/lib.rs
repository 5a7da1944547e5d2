//! Fuzz targets. `cargo +nightly fuzz run <target>` from the repository's root; the corpora are committed, and
//! `cargo test -p mykube-tunnel corpus` replays them on stable Rust.

mod targets;

/// Runs one target.
pub fn run(name: &str, data: &[u8]) {
    targets::run(name, data);
}
