use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use super::*;
use crate::session::tests::session;

/// Answers one request after another, each on a connection of its own; after the last one, nothing listens.
fn answers(script: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in script {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    n => request.extend_from_slice(&buffer[..n]),
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

fn json(status: &str, head: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{head}content-length: {length}\r\n\r\n{body}")
}

fn begun(expires_in: u64, interval: u64) -> String {
    let body = format!(
        r#"{{"deviceCode":"d","userCode":"ABCD-EFGH","verificationUrl":"https://r/device","expiresIn":{expires_in},"interval":{interval}}}"#
    );
    json("200 OK", "", &body)
}

/// What it comes to, how often trouble was told, and after which time.
async fn wait(script: Vec<String>) -> (String, usize, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir, &answers(script));
    let sign_in = DeviceSignIn::begin(&session).await.unwrap();
    assert_eq!((sign_in.user_code(), sign_in.url()), ("ABCD-EFGH", "https://r/device"));
    let mut troubles = 0;
    tokio::time::pause();
    let began = Instant::now();
    let done = sign_in.wait(std::future::pending(), |_| troubles += 1).await;
    let error = done.err().map(|error| error.to_string()).unwrap_or_default();
    (error, troubles, began.elapsed())
}

/// The clock stands still while an answer is under way, and only then: it is virtual, and goes on when nothing else does.
/// So a question may end for want of time; it is asked again, as one whose answer is lost is.
#[tokio::test]
async fn it_asks_in_the_interval_until_the_codes_end_whatever_answers() {
    let (error, troubles, took) = wait(vec![begun(60, 5)]).await;
    assert!(error.contains("this code is over"), "{error}");
    assert_eq!(troubles, 1, "the same trouble is told once");
    assert!(took >= Duration::from_secs(50) && took <= Duration::from_secs(75), "{took:?}");
}

#[tokio::test]
async fn what_a_relay_says_of_times_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir, &answers(vec![begun(u64::MAX, 0), begun(0, u64::MAX)]));
    let long = DeviceSignIn::begin(&session).await.unwrap();
    assert!(long.left() <= Duration::from_secs(3600) && long.interval == Duration::from_secs(1));
    let short = DeviceSignIn::begin(&session).await.unwrap();
    assert!(short.left() <= Duration::from_secs(1) && short.interval == Duration::from_secs(60));
}

#[tokio::test]
async fn who_stops_it_has_changed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let session = session(&dir, &answers(vec![begun(60, 5)]));
    let sign_in = DeviceSignIn::begin(&session).await.unwrap();
    let done = sign_in.wait(std::future::ready(()), |_| {}).await;
    assert!(matches!(done, Err(SignInError::Stopped)));
    assert!(matches!(session.who_am_i().await, Err(SignInError::NotSignedIn(_))));
}
