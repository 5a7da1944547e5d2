//! Helpers of the tests: processes, the three commands, the cluster, and odd network parts.

pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod ends;
pub(crate) mod hostile;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod sandbox;

use std::{path::Path, time::Duration};

use sha2::{Digest as _, Sha256};

pub(crate) use self::{
    cluster::{Cluster, Namespace, Way},
    ends::{Mykube, Relay, Running, Tunnel},
    process::{Done, Process},
    sandbox::Sandbox,
};

/// Reports that a passing test did not run; `scripts/test` lists these at its end.
pub(crate) fn not_run(what: &str) {
    println!("{what}");
    if let Some(list) = std::env::var_os("MYKUBE_NOT_RUN") {
        let mut list = std::fs::File::options().append(true).open(list).unwrap();
        std::io::Write::write_all(&mut list, format!("{what}\n").as_bytes()).unwrap();
    }
}

/// How long anything may take before the test has failed. Normally nothing takes this long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// SHA-256 of a byte string, as `sha256sum` writes it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress and do not repeat, the same ones each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Whether `needle` occurs in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

/// Every regular file under `dir`.
pub(crate) fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found
}
