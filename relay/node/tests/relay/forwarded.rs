//! `X-Forwarded-For` from anybody: no limit of an address ends by it.

use tokio::net::TcpStream;

use crate::{
    operations::{certificate, handshake},
    program::{command, listening},
    support::{call, write_file},
};

/// What a caller says of where it comes from, the `n`th time.
type Says = fn(usize) -> String;

/// All but the last are in front of what a proxy adds.
const SAYS: [(&str, Says); 8] = [
    ("another address each time", |n| format!("X-Forwarded-For: 198.51.100.{n}\r\n")),
    ("a list", |n| format!("X-Forwarded-For: 198.51.100.{n}, 203.0.113.{n}\r\n")),
    ("this machine", |_| "X-Forwarded-For: 127.0.0.1\r\n".to_owned()),
    ("IPv6", |n| format!("X-Forwarded-For: 2001:db8:{n:x}::1\r\n")),
    ("nonsense", |n| format!("X-Forwarded-For: unknown-{n}\r\n")),
    ("two headers", |n| format!("X-Forwarded-For: 198.51.100.{n}\r\nx-forwarded-for: 203.0.113.{n}\r\n")),
    ("RFC 7239", |n| format!("Forwarded: for=198.51.100.{n}\r\nX-Real-IP: 198.51.100.{n}\r\n")),
    ("nothing", |_| String::new()),
];
/// `POST /auth/dev` of one address a minute.
const FIGURE: usize = 5;

async fn answers(ask: impl AsyncFn(String) -> u16, says: Says, behind: &str) -> Vec<u16> {
    let mut answers = Vec::new();
    for n in 0..=FIGURE {
        answers.push(ask(format!("{}{behind}", says(n))).await);
    }
    answers
}

#[tokio::test]
async fn no_limit_ends_by_what_a_caller_says_of_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key, toml] =
        ["cert.pem", "key.pem", "relay.toml"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let made = certificate();
    write_file(cert.as_ref(), &made.cert);
    write_file(key.as_ref(), &made.key);
    write_file(toml.as_ref(), "public_url = \"https://relay.test\"\n[accounts]\n");
    // It is off (404): what is over the limit is not even told that.
    let mut within = vec![404; FIGURE];
    within.push(429);
    for (name, says) in SAYS {
        // With TLS of its own, and no proxy that it believes; a relay for each, as all are one address.
        let program =
            listening(command(&dir, &["--config", &toml, "--tls-cert", &cert, "--tls-key", &key, "--output", "json"]))
                .await;
        let port: u16 = program.url.rsplit(':').next().unwrap().parse().unwrap();
        let ask = async |headers: String| {
            let stream = handshake(([127, 0, 0, 1], port).into(), &made.der).await.unwrap();
            call(stream, "POST", "/auth/dev", &headers, "").await.status
        };
        assert_eq!(answers(ask, says, "").await, within, "{name}, over TLS");
        program.terminate().await;
    }
    // Behind a proxy that it believes, which adds where it was asked from.
    let program =
        listening(command(&dir, &["--config", &toml, "--trusted-proxy", "127.0.0.1/32", "--output", "json"])).await;
    let addr = program.url.split_once("://").unwrap().1.to_owned();
    let ask = async |headers: String| {
        call(TcpStream::connect(&addr).await.unwrap(), "POST", "/auth/dev", &headers, "").await.status
    };
    for (n, (name, says)) in SAYS.into_iter().enumerate() {
        let behind = format!("X-Forwarded-For: 192.0.2.{n}\r\n");
        assert_eq!(answers(ask, says, &behind).await, within, "{name}, behind a proxy");
    }
    program.terminate().await;
    // Neither: whoever forwards is not known, and is told so.
    let program = listening(command(&dir, &["--config", &toml, "--output", "json"])).await;
    let addr = program.url.split_once("://").unwrap().1.to_owned();
    let ask = async |headers: String| {
        call(TcpStream::connect(&addr).await.unwrap(), "POST", "/auth/dev", &headers, "").await.status
    };
    for (name, says) in &SAYS[..SAYS.len() - 1] {
        assert_eq!(answers(ask, *says, "").await, [403; FIGURE + 1], "{name}, in the clear");
    }
    program.terminate().await;
}
