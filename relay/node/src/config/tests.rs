use super::*;

/// What is wrong with this text, a line each.
fn problems(text: &str, change: impl FnOnce(&mut RelayConfig)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    fs::write(&file, text).unwrap();
    let mut relay = RelayConfig::new(dir.path());
    change(&mut relay);
    let prefix = format!("{}:", file.display());
    match load(&file, &relay) {
        Ok(_) => Vec::new(),
        Err(error) => error.to_string().lines().map(|line| line.replace(&prefix, "")).collect(),
    }
}

const GOOD: &str = "public_url = \"http://127.0.0.1:8000\"\n[accounts]\n[dev]\nsecret = \"canary-of-dev-mode\"\n";

#[test]
fn a_file_without_accounts_is_a_relay_of_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    fs::write(&file, "# nothing\n").unwrap();
    assert!(load(&file, &RelayConfig::new(dir.path())).unwrap().is_none());
    fs::write(&file, GOOD).unwrap();
    let accounts = load(&file, &RelayConfig::new(dir.path())).unwrap().unwrap();
    assert_eq!(accounts.database, Database::Sqlite(dir.path().join("relay.db")));
    assert_eq!(accounts.keys_file, dir.path().join("keys"));
    assert!(accounts.settings.dev.is_some());
}

#[test]
fn every_mistake_has_its_line() {
    for (text, expected) in [
        ("a = \n", "1: "),
        ("\npublik_url = \"x\"\n", "2: unknown field `publik_url`"),
        ("[accounts]\nsign_ups = true\n", "2: unknown field `sign_ups`"),
        ("[accounts]\n", "1: [accounts] needs `public_url`"),
        ("\npublic_url = \"https://r.example\"\n", "2: `public_url` is of accounts: it needs [accounts]"),
        ("aliases = []\n", "1: `aliases` is of accounts"),
        ("keys_file = \"k\"\n", "1: `keys_file` is of accounts"),
        ("\n\n[database]\nurl = \"mysql://db\"\n", "3: `database` is of accounts"),
        ("[browser]\n", "1: `browser` is of accounts"),
        ("[dev]\nsecret = \"x\"\n", "1: [dev] is a way to sign in: it needs [accounts]"),
        ("public_url = \"relay.example\"\n[accounts]\n", "1: "),
        ("public_url = \"https://r.example\"\n[accounts]\nboot_scope = \"none\"\n", "3: boot_scope"),
        ("public_url = \"https://r.example\"\n[accounts]\nsign_up = \"opne\"\n", "3: sign_up is"),
        (
            "public_url = \"https://r.example\"\n[accounts]\n[database]\nurl = \"postgres://u:p@db\"\n",
            "4: PostgreSQL's address is `postgres://USER@HOST/DATABASE`",
        ),
        (
            "public_url = \"https://r.example\"\n[accounts]\n[database]\npassword_file = \"p\"\n",
            "3: `password`, `password_file` and `ca_file` are of PostgreSQL",
        ),
        (
            "public_url = \"https://r.example\"\n[accounts]\n[database]\nurl = \"postgres://u:p@db/r\"\npassword = \"q\"\n",
            "3: give one of a password in `url`",
        ),
        (
            "public_url = \"https://r.example\"\n[accounts]\n[browser]\nallow_origin = [\"https://a/b\"]\n",
            "4: an origin",
        ),
    ] {
        let problems = problems(text, |_| {});
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{text:?}: {problems:?}");
    }
}

#[test]
fn an_address_that_nothing_serves_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    let told = |url: &str, change: &dyn Fn(&mut RelayConfig)| {
        fs::write(&file, format!("public_url = \"{url}\"\n[accounts]\n")).unwrap();
        let mut relay = RelayConfig::new(dir.path());
        change(&mut relay);
        load(&file, &relay).unwrap().unwrap().unreachable(&relay).is_some()
    };
    let proxy = |relay: &mut RelayConfig| relay.trusted_proxies.push("192.0.2.1/32".parse().unwrap());
    assert!(told("https://relay.example", &|_| {}));
    assert!(!told("http://127.0.0.1:8000", &|_| {}));
    assert!(!told("https://relay.example", &proxy));
    assert!(told("https://relay.example", &|relay| {
        proxy(relay);
        relay.proxy_protocol = true;
    }));
}

#[test]
fn what_is_not_built_yet_is_refused_by_its_name() {
    let text = "[broker]\nopen = true\n\n[[hooks]]\n[accounts]\n[browser]\nstatic_dir = \"x\"\n";
    let expected = [
        "1: `broker` is not built yet: remove it",
        "4: `hooks` is not built yet: remove it",
        "7: `browser.static_dir` is not built yet: remove it",
    ];
    let mut problems = problems(text, |_| {});
    problems.sort();
    assert_eq!(problems, expected);
}

#[test]
fn dev_mode_is_for_this_machine_alone() {
    assert_eq!(problems(GOOD, |_| {}), Vec::<String>::new());
    let far = problems(GOOD, |relay| relay.listen = "0.0.0.0:8000".parse().unwrap());
    assert!(far[0].starts_with("3: [dev]") && far[0].contains("--listen"), "{far:?}");
    let proxied = problems(GOOD, |relay| relay.trusted_proxies.push("127.0.0.1/32".parse().unwrap()));
    assert!(proxied[0].contains("--trusted-proxy"), "{proxied:?}");
    let public = problems(&GOOD.replace("http://127.0.0.1:8000", "https://relay.example"), |_| {});
    assert!(public[0].contains("`public_url` must be a loopback address"), "{public:?}");
    let none = problems(&GOOD.replace("secret = \"canary-of-dev-mode\"", ""), |_| {});
    assert!(none[0].contains("MYKUBE_DEV_SECRET"), "{none:?}");
    let short = problems(&GOOD.replace("canary-of-dev-mode", "fifteen bytes.."), |_| {});
    assert!(short[0].contains("shorter than 16 bytes"), "{short:?}");
    let hidden = problems(GOOD, |relay| relay.proxy_protocol = true);
    assert!(hidden[0].contains("--proxy-protocol"), "{hidden:?}");
    let twice = problems(&format!("{GOOD}secret_file = \"x\"\n"), |_| {});
    assert!(twice[0].contains("give one of"), "{twice:?}");
}

#[test]
fn no_message_shows_a_secret() {
    for (from, to) in [
        ("\"canary-of-dev-mode\"", "70707070"),
        ("\"canary-of-dev-mode\"", "70707070707070707070"),
        ("\"canary-of-dev-mode\"", "707070707070707070707070707070"),
        ("\"canary-of-dev-mode\"", "0x7070707070707070707070707070"),
        ("\"canary-of-dev-mode\"", "7070.7070"),
        ("\"canary-of-dev-mode\"", "[70707070]"),
        ("\"canary-of-dev-mode\"", "{ it = 70707070 }"),
        ("\"canary-of-dev-mode\"", "7070-07-07"),
        ("\"canary-of-dev-mode\"", "\"canary-70707070"),
        ("\"canary-of-dev-mode\"", "\"canary\""),
        ("\"canary-of-dev-mode\"", "\"canary-of-dev-mode"),
        ("[dev]", "[database]\nurl = \"postgres://u:canary@db\"\n[dev]"),
        ("[dev]", "[database]\nurl = \"postgres://u:canary@db/r?x=canary\"\n[dev]"),
        ("[dev]", "[database]\nurl = 7070\n[dev]"),
        ("[dev]", "[database]\nurl = \"postgres://u:canary@db/r\"\npassword = 7070\n[dev]"),
        ("[dev]", "[database]\nurl = \"postgres://u:canary@db/r\"\npassword = \"canary\"\n[dev]"),
        ("secret = ", "secrets = "),
        ("[accounts]", "[accounts]\nboot_scope = \"none\""),
    ] {
        let problems = problems(&GOOD.replace(from, to), |_| {});
        assert!(!problems.is_empty(), "{to}");
        let told = problems.concat();
        assert!(!told.contains("7070") && !told.contains("canary"), "{told}");
    }
}

#[test]
fn a_secret_file_that_others_may_read_is_none() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let (file, secret) = (dir.path().join("relay.toml"), dir.path().join("dev-secret"));
    let text = GOOD.replace("secret = \"canary-of-dev-mode\"", "secret_file = \"dev-secret\"");
    fs::write(&file, text).unwrap();
    fs::write(&secret, "canary-of-dev-mode\n").unwrap();
    let load_with = |mode| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        load(&file, &RelayConfig::new(dir.path())).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load_with(0o600), Ok(()));
    let told = load_with(0o644).unwrap_err();
    assert!(told.contains(":3: cannot read") && told.contains("mode 644"), "{told}");
}
