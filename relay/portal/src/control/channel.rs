//! One control channel: the greeting, the hello, and then pings until one of the two is gone. What is said, and in which
//! order it is judged, is the published relay's (protocol 3).

use std::{net::IpAddr, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_protocol::{
    close::{POLICY, RESTART, TOO_BIG, TOO_MANY, retry_reason},
    control::{FromAgent, FromRelay, Hello, MESSAGE_MAX, NONCE_LEN, PROTOCOL, REPLACED, TOKEN_ENDED, Welcome},
};
use mykube_relay_accounts::{
    relay_key::{self, RelayKeyId},
    token::Kind,
};
use mykube_relay_bus::{Generation, HeldOff};
use mykube_relay_store::{Agent, AgentActor, StoreError};
use rand::{Rng as _, RngExt as _};
use serde_json::json;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};
use tracing::{debug, error, info, warn};

use super::state::{End, Greeting};
use crate::{shared::Shared, socket::Stream};

/// How long an agent may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How often it is asked whether it is there; published.
const PING: Duration = Duration::from_secs(30);
/// How long it may take to say so; published.
const PONG: Duration = Duration::from_secs(10);
/// How long it has to take the last words, and to answer them.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Messages between two pings, pings of its own among them. An agent is asked nothing yet, and has nothing to say.
const MESSAGES_MAX: u32 = 100;
/// Over which time agents come back when the relay starts again.
const SPREAD: Duration = Duration::from_secs(5);
/// Bytes of one read: an idle channel keeps this buffer.
const READ_BUFFER: usize = 1024;

type Socket = WebSocketStream<Box<dyn Stream>>;

/// Who has opened a channel, by which token, and from where.
pub(super) struct Admitted {
    pub(super) agent: Agent,
    /// The token's number.
    pub(super) token: u32,
    pub(super) address: IpAddr,
}

/// How a channel ends.
#[derive(Debug)]
enum Over {
    /// The connection is gone, or the agent has closed it.
    Gone,
    /// No pong: the connection is cut.
    Silent,
    /// A message for the agent, and the close code that follows it, if any; published.
    Error(String, Option<u16>),
    /// A close code and its reason.
    Close(u16, String),
}

impl From<tungstenite::Error> for Over {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(_) => {
                Self::Close(TOO_BIG, format!("a message has at most {MESSAGE_MAX} bytes"))
            }
            tungstenite::Error::Utf8(_) => Self::Error("invalid JSON".to_owned(), None),
            _ => Self::Gone,
        }
    }
}

/// Serves one channel until its end.
pub(super) async fn serve(portal: Arc<Shared>, admitted: Admitted, greeting: Greeting, stream: Box<dyn Stream>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    // Apart, as an idle channel costs what its task holds.
    let greeted = Box::pin(greet(&portal, &admitted, &mut socket)).await;
    drop(greeting);
    let over = match greeted {
        Err(over) => over,
        Ok((generation, ended)) => {
            let over = keep(&mut socket, ended).await;
            let (id, name) = (admitted.agent.id, &admitted.agent.name);
            let was_its = portal.control.bus().leave(portal.instant(), id, generation);
            debug!(agent = %id, %name, ?over, was_its, "channel over");
            over
        }
    };
    if let Some(last) = last_words(over) {
        let _ = timeout(CLOSE_TIME, close(&mut socket, last)).await;
    }
}

/// Says hello. The channel is registered then, and what ends it from outside is told.
async fn greet(
    portal: &Arc<Shared>,
    admitted: &Admitted,
    socket: &mut Socket,
) -> Result<(Generation, oneshot::Receiver<End>), Over> {
    let deadline = Instant::now() + HELLO_TIME;
    let late = |_| Over::Error("no hello within 10 seconds".to_owned(), Some(POLICY));
    let mut nonce = [0; NONCE_LEN];
    rand::rng().fill_bytes(&mut nonce);
    let welcomed = async {
        send(socket, greeting(&nonce, portal)).await?;
        let text = next_text(socket).await?;
        let hello = hello(&text).map_err(|text| Over::Error(text.to_owned(), None))?;
        let key = relay_key::judge(&hello, &nonce, portal.now());
        key.map_err(|error| Over::Error(error.to_string(), None))
    };
    let key = tokio::time::timeout_at(deadline, welcomed).await.map_err(late)??;
    // A token that is worth nothing any more must not take the place of the channel that is there.
    still_opens(portal, admitted).await?;
    let (generation, ended) = register(portal, admitted)?;
    // It is in the bus: whatever goes wrong from here on takes it out again.
    let kept = async {
        still_opens(portal, admitted).await?;
        note_key(portal, admitted, key).await.map_err(unavailable)?;
        let welcome = FromRelay { welcome: Some(Welcome { protocol: PROTOCOL }), ..FromRelay::default() };
        send(socket, serde_json::to_string(&welcome).expect("texts and numbers are JSON")).await
    };
    if let Err(over) = kept.await {
        portal.control.bus().leave(portal.instant(), admitted.agent.id, generation);
        return Err(over);
    }
    info!(agent = %admitted.agent.id, name = %admitted.agent.name, address = %admitted.address, "agent registered");
    Ok((generation, ended))
}

/// In the form of protocol 3, and in the flat one of the devices channel: whoever is at the other end skips what it does not
/// know.
fn greeting(nonce: &[u8; NONCE_LEN], portal: &Shared) -> String {
    let nonce = HEXLOWER.encode(nonce);
    let client = HEXLOWER.encode(&rand::rng().random::<[u8; 16]>());
    let greeting = json!({
        "type": "challenge",
        "clientId": client,
        "timestamp": portal.now().millis(),
        "message": "say hello",
        "nonce": nonce,
        "challenge": {"nonce": nonce},
    });
    greeting.to_string()
}

fn hello(text: &str) -> Result<Hello, &'static str> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return Err("invalid JSON");
    }
    match serde_json::from_str(text) {
        Ok(FromAgent { hello: Some(hello), response: None }) => Ok(hello),
        _ => Err("expected hello message"),
    }
}

fn register(portal: &Shared, admitted: &Admitted) -> Result<(Generation, oneshot::Receiver<End>), Over> {
    let (handle, ended) = oneshot::channel();
    let id = admitted.agent.id;
    let registered = portal.control.bus().register(portal.instant(), id, admitted.token, handle);
    let (generation, replaced) = registered.map_err(|HeldOff(wait)| {
        warn!(agent = %id, name = %admitted.agent.name, address = %admitted.address,
            "two programs show this agent's token, and take its place in turn");
        let text = "another program with this agent's token has just taken its place: give each agent a name and token of its own";
        Over::Close(TOO_MANY, retry_reason(wait, text))
    })?;
    if let Some(replaced) = replaced {
        info!(agent = %id, name = %admitted.agent.name, address = %admitted.address, "a newer channel takes over");
        let _ = replaced.send(End::Replaced);
    }
    Ok((generation, ended))
}

/// Whether the token still opens channels, now that whoever ends it finds this one; and when it ends by itself.
async fn still_opens(portal: &Shared, admitted: &Admitted) -> Result<(), Over> {
    let Admitted { agent, token, .. } = admitted;
    let mut transaction = portal.store.begin().await.map_err(unavailable)?;
    let is_there = transaction.agent(agent.organisation, &agent.name).await.map_err(unavailable)?;
    let rows = transaction.agent_tokens(agent.organisation, &agent.name).await.map_err(unavailable)?;
    drop(transaction);
    let row = rows.iter().find(|row| row.generation == *token && is_there.as_ref().is_some_and(|it| it.id == agent.id));
    match row.filter(|row| row.judge(Kind::Agent, portal.now()).is_ok()) {
        Some(row) => {
            portal.control.token_changed((portal.now(), portal.instant()), agent.id, row);
            Ok(())
        }
        None => Err(Over::Close(TOKEN_ENDED, TOKEN_OVER.to_owned())),
    }
}

const TOKEN_OVER: &str = "this agent's token was revoked or replaced, or has expired";

/// A key that the agent did not have before is in the audit log: whoever has its token may be another.
async fn note_key(portal: &Shared, admitted: &Admitted, key: RelayKeyId) -> Result<(), StoreError> {
    let Admitted { agent, address, .. } = admitted;
    if agent.relay_key.is_some_and(|known| known.id == key) {
        return Ok(());
    }
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    let is_another = transaction.note_relay_key(agent, key, now).await?;
    if is_another {
        let actor = AgentActor { id: agent.id, name: agent.name.clone(), address: *address };
        transaction.record_agent(agent.organisation, &actor, ("agent.new_key", &key.to_string()), now).await?;
        warn!(agent = %agent.id, name = %agent.name, %address, %key, "this agent has another key than before");
    }
    transaction.commit().await
}

fn unavailable(error: StoreError) -> Over {
    error!(%error, "an agent could not be registered");
    Over::Close(RESTART, retry_reason(SPREAD, "this relay's database gives no answer"))
}

/// Keeps a channel: pings, and whatever ends it.
async fn keep(socket: &mut Socket, mut ended: oneshot::Receiver<End>) -> Over {
    let (mut due, mut is_asked, mut messages) = (Instant::now() + PING, false, 0);
    loop {
        let message = tokio::select! {
            biased;
            why = &mut ended => return why.map_or(Over::Gone, over),
            () = sleep_until(due) => {
                if is_asked {
                    return Over::Silent;
                }
                // It has as long to take the ping as to answer it.
                due += PONG;
                match tokio::time::timeout_at(due, socket.send(Message::Ping(Default::default()))).await {
                    Ok(Ok(())) => (is_asked, messages) = (true, 0),
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return Over::Silent,
                }
                continue;
            }
            message = socket.next() => message,
        };
        let text = match message {
            None => return Over::Gone,
            Some(Err(error)) => return error.into(),
            Some(Ok(message)) => {
                messages += 1;
                match message {
                    Message::Pong(_) if is_asked => {
                        (due, is_asked) = (Instant::now() + PING, false);
                        continue;
                    }
                    Message::Text(text) => text.as_bytes().to_vec(),
                    Message::Binary(bytes) => bytes.to_vec(),
                    Message::Close(_) => return Over::Gone,
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) if messages <= MESSAGES_MAX => continue,
                    _ => Vec::new(),
                }
            }
        };
        if messages > MESSAGES_MAX {
            return Over::Close(POLICY, "too many messages".to_owned());
        }
        if serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err() {
            return Over::Error("invalid JSON".to_owned(), None);
        }
    }
}

fn over(why: End) -> Over {
    match why {
        End::Replaced => Over::Close(REPLACED, "a newer channel of this agent took over".to_owned()),
        End::Token => Over::Close(TOKEN_ENDED, TOKEN_OVER.to_owned()),
        End::Restart => {
            Over::Close(RESTART, retry_reason(rand::rng().random_range(Duration::ZERO..=SPREAD), "the relay stops"))
        }
    }
}

async fn send(socket: &mut Socket, text: String) -> Result<(), Over> {
    Ok(socket.send(Message::text(text)).await?)
}

/// The next text, or the same in a binary frame.
async fn next_text(socket: &mut Socket) -> Result<String, Over> {
    for _ in 0..MESSAGES_MAX {
        match socket.next().await {
            None | Some(Ok(Message::Close(_))) => return Err(Over::Gone),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Binary(bytes))) => {
                let text = String::from_utf8(bytes.into());
                return text.map_err(|_| Over::Error("invalid JSON".to_owned(), None));
            }
            Some(Ok(_)) => {}
        }
    }
    Err(Over::Error("too many messages".to_owned(), Some(POLICY)))
}

/// What an agent is told at the end: messages, the last of which is a close frame.
fn last_words(over: Over) -> Option<Vec<Message>> {
    let close = |code: u16, reason: String| {
        Message::Close(Some(CloseFrame { code: code.into(), reason: short(reason).into() }))
    };
    match over {
        Over::Silent => None,
        // What the agent has said last may have to be answered.
        Over::Gone => Some(Vec::new()),
        // An agent of the published library that is closed without an error hangs for ever.
        Over::Error(text, code) => {
            let last = code.map_or(Message::Close(None), |code| close(code, text.clone()));
            Some(vec![error(&text), last])
        }
        Over::Close(code, reason) => Some(vec![error(&reason), close(code, reason)]),
    }
}

/// A control frame has at most 125 bytes, two of which are the code (RFC 6455 section 5.5). The error before it has it whole.
fn short(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(123));
    reason
}

/// In both forms, as [`greeting`].
fn error(text: &str) -> Message {
    Message::text(json!({"type": "error", "message": text, "error": {"message": text}}).to_string())
}

/// Says the last words, and waits until they are answered: what is still unread when a connection is closed would have the
/// system reset it, and the other side might read none of them.
async fn close(socket: &mut Socket, words: Vec<Message>) {
    for message in words {
        if socket.send(message).await.is_err() {
            return;
        }
    }
    while let Some(Ok(_)) = socket.next().await {}
}
