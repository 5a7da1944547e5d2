//! Channels that outlive their connections to the relay.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use mykube_link::{End, PeerStatus};
use mykube_protocol::close;

use crate::support::relay::{BOUND, Relay, paired, paired_over, pattern, receive_all, send_all, streams, within};

#[tokio::test]
async fn bulk_both_ways_survives_every_kind_of_cut() {
    const LEN: usize = 12_000_000;
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let (up, down) = (pattern(LEN, 1), pattern(LEN, 2));
        let relay = ends.relay.clone();
        let mut cuts = 0;
        let cut = |got: usize| {
            if got > (cuts + 1) * LEN / 8 {
                match cuts % 3 {
                    0 => relay.cut("client"),
                    1 => relay.cut("agent"),
                    _ => {
                        relay.cut("agent");
                        relay.cut("client");
                    }
                }
                cuts += 1;
            }
        };
        let (_, _, upward, downward) = tokio::join!(
            send_all(&at_client, up.clone()),
            send_all(&at_agent, down.clone()),
            receive_all(&at_agent, |_| {}),
            receive_all(&at_client, cut),
        );
        assert!(upward == up && downward == down, "{} and {} bytes", upward.len(), downward.len());
        assert!(cuts >= 7, "{cuts}");
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_comes_back_finds_everything_as_it_was() {
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        at_client.write(Bytes::from_static(b"before ")).await.unwrap();
        let mut status = ends.client.status();
        assert!(status.borrow().is_up());
        ends.relay.leave();
        status.wait_for(|status| matches!(status, PeerStatus::Away { .. })).await.unwrap();
        at_client.write(Bytes::from_static(b"meanwhile ")).await.unwrap();
        at_client.finish();
        ends.relay.0.away.store(false, Ordering::Relaxed);
        status.wait_for(PeerStatus::is_up).await.unwrap();
        assert_eq!(receive_all(&at_agent, |_| {}).await, b"before meanwhile ");
        // Each came back with the ticket it was given in band.
        let (shown, told) = (ends.relay.0.shown.lock().unwrap().clone(), ends.relay.0.told.lock().unwrap().clone());
        let came_with = |role| told.iter().any(|(of, ticket)| *of == role && shown[2..].contains(ticket));
        assert!(came_with("agent") && came_with("client"));
        assert!(shown[2..].iter().all(|shown| told.iter().any(|(_, ticket)| ticket == shown)));
    })
    .await;
}

#[tokio::test]
async fn an_altered_record_costs_a_connection_and_nothing_else() {
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let bytes = pattern(300_000, 3);
        let relay = ends.relay.clone();
        let mut flipped = false;
        let flip = |_| {
            if !std::mem::replace(&mut flipped, true) {
                relay.0.flips.store(true, Ordering::Relaxed);
            }
        };
        let before = ends.relay.0.shown.lock().unwrap().len();
        let (_, received) = tokio::join!(send_all(&at_agent, bytes.clone()), receive_all(&at_client, flip));
        assert_eq!(received, bytes);
        assert!(ends.relay.0.shown.lock().unwrap().len() > before, "it dialled again");
    })
    .await;
}

#[tokio::test]
async fn the_last_word_of_a_handshake_may_be_lost() {
    within(async {
        let relay = Relay::start().await;
        relay.0.0.cuts_at_paired.store(true, Ordering::Relaxed);
        let ends = paired_over(relay, BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let bytes = pattern(100_000, 4);
        let (_, received) = tokio::join!(send_all(&at_agent, bytes.clone()), receive_all(&at_client, |_| {}));
        assert_eq!(received, bytes);
    })
    .await;
}

#[tokio::test]
async fn after_the_window_streams_fail_and_never_look_complete() {
    within(async {
        let ends = paired(Duration::from_secs(1)).await;
        let (at_agent, at_client) = streams(&ends).await;
        at_agent.write(Bytes::from_static(b"half")).await.unwrap();
        let mut chunks = Vec::new();
        assert!(at_client.read(100, &mut chunks).await.unwrap());
        ends.relay.leave();
        for end in [ends.agent.ended().await, ends.client.ended().await] {
            assert!(matches!(&end, End::Window { window, .. } if window.as_secs() == 1), "{end}");
        }
        let failed = at_client.read(100, &mut chunks).await.unwrap_err();
        assert!(failed.0.contains("it did not come back within 1 s"), "{failed}");
    })
    .await;
}

#[tokio::test]
async fn a_replaced_end_and_a_refused_one_do_not_dial_for_ever() {
    within(async {
        let ends = paired(BOUND).await;
        ends.relay.supplant_client(&ends.session).await;
        let end = ends.client.ended().await;
        assert!(matches!(&end, End::Lost(lost) if lost.code() == Some(close::REPLACED)), "{end}");

        ends.relay.0.forgets.store(true, Ordering::Relaxed);
        ends.relay.cut("agent");
        let end = ends.agent.ended().await;
        assert!(matches!(end, End::Refused(_)), "{end}");
    })
    .await;
}

#[tokio::test]
async fn a_farewell_in_an_outage_does_not_hang() {
    within(async {
        let ends = paired(BOUND).await;
        ends.relay.0.away.store(true, Ordering::Relaxed);
        ends.relay.cut("client");
        ends.client.bye("the client has left").await;
        assert_eq!(ends.client.ended().await, End::Here);
    })
    .await;
}

#[tokio::test]
async fn a_farewell_is_heard() {
    within(async {
        let ends = paired(BOUND).await;
        ends.client.bye("the client has left").await;
        assert_eq!(ends.agent.ended().await, End::Bye("the client has left".into()));
    })
    .await;
}
