//! A token on standard input, and files that are not as this program left them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use data_encoding::BASE64URL_NOPAD;

use super::support::{Begun, DevRelay, Laptop, StandIn};

#[test]
fn a_token_on_standard_input_works_until_it_ends() {
    let (relay, from, to) = (DevRelay::start(), Laptop::new(), Laptop::new());
    relay.sign_in(&from);
    let token = from.credentials()["token"].as_str().unwrap().to_owned();
    let login = || to.mykube("login").args(["--relay-url", &relay.url, "--with-token"]);
    let mut brought = login().start_with(&token);
    brought.process.end_input();
    let account = brought.event("account");
    assert!(account["until"].as_str().unwrap().ends_with('Z') && account["email"] == "alice@example.com", "{account}");
    let done = brought.process.done();
    assert!(done.code == 0 && done.stderr.contains("until ") && !done.stderr.contains(&token), "{}", done.stderr);
    assert_eq!(to.credentials()["refresh_token"], serde_json::Value::Null);
    let whoami = to.mykube("whoami").start();
    assert_eq!(whoami.event("account"), account);
    // It is used to its end, and then not at all.
    to.change(|credentials| credentials["expires_at"] = 1.into());
    to.mykube("whoami").fails(1, &["has ended, and cannot be renewed", "mykube login"]);
    to.mykube("logout").start().process.done().ok();
    // Signing out with it ends it, and not the sign-in that it came from.
    let mut again = login().start_with(&token);
    again.process.end_input();
    again.process.done().ok();
    to.mykube("logout").start().process.done().ok();
    login().fails_with(&token, 1, &["does not know this sign-in any more"]);
    from.mykube("whoami").start().process.done().ok();
}

#[test]
fn what_is_no_token_of_this_relay_is_not_sent_to_it() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let jwt = |alg: &str, issuer: &str, audience: &str| {
        let encode = |text: String| BASE64URL_NOPAD.encode(text.as_bytes());
        let claims = format!(r#"{{"iss":"{issuer}","aud":"{audience}","exp":4102444800}}"#);
        format!("{}.{}.c2ln", encode(format!(r#"{{"alg":"{alg}"}}"#)), encode(claims))
    };
    for (token, words) in [
        (jwt("HS256", "https://other.example", "mykube"), "of the relay https://other.example"),
        (jwt("HS256", &relay.url, "daemon"), "class `daemon`"),
        (jwt("RS256", "https://accounts.example", "mykube"), "ID token of an identity provider"),
        ("rlk_app_secret".to_owned(), "not built yet"),
        ("rla_agent_secret".to_owned(), "mykube server --token-file FILE"),
        ("mkr_secret_of_a_family".to_owned(), "key of the machine"),
        ("nonsense".to_owned(), "is no token"),
        (String::new(), "has no token"),
        ("x".repeat(1 << 20), "is no token"),
    ] {
        let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--with-token"]);
        let done = login.fails_with(&token, 1, &[words]);
        assert!(token.is_empty() || !done.stderr.contains(&token), "{}", done.stderr);
    }
    assert!(relay.asked().is_empty(), "{:?}", relay.asked());
    laptop.mykube("login").args(["--with-token", "rla_agent_secret"]).fails(2, &["unexpected argument"]);
}

#[test]
fn files_that_are_not_as_they_were_left_are_not_used() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    Begun::by(&login).bring("code");
    assert_eq!(login.process.done().code, 0);
    let file = laptop.find("credentials");
    let good = fs::read(&file).unwrap();
    let asked = relay.asked().len();
    let refused = |words: &str| drop(laptop.mykube("whoami").fails(1, &[words]));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    refused("other users may read");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    refused("is damaged");
    fs::write(&file, "").unwrap();
    refused("is damaged");
    fs::write(&file, String::from_utf8(good.clone()).unwrap().replace(&relay.url, "https://other.example")).unwrap();
    refused("is damaged");
    let elsewhere = file.with_file_name("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&elsewhere, &file).unwrap();
    refused("no regular file");
    assert_eq!(relay.asked().len(), asked, "nothing was sent");
    // A sign-in puts a file of its own there, and what the link led to stays as it was.
    let login = laptop.mykube("login").start();
    Begun::by(&login).bring("code");
    assert_eq!(login.process.done().code, 0);
    assert!(!file.is_symlink() && fs::read(&elsewhere).unwrap() == good);
}

#[test]
fn the_configuration_is_its_users() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = || {
        let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
        Begun::by(&login).bring("code");
        let done = login.process.done();
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stderr
    };
    login();
    let file = laptop.config();
    let own = format!("relay = \"{}\"\norganisation = \"org_1\"\n", relay.url);
    assert_eq!(fs::read_to_string(&file).unwrap(), own);
    fs::write(&file, "# mine\nrelay = \"https://other.example\"\n\ntheme = \"dark\" # later\n").unwrap();
    login();
    let kept = format!("organisation = \"org_1\"\n# mine\nrelay = \"{}\"\n\ntheme = \"dark\" # later\n", relay.url);
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    let whoami = laptop.mykube("whoami").start().process.done();
    assert!(whoami.stderr.contains("config.toml:5: nothing reads `theme`"), "{}", whoami.stderr);

    let broken = "# mine\nrelay = https://other.example\n";
    fs::write(&file, broken).unwrap();
    laptop.mykube("whoami").fails(2, &["config.toml:2: "]);
    assert!(login().contains("the relay is not remembered"));
    assert_eq!(fs::read_to_string(&file).unwrap(), broken, "it is not written over");
}
