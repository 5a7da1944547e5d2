//! From a code to a session.

use mykube_protocol::FromAgent;
use tokio::io::AsyncWriteExt as _;

use crate::support::{TestRelay, bearer, masked, raw, until};

#[tokio::test]
async fn two_ends_meet_pair_and_talk() {
    let relay = TestRelay::start().await;
    let (mut agent, mut client, created, claim) = relay.meet().await;
    assert!(created.expires_at.ends_with('Z') && created.nameplate.as_str().len() == 3);
    assert_eq!(claim.session_id, created.session_id);
    agent.binary(&b"\x01hello_agent"[..]).await;
    assert_eq!(&client.bytes().await[..], b"\x01hello_agent");
    client.binary(&b"\x02hello_client"[..]).await;
    client.binary(&b"\x05tag"[..]).await;
    assert_eq!(&agent.bytes().await[..], b"\x02hello_client");
    assert_eq!(&agent.bytes().await[..], b"\x05tag");
    agent.send(FromAgent::Paired(claim.attempt).to_string()).await;
    agent.binary(&b"\x05last"[..]).await;
    client.ticket().await;
    assert_eq!(&client.bytes().await[..], b"\x05last", "the ticket comes before what the agent sent after `paired`");
    agent.ticket().await;

    let again = relay.post("/api/pair", &format!(r#"{{"nameplate":"{}"}}"#, created.nameplate)).await;
    assert_eq!(again.status, 404, "a confirmed pairing consumes the nameplate");
    assert!(again.error().contains("code"));
    client.close().await;
    assert_eq!(agent.text().await, "peer:gone:session");
}

#[tokio::test]
async fn the_clients_ticket_comes_before_what_the_agent_sent_after_paired() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let mut agent = raw(&relay, &format!("/ws/agent/{}", created.session_id), created.ticket.expose()).await;
    let claim = relay.claim(created.nameplate.as_str()).await;
    let mut client = relay.client(&claim).await;
    client.text().await;
    let paired = FromAgent::Paired(claim.attempt).to_string();
    let at_once = [masked(2, b"before"), masked(1, paired.as_bytes()), masked(2, b"after")].concat();
    agent.write_all(&at_once).await.unwrap();
    assert_eq!(&client.bytes().await[..], b"before");
    client.ticket().await;
    assert_eq!(&client.bytes().await[..], b"after");
}

#[tokio::test]
async fn a_refused_client_may_try_again_and_a_burned_code_may_not() {
    let relay = TestRelay::start().await;
    let (mut agent, mut client, created, claim) = relay.meet().await;
    agent.send(FromAgent::Refused(claim.attempt).to_string()).await;
    assert_eq!(client.closed().await.0, 4401);
    // The worker counts a moment before or after it closes.
    until(|| async { relay.pair_attempts("refused").await == 1.0 }).await;

    let claim = relay.claim(created.nameplate.as_str()).await;
    let mut client = relay.client(&claim).await;
    assert_eq!(agent.text().await, format!("peer:here:{}", claim.attempt));
    agent.send(FromAgent::Burned.to_string()).await;
    assert_eq!(client.closed().await.0, 4401);
    until(|| async { relay.pair_attempts("burned").await == 1.0 }).await;
    assert_eq!(relay.pair_attempts("refused").await, 1.0, "the client of a burned code is not counted again");
    let again = relay.post("/api/pair", &format!(r#"{{"nameplate":"{}"}}"#, created.nameplate)).await;
    assert_eq!(again.status, 404);
}

#[tokio::test]
async fn a_newer_attempt_replaces_an_older_one() {
    let relay = TestRelay::start().await;
    let (mut agent, mut client, created, _) = relay.meet().await;
    let newer = relay.claim(created.nameplate.as_str()).await;
    let mut second = relay.client(&newer).await;
    let here = format!("peer:here:{}", newer.attempt);
    assert_eq!((second.text().await, agent.text().await), (here.clone(), here));
    assert_eq!(client.closed().await.0, 4410);
}

#[tokio::test]
async fn tickets_open_their_own_socket_only() {
    let relay = TestRelay::start().await;
    let (one, other) = (relay.create().await, relay.create().await);
    let ticket = one.ticket.expose();
    let mut forged = ticket.to_owned().into_bytes();
    forged[10] = if forged[10] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for (path, headers) in [
        (format!("/ws/agent/{}", one.session_id), vec![]),
        (format!("/ws/agent/{}", one.session_id), bearer(&forged).to_vec()),
        (format!("/ws/agent/{}", one.session_id), bearer("nonsense").to_vec()),
        (format!("/ws/agent/{}", other.session_id), bearer(ticket).to_vec()),
        (format!("/ws/client/{}", one.session_id), bearer(ticket).to_vec()),
    ] {
        let error = relay.try_open(&path, &headers).await.err().unwrap().to_string();
        assert!(error.contains("401"), "{path}: {error}");
    }
    relay.open(&format!("/ws/agent/{}", one.session_id), &bearer(ticket)).await;
}

#[tokio::test]
async fn a_browser_carries_its_ticket_in_a_subprotocol() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let ticket = format!("mykube.ticket.{}", created.ticket.expose());
    let path = format!("/ws/agent/{}", created.session_id);
    relay.open(&path, &[("sec-websocket-protocol", format!("mykube.2, {ticket}"))]).await.close().await;
    let created = relay.create().await;
    let ticket = format!("mykube.ticket.{}", created.ticket.expose());
    relay.open(&format!("/ws/agent/{}", created.session_id), &[("sec-websocket-protocol", ticket)]).await;
}

#[tokio::test]
async fn a_restarted_relay_admits_both_ends_by_their_tickets() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    let waiting = relay.create().await;
    drop((pair.agent, pair.client));
    let dir = relay.stop().await;

    let relay = TestRelay::start_in(dir, |_| {}).await;
    let mut agent = relay.open(&format!("/ws/agent/{}", pair.session), &bearer(&pair.agent_ticket)).await;
    agent.ticket().await;
    let mut client = relay.open(&format!("/ws/client/{}", pair.session), &bearer(&pair.client_ticket)).await;
    assert_eq!(agent.text().await, "peer:here:session");
    assert_eq!(client.text().await, "peer:here:session");
    client.ticket().await;
    client.binary(&b"\x05still"[..]).await;
    assert_eq!(&agent.bytes().await[..], b"\x05still");
    assert_eq!(relay.metric("mykube_relay_reconnects_total{reason=\"readmitted\"}").await, 1.0);

    let _agent = relay.agent(&waiting).await;
    // The relay knows of the session when its agent has its slot, which the upgrade's answer does not say.
    until(|| async { relay.metric("mykube_relay_sessions{state=\"waiting\"}").await == 1.0 }).await;
    assert_eq!(relay.claim(waiting.nameplate.as_str()).await.session_id, waiting.session_id);

    let other_key = TestRelay::start().await;
    let refused = other_key.try_open(&format!("/ws/agent/{}", pair.session), &bearer(&pair.agent_ticket)).await;
    assert!(refused.err().unwrap().to_string().contains("401"));
}

#[tokio::test]
async fn versions_are_named_in_errors() {
    let relay = TestRelay::start().await;
    let answer = relay.post("/api/sessions", r#"{"version":3}"#).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("version 2"), "{}", answer.body);
    let answer = relay.post("/api/sessions", "{}").await;
    assert_eq!((answer.status, answer.error().contains("version 2 only")), (400, true));
    for body in ["", "[]", "{\"version\":\"2\"}", "nonsense"] {
        assert_eq!(relay.post("/api/sessions", body).await.status, 400, "{body}");
    }
    for body in ["", "{}", r#"{"nameplate":7}"#, r#"{"nameplate":"483","code":"48320417"}"#] {
        assert_eq!(relay.post("/api/pair", body).await.status, 400, "{body}");
    }
    for nameplate in ["000", "../", "48320417", ""] {
        let answer = relay.post("/api/pair", &format!(r#"{{"nameplate":"{nameplate}"}}"#)).await;
        assert_eq!(answer.status, 404, "{nameplate}");
    }
}

#[tokio::test]
async fn an_old_clients_code_ends_the_session_it_may_have_betrayed() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let mut agent = relay.agent(&created).await;
    let answer = relay.post("/api/pair", &format!(r#"{{"code":"{}20417"}}"#, created.nameplate)).await;
    assert_eq!((answer.status, answer.error().as_str()), (404, "session not found"));
    assert_eq!(agent.closed().await, (4426, "mykube 2 clients only".to_owned()));
}
