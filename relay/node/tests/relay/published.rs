//! Names of published relays: they do what they did there if that is asked for, and nothing otherwise.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::{
    operations::{certificate, handshake},
    program::{command, listening},
    support::{bounded, write_file},
};

const SECRET: &str = "canary-of-jwt-secret-of-40-bytes-or-more";
const DEV: &str = "canary-of-dev-mode";

/// Everything that any published relay is configured by.
const ALL: [&str; 20] = [
    "PORT",
    "BASE_URL",
    "RELAY_PUBLIC_URL",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
    "JWT_SECRET",
    "RELAY_JWT_SECRET",
    "JWT_EXPIRATION",
    "MAX_MESSAGE_LENGTH",
    "RELAY_CORS_ORIGINS",
    "RELAY_DEV_MODE",
    "RELAY_DEV_SECRET",
    "GOOGLE_CLIENT_ID",
    "GOOGLE_CLIENT_SECRET",
    "GITHUB_CLIENT_ID",
    "GITHUB_CLIENT_SECRET",
    "BROKER_SIGNING_KEY",
    "MTLS_CERT_FILE",
    "DICODE_E2E_MOCK_PROVIDER",
    "RELAY_CONFIG",
];

async fn ask(url: &str, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let host = url.split_once("://").unwrap().1;
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close");
    let length = body.len();
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    bounded(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn names_that_nobody_asked_for_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let names = |value: &'static str| ALL.map(|name| (name, value));
    let mut plain = command(&dir, &["--output", "json"]);
    plain.envs(names("canary"));
    let program = listening(plain).await;
    assert!(program.url.starts_with("http://127.0.0.1:"), "{}", program.url);
    assert_eq!(ask(&program.url, "GET", "/health", "").await.0, 404, "it knows no people");
    let log = String::from_utf8(program.terminate().await.stderr).unwrap();
    assert!(!log.contains("canary"), "{log}");
    let files: Vec<_> =
        std::fs::read_dir(dir.path().join("data")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(files.iter().all(|file| file != "keys" && file != "relay.db"), "{files:?}");
    // The same, asked for: each is told, and none of their values.
    let mut asked = command(&dir, &["--published-env"]);
    asked.envs(names("canary")).env_remove("RELAY_CONFIG");
    let refused = bounded(asked.output()).await.unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!told.contains("canary"), "{told}");
    // The values of these are read with the rest, when each by itself is right.
    let later = [
        "BASE_URL",
        "RELAY_PUBLIC_URL",
        "TLS_CERT_FILE",
        "TLS_KEY_FILE",
        "RELAY_JWT_SECRET",
        "JWT_EXPIRATION",
        "RELAY_CORS_ORIGINS",
        "RELAY_DEV_SECRET",
        "RELAY_CONFIG",
        "GOOGLE_CLIENT_ID",
        "GOOGLE_CLIENT_SECRET",
    ];
    for name in ALL.iter().filter(|name| !later.contains(name)) {
        assert!(told.contains(&format!("{name}: ")), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_published_relays_environment_starts_one_here() {
    let dir = tempfile::tempdir().unwrap();
    let start = async |secret: &str| {
        let mut command = command(&dir, &["--published-env", "--output", "json", "-vvv"]);
        command.env("PORT", "1").env("RELAY_PUBLIC_URL", "http://127.0.0.1:8080").env("RELAY_JWT_SECRET", secret);
        command.env("RELAY_DEV_MODE", "true").env("RELAY_DEV_SECRET", DEV);
        listening(command).await
    };
    // --listen stands above PORT.
    let program = start(SECRET).await;
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", program.child.id().unwrap())).unwrap();
    assert!(!String::from_utf8_lossy(&cmdline).contains("canary"));
    let body = serde_json::json!({"email": "a@example.com", "secret": DEV}).to_string();
    let (status, given) = ask(&program.url, "POST", "/auth/dev/token", &body).await;
    assert_eq!(status, 200, "{given}");
    assert!(!dir.path().join("data/keys").exists(), "the secret stands in place of a keys file");
    let log = String::from_utf8(program.terminate().await.stderr).unwrap();
    assert!(!log.contains("canary"), "{log}");
    // It lasts as long as the secret does.
    let revoke = serde_json::json!({"jwt": given["token"]}).to_string();
    let other = start("another-canary-of-jwt-secret-of-40-bytes").await;
    let (status, answer) = ask(&other.url, "POST", "/auth/revoke", &revoke).await;
    assert_eq!((status, &answer["error"]), (401, &"Invalid JWT: invalid signature".into()));
    other.terminate().await;
    let again = start(SECRET).await;
    assert_eq!(ask(&again.url, "POST", "/auth/revoke", &revoke).await, (200, serde_json::json!({"ok": true})));
    again.terminate().await;
}

#[tokio::test]
async fn port_and_tls_files_are_those_of_the_published_names_and_a_yaml_says_them_too() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let made = certificate();
    write_file(&cert, &made.cert);
    write_file(&key, &made.key);
    let env = format!("PORT=0\nTLS_CERT_FILE='{}'\nTLS_KEY_FILE='{}'\n", cert.display(), key.display());
    let env_file = private(dir.path(), "relay.env", &env);
    let yaml =
        format!("server:\n  port: 0\n  tls:\n    cert_file: {}\n    key_file: ${{KEY_OF_TEST}}\n", cert.display());
    let yaml_file = private(dir.path(), "relay.yaml", &yaml);
    for args in [["--env-file", &env_file], ["--config", &yaml_file]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
        command.env_clear().env("KEY_OF_TEST", &key).args(args).args(["--output", "json", "--data-dir"]);
        command.arg(dir.path().join("data")).stdin(std::process::Stdio::null()).kill_on_drop(true);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let program = listening(command).await;
        let port = program.url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
        handshake(([127, 0, 0, 1], port).into(), &made.der).await.unwrap();
        program.terminate().await;
    }
    for (file, text) in [(&env_file, "PORT=x\n"), (&yaml_file, "status:\n  password: canary\n")] {
        let check = async || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
            let output = bounded(command.env_clear().args(["check-config", file]).output()).await.unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        std::fs::write(file, "").unwrap();
        assert_eq!(check().await.0, Some(0));
        std::fs::write(file, text).unwrap();
        let (code, told) = check().await;
        assert!(code == Some(2) && told.contains(&**file) && !told.contains("canary"), "{told}");
    }
}

fn private(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    write_file(&file, text);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}
