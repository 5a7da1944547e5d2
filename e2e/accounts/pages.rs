//! Signing in at a real relay, on its real pages: somebody who is signed in there clicks.

use super::support::{Begun, Browser, DevRelay, Laptop};

#[test]
fn a_click_on_the_relays_page_signs_the_program_in() {
    let (relay, laptop) = (DevRelay::start(), Laptop::new());
    let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--provider=any"]).start();
    let begun = Begun::by(&login);
    let mut browser = Browser::signed_in(&relay);
    // Where a provider leads to, once somebody has signed in there.
    let page = browser.get(&begun.url.replace("/auth/any?", "/portal/confirm?"));
    assert!(page.status == 200 && page.body.contains("alice@example.com"), "{}", page.body);
    let clicked = browser.submit(&page, "/portal/confirm", &[]);
    let to = clicked.location.unwrap_or_else(|| panic!("{}", clicked.body));
    let target = to.strip_prefix(&format!("http://127.0.0.1:{}", begun.port)).unwrap_or_else(|| panic!("{to}"));
    let shown = begun.get(target);
    assert!(shown.contains("You may close this tab"), "{shown}");
    let account = login.event("account");
    assert_eq!(account["user_id"], "dev:alice@example.com");
    let done = login.process.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(relay.logged("signed in by a click in a browser"), 1);
    // It is a whole sign-in: bound to this machine's key, and renewed with it.
    laptop.change(|credentials| credentials["expires_at"] = 1.into());
    laptop.mykube("whoami").start().process.done().ok();
    assert_eq!(relay.logged("token replaced"), 1);
    laptop.mykube("logout").start().process.done().ok();

    // The code is spent, and so it is told.
    let login = laptop.mykube("login").args(["--provider=any"]).start();
    let again = Begun::by(&login);
    again.get(&target.replace(&format!("state={}", begun.state), &format!("state={}", again.state)));
    login.failed(1, &["Invalid or expired auth code", "mykube login` begins anew"]);
}

#[test]
fn by_a_name_that_the_relay_does_not_know_nobody_is_signed_in() {
    let (relay, laptop) = (DevRelay::start(), Laptop::new());
    let other = relay.url.replace("127.0.0.1", "localhost");
    let login = laptop.mykube("login").args(["--relay-url", &other, "--provider=any"]).start();
    let begun = Begun::by(&login);
    let mut browser = Browser::signed_in(&relay);
    let query = begun.url.split_once('?').unwrap().1;
    let page = browser.get(&format!("/portal/confirm?{query}"));
    let clicked = browser.submit(&page, "/portal/confirm", &[]);
    begun.get(clicked.location.unwrap().strip_prefix(&format!("http://127.0.0.1:{}", begun.port)).unwrap());
    login.failed(1, &["Invalid or expired auth code", "another address", "`public_url` and `aliases`"]);
    let secret = laptop.mykube("login").args(["--relay-url", &other, "--dev-email=a@example.com", "--dev-secret-file"]);
    secret.arg(&relay.secret).fails(1, &["calls itself", &relay.url]);
}
