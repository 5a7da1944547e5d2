//! `mykube shell`: another terminal in a session that runs.

use rustix::process::Signal;

use crate::{merge::ends, support::Mykube};

fn shell(place: &tempfile::TempDir) -> Mykube {
    Mykube::new("shell").arg("--kubeconfig-dir").arg(place.path())
}

#[test]
fn a_second_terminal_needs_no_code_and_ends_with_the_session() {
    let (relay, server, _upstream) = ends();
    let place = tempfile::tempdir().unwrap();
    shell(&place).fails(1, &["no such session of yours runs here"]);

    let client = Mykube::client(&relay.url).arg("--kubeconfig-dir").arg(place.path()).start_with(&server.code());
    let address = client.event("connected")["listen"].as_str().unwrap().to_owned();
    let joined = shell(&place).args(["--", "sh", "-c", "cat \"$KUBECONFIG\"; echo in $MYKUBE_CLUSTER; exit 7"]).start();
    let done = joined.process.done();
    assert_eq!(done.code, 7, "{}", done.stderr);
    assert!(done.stdout.contains(&address) && done.stdout.contains("in echo"), "{}", done.stdout);
    shell(&place).arg("other").fails(1, &["no such session of yours runs here"]);

    let waits = shell(&place).args(["echo", "--", "sh", "-c", "echo waiting; exec sleep 1000"]).start();
    waits.process.prints("waiting");
    assert_eq!(client.stop(Signal::TERM).code, 0);
    waits.failed(5, &["the session with echo has ended"]);
}
