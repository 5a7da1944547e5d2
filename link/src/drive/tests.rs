//! Channels over a relay in memory.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mykube_protocol::{Attempt, FromRelay, Role, Ticket, relay_text::Peer};
use mykube_tunnel::{Established, endpoint::Settings, test_api};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::channel::{Channel, End, PeerStatus};

/// A relay in memory: it joins the newest connections of the two ends, and can cut them.
#[derive(Default)]
struct Relay {
    ends: Mutex<[Option<UnboundedSender<Incoming>>; 2]>,
    dials: AtomicUsize,
    away: AtomicBool,
    panics: AtomicBool,
}

impl Relay {
    fn join(self: &Arc<Self>, who: usize) -> Pipe {
        let (tell, told) = unbounded_channel();
        let mut ends = self.ends.lock().unwrap();
        ends[who] = Some(tell);
        if self.dials.fetch_add(1, Ordering::Relaxed) >= 2
            && let [Some(one), Some(other)] = &*ends
        {
            for end in [one, other] {
                let _ = end.send(Incoming::Text(FromRelay::PeerHere(Peer::Session)));
            }
        }
        Pipe { relay: self.clone(), who, told }
    }

    /// Both connections are gone.
    fn cut(&self) {
        *self.ends.lock().unwrap() = [None, None];
    }
}

struct To(Arc<Relay>, usize);

struct Pipe {
    relay: Arc<Relay>,
    who: usize,
    told: UnboundedReceiver<Incoming>,
}

impl Path for To {
    type Connection = Pipe;

    async fn dial(&self, _: Ticket) -> Result<Pipe, DialFailure> {
        assert!(!self.0.panics.load(Ordering::Relaxed), "on purpose");
        if self.0.away.load(Ordering::Relaxed) {
            return Err(DialFailure::Answered("closed for today".into()));
        }
        Ok(self.0.join(self.1))
    }
}

impl Connection for Pipe {
    type Receiver = UnboundedReceiver<Incoming>;
    type Sender = To;

    fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        None
    }

    fn split(self) -> (Self::Receiver, To) {
        (self.told, To(self.relay, self.who))
    }
}

impl Receiver for UnboundedReceiver<Incoming> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, SocketLost>> {
        self.poll_recv(cx).map(|came| came.map(Some).ok_or(SocketLost::Broken("cut".into())))
    }
}

impl Sender for To {
    async fn send(&mut self, texts: &mut Vec<FromAgent>, frames: &mut Vec<Bytes>, _: bool) -> Result<(), SocketLost> {
        texts.clear();
        if let Some(peer) = &self.0.ends.lock().unwrap()[1 - self.1] {
            for frame in frames.drain(..) {
                let _ = peer.send(Incoming::Frame(frame));
            }
        }
        frames.clear();
        Ok(())
    }

    async fn close(&mut self) {
        self.0.ends.lock().unwrap()[self.1] = None;
    }
}

fn channels(window: Duration) -> (Arc<Relay>, Channel, Channel) {
    let relay = Arc::new(Relay::default());
    let [client, agent] = [(0, Role::Client), (1, Role::Agent)].map(|(who, role)| {
        let established: Established = test_api::established(role, [1; 32], [2; 32]);
        let settings = Settings {
            attempt: Attempt::from_bytes([1; 16]),
            ticket: Ticket::from_bytes(b"ticket"),
            window,
            unsure: None,
        };
        (To(relay.clone(), who), established, settings)
    });
    let (first, second) = (relay.join(0), relay.join(1));
    let client = Channel::over(client.0, client.1, first, client.2);
    let agent = Channel::over(agent.0, agent.1, second, agent.2);
    (relay, client, agent)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

#[tokio::test]
async fn anything_that_moves_frames_carries_a_channel() {
    within(async {
        let (relay, client, agent) = channels(Duration::from_secs(60));
        let opened = client.open().await.unwrap();
        let (accepted, _) = agent.accept().await.unwrap();
        let (mut chunks, mut sent) = (Vec::new(), 0);
        for round in 0..3_u8 {
            opened.write(Bytes::from(vec![round; 100_000])).await.unwrap();
            sent += 100_000;
            if round == 1 {
                relay.cut();
            }
            while chunks.iter().map(Bytes::len).sum::<usize>() < sent {
                assert!(accepted.read(u64::MAX, &mut chunks).await.unwrap());
            }
        }
        let expected: Vec<u8> = (0..3_u8).flat_map(|round| vec![round; 100_000]).collect();
        assert!(chunks.concat() == expected, "across a cut");
        assert!(relay.dials.load(Ordering::Relaxed) >= 4, "both have dialled again");
        client.bye("through").await;
        assert_eq!(client.ended().await, End::Here);
        assert_eq!(agent.ended().await, End::Bye("through".into()));
    })
    .await;
}

#[tokio::test]
async fn a_task_that_waits_is_told_why_and_then_that_it_is_over() {
    within(async {
        let (relay, client, agent) = channels(Duration::from_secs(1));
        relay.away.store(true, Ordering::Relaxed);
        relay.cut();
        let mut status = client.status();
        status
            .wait_for(|status| matches!(status, PeerStatus::Away { reason, .. } if reason == "closed for today"))
            .await
            .unwrap();
        for end in [client.ended().await, agent.ended().await] {
            assert!(matches!(&end, End::Window { reason, .. } if reason == "closed for today"), "{end}");
        }
        assert!(client.open().await.is_err());
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_a_channel_whose_driver_has_panicked() {
    within(async {
        let (relay, client, agent) = channels(Duration::from_secs(60));
        let opened = client.open().await.unwrap();
        relay.panics.store(true, Ordering::Relaxed);
        relay.cut();
        let mut chunks = Vec::new();
        let (read, accepted) = tokio::join!(opened.read(1, &mut chunks), agent.accept());
        assert!(read.is_err() && accepted.is_none() && client.open().await.is_err());
        client.bye("too late").await;
        let end = client.ended().await;
        assert_eq!(end.to_string(), "the connection to the relay was lost: the driver stopped");
    })
    .await;
}

// On one thread the driver would have its turn before the record that it was woken for has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_wake_their_reader_and_writer_and_not_the_driver() {
    const ECHOES: usize = 2_000;
    within(async {
        let (_relay, client, agent) = channels(Duration::from_secs(60));
        let opened = client.open().await.unwrap();
        opened.write(Bytes::from_static(b"k")).await.unwrap();
        let (accepted, _) = agent.accept().await.unwrap();
        let mut chunks = Vec::new();
        for _ in 0..ECHOES {
            assert!(accepted.read(1, &mut chunks).await.unwrap());
            accepted.write(chunks.pop().unwrap()).await.unwrap();
            assert!(opened.read(1, &mut chunks).await.unwrap());
            opened.write(chunks.pop().unwrap()).await.unwrap();
        }
        // Almost each record moves a timer; a driver that is woken to wait for it is woken once an echo.
        for wakes in [client.driver_wakes(), agent.driver_wakes()] {
            assert!(wakes < ECHOES / 10, "{wakes} wakes in {ECHOES} echoes");
        }
    })
    .await;
}
