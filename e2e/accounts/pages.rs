//! The relay's pages in a real browser, and `mykube login --device`, which one of them confirms.

use std::time::Duration;

use super::support::{DevRelay, Laptop};
use crate::support::{Process, Sandbox, not_run};

/// What `scripts/lib/browser.sh` names.
const PAGES: &str = "MYKUBE_BROWSER_PAGES";
const CHROMIUM: &str = "MYKUBE_CHROMIUM";
/// A browser starts, and each page is looked at four times and more, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn a_browser_goes_through_all_pages_and_signs_a_program_in() {
    let (Some(pages), Some(chromium)) = (std::env::var_os(PAGES), std::env::var_os(CHROMIUM)) else {
        not_run("the relay's pages in Chromium: NOT RUN, scripts/test installs what it needs");
        return;
    };
    let relay = DevRelay::start();
    let laptop = Laptop::new();
    let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--device"]).start();
    let code = login.event("device_code")["user_code"].as_str().unwrap().to_owned();
    let sandbox = Sandbox::new();
    let mut node = sandbox.command("node");
    node.arg(pages).env(CHROMIUM, chromium).env("RELAY", &relay.url).env("CODE", code);
    node.env("DEV_SECRET", std::fs::read_to_string(&relay.secret).unwrap());
    let node = Process::start(node);
    login.process.done_within(LIMIT).ok();
    let seen = node.done_within(LIMIT).ok();
    assert!(seen.contains("all pages are as they should be"), "{seen}");
    let is = laptop.text("whoami").args(["--relay-url", &relay.url]).start();
    // The browser without scripts has ended all sign-ins but its own.
    is.failed(1, &["does not know this sign-in"]);
    assert!(!relay.running.process.stderr().contains("no answer could be made"), "{}", relay.running.process.stderr());
}
