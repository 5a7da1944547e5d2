use std::{fs, time::Duration};

use mykube_relay::Config as RelayConfig;
use mykube_relay_accounts::keys::Purpose;

use super::*;
use crate::config::{Accounts, load_with};

const SECRET: &str = "canary-of-32-bytes-and-no-less-!";

/// What a relay makes of these variables and this `relay.toml`.
fn read(variables: &[(&str, &str)], toml: Option<&str>) -> Result<(Option<Accounts>, RelayConfig), String> {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Names::default();
    names.add_variables(variables.iter().map(|(name, value)| (name.into(), value.into()))).unwrap();
    understand(&names, dir.path(), toml)
        .map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn understand(names: &Names, dir: &Path, toml: Option<&str>) -> Result<(Option<Accounts>, RelayConfig), ConfigError> {
    let published = names.understand()?;
    let mut relay = RelayConfig::new(dir);
    relay.listen = published.listen.unwrap_or(relay.listen);
    let file = toml.map(|text| {
        let file = dir.join("relay.toml");
        fs::write(&file, text).unwrap();
        file
    });
    Ok((load_with(file.as_deref(), published, &relay)?, relay))
}

fn told(variables: &[(&str, &str)], toml: Option<&str>) -> String {
    match read(variables, toml) {
        Ok(_) => panic!("nothing is wrong with {variables:?}"),
        Err(told) => {
            assert!(!told.contains("canary"), "{told}");
            told
        }
    }
}

#[test]
fn each_name_means_its_flag_or_key() {
    let (accounts, relay) = read(
        &[
            ("PORT", "8080"),
            ("RELAY_PUBLIC_URL", "https://relay.example"),
            ("RELAY_JWT_SECRET", SECRET),
            ("RELAY_CORS_ORIGINS", "https://a.example, https://b.example,"),
            ("JWT_EXPIRATION", "2h"),
            ("RELAY_DEV_MODE", "false"),
            ("RELAY_DEV_SECRET", ""),
        ],
        None,
    )
    .unwrap();
    let accounts = accounts.unwrap();
    assert_eq!(relay.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(accounts.settings.public_url.as_str(), "https://relay.example");
    assert_eq!(accounts.settings.allow_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(accounts.settings.devices_life, Duration::from_hours(2));
    assert!(accounts.settings.dev.is_none());
    let keys = accounts.keys.unwrap();
    let expected = Keys::from_configured(SECRET.as_bytes()).unwrap();
    let derived = |keys: &Keys| keys.accepted().map(|key| key.derive(Purpose::Jwt)).collect::<Vec<_>>();
    assert_eq!(derived(&keys), derived(&expected));
    assert!(!format!("{keys:?}").contains("canary"));
    let (dev, _) = read(
        &[("BASE_URL", "http://localhost:1"), ("RELAY_DEV_MODE", "1"), ("RELAY_DEV_SECRET", "canary-of-dev-mode")],
        None,
    )
    .unwrap();
    assert!(dev.unwrap().settings.dev.is_some());
    assert!(read(&[], None).unwrap().0.is_none(), "a relay of codes");
    assert!(read(&[("PORT", "1"), ("RELAY_DEV_SECRET", SECRET)], None).unwrap().0.is_none());
}

#[test]
fn a_file_stands_above_them() {
    let toml = "public_url = \"https://file.example\"\nkeys_file = \"mine\"\n[accounts]\n[browser]\nallow_origin = []\n\
                [devices]\ntoken_lifetime = \"3h\"\n";
    let variables = [
        ("RELAY_PUBLIC_URL", "https://relay.example"),
        ("JWT_SECRET", SECRET),
        ("RELAY_CORS_ORIGINS", "nonsense"),
        ("JWT_EXPIRATION", "nonsense"),
    ];
    let accounts = read(&variables, Some(toml)).unwrap().0.unwrap();
    assert_eq!(accounts.settings.public_url.as_str(), "https://file.example");
    assert!(accounts.keys.is_none() && accounts.keys_file.ends_with("mine"));
    assert_eq!((accounts.settings.allow_origins.len(), accounts.settings.devices_life), (0, Duration::from_hours(3)));
    // What the file does not say is theirs.
    let accounts = read(&variables[..2], Some("[accounts]\nboot_scope = \"all\"\n")).unwrap().0.unwrap();
    assert_eq!(accounts.settings.public_url.as_str(), "https://relay.example");
    assert!(accounts.keys.is_some());
    let accounts = read(&[("BASE_URL", "https://b.example")], Some("[accounts]\n")).unwrap().0.unwrap();
    assert_eq!(accounts.settings.public_url.as_str(), "https://b.example");
}

#[test]
fn what_is_wrong_is_told_by_its_name_and_shows_no_secret() {
    let url = ("RELAY_PUBLIC_URL", "https://relay.example");
    for (variables, expected) in [
        (&[("PORT", "canary")][..], "PORT: a port is a number up to 65535"),
        (&[("PORT", "65536")], "PORT: a port"),
        (&[("JWT_SECRET", "canary")], "JWT_SECRET: the secret has 6 bytes and needs at least 32"),
        (&[("RELAY_JWT_SECRET", "canary"), url], "RELAY_JWT_SECRET: the secret has 6 bytes"),
        (
            &[("JWT_SECRET", SECRET), ("RELAY_JWT_SECRET", "canary")],
            "RELAY_JWT_SECRET: JWT_SECRET and RELAY_JWT_SECRET",
        ),
        (&[("BASE_URL", "https://b.example"), url], "BASE_URL: RELAY_PUBLIC_URL and BASE_URL mean the same"),
        (&[("JWT_SECRET", SECRET)], "JWT_SECRET: [accounts] needs `public_url`"),
        (&[("RELAY_PUBLIC_URL", "http://canary.example")], "RELAY_PUBLIC_URL: a relay that people sign in at"),
        (&[url, ("RELAY_CORS_ORIGINS", "https://a.example,canary")], "RELAY_CORS_ORIGINS: an origin is"),
        (&[url, ("JWT_EXPIRATION", "canary")], "JWT_EXPIRATION: how long a token lives"),
        (&[("RELAY_DEV_MODE", "canary")], "RELAY_DEV_MODE: it is `true` or `1`"),
        (&[url, ("RELAY_DEV_MODE", "true")], "RELAY_DEV_MODE: dev mode needs RELAY_DEV_SECRET"),
        (
            &[("BASE_URL", "http://127.0.0.1:1"), ("RELAY_DEV_MODE", "1"), ("RELAY_DEV_SECRET", "canary")],
            "RELAY_DEV_SECRET: `secret` is shorter than 16 bytes",
        ),
        (
            &[("PORT", "1"), ("BASE_URL", "http://127.0.0.1:1"), ("RELAY_DEV_MODE", "1"), ("RELAY_DEV_SECRET", SECRET)],
            "RELAY_DEV_SECRET: [dev] is for this machine alone: --listen must be a loopback address, not 0.0.0.0:1",
        ),
        (&[("TLS_CERT_FILE", "canary")], "TLS_CERT_FILE: it needs TLS_KEY_FILE"),
        (&[("TLS_KEY_FILE", "canary")], "TLS_KEY_FILE: it needs TLS_CERT_FILE"),
        (&[("BASE_URL", "https://canary.example")], "BASE_URL: it is of accounts: it needs RELAY_PUBLIC_URL"),
        (&[("RELAY_CORS_ORIGINS", "https://canary")], "RELAY_CORS_ORIGINS: it is of accounts"),
        (&[("JWT_EXPIRATION", "24h")], "JWT_EXPIRATION: it is of accounts"),
    ] {
        let told = told(variables, None);
        assert!(told.starts_with(expected) && told.lines().count() == 1, "{variables:?}: {told}");
    }
    let both = told(&[url, ("JWT_EXPIRATION", "x")], Some("[accounts]\nboot_scope = \"x\"\n"));
    let mut both: Vec<_> = both.lines().collect();
    both.sort_unstable();
    assert!(both[0].starts_with("JWT_EXPIRATION: ") && both[1].starts_with("relay.toml:2: boot_scope"), "{both:?}");
}

#[test]
fn what_is_not_built_is_refused_by_each_of_its_names() {
    let broker: Vec<_> =
        APPLICATIONS.iter().flat_map(|name| ["ID", "SECRET"].map(|part| format!("{name}_CLIENT_{part}"))).collect();
    let others = [
        "MAX_MESSAGE_LENGTH",
        "BROKER_SIGNING_KEY",
        "BROKER_SIGNING_KEY_FILE",
        "DICODE_E2E_MOCK_PROVIDER",
        "MTLS_CERT_FILE",
        "MTLS_KEY_FILE",
    ];
    for name in broker.iter().map(String::as_str).chain(others) {
        let told = told(&[(name, "canary")], None);
        assert!(told.starts_with(&format!("{name}: ")) && told.contains("is not built yet"), "{told}");
        assert!(read(&[(name, "")], None).is_ok(), "{name} is empty");
    }
    let for_broker = told(&[("GOOGLE_CLIENT_ID", "canary"), ("BASE_URL", "https://r.example")], None);
    assert!(for_broker.contains("GOOGLE_CLIENT_ID: the broker is not built yet"), "{for_broker}");
}

#[test]
fn googles_application_signs_people_in_beside_a_name_of_those_relays() {
    let url = ("RELAY_PUBLIC_URL", "https://r.example");
    let google = [("GOOGLE_CLIENT_ID", "canary-client"), ("GOOGLE_CLIENT_SECRET", "canary-secret")];
    let accounts = read(&[url, google[0], google[1]], None).unwrap().0.unwrap();
    let party = accounts.settings.providers.get("google").unwrap();
    assert_eq!(format!("{:?}", party.provider().kind), "Google");
    assert!(!format!("{:?}", accounts.settings).contains("canary"));
    // The file's own of that name stands above it.
    let toml = "[accounts]\n[[provider]]\nname = \"google\"\nissuer = \"https://i.example\"\nclient_id = \"x\"\n";
    let accounts = read(&[url, google[0], google[1]], Some(toml)).unwrap().0.unwrap();
    assert_eq!(accounts.settings.providers.get("google").unwrap().provider().issuer, "https://i.example");
    assert!(told(&[url, google[1]], None).starts_with("GOOGLE_CLIENT_SECRET: it needs GOOGLE_CLIENT_ID"));
}

#[test]
fn a_variable_stands_above_its_line_in_a_file_of_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.env");
    fs::write(
        &file,
        format!("RELAY_PUBLIC_URL=https://file.example\nJWT_EXPIRATION=x\nJWT_SECRET='{SECRET}'\nOTHER=1\n"),
    )
    .unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut names = Names::default();
    names.add_file(&file).unwrap();
    let error = understand(&names, dir.path(), None).map(drop).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:2: JWT_EXPIRATION: ", file.display())), "{error}");
    let above = [("RELAY_PUBLIC_URL", "https://above.example"), ("JWT_EXPIRATION", "1h"), ("JWT_SECRET", "")];
    names.add_variables(above.iter().map(|(name, value)| (name.into(), value.into()))).unwrap();
    let accounts = understand(&names, dir.path(), None).unwrap().0.unwrap();
    assert_eq!(accounts.settings.public_url.as_str(), "https://above.example");
    assert!(accounts.keys.is_some(), "what is set to nothing is not set");
}

#[test]
fn a_published_yaml_says_what_variables_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.yaml");
    let read = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut names = Names::default();
        names.add_variables([("JWT_SECRET".into(), SECRET.into()), ("PORT".into(), "1".into())].into_iter()).unwrap();
        names.add_yaml(&file).and_then(|()| understand(&names, dir.path(), None)).map_err(|error| {
            let told = error.to_string().replace(&format!("{}:", file.display()), "");
            assert!(!told.contains("canary"), "{told}");
            told
        })
    };
    let (accounts, relay) =
        read("server:\n  port: 5553\n  base_url: \"https://r${NOT_SET_ANYWHERE}.example\"\n  tls: {}\n").unwrap();
    assert_eq!(accounts.unwrap().settings.public_url.as_str(), "https://r.example");
    assert_eq!(relay.listen.port(), 5553);
    let port = read("server:\n  base_url: https://r.example\n  port: '${PORT}'\n").unwrap().1.listen;
    assert_eq!(port.port(), 1);
    for (text, expected) in [
        ("server:\n  port: canary\n", "2: server.port: a port is a number"),
        ("server:\n  base_url: [canary]\n", "2: server.base_url: it is one value"),
        ("server: canary\n", "1: server: there is no such key"),
        ("\nstatus:\n  password: canary\n", "3: status: the status page is not built yet"),
        ("broker:\n  providers: {github: {client_id: canary}}\n", "2: broker: the broker is not built yet"),
        ("relay: {ping_interval_ms: 1}\n", "1: relay: hooks of daemons is not built yet"),
        ("server:\n  tls:\n    cert_file: canary\n", "3: server.tls.cert_file: it needs TLS_KEY_FILE"),
        ("- canary\n", " it is no table of keys"),
        ("a: 'canary\n", "2: this is no YAML"),
        ("server: {port: 1, port: 2}\n", "1: this is no YAML, or a key stands here twice"),
    ] {
        let told = read(text).map(drop).unwrap_err();
        assert!(told.starts_with(expected), "{text:?}: {told}");
    }
}
