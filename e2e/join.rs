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

/// It ignores being asked to end, so that it sees the session's last moments.
#[test]
fn what_is_cut_in_a_second_terminal_does_not_look_complete_to_a_script() {
    let (relay, server, _upstream) = ends();
    let place = tempfile::tempdir().unwrap();
    let client = Mykube::client(&relay.url).args(["--resume-window", "1s", "--kubeconfig-dir"]).arg(place.path());
    let client = client.start_with(&server.code());
    let address = client.event("connected")["listen"].as_str().unwrap().to_owned();
    let (host, port) = address.split_once(':').unwrap();
    let script = format!(
        "trap '' TERM; exec 3<>/dev/tcp/{host}/{port}; echo beg\"\"un >&3; read -u 3 echo; echo $echo; read -u 3; \
         echo looks complete; exec sleep 1000"
    );
    let joined = shell(&place).args(["echo", "--", "bash", "-c", &script]).start();
    joined.process.prints("begun");
    relay.running.process.signal(Signal::KILL);
    client.failed(5, &["the session is lost"]);
    let done = joined.failed(5, &["the session with echo has ended"]);
    assert!(!done.stdout.contains("looks complete"), "{}", done.stdout);
}

#[test]
fn a_second_terminal_hears_of_an_outage_and_lines_begin_at_the_first_column() {
    let (relay, server, _upstream) = ends();
    let place = tempfile::tempdir().unwrap();
    let client = Mykube::client(&relay.url).arg("--kubeconfig-dir").arg(place.path()).start_with(&server.code());
    client.event("connected");
    // With the terminal's modes as `kubectl exec -it` leaves them.
    let script = "stty raw -echo; echo rea\"\"dy; exec sleep 1000";
    let joined = Mykube::text("shell").arg("--kubeconfig-dir").arg(place.path()).args(["--", "sh", "-c", script]);
    let joined = joined.start_on_terminal();
    joined.process.prints("ready");
    relay.running.process.signal(Signal::KILL);
    joined.process.prints("\r\nLost: ");
    joined.process.prints("retrying.\r\n");
    client.stop(Signal::TERM);
    assert_eq!(joined.process.done().code, 5);
    let said = joined.process.stdout();
    let after = said.split_once("ready\n").unwrap().1;
    assert!(!after.replace("\r\n", "").contains('\n'), "a staircase: {said:?}");
    joined.sandbox.assert_clean();
}
