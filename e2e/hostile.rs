//! How much memory and CPU a hostile client makes a real server use, and a hostile server a real client, compared with
//! the limits in `docs/protocol.md`.
//!
//! Memory: resident memory may grow by twice the counted bytes, and no more. Counted is what the windows allow: a first
//! window for each unread stream (in guarded mode also the TLS buffers to the API server, and the heads of requests),
//! and payload plus 128 bytes for each message that the server keeps until it is acknowledged. CPU: a record of the
//! costliest texts takes as much as a few of ordinary ones.
//!
//! Over 500 lines because it is one list of patterns, each with its set-up.

use std::{fmt::Write as _, io, net::SocketAddr, path::Path};

use bytes::Bytes;
use mykube_protocol::{
    frame,
    limits::{NARROW_WINDOW, RECORD_PLAINTEXT_MAX, STREAM_WINDOW},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
};

use mykube_lab::stand_in::{Api, Authority};

use crate::support::{
    Mykube, Sandbox,
    hostile::{Hostile, Raw, data, plaintext, text, upkeep, welcome},
    net::{runtime, serve},
};

const MIB: f64 = 1024.0 * 1024.0;
/// Resident memory may grow by this many times the counted bytes.
const MULTIPLE: u64 = 2;
/// What the heads of a client's requests may hold together in guarded mode, and each of them beside that.
const LONG_HEADS: u64 = 32 * 1024 * 1024;
const HEAD_FREE: u64 = 16 * 1024;
/// Encrypted bytes that a guarded stream's connection to the API server may hold.
const TLS_WRITE_MAX: u64 = 256 * 1024;
/// A record of one kind of texts may take this many times the CPU of another kind's with as many texts.
const CPU_MULTIPLE: f64 = 4.0;

/// The kernel holds few of the bytes sent to its connections.
fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let _entered = runtime().enter();
    socket.listen(1024).unwrap()
}

/// Accepts connections and reads nothing.
fn reads_nothing() -> SocketAddr {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

/// An API server that reads no body to its end.
fn reads_no_body(sandbox: &Sandbox) -> SocketAddr {
    let signed = Authority::new("hostile").unwrap().sign(&["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (sandbox.file("cert.pem", signed.certificate), sandbox.file("key.pem", signed.key));
    let listener = listen().into_std().unwrap();
    Api::start(listener, reads_nothing(), &certificate, &key).unwrap().address()
}

/// Echoes, a byte at a time.
async fn echo_bytes(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let read = connection.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        for byte in &buffer[..read] {
            connection.write_u8(*byte).await?;
        }
    }
}

/// One line of the table.
struct Row {
    pattern: &'static str,
    counted: u64,
    before: u64,
    after: u64,
}

impl Row {
    fn grown(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}

/// A way to fill windows: the plaintext of a record with some of a stream's payload, at most `most` of it, and a frame
/// before it that will be dropped.
struct Fill {
    pattern: &'static str,
    streams: usize,
    record: fn(id: u32, most: usize) -> (Vec<u8>, usize),
    before: usize,
    /// In guarded mode, the payload is bodies of requests.
    guarded: bool,
}

/// A record with one message of this many bytes.
fn one(id: u32, len: usize) -> (Vec<u8>, usize) {
    (plaintext(&[data(id, &vec![0x42; len])]), len)
}

/// A record full of messages of these lengths, in turn.
fn many(id: u32, most: usize, lens: &[usize]) -> (Vec<u8>, usize) {
    let (mut messages, mut plain, mut payload) = (Vec::<Raw>::new(), 0, 0);
    for len in lens.iter().cycle() {
        if plain + 9 + len > RECORD_PLAINTEXT_MAX || payload + len > most {
            break;
        }
        messages.push(data(id, &vec![0x42; *len]));
        plain += 9 + len;
        payload += len;
    }
    (plaintext(&messages), payload)
}

/// Filled with zeros, which are padding.
fn padded((mut plaintext, len): (Vec<u8>, usize)) -> (Vec<u8>, usize) {
    plaintext.resize(RECORD_PLAINTEXT_MAX, 0);
    (plaintext, len)
}

const FILLS: [Fill; 9] = [
    Fill {
        pattern: "unread: full records",
        streams: 96,
        record: |id, most| one(id, most.min(RECORD_PLAINTEXT_MAX - 9)),
        before: 0,
        guarded: false,
    },
    Fill {
        pattern: "unread: small records between large frames that are dropped",
        streams: 48,
        record: |id, most| one(id, most.min(2100)),
        // With the record and both heads exactly 64 KiB: as much as the WebSocket reads at once.
        before: 65_536 - (4 + 1 + 9 + 2100 + 16) - (4 + 1),
        guarded: false,
    },
    Fill {
        pattern: "unread: full records between large frames that are dropped",
        streams: 96,
        record: |id, most| one(id, most.min(RECORD_PLAINTEXT_MAX - 9)),
        before: 48 * 1024,
        guarded: false,
    },
    Fill {
        pattern: "unread: records that are half padding",
        streams: 96,
        record: |id, most| padded(one(id, most.min(RECORD_PLAINTEXT_MAX / 2 + 8))),
        before: 0,
        guarded: false,
    },
    Fill {
        pattern: "unread: small payloads and larger ones in turn",
        streams: 96,
        record: |id, most| many(id, most, &[1, 2049]),
        before: 0,
        guarded: false,
    },
    Fill {
        pattern: "unread: 64 bytes at a time",
        streams: 96,
        record: |id, most| many(id, most, &[64]),
        before: 0,
        guarded: false,
    },
    Fill {
        pattern: "unread: a byte at a time",
        streams: 16,
        record: |id, most| many(id, most, &[1]),
        before: 0,
        guarded: false,
    },
    Fill {
        pattern: "guarded, bodies unread: full records",
        streams: 96,
        record: |id, most| one(id, most.min(RECORD_PLAINTEXT_MAX - 9)),
        before: 0,
        guarded: true,
    },
    Fill {
        pattern: "guarded, bodies unread: small records between large frames that are dropped",
        streams: 48,
        record: |id, most| one(id, most.min(2100)),
        before: 65_536 - (4 + 1 + 9 + 2100 + 16) - (4 + 1),
        guarded: true,
    },
];

/// Uses up the windows of these streams, and all further credit, until no more comes.
async fn use_up(peer: &mut Hostile, ids: &[u32], before: usize, record: fn(id: u32, most: usize) -> (Vec<u8>, usize)) {
    let dropped = Bytes::from([&[frame::ATTACH_CLIENT][..], &vec![0; before]].concat());
    let mut idle = 0;
    // The server may still be reading when it answers.
    while idle < 10 {
        let mut said = 0;
        for id in ids {
            let credit = usize::try_from(peer.credit[id]).unwrap();
            let (plaintext, len) = record(*id, credit);
            if len > 0 {
                if before > 0 {
                    peer.throw(dropped.clone()).await;
                }
                peer.say_plaintext(&plaintext).await;
                *peer.credit.get_mut(id).unwrap() -= len as u64;
                said += len;
            }
        }
        peer.settled().await;
        idle = if said == 0 { idle + 1 } else { 0 };
    }
}

/// Fills the server's windows.
async fn fill(pattern: &Fill, upstream: SocketAddr) -> Row {
    // The last byte of the query asks the stand-in for a service, whose target does not read.
    let begin: &[u8] = if pattern.guarded {
        b"PUT /api/v1/namespaces/n/pods/p/status?x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n"
    } else {
        b"x"
    };
    let mut peer = match pattern.guarded {
        true => Hostile::against_guarded(upstream).await,
        false => Hostile::against(upstream).await,
    };
    let ids = peer.open(pattern.streams).await;
    // Before that: tasks, sockets and a stream's own costs.
    for id in &ids {
        peer.say(&[data(*id, begin)]).await;
        *peer.credit.get_mut(id).unwrap() -= begin.len() as u64;
    }
    peer.settled().await;
    peer.forget_peak();
    let before = peer.other_uses().rss_bytes;
    use_up(&mut peer, &ids, pattern.before, pattern.record).await;
    let after = peer.other_uses().peak_rss_bytes;
    let counted = STREAM_WINDOW + if pattern.guarded { TLS_WRITE_MAX } else { 0 };
    Row { pattern: pattern.pattern, counted: pattern.streams as u64 * counted, before, after }
}

/// On connections whose first byte is `r`, reads once it is told to; on others, never.
fn reads_when_told(told: &watch::Sender<bool>) -> SocketAddr {
    let listener = listen();
    let (address, told) = (listener.local_addr().unwrap(), told.subscribe());
    runtime().spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut told = told.clone();
            tokio::spawn(async move {
                if connection.read_u8().await? == b'r' {
                    let _ = told.wait_for(|told| *told).await;
                    tokio::io::copy(&mut connection, &mut tokio::io::sink()).await?;
                }
                std::future::pending::<io::Result<()>>().await
            });
        }
    });
    address
}

/// Small payloads on two kinds of streams in turn. Then one kind ends and leaves holes between the memory that stays;
/// then full records come, for which no hole is large enough.
async fn ended_between(pattern: &'static str, stay: usize, end: usize, narrow: bool) -> Row {
    const LEN: usize = 2100;
    let told = watch::Sender::new(false);
    let mut peer = Hostile::against(reads_when_told(&told)).await;
    let staying = peer.open(stay).await;
    let ending = if narrow { peer.open_narrow(end).await } else { peer.open(end).await };
    for (ids, begin) in [(&staying, b"x"), (&ending, b"r")] {
        for id in ids {
            peer.say(&[data(*id, begin)]).await;
            *peer.credit.get_mut(id).unwrap() -= 1;
        }
    }
    peer.settled().await;
    peer.forget_peak();
    let before = peer.other_uses().rss_bytes;
    let in_turn: Vec<u32> = (0..stay.max(end)).flat_map(|n| [staying[n % stay], ending[n % end]]).collect();
    // Half of the remaining streams have room for full records.
    let half = |id: u32, most: usize| match (most as u64).saturating_sub(STREAM_WINDOW / 2) {
        0 if most as u64 > NARROW_WINDOW => (Vec::new(), 0),
        _ => one(id, most.min(LEN)),
    };
    use_up(&mut peer, &in_turn, 0, half).await;
    let ended = peer.ended;
    for id in &ending {
        peer.say(&[text(&format!("done:{id}:over"))]).await;
    }
    told.send_replace(true);
    while peer.ended < ended + end {
        peer.settled().await;
    }
    let mut filled = staying;
    filled.extend(if narrow { peer.open_narrow(end).await } else { peer.open(end).await });
    use_up(&mut peer, &filled, 0, |id, most| one(id, most.min(RECORD_PLAINTEXT_MAX - 9))).await;
    let after = peer.other_uses().peak_rss_bytes;
    let window = if narrow { NARROW_WINDOW } else { STREAM_WINDOW };
    Row { pattern, counted: stay as u64 * STREAM_WINDOW + end as u64 * window, before, after }
}

/// Programs at a client that do not read the bytes that a server sends.
async fn fill_client(
    pattern: &'static str,
    streams: usize,
    record: fn(id: u32, most: usize) -> (Vec<u8>, usize),
) -> Row {
    let mut peer = Hostile::against_client().await;
    let port = peer.port();
    let mut programs = Vec::new();
    for n in 1..=streams {
        let program = TcpSocket::new_v4().unwrap();
        program.set_recv_buffer_size(4096).unwrap();
        programs.push(program.connect(port).await.unwrap());
        while peer.opened.len() < n {
            peer.settled().await;
        }
    }
    let ids = peer.opened.clone();
    peer.forget_peak();
    let before = peer.other_uses().rss_bytes;
    use_up(&mut peer, &ids, 0, record).await;
    let after = peer.other_uses().peak_rss_bytes;
    drop(programs);
    Row { pattern, counted: streams as u64 * STREAM_WINDOW, before, after }
}

/// Streams towards a client, each filled and ended at once, again and again.
async fn opened_and_ended() -> Row {
    const AT_ONCE: usize = 64;
    let mut peer = Hostile::against_client().await;
    peer.port();
    peer.forget_peak();
    let before = peer.other_uses().rss_bytes;
    for _ in 0..50 {
        for id in peer.open(AT_ONCE).await {
            for _ in 0..STREAM_WINDOW / 16_000 {
                peer.say_plaintext(&one(id, 16_000).0).await;
            }
            peer.say(&[text(&format!("done:{id}"))]).await;
        }
        peer.settled().await;
    }
    let after = peer.other_uses().peak_rss_bytes;
    Row { pattern: "client: streams opened, filled and ended", counted: AT_ONCE as u64 * STREAM_WINDOW, before, after }
}

/// The server sends many small messages, and the client acknowledges none.
async fn unacknowledged(upstream: SocketAddr) -> Row {
    const STREAMS: usize = 128;
    const ROUNDS: u64 = 1000;
    let mut peer = Hostile::against(upstream).await;
    let ids = peer.open(STREAMS).await;
    let echo: Vec<Raw> = ids.iter().map(|id| data(*id, b"x")).collect();
    peer.say(&echo).await;
    while peer.received < STREAMS as u64 {
        peer.settled().await;
    }
    peer.acknowledges = false;
    peer.forget_peak();
    let (before, mut kept) = (peer.other_uses().rss_bytes, 0);
    for round in 2..=ROUNDS {
        peer.say(&echo).await;
        kept += STREAMS as u64;
        let told = peer.received;
        peer.settled().await;
        // Each byte is a message of its own once the previous one has come. When no more come, the server keeps as much
        // as it may.
        let mut waited = 0;
        while peer.received < round * STREAMS as u64 && waited < 100 {
            waited += 1;
            peer.settled().await;
        }
        if peer.received == told {
            break;
        }
    }
    let after = peer.other_uses().peak_rss_bytes;
    Row { pattern: "kept: a byte a message, never acknowledged", counted: kept * 129, before, after }
}

/// A head of a request that holds much more memory than its length.
struct Heads {
    pattern: &'static str,
    streams: usize,
    line: &'static str,
    fields: fn() -> String,
    /// The API server sends an answer, or at least its head. Otherwise it accepts connections and sends nothing.
    answered: bool,
}

/// This many different names, of at least three letters.
fn names(count: usize) -> impl Iterator<Item = String> {
    let letters = || ('a'..='z').chain('0'..='9');
    letters().flat_map(move |a| letters().flat_map(move |b| letters().map(move |c| format!("{a}{b}{c}")))).take(count)
}

const HEADS: [Heads; 4] = [
    Heads {
        pattern: "guarded, waiting for an answer: 4,000 fields of one letter",
        streams: 256,
        line: "GET /version HTTP/1.1",
        fields: || "a:\r\n".repeat(4000),
        answered: false,
    },
    Heads {
        pattern: "guarded, waiting for an answer: 2,700 names of three letters",
        streams: 256,
        line: "GET /version HTTP/1.1",
        fields: || names(2700).map(|name| format!("{name}:\r\n")).collect(),
        answered: false,
    },
    Heads {
        pattern: "guarded, watching: 90 long fields",
        streams: 256,
        line: "GET /api/v1/pods?watch=1&x HTTP/1.1",
        fields: || names(90).map(|name| format!("{name}: {}\r\n", "v".repeat(2600))).collect(),
        answered: true,
    },
    Heads {
        pattern: "guarded, idle after an answer: 4,000 names",
        streams: 256,
        line: "GET /version HTTP/1.1",
        fields: || names(4000).map(|name| format!("{name}:\r\n")).collect(),
        answered: true,
    },
];

/// Sends such a request on each of some streams; returns the resident memory then.
async fn resident(pattern: &Heads, fields: &str, upstream: SocketAddr) -> u64 {
    let Heads { streams, line, answered, .. } = *pattern;
    let mode = |relay: &str, kubeconfig: &Path| Mykube::guarding(relay, kubeconfig).args(["--api-timeout", "1h"]);
    let mut peer = Hostile::against_mode(upstream, mode).await;
    let ids = peer.open(streams).await;
    let head = format!("{line}\r\nHost: h\r\n{fields}\r\n");
    for id in &ids {
        let told = peer.received;
        for part in head.as_bytes().chunks(8 * 1024) {
            peer.say(&[data(*id, part)]).await;
        }
        peer.settled().await;
        while answered && peer.received == told {
            peer.settled().await;
        }
    }
    // The server may still be reading.
    let (mut most, mut idle) = (0, 0);
    while idle < 100 {
        peer.settled().await;
        let now = peer.other_uses().rss_bytes;
        idle = if now > most { 0 } else { idle + 1 };
        most = most.max(now);
    }
    peer.other_uses().rss_bytes
}

/// The cost of many fields beside an ordinary head, on as many streams.
async fn heads(pattern: &Heads, upstream: SocketAddr) -> Row {
    let before = resident(pattern, "Accept: */*\r\n", upstream).await;
    let after = resident(pattern, &(pattern.fields)(), upstream).await;
    Row { pattern: pattern.pattern, counted: LONG_HEADS + pattern.streams as u64 * HEAD_FREE, before, after }
}

#[test]
fn a_client_that_leaves_with_a_byte_too_many_leaves_no_request_behind() {
    const MOST: usize = 8;
    let sandbox = Sandbox::new();
    let upstream = reads_no_body(&sandbox);
    runtime().block_on(async {
        let mode = |relay: &str, kubeconfig: &Path| Mykube::guarding(relay, kubeconfig).args(["--max-requests", "8"]);
        let mut peer = Hostile::against_mode(upstream, mode).await;
        for id in peer.open(MOST).await {
            let told = peer.received;
            peer.say(&[data(id, b"GET /api/v1/pods?watch=1&x HTTP/1.1\r\nHost: h\r\n\r\n")]).await;
            while peer.received == told {
                peer.settled().await;
            }
            assert!(peer.last.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&peer.last));
            peer.say(&[data(id, b"x")]).await;
            peer.say(&[text(&format!("done:{id}:over"))]).await;
        }
        // Until the streams are free.
        for _ in 0..100 {
            let id = peer.open(1).await[0];
            let told = peer.received;
            peer.say(&[data(id, b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n")]).await;
            while peer.received == told {
                peer.settled().await;
            }
            if peer.last.starts_with(b"HTTP/1.1 404 ") {
                return;
            }
        }
        panic!("nobody is answered any more: {}", String::from_utf8_lossy(&peer.last));
    });
}

#[test]
fn no_pattern_makes_an_end_keep_more_than_twice_what_is_counted() {
    let sandbox = Sandbox::new();
    let upstreams = [reads_nothing(), reads_no_body(&sandbox)];
    let run = |pattern: &Fill| runtime().block_on(fill(pattern, upstreams[usize::from(pattern.guarded)]));
    let mut rows: Vec<Row> = FILLS.iter().map(run).collect();
    rows.push(runtime().block_on(unacknowledged(serve(echo_bytes))));
    let run = |pattern: &Heads| runtime().block_on(heads(pattern, upstreams[usize::from(pattern.answered)]));
    rows.extend(HEADS.iter().map(run));
    rows.extend(runtime().block_on(async {
        [
            ended_between("unread: streams that ended between others", 128, 128, false).await,
            ended_between("unread: narrow streams that ended between wide ones", 128, 400, true).await,
            fill_client("client, unread: full records", 96, |id, most| one(id, most.min(RECORD_PLAINTEXT_MAX - 9)))
                .await,
            fill_client("client, unread: small payloads and larger ones in turn", 96, |id, most| {
                many(id, most, &[1, 2049])
            })
            .await,
            opened_and_ended().await,
        ]
    }));
    let mut table =
        "| pattern | counted, MiB | resident before | after | grown by | times |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for row in &rows {
        let mib = |bytes: u64| bytes as f64 / MIB;
        let (counted, grown) = (mib(row.counted), mib(row.grown()));
        let (before, after) = (mib(row.before), mib(row.after));
        let _ = writeln!(
            table,
            "| {} | {counted:.1} | {before:.1} | {after:.1} | {grown:.1} | {:.2} |",
            row.pattern,
            grown / counted
        );
    }
    println!("{table}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("e2e-memory.md");
    std::fs::write(path, &table).unwrap();
    for row in &rows {
        assert!(row.grown() <= MULTIPLE * row.counted, "{}:\n{table}", row.pattern);
    }
}

/// Seconds of the server's CPU for this many equal records.
async fn cpu(peer: &mut Hostile, records: usize, messages: &[Raw]) -> f64 {
    let plaintext = plaintext(messages);
    assert!(plaintext.len() <= RECORD_PLAINTEXT_MAX);
    peer.settled().await;
    let before = peer.other_uses().cpu_s;
    for _ in 0..records / 50 {
        for _ in 0..50 {
            peer.say_plaintext(&plaintext).await;
        }
        peer.settled().await;
    }
    peer.other_uses().cpu_s - before
}

#[test]
fn no_text_costs_many_times_what_another_does() {
    const RECORDS: usize = 1000;
    const TEXTS: usize = 900;
    let upstream = reads_nothing();
    runtime().block_on(async {
        let mut peer = Hostile::against(upstream).await;
        let ids = peer.open(256).await;
        let closed = ids[255];
        peer.say(&[text(&format!("done:{closed}:over"))]).await;
        peer.settled().await;
        let texts = |text: &str| vec![self::text(text); TEXTS];
        // As many texts about one stream, which does nothing.
        let ordinary = cpu(&mut peer, RECORDS, &texts(&format!("credit:{}:1", ids[0]))).await;
        let all: Vec<Raw> = (0..TEXTS).map(|n| text(&format!("credit:{}:1", ids[n % 255]))).collect();
        for (what, messages) in [
            ("the session's credit", texts("credit:0:1")),
            ("credit of every stream", all),
            ("credit of a closed stream", texts(&format!("credit:{closed}:1"))),
            ("pings", vec![upkeep("ping:0"); TEXTS]),
            ("acknowledgements", vec![upkeep("ack:0"); TEXTS]),
            ("payload of a closed stream", vec![data(closed, b"x"); TEXTS]),
        ] {
            let took = cpu(&mut peer, RECORDS, &messages).await;
            println!("{what}: {took:.2} s, ordinary texts {ordinary:.2} s");
            // The clock, and the records themselves, may be wrong by a tenth of a second.
            assert!(took <= ordinary * CPU_MULTIPLE + 0.1, "{what}: {took} s, ordinary texts {ordinary} s");
        }
    });
}

#[test]
fn no_word_on_its_cluster_costs_a_client_many_times_what_a_text_does() {
    const RECORDS: usize = 1000;
    const WORDS: usize = 400;
    runtime().block_on(async {
        let mut peer = Hostile::against_client().await;
        let id = peer.open(1).await[0];
        let ordinary = cpu(&mut peer, RECORDS, &vec![text(&format!("credit:{id}:1")); WORDS]).await;
        let word = welcome(r#"{"mode":"guarded","cluster":"c"}"#);
        let took = cpu(&mut peer, RECORDS, &vec![word; WORDS]).await;
        println!("words on the cluster: {took:.2} s, ordinary texts {ordinary:.2} s");
        assert!(took <= ordinary * CPU_MULTIPLE + 0.1, "{took} s, ordinary texts {ordinary} s");
    });
}
