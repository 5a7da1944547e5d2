//! A network that goes and comes back, and what answers in the relay's place meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, header};
use mykube_lab::{Lab, Namespace};
use mykube_link::{End, PeerStatus};
use mykube_protocol::close;
use tokio::time::timeout;

use crate::support::relay::{BOUND, Ends, Relay, paired, paired_over, receive_all, streams, within};

/// An idle session asks for life after that, and so notices by itself.
const IDLE_PING: Duration = Duration::from_secs(15);

/// Runs a test in a network of its own, which it may change.
fn in_a_network<W: Future<Output = ()>>(test: impl FnOnce(Arc<Namespace>) -> W + Send) {
    let network = Arc::new(Lab::new().unwrap().namespace("link").unwrap());
    let inside = network.clone();
    network
        .enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(within(test(inside)));
        })
        .unwrap();
}

fn admissions(ends: &Ends) -> usize {
    ends.relay.0.shown.lock().unwrap().len()
}

async fn admitted(ends: &Ends, before: usize) {
    while admissions(ends) == before {
        tokio::task::yield_now().await;
    }
}

/// A dial hangs, and a change of the network lets the client back in.
async fn comes_back_beside_a_dial_that_hangs(ends: &Ends, network: &Namespace, address: &str) {
    let (mut status, mut held) = (ends.client.status(), ends.relay.0.held.subscribe());
    ends.relay.0.mute.store(1, Ordering::Relaxed);
    ends.relay.cut("client");
    held.wait_for(|held| *held == 1).await.unwrap();
    let before = admissions(ends);
    network.ip(&["address", "add", address, "dev", "lo"]).unwrap();
    admitted(ends, before).await;
    assert_eq!(*held.borrow(), 1, "what hung was given up, though it might have come through");
    status.wait_for(PeerStatus::is_up).await.unwrap();
}

#[test]
fn a_session_outlives_its_device_going_down() {
    in_a_network(|network| async move {
        if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            // Its addresses and routes are told, unlike those of IPv4.
            network.sysctl("net/ipv6/conf/lo/disable_ipv6", "1").unwrap();
        }
        let ends = paired(BOUND).await;
        let mut status = ends.client.status();
        network.ip(&["link", "set", "lo", "down"]).unwrap();
        let away = status.wait_for(|status| matches!(status, PeerStatus::Away { .. }));
        drop(timeout(IDLE_PING, away).await.expect("the device's end was not noticed").unwrap());
        let before = admissions(&ends);
        network.ip(&["link", "set", "lo", "up"]).unwrap();
        status.wait_for(PeerStatus::is_up).await.unwrap();
        assert!(admissions(&ends) > before);
        let (at_agent, at_client) = streams(&ends).await;
        at_client.write(Bytes::from_static(b"after")).await.unwrap();
        at_client.finish();
        assert_eq!(receive_all(&at_agent, |_| {}).await, b"after");
    });
}

#[test]
fn a_change_of_the_network_begins_another_dial_beside_one_that_hangs() {
    in_a_network(|network| async move {
        let ends = paired(BOUND).await;
        comes_back_beside_a_dial_that_hangs(&ends, &network, "198.51.100.1/32").await;
    });
}

#[test]
fn a_connection_replaced_by_a_dial_of_its_own_end_is_dialled_again_once() {
    in_a_network(|network| async move {
        let ends = paired(BOUND).await;
        comes_back_beside_a_dial_that_hangs(&ends, &network, "198.51.100.1/32").await;
        // As if what hung had come through after all.
        let before = admissions(&ends);
        ends.relay.supplant_client(&ends.session).await;
        admitted(&ends, before).await;
        ends.client.status().wait_for(PeerStatus::is_up).await.unwrap();

        ends.relay.supplant_client(&ends.session).await;
        let end = ends.client.ended().await;
        assert!(matches!(&end, End::Lost(lost) if lost.code() == Some(close::REPLACED)), "{end}");
    });
}

fn instead(status: StatusCode, body: &str) -> String {
    let location = header::LOCATION;
    format!("HTTP/1.1 {status}\r\n{location}: https://login.test/\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn what_stands_in_the_relays_place_is_named_and_waited_out() {
    within(async {
        let ends = paired(BOUND).await;
        let mut status = ends.client.status();
        ends.relay.0.instead.lock().unwrap().extend([
            instead(StatusCode::FOUND, ""),
            instead(StatusCode::UNAUTHORIZED, "<html>log in"),
            instead(StatusCode::UNAUTHORIZED, r#"{"error":"log in first"}"#),
            instead(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "<html>log in"),
            instead(StatusCode::FORBIDDEN, "<html>log in"),
            instead(StatusCode::FORBIDDEN, r#"{"error":"log in first"}"#),
        ]);
        ends.relay.cut("client");
        status
            .wait_for(
                |status| matches!(status, PeerStatus::Away { reason, .. } if reason.contains("(403): log in first")),
            )
            .await
            .unwrap();
        status.wait_for(PeerStatus::is_up).await.unwrap();
        assert!(ends.relay.0.instead.lock().unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_stands_in_the_relays_place_in_the_middle_of_pairing_is_waited_out() {
    within(async {
        let (relay, address) = Relay::start().await;
        relay.0.cuts_at_paired.store(true, Ordering::Relaxed);
        relay.0.instead.lock().unwrap().extend([
            instead(StatusCode::FOUND, ""),
            instead(StatusCode::FORBIDDEN, "<html>log in"),
            instead(StatusCode::UNAUTHORIZED, r#"{"error":"log in first"}"#),
        ]);
        let ends = paired_over((relay, address), BOUND).await;
        ends.client.status().wait_for(PeerStatus::is_up).await.unwrap();
        assert!(ends.relay.0.instead.lock().unwrap().is_empty());
        // As if the relay had admitted one of those after all.
        let before = admissions(&ends);
        ends.relay.supplant_client(&ends.session).await;
        admitted(&ends, before).await;
        ends.client.status().wait_for(PeerStatus::is_up).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_refusal_that_stays_ends_with_the_window_and_is_named() {
    within(async {
        let ends = paired(Duration::from_secs(2)).await;
        let refusals = (0..1000).map(|_| instead(StatusCode::FORBIDDEN, r#"{"error":"never"}"#));
        ends.relay.0.instead.lock().unwrap().extend(refusals);
        ends.relay.cut("client");
        let end = ends.client.ended().await;
        assert!(matches!(&end, End::Window { reason, .. } if reason.contains("(403): never")), "{end}");
    })
    .await;
}
