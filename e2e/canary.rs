//! Searches the output, files and traffic of a whole run for its code, tickets, tokens and keys.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{
    Cluster, Mykube, Namespace, Relay, Running, cluster::kubeconfig, contains, files, recorder::Recorder,
};

/// A secret that must not be found, with its name.
struct Secret {
    what: &'static str,
    text: String,
}

fn secret(what: &'static str, text: impl Into<String>) -> Secret {
    Secret { what, text: text.into() }
}

/// Each line of a PEM or base64 text by itself: a part is as bad as the whole.
fn lines(what: &'static str, text: &str) -> Vec<Secret> {
    let lines = text.lines().filter(|line| line.len() >= 20 && !line.starts_with("-----"));
    lines
        .flat_map(|line| line.as_bytes().chunks(64))
        .filter(|part| part.len() >= 20)
        .map(|part| secret(what, String::from_utf8_lossy(part)))
        .collect()
}

#[test]
fn a_token_is_nowhere_but_in_the_kubeconfig() {
    let namespace = Namespace::create(&Cluster::get(), "canary");
    namespace.direct().kubectl(&["create", "serviceaccount", "canary"]).ok();
    let token = namespace.direct().kubectl(&["create", "token", "canary"]).ok().trim().to_owned();
    let secrets =
        vec![secret("the token", &*token), secret("the token's signature", token.rsplit('.').next().unwrap())];
    looked_for(&namespace, &json!({"token": token}), secrets);
}

#[test]
fn a_key_is_nowhere_but_in_the_kubeconfig() {
    let namespace = Namespace::create(&Cluster::get(), "canary");
    // Made for this test; the API server does not know it, but it takes the same way.
    let signed = crate::support::certs::Authority::new("canary").sign(&["canary"]);
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let mut secrets = lines("the key's PEM", &signed.key);
    secrets.extend(lines("the key", &base64(&signed.key)));
    let user = json!({"client-certificate-data": base64(&signed.certificate), "client-key-data": base64(&signed.key)});
    looked_for(&namespace, &user, secrets);
}

/// A whole run with this user, at the most verbose level, through a recorder.
fn looked_for(namespace: &Namespace, user: &Value, mut secrets: Vec<Secret>) {
    let relay = Relay::start();
    let recorder = Recorder::start(relay.address());
    let server = Mykube::new("server").args(["--relay-url", &recorder.url]);
    let config = kubeconfig("canary", &namespace.cluster.endpoint(), user).to_string();
    let source = server.sandbox().file("kubeconfig", config);
    let server = server.arg("--kubeconfig").arg(&source).start();
    let code = server.code();
    let wrong = format!("{}{:05}", &code[..3], (code[3..].parse::<u32>().unwrap() + 1) % 100_000);
    Mykube::client(&recorder.url).fails_with(&wrong, 3, &["ask for a new code"]);
    let client = Mykube::client(&recorder.url).start_with(&code);
    let way = namespace.through("tunnel", &client.kubeconfig());
    let asked = way.kubectl(&["get", "serviceaccounts", "-v=2"]);
    assert_eq!(asked.code, 1, "neither user may: the answer is the API server's own");
    let ends = [&relay.running, &server, &client];

    let recording = recorder.recording();
    let http = String::from_utf8_lossy(&recording.http).into_owned();
    let tickets: Vec<_> = http.split("\"ticket\":\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let renewed = recording.texts.iter().filter_map(|text| text.strip_prefix("ticket:"));
    let tickets: Vec<_> = tickets.into_iter().chain(renewed).map(|ticket| secret("a ticket", ticket)).collect();
    assert!(tickets.len() >= 5, "three calls and one ticket for each end: {}", tickets.len());
    // The relay sees tickets, as it must; it must see no other secret.
    relay_sees_none(&recording.from_ends, &recording.to_ends, &http, &recording.texts, &code, &secrets);

    secrets.extend(tickets);
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    secrets.extend([secret("the code", &*code), secret("the code as shown", spaced.clone())]);
    command_lines_have_none(&ends, &secrets);
    logs_have_none(&ends, &spaced, &secrets);
    let allowed = [source, client.kubeconfig()];
    files_have_none(&ends, &allowed, &secrets);
    let key_file = fs::read(&allowed[1]).unwrap();
    assert!(!key_file.is_empty());
    client.stop(rustix::process::Signal::TERM);
    assert_eq!(server.process.done().code, 0);
    logs_have_none(&ends, &spaced, &secrets);
    files_have_none(&ends, &allowed, &secrets);
}

fn relay_sees_none(up: &[u8], down: &[u8], http: &str, texts: &[String], code: &str, secrets: &[Secret]) {
    // The search finds a secret that is there.
    assert!(contains(up, b"\"mlkem768\"") && contains(down, b"\"mlkem768\""));
    assert!(contains(up, b"\"role\":\"agent\"") && contains(down, b"\"role\":\"client\""));
    let number = &code[code.len() - 5..];
    let texts = texts.join("\n");
    let seen = [up, down, http.as_bytes(), texts.as_bytes()];
    for bytes in seen {
        for Secret { what, text } in secrets {
            assert!(!contains(bytes, text.as_bytes()), "the relay sees {what}");
        }
        assert!(!contains(bytes, code.as_bytes()), "the relay sees the code");
        // Texts that only the ends may see: names of the welcome's fields, and kubectl's requests with their answers.
        for word in [
            "\"credentials\"",
            "\"certificate\"",
            "\"server_name\"",
            "\"cluster\"",
            "\"token\"",
            "canary",
            "Bearer ey",
            "kubectl",
            "/api/v1",
            "serviceaccounts",
            "Forbidden",
            "Unauthorized",
            "BEGIN CERTIFICATE",
        ] {
            assert!(!contains(bytes, word.as_bytes()), "the relay sees {word}");
        }
    }
    for bytes in [up, down, texts.as_bytes()] {
        let found = bytes.windows(number.len()).position(|five| five == number.as_bytes());
        let around = found.map(|at| bytes[at.saturating_sub(40)..bytes.len().min(at + 45)].escape_ascii().to_string());
        assert_eq!(around, None, "the relay sees the secret part of the code, {number}");
    }
    let fields = http.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    assert!(fields.into_iter().all(|field| field != number), "the secret part of the code is in an HTTP call");
}

fn command_lines_have_none(ends: &[&Running], secrets: &[Secret]) {
    for end in ends {
        let processes = end.sandbox.processes();
        assert!(processes.iter().any(|line| line.contains("mykube")), "{processes:?}");
        for line in processes {
            for Secret { what, text } in secrets {
                assert!(!line.contains(text), "{what} is in the command line {line}");
            }
        }
    }
}

fn logs_have_none(ends: &[&Running], code: &str, secrets: &[Secret]) {
    for end in ends {
        let log = end.process.stderr();
        assert!(log.contains("DEBUG") || log.contains("TRACE"), "not the most verbose level:\n{log}");
        // The server shows its code to its operator, in this line only.
        let log = log.replacen(&format!("Code: {code}"), "", 1);
        for Secret { what, text } in secrets {
            assert!(!log.contains(text), "{what} is in a log:\n{log}");
        }
        let number = &code[code.len() - 5..];
        let mut words = log.split(|c: char| !c.is_ascii_alphanumeric());
        assert!(words.all(|word| word != number), "the secret part of the code is in a log:\n{log}");
    }
}

fn files_have_none(ends: &[&Running], allowed: &[PathBuf], secrets: &[Secret]) {
    for end in ends {
        for dir in [end.sandbox.home(), end.sandbox.ram()] {
            for path in files(dir).into_iter().filter(|path| !allowed.contains(path)) {
                let content = fs::read(&path).unwrap();
                for Secret { what, text } in secrets {
                    assert!(!contains(&content, text.as_bytes()), "{what} is in {}", path.display());
                }
            }
        }
    }
}
