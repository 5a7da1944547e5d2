//! A client that writes any bytes and reads the answers.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The message of the Kubernetes Status that the answer must be.
    pub(crate) fn message(&self) -> String {
        let status: serde_json::Value = serde_json::from_slice(&self.body).expect(&self.head);
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], self.status);
        assert!(self.header("content-type").unwrap().starts_with("application/json"));
        status["message"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

pub(crate) struct Raw {
    pub stream: DuplexStream,
    pub early: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(stream: DuplexStream) -> Self {
        Self { stream, early: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request without a body, and returns its answer.
    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, "").await
    }

    pub(crate) async fn ask(&mut self, method: &str, target: &str, headers: &str) -> Answer {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        self.answer().await
    }

    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.early.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.early.split_off(end + 4);
                return String::from_utf8(std::mem::replace(&mut self.early, rest)).unwrap();
            }
            assert!(
                self.more().await,
                "the connection ended before an answer: {:?}",
                String::from_utf8_lossy(&self.early)
            );
        }
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = Vec::new();
        if header(&head, "transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        } else if let Some(length) = header(&head, "content-length") {
            body = self.take(length.parse().unwrap()).await;
        }
        Answer { status, head, body }
    }

    /// The answer, if there is one after all tasks on this thread have had a thousand turns.
    pub(crate) async fn answer_within_turns(&mut self) -> Option<Answer> {
        let mut turns = 0;
        let idle = std::future::poll_fn(|cx| {
            turns += 1;
            cx.waker().wake_by_ref();
            if turns > 1000 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        tokio::select! {
            answer = self.answer() => Some(answer),
            () = idle => None,
        }
    }

    /// One chunk; `None` for the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(end) = self.early.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.early.drain(..end + 2).collect();
                break String::from_utf8(line).unwrap();
            }
            assert!(self.more().await, "the connection ended between chunks");
        };
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = self.take(length + 2).await;
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    pub(crate) async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.early.len() < length {
            assert!(self.more().await, "the connection ended in the middle of a body");
        }
        let rest = self.early.split_off(length);
        std::mem::replace(&mut self.early, rest)
    }

    /// All bytes until the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.early)
    }

    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.early).await.unwrap() > 0
    }
}
