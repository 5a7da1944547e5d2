//! One process of a user at a time renews a token, and the others find the new one.

use rustix::process::{Signal, geteuid};

use super::support::{Answer, Begun, DevRelay, Laptop, StandIn, json_answer, signed_in};
use crate::support::Mykube;

const REFRESH: &str = "POST /auth/refresh";
const RECEIVED: &str = "POST /auth/refresh/received";

#[test]
fn of_twenty_processes_at_once_one_renews() {
    let (relay, laptop) = (DevRelay::start(), Laptop::new());
    relay.sign_in(&laptop);
    laptop.change(|credentials| credentials["expires_at"] = 1.into());
    let all: Vec<_> = (0..20).map(|_| laptop.mykube("whoami").start()).collect();
    for one in all {
        assert_eq!(one.event("account")["email"], "alice@example.com");
        assert_eq!(one.process.done().code, 0);
    }
    laptop.mykube("whoami").start().process.done().ok();
    assert_eq!(relay.logged("token replaced"), 1);
}

/// Signed in at this relay, with a token that has to be renewed.
fn stale(relay: &StandIn) -> Laptop {
    let laptop = Laptop::new();
    let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    Begun::by(&login).bring("code");
    assert_eq!(login.process.done().code, 0);
    laptop.change(|credentials| credentials["expires_at"] = 1.into());
    laptop
}

#[test]
fn one_that_is_killed_while_it_renews_holds_nobody_up() {
    let relay = StandIn::start(|asked, own| {
        (asked.call == REFRESH).then(|| match asked.before {
            0 => Answer::Nothing,
            _ => json_answer(200, &signed_in(own, "second")),
        })
    });
    let laptop = stale(&relay);
    let first = laptop.mykube("whoami").start();
    relay.wait(REFRESH, 1);
    let second = laptop.mykube("whoami").start();
    first.process.signal(Signal::KILL);
    second.event("account");
    assert_eq!(second.process.done().code, 0);
    assert_eq!(laptop.credentials()["refresh_token"], "refresh-second");
    // It asks for what the first one did not get.
    let asked = relay.calls(REFRESH);
    assert_eq!(asked[0].json()["refresh_token"], asked[1].json()["refresh_token"]);
    assert_eq!(asked.len(), 2);
}

#[test]
fn what_one_process_has_kept_others_use_while_it_goes_on() {
    let relay = StandIn::start(|asked, own| match asked.call.as_str() {
        REFRESH => Some(Answer::Held(Box::new(json_answer(200, &signed_in(own, "renewed"))))),
        RECEIVED => Some(Answer::Nothing),
        _ => None,
    });
    let laptop = stale(&relay);
    let first = laptop.mykube("whoami").start();
    relay.wait(REFRESH, 1);
    let second = laptop.mykube("whoami").start();
    second.process.says("another process has the lock");
    relay.go_on();
    second.process.done().ok();
    assert!(!first.process.stderr().contains("the token was replaced"), "it has not been waited for");
    assert_eq!(first.process.done().code, 0, "nor does it need that answer");
    assert_eq!(relay.calls(REFRESH).len(), 1);
}

#[test]
fn where_nothing_can_be_kept_nothing_is_renewed() {
    let relay = StandIn::start(|_, _| None);
    let laptop = stale(&relay);
    let home = laptop.config().parent().unwrap().to_owned();
    let read_only = |command: Mykube| {
        let mut unshare = vec!["--mount"];
        if !geteuid().is_root() {
            unshare.push("--map-root-user");
        }
        let mount = format!("mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"", home.display());
        unshare.extend(["sh", "-c", &mount, "sh"]);
        command.behind("unshare", &unshare)
    };
    read_only(laptop.mykube("whoami")).fails(1, &["has to be renewed", "cannot be kept", "XDG_CONFIG_HOME"]);
    assert!(relay.calls(REFRESH).is_empty(), "the old token still works");
    laptop.change(|credentials| credentials["expires_at"] = u64::MAX.into());
    read_only(laptop.mykube("whoami")).start().process.done().ok();
    // One cannot sign in there, and is told before a person has done anything.
    read_only(laptop.mykube("login").arg("--device")).fails(1, &["Read-only file system"]);
}
