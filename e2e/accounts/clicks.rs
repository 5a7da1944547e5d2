//! Signing in at a real relay, on its real pages: somebody signs in there, and clicks.

use super::support::{Begun, Browser, DevRelay, Laptop, Page};

/// Where the click leads to on this machine: path and query.
fn target(begun: &Begun, clicked: &Page) -> String {
    let to = clicked.location.as_deref().unwrap_or_else(|| panic!("{}", clicked.body));
    to.strip_prefix(&format!("http://127.0.0.1:{}", begun.port)).unwrap_or_else(|| panic!("{to}")).to_owned()
}

#[test]
fn a_click_on_the_relays_page_signs_the_program_in() {
    let (relay, laptop) = (DevRelay::start(), Laptop::new());
    let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    let begun = Begun::by(&login);
    let mut browser = Browser::new(&relay.url);
    let page = browser.get(&begun.url);
    let page = browser.sign_in(&page, &relay);
    assert!(
        page.status == 200 && page.body.contains("Sign in mykube on this computer as alice@example.com"),
        "{}",
        page.body
    );
    let target = target(&begun, &browser.submit(&page, "/portal/confirm", &[]));
    let shown = begun.get(&target);
    assert!(shown.contains("You may close this tab"), "{shown}");
    assert_eq!(login.event("account")["user_id"], "dev:alice@example.com");
    let done = login.process.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(relay.logged("signed in by a click in a browser"), 1);
    // It is a whole sign-in: bound to this machine's key, and renewed with it.
    laptop.change(|credentials| credentials["expires_at"] = 1.into());
    laptop.mykube("whoami").start().process.done().ok();
    assert_eq!(relay.logged("token replaced"), 1);
    laptop.mykube("logout").start().process.done().ok();

    // The code is spent, and so it is told.
    let login = laptop.mykube("login").start();
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
    // Where a provider leads to, once somebody has signed in there.
    let page = browser.get(&format!("/portal/confirm?{}", begun.url.split_once('?').unwrap().1));
    begun.get(&target(&begun, &browser.submit(&page, "/portal/confirm", &[])));
    login.failed(1, &["Invalid or expired auth code", "another address", "`public_url` and `aliases`"]);
    let secret = laptop.mykube("login").args(["--relay-url", &other, "--dev-email=a@example.com", "--dev-secret-file"]);
    secret.arg(&relay.secret).fails(1, &["calls itself", &relay.url]);
}

#[test]
fn a_code_is_confirmed_after_the_relay_was_away() {
    let (mut relay, laptop) = (DevRelay::start(), Laptop::new());

    let program = laptop.mykube("login").args(["--relay-url", &relay.url, "--device"]).start();
    let code = program.event("device_code");
    let code = code["user_code"].as_str().unwrap().to_owned();
    relay.stop();
    program.process.says("trying again while the code is good");
    relay.go_on();
    let answer = |relay: &DevRelay, code: &str, answer: &str| {
        let mut browser = Browser::signed_in(relay);
        let page = browser.get("/device");
        let page = browser.submit(&page, "/device", &[("code", code)]);
        assert!(page.body.contains("it calls itself mykube/") && page.body.contains("127.0.0.1"), "{}", page.body);
        let page = browser.submit(&page, "/device/answer", &[("answer", answer)]);
        assert_eq!(page.status, 200, "{}", page.body);
    };
    answer(&relay, &code, "confirm");
    assert_eq!(program.event("account")["user_id"], "dev:alice@example.com");
    program.process.done().ok();
    assert_eq!(relay.logged("signed in by a code"), 1);
    laptop.change(|credentials| credentials["expires_at"] = 1.into());
    laptop.mykube("whoami").start().process.done().ok();
    assert_eq!(relay.logged("token replaced"), 1);

    let refused = laptop.mykube("login").args(["--relay-url", &relay.url, "--device"]).start();
    let code = refused.event("device_code")["user_code"].as_str().unwrap().to_owned();
    answer(&relay, &code, "refuse");
    refused.failed(1, &["said no"]);
    laptop.mykube("whoami").start().process.done().ok();
}
