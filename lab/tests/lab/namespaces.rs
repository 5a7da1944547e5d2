//! The owners of namespaces, and when namespaces are removed.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use mykube_lab::{Lab, Shape};

/// `lab net`, and the names of its namespaces.
fn lab_net() -> (Child, Vec<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["net", "--names", "left,right"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let names = ready["namespaces"].as_object().unwrap().values();
    (child, names.map(|one| one["netns"].as_str().unwrap().to_owned()).collect())
}

fn exists(name: &str) -> bool {
    std::path::Path::new("/run/netns").join(name).exists()
}

#[test]
fn a_namespace_goes_with_all_that_runs_in_it() {
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.namespace("a").unwrap(), lab.namespace("b").unwrap());
    let link = lab.link(&a, &b, Shape::default()).unwrap();
    let mut inside =
        a.command("sh").args(["-c", "ip -brief link; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(inside.stdout.as_mut().unwrap()).lines();
    let links = [lines.next().unwrap().unwrap(), lines.next().unwrap().unwrap()];
    assert!(links[0].starts_with("lo ") && links[1].starts_with(link.device()), "{links:?}");
    let names = [a.name().to_owned(), b.name().to_owned()];
    drop((link, a, b));
    assert!(!names.iter().any(|name| exists(name)));
    let mut rest = String::new();
    inside.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(!inside.wait().unwrap().success(), "it was ended");
}

#[test]
fn what_a_crash_left_behind_goes_when_the_next_lab_starts() {
    let (mut crashed, left) = lab_net();
    let (mut alive, kept) = lab_net();
    assert!(left.iter().chain(&kept).all(|name| exists(name)));
    crashed.kill().unwrap();
    crashed.wait().unwrap();
    let _lab = Lab::new().unwrap();
    assert!(!left.iter().any(|name| exists(name)), "left behind: {left:?}");
    assert!(kept.iter().all(|name| exists(name)), "another's: {kept:?}");
    // The end of its input.
    drop(alive.stdin.take());
    assert!(alive.wait().unwrap().success());
    assert!(!kept.iter().any(|name| exists(name)));
}

#[test]
fn names_that_would_be_misread_are_refused() {
    let lab = Lab::new().unwrap();
    for wrong in ["", "a-b", "../x", "a b"] {
        assert!(lab.namespace(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn buffers_of_tcp_may_grow_to_64_mib() {
    let lab = Lab::new().unwrap();
    let a = lab.namespace("a").unwrap();
    for name in ["tcp_rmem", "tcp_wmem"] {
        let value = a.enter(|| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"))).unwrap().unwrap();
        assert_eq!(value.split_whitespace().last(), Some("67108864"), "{name}");
    }
}
