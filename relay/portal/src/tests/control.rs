//! The control channel, in process: the hello and its faults, and what ends a channel.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, HEXLOWER};
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_protocol::control::{MESSAGE_MAX, nonce, signed};
use sha2::{Digest as _, Sha256};
use tokio::io::DuplexStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{agents::Owned, *};

/// An agent's end of a channel.
struct Agent {
    socket: WebSocketStream<DuplexStream>,
    key: EcdsaKeyPair,
}

fn key() -> EcdsaKeyPair {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref()).unwrap()
}

impl Owned {
    async fn channel(&self, token: &str) -> Agent {
        self.channel_of(token, key()).await
    }

    async fn channel_of(&self, token: &str, key: EcdsaKeyPair) -> Agent {
        let serve = self.opens(token).await.unwrap();
        let (one, other) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(Box::new(other)));
        let socket = WebSocketStream::from_raw_socket(one, Role::Client, None).await;
        Agent { socket, key }
    }

    async fn live(&self, token: &str) -> Agent {
        let mut agent = self.channel(token).await;
        agent.greet().await;
        agent
    }

    async fn state(&self) -> String {
        self.list().await[0]["state"].as_str().unwrap().to_owned()
    }
}

impl Agent {
    async fn text(&mut self) -> Value {
        match self.socket.next().await.unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("not a text: {other:?}"),
        }
    }

    async fn say(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    async fn challenge(&mut self) -> String {
        let greeting = self.text().await;
        assert_eq!(greeting["type"], "challenge");
        assert_eq!(greeting["nonce"], greeting["challenge"]["nonce"], "in both forms");
        greeting["nonce"].as_str().unwrap().to_owned()
    }

    fn hello(&self, challenge: &str) -> Value {
        let time = clock().secs();
        let public = self.key.public_key().as_ref();
        let message = signed(&nonce(challenge).unwrap(), time);
        let signature = self.key.sign(&SystemRandom::new(), &message).unwrap();
        json!({"hello": {
            "uuid": HEXLOWER.encode(&Sha256::digest(public)),
            "pubkey": BASE64.encode(public),
            "decryptPubkey": BASE64.encode(public),
            "sig": BASE64.encode(signature.as_ref()),
            "timestamp": time.to_string(),
        }})
    }

    async fn greet(&mut self) -> Value {
        let challenge = self.challenge().await;
        self.say(Message::text(self.hello(&challenge).to_string())).await;
        let welcome = self.text().await;
        // The address of webhooks, and the broker's key, would be those of what is not built.
        assert_eq!(welcome, json!({"welcome": {"protocol": 3}}));
        welcome
    }

    /// The error that it is told, in both forms, and the close code; both may be missing.
    async fn end(mut self) -> (Option<String>, Option<u16>) {
        let mut error = None;
        while let Some(message) = self.socket.next().await {
            match message {
                Ok(Message::Text(text)) => {
                    let told: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!((&told["type"], &told["message"]), (&json!("error"), &told["error"]["message"]));
                    error = Some(told["message"].as_str().unwrap().to_owned());
                }
                Ok(Message::Close(frame)) => return (error, frame.map(|frame| frame.code.into())),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        (error, None)
    }
}

#[tokio::test]
async fn an_agent_says_hello_and_is_live_until_it_is_gone() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut agent = owned.live(&token).await;
    wait(Duration::from_mins(5));
    let listed = owned.list().await;
    assert_eq!((&listed[0]["state"], &listed[0]["since"]), (&json!("live"), &json!("2027-01-15T08:00:00Z")));
    let uuid = HEXLOWER.encode(&Sha256::digest(agent.key.public_key().as_ref()));
    assert_eq!(listed[0]["relay_key"], uuid);
    assert_eq!(listed[0].get("new_key_since"), None);
    // What it may say is skipped.
    for text in [r#"{"response":{"id":"x"}}"#, r#"{"hello":{}}"#, "7"] {
        agent.say(Message::text(text)).await;
    }
    agent.socket.close(None).await.unwrap();
    assert_eq!(agent.end().await, (None, None));
    until(async || owned.state().await == "away").await;
    assert_eq!(owned.list().await[0]["since"], "2027-01-15T08:05:00Z");
}

/// Lets the other tasks of this thread do all that they can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Asks again until it is so; what must happen happens in other tasks of this thread.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never was so");
}

#[tokio::test]
async fn a_start_of_the_relay_makes_unknown_what_was_not_seen_since() {
    let mut owned = Owned::new().await;
    let token = owned.make("prod").await;
    let agent = owned.live(&token).await;
    wait(Duration::from_mins(1));
    owned.site.portal.close().await;
    let (error, code) = agent.end().await;
    // Its task has the database's file too.
    settle().await;
    owned.site = owned.site.restart().await;
    assert_eq!((error.unwrap().starts_with("retry-after="), code), (true, Some(1012)));
    let listed = owned.list().await;
    assert_eq!((&listed[0]["state"], &listed[0]["since"]), (&json!("unknown"), &json!("2027-01-15T08:01:00Z")));
    let _agent = owned.live(&token).await;
    assert_eq!(owned.state().await, "live");
}

#[tokio::test]
async fn a_hello_that_is_wrong_is_told_why_and_the_channel_ends() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let told = async |change: &dyn Fn(&mut Value)| {
        let mut agent = owned.channel(&token).await;
        let challenge = agent.challenge().await;
        let mut hello = agent.hello(&challenge);
        change(&mut hello);
        agent.say(Message::text(hello.to_string())).await;
        agent.end().await
    };
    let stranger = BASE64.encode(key().public_key().as_ref());
    let set = |field: &'static str, value: Value| move |hello: &mut Value| hello["hello"][field] = value.clone();
    for (change, text) in [
        (&set("pubkey", json!("AA==")) as &dyn Fn(&mut Value), "pubkey must be 65 bytes starting with 0x04"),
        (&set("decryptPubkey", json!(null)), "decrypt_pubkey is required"),
        (&set("pubkey", json!(stranger)), "uuid does not match sha256(pubkey)"),
        (&set("timestamp", json!(clock().secs() - 31)), "timestamp out of range"),
        (&set("timestamp", json!(clock().secs() - 30)), "invalid signature"),
        (&set("timestamp", json!(1.5)), "expected hello message"),
        (&|hello| hello["response"] = json!({}), "expected hello message"),
        (&|hello| *hello = json!({"type": "hello"}), "expected hello message"),
        (&|hello| *hello = json!([1]), "expected hello message"),
    ] {
        assert_eq!(told(change).await, (Some(text.to_owned()), None), "{text}");
    }
    for (message, text) in [
        (Message::text("{"), "invalid JSON"),
        (Message::binary(b"\xff".to_vec()), "invalid JSON"),
        (Message::text(""), "invalid JSON"),
    ] {
        let mut agent = owned.channel(&token).await;
        agent.challenge().await;
        agent.say(message).await;
        assert_eq!(agent.end().await, (Some(text.to_owned()), None));
    }
    assert_eq!(owned.state().await, "away");
}

#[tokio::test]
async fn a_hello_is_for_one_challenge() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut agent = owned.channel(&token).await;
    let challenge = agent.challenge().await;
    let hello = Message::text(agent.hello(&challenge).to_string());
    agent.say(hello.clone()).await;
    agent.text().await;
    let mut replayed = owned.channel(&token).await;
    assert_ne!(replayed.challenge().await, challenge);
    replayed.say(hello).await;
    assert_eq!(replayed.end().await, (Some("invalid signature".to_owned()), None));
    assert_eq!(owned.state().await, "live", "and the first is not replaced");
}

#[tokio::test]
async fn a_hello_may_come_in_a_binary_frame_or_in_parts() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut agent = owned.channel(&token).await;
    let challenge = agent.challenge().await;
    let hello = agent.hello(&challenge).to_string();
    agent.say(Message::binary(hello.into_bytes())).await;
    assert_eq!(agent.text().await["welcome"]["protocol"], 3);
}

#[tokio::test]
async fn what_is_too_long_ends_the_channel() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let long = Message::text(" ".repeat(MESSAGE_MAX + 1));
    let mut agent = owned.channel(&token).await;
    agent.challenge().await;
    agent.say(long.clone()).await;
    assert_eq!(agent.end().await.1, Some(1009));
    let mut agent = owned.live(&token).await;
    agent.say(long).await;
    assert_eq!(agent.end().await.1, Some(1009));
}

#[tokio::test]
async fn who_says_nothing_or_too_much_is_cut_off() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut silent = owned.channel(&token).await;
    silent.challenge().await;
    // A ping is no hello.
    silent.say(Message::Ping(Default::default())).await;
    tokio::time::pause();
    assert_eq!(silent.end().await, (Some("no hello within 10 seconds".to_owned()), Some(1008)));
    tokio::time::resume();
    let mut loud = owned.live(&token).await;
    for _ in 0..101 {
        loud.say(Message::text("7")).await;
    }
    assert_eq!(loud.end().await, (Some("too many messages".to_owned()), Some(1008)));
    let mut broken = owned.live(&token).await;
    broken.say(Message::text("{")).await;
    assert_eq!(broken.end().await, (Some("invalid JSON".to_owned()), None));
}

#[tokio::test]
async fn an_agent_that_answers_pings_stays_and_one_that_does_not_is_away() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut agent = owned.live(&token).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    for n in 1..=3 {
        // Reading answers it.
        assert!(matches!(agent.socket.next().await, Some(Ok(Message::Ping(_)))));
        agent.socket.flush().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 30 * n);
    }
    let at = start.elapsed();
    settle().await;
    let control = &owned.site.portal.shared().control;
    tokio::time::advance(Duration::from_secs(39)).await;
    settle().await;
    assert_eq!(control.live(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    until(async || control.live() == 0).await;
    assert_eq!((start.elapsed() - at).as_secs(), 41, "a ping after 30 s, and 10 s for its answer");
}

#[tokio::test]
async fn a_channel_ends_with_its_token() {
    let owned = Owned::new().await;
    let first = owned.make("prod").await;
    let ended = Some(4001);
    let agent = owned.live(&first).await;
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod/token", "").await.status, 200);
    assert_eq!(owned.state().await, "away", "at once");
    assert_eq!(agent.end().await.1, ended);

    let second = owned.rotate("prod", "").await;
    let agent = owned.live(&second).await;
    let third = owned.rotate("prod", "").await;
    let control = &owned.site.portal.shared().control;
    let tick = || control.tick(owned.site.portal.shared().instant());
    wait(Duration::from_mins(60));
    tick();
    assert_eq!(control.live(), 1, "its hour is not over until it is");
    wait(Duration::from_secs(1));
    tick();
    assert_eq!((agent.end().await.1, control.live()), (ended, 0));

    let owner = {
        let (_, daemon) = owned.site.daemon("alice@example.com").await;
        owned.site.token(Class::Mykube, &daemon)
    };
    let owned = Owned { owner, ..owned };
    let agent = owned.live(&third).await;
    let fourth = owned.rotate("prod", r#"{"strict":true}"#).await;
    assert_eq!(owned.state().await, "live", "what it opened lives on");
    // Who connects anew with the other token takes its place.
    let other = owned.live(&fourth).await;
    assert_eq!(agent.end().await.1, Some(4002));
    owned.rotate("prod", r#"{"now":true}"#).await;
    assert_eq!(other.end().await.1, ended);

    let fifth = owned.rotate("prod", "").await;
    let agent = owned.live(&fifth).await;
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod", "").await.status, 200);
    assert_eq!(agent.end().await.1, ended);
}

#[tokio::test]
async fn a_token_that_ends_between_the_handshake_and_the_hello_opens_nothing() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let mut agent = owned.channel(&token).await;
    let challenge = agent.challenge().await;
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod/token", "").await.status, 200);
    agent.say(Message::text(agent.hello(&challenge).to_string())).await;
    assert_eq!(agent.end().await.1, Some(4001));
    assert_eq!(owned.state().await, "away");
    // The same of an agent that was removed, and of another of its name.
    let token = owned.rotate("prod", "").await;
    let mut agent = owned.channel(&token).await;
    let challenge = agent.challenge().await;
    assert_eq!(owned.ask(Method::DELETE, "/v1/agents/prod", "").await.status, 200);
    owned.make("prod").await;
    agent.say(Message::text(agent.hello(&challenge).to_string())).await;
    assert_eq!(agent.end().await.1, Some(4001));
    assert_eq!(owned.state().await, "away");
}

#[tokio::test]
async fn a_token_that_has_ended_takes_no_channels_place() {
    let owned = Owned::new().await;
    let stolen = owned.make("prod").await;
    let mut thief = owned.channel(&stolen).await;
    let challenge = thief.challenge().await;
    let token = owned.rotate("prod", r#"{"now": true}"#).await;
    let _agent = owned.live(&token).await;
    thief.say(Message::text(thief.hello(&challenge).to_string())).await;
    assert_eq!(thief.end().await.1, Some(4001));
    settle().await;
    assert_eq!(owned.state().await, "live");
}

#[tokio::test]
async fn the_newest_of_two_wins_and_is_left_alone_for_a_while() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    let first = owned.live(&token).await;
    let second = owned.live(&token).await;
    assert_eq!(first.end().await.1, Some(4002));
    assert_eq!(owned.state().await, "live", "what the first leaves behind is not the second's");
    let mut third = owned.channel(&token).await;
    let challenge = third.challenge().await;
    third.say(Message::text(third.hello(&challenge).to_string())).await;
    let (error, code) = third.end().await;
    let error = error.unwrap();
    assert!(error.starts_with("retry-after=1000; another program") && code == Some(4429), "{error} {code:?}");
    assert!(error.len() > 123, "what is too long for a close frame is whole before it");
    wait(Duration::from_secs(1));
    let third = owned.live(&token).await;
    assert_eq!(second.end().await.1, Some(4002));
    drop(third);
}

#[tokio::test]
async fn only_so_many_channels_of_an_agent_say_nothing_yet() {
    let owned = Owned::new().await;
    let (token, other) = (owned.make("prod").await, owned.make("other").await);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(owned.channel(&token).await);
    }
    assert_eq!(owned.opens(&token).await.err(), Some(429));
    assert!(owned.opens(&other).await.is_ok(), "others are not held up");
    drop(held.pop());
    until(async || owned.opens(&token).await.is_ok()).await;
    held[0].greet().await;
    until(async || owned.opens(&token).await.is_ok()).await;
}

#[tokio::test]
async fn another_key_of_a_known_agent_is_noted() {
    let owned = Owned::new().await;
    let token = owned.make("prod").await;
    drop(owned.live(&token).await);
    let first = owned.list().await[0]["relay_key"].clone();
    wait(Duration::from_mins(1));
    drop(owned.live(&token).await);
    let listed = owned.list().await;
    assert_ne!(listed[0]["relay_key"], first);
    assert_eq!(listed[0]["new_key_since"], "2027-01-15T08:01:00Z");
    let who = owned.ask(Method::GET, "/v1/whoami", "").await.json();
    let organisation = who["organisation"].as_str().unwrap().parse().unwrap();
    let lines = owned.site.portal.shared().store.organisation(organisation).audit(1).await.unwrap();
    let line = (lines[0].account.as_str(), lines[0].action.as_str(), lines[0].detail.as_str());
    assert_eq!(line, ("agent:prod", "agent.new_key", listed[0]["relay_key"].as_str().unwrap()));
}
