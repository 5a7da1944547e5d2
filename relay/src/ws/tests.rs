//! Frames that were read for one peer never go to the next.

use mykube_protocol::limits::FRAME_MAX;
use mykube_relay_core::frames::codec;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// One end of a session in the relay, and the other side of its connection.
struct End {
    outlet: Arc<Outlet>,
    reader: Reader,
    far: TcpStream,
}

async fn end(hub: &Hub, role: Role) -> End {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (read, write) = Stream::Plain(listener.accept().await.unwrap().0).into_halves();
    let session = SessionId::from_bytes([7; 16]);
    let mut reader = Reader::new(hub, read, &[], &Admission::Legacy(session, role));
    reader.frames = Frames::new(role, false, FRAME_MAX, hub.config.buffer);
    End { outlet: Outlet::new(write, hub.metrics.clone()), reader, far }
}

fn link(agent: &Arc<Outlet>, client: &Arc<Outlet>) {
    agent.set_peer(Some(client.clone()));
    client.set_peer(Some(agent.clone()));
}

/// An agent's end, the client's end that is linked to it, and another client's end that will replace that one.
async fn replacement(hub: &Hub) -> (End, End, End) {
    let (agent, old) = (end(hub, Role::Agent).await, end(hub, Role::Client).await);
    link(&agent.outlet, &old.outlet);
    (agent, old, end(hub, Role::Client).await)
}

/// A client's frame with the key 0.
fn sent(payload: &[u8]) -> Vec<u8> {
    let mut frame = codec::frame(codec::BINARY, payload);
    frame[1] |= 0x80;
    frame.splice(2..2, [0; 4]);
    frame
}

async fn said(end: &mut End) -> Vec<u8> {
    end.outlet.finish(&CloseWith { code: 1000, reason: String::new() }).await.unwrap();
    let mut out = Vec::new();
    end.far.read_to_end(&mut out).await.unwrap();
    out
}

#[tokio::test]
async fn what_was_read_for_one_peer_is_not_sent_to_the_next() {
    let hub = Hub::of_a_test();
    let socket = hub.arrive();
    let (mut agent, mut old, mut new) = replacement(&hub).await;
    let End { outlet, reader, far } = &mut agent;
    far.write_all(&sent(b"for the old one")).await.unwrap();
    let (input, filled) = reader.fill(outlet).await.unwrap().unwrap();
    // Between the reading and the sending the client's socket is replaced.
    old.outlet.set_peer(None);
    link(outlet, &new.outlet);
    reader.process(&hub, outlet, socket, input, filled).await.unwrap();
    far.write_all(&sent(b"for the new one")).await.unwrap();
    let (input, filled) = reader.fill(outlet).await.unwrap().unwrap();
    reader.process(&hub, outlet, socket, input, filled).await.unwrap();
    let close = [0x88, 2, 3, 0xe8];
    assert_eq!(said(&mut new).await, [&codec::frame(codec::BINARY, b"for the new one")[..], &close].concat());
    assert_eq!(said(&mut old).await, close);
}

#[tokio::test]
async fn a_frame_that_began_for_one_peer_is_not_finished_for_the_next() {
    let hub = Hub::of_a_test();
    let socket = hub.arrive();
    let (mut agent, mut old, mut new) = replacement(&hub).await;
    let End { outlet, reader, far } = &mut agent;
    let stale = sent(b"half of it was read");
    far.write_all(&stale[..9]).await.unwrap();
    // However the bytes arrive: until the relay holds the frame's beginning.
    while reader.partial.len() < 9 {
        let (input, filled) = reader.fill(outlet).await.unwrap().unwrap();
        reader.process(&hub, outlet, socket, input, filled).await.unwrap();
    }
    old.outlet.set_peer(None);
    link(outlet, &new.outlet);
    let fresh = [&stale[9..], &sent(b"for the new one"), &sent(b"and one more")].concat();
    far.write_all(&fresh).await.unwrap();
    let mut left = fresh.len();
    while left > 0 {
        let kept = reader.partial.len();
        let (input, filled) = reader.fill(outlet).await.unwrap().unwrap();
        left -= filled - kept;
        reader.process(&hub, outlet, socket, input, filled).await.unwrap();
    }
    let expected = [
        &codec::frame(codec::BINARY, b"for the new one")[..],
        &codec::frame(codec::BINARY, b"and one more"),
        &[0x88, 2, 3, 0xe8],
    ];
    assert_eq!(said(&mut new).await, expected.concat());
    assert_eq!(said(&mut old).await, [0x88, 2, 3, 0xe8]);
}

#[tokio::test]
async fn what_an_agent_asks_leaves_others_of_its_thread_their_turn() {
    let hub = Hub::of_a_test();
    let socket = hub.arrive();
    let End { outlet, mut reader, .. } = end(&hub, Role::Agent).await;
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let other = turns.clone();
    tokio::spawn(async move {
        loop {
            other.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for opcode in [codec::TEXT, codec::PING] {
        let mut frame = codec::frame(opcode, b"burned");
        frame[1] |= 0x80;
        frame.splice(2..2, [0; 4]);
        let input = frame.repeat(5000);
        let (filled, before) = (input.len(), turns.load(std::sync::atomic::Ordering::Relaxed));
        reader.process(&hub, &outlet, socket, input, filled).await.unwrap();
        let had = turns.load(std::sync::atomic::Ordering::Relaxed) - before;
        assert!(had >= 10, "{had} turns while 5000 frames of opcode {opcode} were read");
    }
}

/// A task that panics is dropped just as one that is aborted.
#[tokio::test]
async fn a_socket_whose_task_is_dropped_leaves_nothing_behind() {
    let hub = Arc::new(Hub::of_a_test());
    let owner = Owner::Address(std::net::IpAddr::from([192, 0, 2, 1]).into());
    let connection = async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::Plain(listener.accept().await.unwrap().0), far)
    };
    let created = hub.with_registry(|r, now| r.handle_create(now, owner, &mut rand::rng())).unwrap();
    let (attempt, claims) =
        hub.with_registry(|r, now| r.handle_claim(now, created.nameplate.as_str(), &mut rand::rng())).unwrap();
    let ((agent, mut agent_far), (client, mut client_far)) = (connection().await, connection().await);
    let serve = |stream, claims| ws_serve(&hub, stream, Admission::Ticket(claims), owner);
    let agent = tokio::spawn(serve(agent, created.claims));
    let client = tokio::spawn(serve(client, claims));
    let here = codec::frame(codec::TEXT, format!("peer:here:{attempt}").as_bytes());
    for far in [&mut agent_far, &mut client_far] {
        let mut got = vec![0; here.len()];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, here);
    }
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    let gone = codec::frame(codec::TEXT, format!("peer:gone:{attempt}").as_bytes());
    let mut got = vec![0; gone.len()];
    agent_far.read_exact(&mut got).await.unwrap();
    assert_eq!(got, gone);
    assert!(matches!(client_far.read(&mut got).await, Ok(0) | Err(_)), "its connection is closed");
    agent.abort();
    let _ = agent.await;
    assert_eq!(Arc::strong_count(&hub), 1);
    assert_eq!(hub.slots.taken(), 0);
}

fn ws_serve(
    hub: &Arc<Hub>,
    stream: Stream,
    admission: Admission,
    owner: Owner,
) -> impl Future<Output = ()> + Send + use<> {
    let slot = hub.slots.take().unwrap();
    let connection = Connection::new([192, 0, 2, 1].into(), slot, None);
    serve(hub.clone(), stream, &[], admission, owner, connection)
}

/// These futures are half of an idle session's memory. Those that forward are boxed, and exist only while they forward.
#[tokio::test]
async fn an_idle_socket_waits_in_little_memory() {
    let hub = Hub::of_a_test();
    let socket = hub.arrive();
    let End { outlet, mut reader, .. } = end(&hub, Role::Agent).await;
    let waits = size_of_val(&outlet.closing()) + size_of_val(&outlet.write_posted());
    let waits = waits + size_of_val(&reader.run(&hub, &outlet, socket));
    assert!(waits <= 512, "{waits} bytes");
}
