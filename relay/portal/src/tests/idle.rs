//! What many idle agents cost: a measurement, which prints its figures. `AGENTS=100000 cargo test --release -p
//! mykube-relay-portal -- --ignored --nocapture idle`.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, HEXLOWER};
use mykube_protocol::control::{nonce, signed};
use mykube_relay_accounts::{
    id::{AgentId, OrganisationId},
    token::{Kind, Token},
};
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{agents::Owned, *};

/// An agent's end without a socket: it answers the challenge, and then is idle. It holds next to nothing.
struct Idle {
    key: std::sync::Arc<EcdsaKeyPair>,
    answer: Vec<u8>,
    waker: Option<Waker>,
}

impl AsyncRead for Idle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.answer.is_empty() {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = self.answer.len().min(buf.remaining());
        buf.put_slice(&self.answer[..n]);
        self.answer.drain(..n);
        if self.answer.is_empty() {
            self.answer = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Idle {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        // A ping is answered, as in RFC 6455 section 5.5.3.
        if buf.first() == Some(&0x89) {
            self.answer.extend([0x8a, 0x80, 0, 0, 0, 0]);
        }
        let text = String::from_utf8_lossy(buf);
        if let Some((_, rest)) = text.split_once(r#"challenge":{"nonce":""#) {
            let time = clock().secs();
            let public = self.key.public_key().as_ref();
            let message = signed(&nonce(&rest[..64]).unwrap(), time);
            let signature = self.key.sign(&SystemRandom::new(), &message).unwrap();
            let hello = json!({"hello": {
                "uuid": HEXLOWER.encode(&Sha256::digest(public)), "pubkey": BASE64.encode(public),
                "decryptPubkey": BASE64.encode(public), "sig": BASE64.encode(signature.as_ref()), "timestamp": time,
            }});
            // RFC 6455 section 5.2: a text, masked with zeros, of a length in 16 bits.
            let hello = hello.to_string();
            self.answer = [&[0x81, 0xfe][..], &u16::try_from(hello.len()).unwrap().to_be_bytes(), &[0; 4]].concat();
            self.answer.extend_from_slice(hello.as_bytes());
        }
        if !self.answer.is_empty()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn p99(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

#[tokio::test]
#[ignore = "a measurement, of minutes"]
async fn many_idle_agents() {
    let count: usize = std::env::var("AGENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let owned = Owned::new().await;
    let shared = owned.site.portal.shared().clone();
    let who = owned.ask(Method::GET, "/v1/whoami", "").await.json();
    let organisation: OrganisationId = who["organisation"].as_str().unwrap().parse().unwrap();
    let mut tokens = Vec::with_capacity(count);
    let mut transaction = shared.store.begin().await.unwrap();
    for n in 0..count {
        let agent = mykube_relay_store::Agent {
            organisation,
            name: format!("agent-{n:06}").parse().unwrap(),
            id: AgentId::random(&mut rand::rng()),
            created_at: clock(),
            generation: 1,
            relay_key: None,
        };
        let token = Token::random(Kind::Agent, agent.name.clone(), &mut rand::rng());
        let row = shared.tokens.row_unhashed(&token, &agent, clock());
        transaction.add_agent(&agent).await.unwrap();
        transaction.add_agent_token(&row).await.unwrap();
        tokens.push((token, agent.id));
    }
    transaction.commit().await.unwrap();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref()).unwrap();
    let key = std::sync::Arc::new(key);
    let (before, start) = (resident(), Instant::now());
    for (token, _) in &tokens {
        let live = shared.control.live();
        let serve = owned.opens(token.expose()).await.unwrap();
        tokio::spawn(serve(Box::new(Idle { key: key.clone(), answer: Vec::new(), waker: None })));
        while shared.control.live() == live {
            tokio::task::yield_now().await;
        }
    }
    let (took, grown) = (start.elapsed(), resident() - before);
    assert_eq!(shared.control.live(), count);
    let presence = (0..100_000).map(|_| {
        let (_, id) = &tokens[rand::rng().random_range(0..count)];
        let start = Instant::now();
        std::hint::black_box(shared.control.presence(shared.instant(), *id));
        start.elapsed()
    });
    let presence = p99(presence.collect());
    let mut pages = Vec::new();
    for _ in 0..200 {
        wait(Duration::from_mins(1) / 500);
        let after =
            format!("/v1/agents?after=agent-{:06}", rand::rng().random_range(0..count.saturating_sub(100).max(1)));
        let start = Instant::now();
        let answer = owned.ask(Method::GET, &after, "").await;
        pages.push(start.elapsed());
        assert_eq!(answer.json()["agents"][0]["state"], "live");
    }
    let slow = {
        let token = Token::random(Kind::Agent, "prod".parse().unwrap(), &mut rand::rng());
        let start = Instant::now();
        std::hint::black_box(token.slow_hash([7; 16]));
        start.elapsed()
    };
    #[allow(clippy::cast_precision_loss)]
    let kib = grown as f64 / count as f64 / 1024.0;
    println!(
        "{count} idle agents: {kib:.2} KiB each without their sockets; {:?} to register one",
        took / u32::try_from(count).unwrap()
    );
    println!("presence of one: p50 and p99 {presence:?}; a page of 100: {:?}; bcrypt {slow:?}", p99(pages));
}
