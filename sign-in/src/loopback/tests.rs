use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const STATE: &str = "the-state-of-this-sign-in";

/// What the port answers to these bytes.
async fn send(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may be reset, if more was sent than was read.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(port: u16, method: &str, target: &str) -> String {
    send(port, &format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n")).await
}

#[tokio::test]
async fn one_answer_with_the_state_counts_and_then_nothing_listens() {
    let loopback = Loopback::bind().await.unwrap();
    let port = loopback.port();
    let waiting = tokio::spawn(async move { loopback.answer(STATE).await });
    for (method, target, status) in [
        ("GET", "/".to_owned(), 404),
        ("GET", "/favicon.ico".to_owned(), 404),
        ("GET", format!("/callback/?code=c&state={STATE}"), 404),
        ("GET", format!("/Callback?code=c&state={STATE}"), 404),
        ("GET", format!("//callback?code=c&state={STATE}"), 404),
        ("POST", format!("/callback?code=c&state={STATE}"), 405),
        ("HEAD", format!("/callback?code=c&state={STATE}"), 405),
        ("GET", "/callback".to_owned(), 400),
        ("GET", "/callback?code=c".to_owned(), 400),
        ("GET", "/callback?code=c&state=another".to_owned(), 400),
        ("GET", format!("/callback?code=c&state={STATE}x"), 400),
        ("GET", format!("/callback?code=c&state={STATE}&state={STATE}"), 400),
        ("GET", format!("/callback?code=c&code=d&state={STATE}"), 400),
        ("GET", format!("/callback?code=c&error=e&state={STATE}"), 400),
        ("GET", format!("/callback?code=&state={STATE}"), 400),
        ("GET", format!("/callback?code={}&state={STATE}", "c".repeat(CODE_MAX + 1)), 400),
        ("GET", "/callback?error=access_denied".to_owned(), 400),
    ] {
        let answer = ask(port, method, &target).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {target}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control"), "no page may read it: {answer}");
    }
    // By a name that a stranger's page has led here.
    let rebound = format!("GET /callback?code=c&state={STATE} HTTP/1.1\r\nhost: evil.example:{port}\r\n\r\n");
    assert!(send(port, &rebound).await.starts_with("HTTP/1.1 404 "));
    assert!(send(port, "\x16\x03\x01 nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let long = format!("GET /callback?{} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n", "x".repeat(2 * HEAD_MAX));
    assert!(!send(port, &long).await.contains(" 200 "));

    let page = ask(port, "GET", &format!("/callback?code=c%2Bd&state={STATE}&user_id=u&email=e%40example.com")).await;
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("You may close this tab"), "{page}");
    assert!(page.contains("default-src 'none'") && !page.contains("c+d") && !page.contains("example.com"), "{page}");
    assert!(matches!(waiting.await.unwrap(), Answer::Code(code) if *code == "c+d"));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err(), "it is closed");
}

#[tokio::test]
async fn an_error_is_told_with_its_words_cleaned() {
    let loopback = Loopback::bind().await.unwrap();
    let port = loopback.port();
    let waiting = tokio::spawn(async move { loopback.answer(STATE).await });
    let target =
        format!("/callback?error=access_denied&error_description=sign-up%20is%20closed%1b%5b31m&state={STATE}");
    let page = ask(port, "GET", &target).await;
    assert!(page.contains("You are not signed in") && !page.contains("sign-up"), "{page}");
    match waiting.await.unwrap() {
        Answer::Error(error) => assert!(error.starts_with("sign-up is closed") && !error.contains('\x1b'), "{error}"),
        Answer::Code(_) => panic!("there is no code"),
    }
}

#[tokio::test]
async fn those_that_say_nothing_keep_no_browser_out() {
    let loopback = Loopback::bind().await.unwrap();
    let port = loopback.port();
    let waiting = tokio::spawn(async move { loopback.answer(STATE).await });
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(b"GET /callback?").await.unwrap();
        silent.push(stream);
    }
    let page = ask(port, "GET", &format!("/callback?code=c&state={STATE}")).await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(matches!(waiting.await.unwrap(), Answer::Code(_)));
    // The first of them were dropped for those after them.
    let mut answer = Vec::new();
    let _ = silent[0].read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

#[test]
fn a_second_answer_is_too_late() {
    let state = Zeroizing::new(STATE.to_owned());
    let awaited = Awaited { host: "127.0.0.1:9".to_owned(), state, is_answered: AtomicBool::new(false) };
    let request = |code| {
        let request = Request::get(format!("/callback?code={code}&state={STATE}")).header("host", "127.0.0.1:9");
        awaited.judge(&request.body(()).unwrap())
    };
    assert!(matches!(request("c"), Ok(Answer::Code(code)) if *code == "c"));
    assert!(matches!(request("d"), Err((StatusCode::GONE, _))));
}
