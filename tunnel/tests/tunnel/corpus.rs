//! Replays the committed fuzz corpora on stable Rust: what a fuzzer has found once stays found.

use std::{fs, path::Path};

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

fn replay(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut replayed = 0;
    for file in files {
        let path = file.unwrap().path();
        let data = fs::read(&path).unwrap();
        eprintln!("{}", path.display());
        targets::run(name, &data);
        replayed += 1;
    }
    assert!((1..=50).contains(&replayed), "{name} has {replayed} files");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_passes() {
    for (name, _) in targets::TARGETS {
        replay(name);
    }
}

#[test]
fn random_transports_lose_nothing() {
    use rand::Rng as _;
    for seed in 0..60 {
        let mut data = vec![0; 2 * 200];
        crate::pair::rng(seed).fill_bytes(&mut data);
        targets::run("transports", &data);
    }
}

#[test]
fn random_operations_keep_to_the_model() {
    use rand::Rng as _;
    for seed in 0..40 {
        let mut data = vec![0; 1 + 3 * 300];
        crate::pair::rng(seed).fill_bytes(&mut data);
        targets::run("mux", &data);
    }
}
