use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use std::task::Waker;

use super::*;

fn intake() -> (DuplexStream, Intake<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let limits = HeadLimits { max: 16 * 1024, time: Duration::from_secs(30), room: HeadRoom::default() };
    (near, Intake::new(far, Arc::default(), limits))
}

/// Bytes that hyper reads at once.
async fn read(intake: &mut Intake<DuplexStream>) -> String {
    let mut buf = vec![0; 4096];
    let len = intake.read(&mut buf).await.unwrap();
    String::from_utf8(buf[..len].to_vec()).unwrap()
}

fn is_waiting(intake: &mut Intake<DuplexStream>) -> bool {
    let mut buf = [0; 64];
    let mut buf = ReadBuf::new(&mut buf);
    Pin::new(intake).poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buf).is_pending()
}

const SEEN: &str = "GET / HTTP/1.1\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn heads_come_one_at_a_time_however_they_are_cut() {
    let (mut near, mut intake) = intake();
    for byte in b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n" {
        assert!(is_waiting(&mut intake));
        near.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(read(&mut intake).await, SEEN);
    let head = intake.progress.take().unwrap();
    assert_eq!((head.target.as_str(), head.headers.len()), ("/a", 1));
    assert!(intake.progress.take().is_none());
    assert!(is_waiting(&mut intake));
    intake.progress.finish();
    near.write_all(b"POST /b HTTP/1.1\nContent-Length: 4\n\nbo").await.unwrap();
    assert_eq!(read(&mut intake).await, "GET / HTTP/1.1\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(intake.progress.take().unwrap().target.as_str(), "/b");
    assert_eq!(read(&mut intake).await, "bo");
    near.write_all(b"dy").await.unwrap();
    assert_eq!(read(&mut intake).await, "dy");
    assert!(is_waiting(&mut intake));
    intake.progress.finish();
    near.write_all(b"GET /c HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut intake).await, SEEN);
}

#[tokio::test]
async fn what_follows_a_request_too_early_reaches_nobody_and_hides_no_end() {
    for request in [
        "GET /a HTTP/1.1\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let (mut near, mut intake) = intake();
        near.write_all(format!("{request}X").as_bytes()).await.unwrap();
        let mut given = String::new();
        while let Some(more) = futures_util::FutureExt::now_or_never(read(&mut intake)) {
            given.push_str(&more);
        }
        assert!(!given.contains('X'), "{given}");
        intake.progress.take().unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(read(&mut intake).await, "", "its end is seen: {request}");
        // Once the request was answered there is one more head: the refusal of the second request.
        intake.progress.finish();
        assert_eq!(read(&mut intake).await, LAST);
        let problem = intake.progress.take().unwrap().problem.unwrap();
        assert_eq!(problem, Problem::bad("was sent before the last one was answered"));
    }
    let (mut near, mut intake) = intake();
    near.write_all(SEEN.as_bytes()).await.unwrap();
    assert_eq!(read(&mut intake).await, SEEN);
    near.write_all(&vec![b'x'; EARLY_MAX + 1]).await.unwrap();
    let ended = std::future::poll_fn(|cx| {
        let mut buf = [0; 64];
        Pin::new(&mut intake).poll_read(cx, &mut ReadBuf::new(&mut buf))
    });
    assert!(ended.await.is_err(), "nobody sends so much in vain");
}

#[tokio::test]
async fn empty_lines_between_requests_are_nothing() {
    for (request, seen) in [
        ("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\r\n", "GET / HTTP/1.1\r\ncontent-length: 2\r\n\r\n"),
        ("GET /a HTTP/1.1\r\n\r\n\r\n\n", SEEN),
        (
            "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\r\n",
            "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n",
        ),
    ] {
        let (mut near, mut intake) = intake();
        near.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read(&mut intake).await, seen);
        intake.progress.take().unwrap();
        if request.contains("hi") {
            assert_eq!(read(&mut intake).await, "hi");
        }
        assert!(is_waiting(&mut intake));
        near.write_all(b"\r\n").await.unwrap();
        assert!(is_waiting(&mut intake));
        intake.progress.finish();
        near.write_all(b"GET /b HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut intake).await, SEEN, "{request}");
        let head = intake.progress.take().unwrap();
        assert_eq!((head.target.as_str(), head.problem), ("/b", None));
    }
}

/// Sends empty lines without end, and returns how many reads there were.
struct EmptyLines(u32);

impl AsyncRead for EmptyLines {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0 += 1;
        if self.0 > 10_000 {
            return Poll::Pending;
        }
        buf.put_slice(b"\r\n\r\n");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn empty_lines_without_end_leave_others_their_turn() {
    let limits = HeadLimits { max: 16 * 1024, time: Duration::from_secs(30), room: HeadRoom::default() };
    let mut intake = Intake::new(EmptyLines(0), Arc::default(), limits);
    let mut buf = [0; 64];
    let mut buf = ReadBuf::new(&mut buf);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut intake).poll_read(&mut cx, &mut buf).is_pending());
    assert_eq!(intake.stream.0, TURNS);
}

#[tokio::test]
async fn what_comes_before_an_upgrade_belongs_to_it() {
    let (mut near, mut intake) = intake();
    near.write_all(b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly").await.unwrap();
    read(&mut intake).await;
    assert!(is_waiting(&mut intake));
    intake.progress.upgrade();
    intake.progress.finish();
    assert_eq!(read(&mut intake).await, "early");
    near.write_all(b"GET /").await.unwrap();
    assert_eq!(read(&mut intake).await, "GET /");
    // It has its room where long heads have theirs.
    let room = HeadRoom::default();
    let mut other = room.enter();
    assert!(other.grow(crate::room::LONG_HEADS));
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let limits = HeadLimits { max: 1 << 20, time: Duration::from_secs(30), room };
    let mut intake = Intake::new(far, Arc::default(), limits);
    near.write_all(b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await.unwrap();
    read(&mut intake).await;
    near.write_all(&[b'x'; 60_000]).await.unwrap();
    assert!(intake.read(&mut [0; 64]).await.is_err());
}

#[tokio::test]
async fn behind_a_broken_body_nothing_is_a_request() {
    let (mut near, mut intake) = intake();
    near.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    read(&mut intake).await;
    intake.progress.take().unwrap();
    assert!(read(&mut intake).await.starts_with("x\r\n"), "hyper refuses it");
    intake.progress.finish();
    near.write_all(b"GET /c HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut intake).await, "GET /c HTTP/1.1\r\n\r\n");
    assert!(intake.progress.take().is_none());
}

#[tokio::test]
async fn a_head_that_is_too_long_or_no_head_is_told_as_one() {
    let room = HeadRoom::default();
    for (sent, status) in [
        (format!("GET /a HTTP/1.1\r\nA: {}", "x".repeat(16 * 1024 + SLACK)), 431),
        (format!("GET /a HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(16 * 1024 + SLACK)), 431),
        ("\x16\x03\x01 a TLS hello".to_owned(), 400),
    ] {
        let (mut near, mut intake) = intake();
        near.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(read(&mut intake).await, LAST);
        assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, status);
        near.write_all(&[0; 100_000]).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(is_waiting(&mut intake), "the answer is not out");
        intake.progress.finish();
        assert_eq!(read(&mut intake).await, "", "the rest is thrown away");
    }
    // Long heads of one client share what they may hold.
    let mut other = room.enter();
    assert!(other.grow(crate::room::LONG_HEADS));
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let limits = HeadLimits { max: 1 << 20, time: Duration::from_secs(30), room };
    let mut intake = Intake::new(far, Arc::default(), limits);
    near.write_all(format!("GET /a HTTP/1.1\r\nA: {}", "x".repeat(100_000)).as_bytes()).await.unwrap();
    assert_eq!(read(&mut intake).await, LAST);
    assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_stops_is_given_up_and_idleness_is_not() {
    let (mut near, mut intake) = intake();
    let idle = tokio::time::timeout(Duration::from_secs(3600), read(&mut intake)).await;
    assert!(idle.is_err(), "an idle connection stays");
    near.write_all(b"GET /a H").await.unwrap();
    assert_eq!(read(&mut intake).await, LAST);
    assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, StatusCode::REQUEST_TIMEOUT);
}
