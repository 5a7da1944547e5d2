//! `tests/vectors.json`: every value of the key schedule. Made anew from the inputs by the second implementation, checked
//! against the file and against the frames of the first. `MYKUBE_WRITE_VECTORS=1` writes the file.

use std::convert::Infallible;

use bytes::BytesMut;
use data_encoding::HEXLOWER;
use mykube_tunnel::{
    Config, Established, Session, Time,
    handshake::{Agent, Client},
    protocol::{PairingCode, SessionId},
    test_api::Sealer,
};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::second::{self, Keys, bytes_of, json_of};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.json");
const COMMITTED: &str = include_str!("../vectors.json");

/// Gives the bytes it was given, in their order, and panics past their end.
struct Listed(Vec<u8>);

impl TryRng for Listed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Listed {}

fn hex(bytes: &[u8]) -> Value {
    Value::String(HEXLOWER.encode(bytes))
}

fn unhex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Inputs that are hashes, so that none was chosen to suit.
fn inputs() -> Value {
    let bytes = |label: &str, len: usize| {
        let blocks = (0..len.div_ceil(32)).flat_map(|n| Sha256::digest(format!("mykube/2 vectors {label} {n}")));
        hex(&blocks.take(len).collect::<Vec<u8>>())
    };
    json!({
        "code": "48320417",
        "session_id": "000102030405060708090a0b0c0d0e0f",
        "agent_x25519_private": bytes("agent x25519", 32),
        "agent_mlkem768_seed_d_z": bytes("agent mlkem768", 64),
        "agent_r": bytes("agent r", 32),
        "agent_spake2_scalar_wide_le": bytes("agent spake2", 64),
        "client_mlkem768_m": bytes("client mlkem768", 32),
        "client_x25519_private": bytes("client x25519", 32),
        "client_spake2_scalar_wide_le": bytes("client spake2", 64),
        "attach_client_x25519_private": [bytes("attach 1 client x25519", 32), bytes("attach 2 client x25519", 32)],
        "attach_agent_x25519_private": [bytes("attach 1 agent x25519", 32), bytes("attach 2 agent x25519", 32)],
    })
}

fn listed(input: &Value, fields: &[&str]) -> Listed {
    Listed(fields.iter().flat_map(|field| unhex(&input[field])).collect())
}

/// A record with all that is needed to make it.
fn record(secret: &[u8], seq: u64, plaintext: &[u8]) -> Value {
    let (_, nonce) = second::cipher(secret, seq);
    json!({
        "seq": seq, "nonce": hex(&nonce), "plaintext": hex(plaintext),
        "frame": hex(&second::seal_plaintext(secret, seq, plaintext)),
    })
}

fn padded(messages: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in messages {
        out.push(*kind);
        out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(body);
    }
    out.resize(out.len().next_multiple_of(64), 0);
    out
}

fn traffic(secret: &[u8]) -> Value {
    json!({
        "secret": hex(secret),
        "key": hex(&second::expand(secret, b"mykube/2 key", 32)),
        "iv": hex(&second::expand(secret, b"mykube/2 iv", 12)),
    })
}

/// Two attaches. At the first the agent does not know yet whether the client has its tag; before the second each end has
/// sent one message.
fn attaches(
    input: &Value,
    session: &SessionId,
    keys: &Keys,
    r: &[u8],
    at_agent: Established,
    at_client: Established,
) -> Value {
    let now = Time::default();
    let mut client = Session::new(now, at_client, Config::default());
    let mut agent = Session::new(now, at_agent, Config::default());
    let mut out = Vec::new();
    for n in 1..=2_u64 {
        let private = |field: &str| unhex(&input[field][usize::try_from(n).unwrap() - 1]);
        let (c, a) = (private("attach_client_x25519_private"), private("attach_agent_x25519_private"));
        let key = |bytes: &[u8]| StaticSecret::from(<[u8; 32]>::try_from(bytes).unwrap());
        let public = |bytes: &[u8]| *PublicKey::from(&key(bytes)).as_bytes();

        // The first implementation's frames.
        client.handle_peer_here(now, &mut Listed(c.clone()));
        let attach_client = client.poll_transmit(now).unwrap().unwrap();
        agent.handle_attach(now, &attach_client, &mut Listed(a.clone()));
        let attach_agent = agent.poll_transmit(now).unwrap().unwrap();
        client.handle_attach(now, &attach_agent, &mut Listed(Vec::new()));
        let first_client = client.poll_transmit(now).unwrap().unwrap();
        agent.handle_frame(now, first_client.clone()).unwrap();
        let first_agent = agent.poll_transmit(now).unwrap().unwrap();
        client.handle_frame(now, first_agent.clone()).unwrap();
        assert!(client.is_attached() && agent.is_attached());

        // The second implementation's values.
        assert_eq!(attach_client, keys.attach_client(session, n, &public(&c)));
        assert_eq!(attach_agent, keys.attach_agent(&attach_client, n, &public(&a)));
        let shared = key(&a).diffie_hellman(&PublicKey::from(public(&c)));
        let attached = keys.attached(&attach_client, &attach_agent, shared.as_bytes());
        let received = (n - 1).to_be_bytes();
        let proof = if n == 1 { [r, &keys.tag_agent(r)].concat() } else { Vec::new() };
        let firsts = [
            record(&attached.client(), 0, &padded(&[(1, &received)])),
            record(&attached.agent(), 0, &padded(&[(1, &[&received[..], &proof].concat())])),
        ];
        assert_eq!([&firsts[0]["frame"], &firsts[1]["frame"]], [&hex(&first_client), &hex(&first_agent)]);
        out.push(json!({
            "n": n,
            "attach_client": hex(&attach_client), "attach_agent": hex(&attach_agent),
            "x25519": hex(shared.as_bytes()), "th": hex(&attached.0.th), "prk": hex(&attached.0.prk),
            "traffic_client": traffic(&attached.client()), "traffic_agent": traffic(&attached.agent()),
            "received_by_client": n - 1, "received_by_agent": n - 1,
            "first_client": firsts[0], "first_agent": firsts[1],
        }));

        client.open(now, None).unwrap();
        agent.open(now, None).unwrap();
        while let Some(frame) = client.poll_transmit(now).unwrap() {
            agent.handle_frame(now, frame).unwrap();
        }
        while let Some(frame) = agent.poll_transmit(now).unwrap() {
            client.handle_frame(now, frame).unwrap();
        }
    }
    Value::Array(out)
}

fn generate() -> Value {
    let input = inputs();
    let session: SessionId = input["session_id"].as_str().unwrap().parse().unwrap();
    let code: PairingCode = input["code"].as_str().unwrap().parse().unwrap();
    let mut agent_rng =
        listed(&input, &["agent_x25519_private", "agent_mlkem768_seed_d_z", "agent_r", "agent_spake2_scalar_wide_le"]);
    let client_fields = ["client_mlkem768_m", "client_x25519_private", "client_spake2_scalar_wide_le"];
    let mut client_rng = listed(&input, &client_fields);

    // The first implementation's frames.
    let (agent, hello_agent) = Agent::start(&mut agent_rng, session, &code, false);
    let (client, hello_client, record_client) =
        Client::start(&mut client_rng, session, &code, false, &hello_agent).unwrap();
    assert!(agent_rng.0.is_empty() && client_rng.0.is_empty(), "every listed byte was drawn, and no other");
    let frame_client = record_client.to_vec();
    let (at_agent, record_agent) =
        agent.handle_hello(&hello_client).unwrap().handle_tag(&mut record_client.clone()).unwrap();
    let frame_agent = record_agent.to_vec();
    let at_client = client.handle_tag(&mut record_agent.clone()).unwrap();
    assert_eq!(at_agent.words, at_client.words);

    // The second implementation's values.
    let (agent_json, client_json) = (json_of(&hello_agent), json_of(&hello_client));
    let private = |field: &str| StaticSecret::from(<[u8; 32]>::try_from(unhex(&input[field])).unwrap());
    let public = |hello: &Value| PublicKey::from(<[u8; 32]>::try_from(bytes_of(hello, "x25519")).unwrap());
    let x25519 = private("agent_x25519_private").diffie_hellman(&public(&client_json));
    let seed: [u8; 64] = unhex(&input["agent_mlkem768_seed_d_z"]).try_into().unwrap();
    let mlkem = second::decapsulate(seed, &bytes_of(&client_json, "mlkem768"));
    let identity = |role: &str| [b"mykube/2 ", role.as_bytes(), session.as_bytes()].concat();
    let (id_a, id_b) = (Identity::new(&identity("agent")), Identity::new(&identity("client")));
    let mut scalar = listed(&input, &["agent_spake2_scalar_wide_le"]);
    let (spake2, pa) =
        Spake2::<Ed25519Group>::start_a_with_rng(&Password::new(code.digits().as_slice()), &id_a, &id_b, &mut scalar);
    assert_eq!(pa, bytes_of(&agent_json, "spake2"));
    let k_code = spake2.finish(&bytes_of(&client_json, "spake2")).unwrap();
    let r = unhex(&input["agent_r"]);
    let keys = Keys::new(&k_code, x25519.as_bytes(), &mlkem, &hello_agent, &hello_client);
    let labels = ["confirm c", "confirm a", "traffic c", "traffic a", "attach c", "attach a", "resume", "device"];
    let expanded: Map<String, Value> = labels.iter().map(|l| ((*l).to_owned(), hex(&keys.e(l)))).collect();

    let (c, a) = (keys.e("traffic c"), keys.e("traffic a"));
    let handshake_client = record(&c, 0, &padded(&[(1, &keys.tag_client())]));
    let handshake_agent = record(&a, 0, &padded(&[(1, &[&r[..], &keys.tag_agent(&r)].concat())]));
    assert_eq!(handshake_client["frame"], hex(&frame_client), "the two implementations seal alike");
    assert_eq!(handshake_agent["frame"], hex(&frame_agent));
    assert_eq!(at_agent.words, keys.words(&r));

    // A stream's first record, the last under the first key, the first under the next.
    let data = padded(&[(2, b"new:1"), (3, b"\0\0\0\x01hello"), (4, b"ack:0")]);
    let last = padded(&[(2, b"eof:1"), (4, b"rekey")]);
    let next = second::next_secret(&c);
    let after = padded(&[(4, b"ping:1")]);
    let attaches = attaches(&input, &session, &keys, &r, at_agent, at_client);
    json!({
        "about": "mykube protocol 2: inputs, and every value that follows from them (docs/protocol.md). Bytes are \
            lower-case hexadecimal; frames are whole binary WebSocket messages.",
        "input": input,
        "hello": {
            "agent_frame": hex(&hello_agent), "client_frame": hex(&hello_client),
            "agent_json": agent_json, "client_json": client_json,
            "commit": hex(&bytes_of(&json_of(&hello_agent), "commit")),
        },
        "spake2": {
            "password": "48320417",
            "id_a": hex(&identity("agent")), "id_b": hex(&identity("client")),
            "message_a": hex(&pa), "message_c": hex(&bytes_of(&client_json, "spake2")),
            "k_code": hex(&k_code),
        },
        "shared": {
            "x25519_public_agent": hex(public(&agent_json).as_bytes()),
            "x25519_public_client": hex(public(&client_json).as_bytes()),
            "x25519": hex(x25519.as_bytes()), "mlkem768": hex(&mlkem),
        },
        "th": hex(&keys.th),
        "prk": hex(&keys.prk),
        "e": expanded,
        "tag_c": hex(&keys.tag_client()),
        "tag_a": hex(&keys.tag_agent(&r)),
        "words": keys.words(&r),
        "traffic_client": traffic(&c),
        "traffic_agent": traffic(&a),
        "records": {
            "handshake_client": handshake_client,
            "handshake_agent": handshake_agent,
            "data_client": record(&c, 1, &data),
            "rekey_client": record(&c, 2, &last),
        },
        "next_traffic_client": traffic(&next),
        "next_records": { "client": record(&next, 0, &after) },
        "attaches": attaches,
    })
}

#[test]
fn every_value_is_the_committed_one() {
    let made = generate();
    if std::env::var_os("MYKUBE_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
        return;
    }
    let committed: Value = serde_json::from_str(COMMITTED).unwrap();
    assert_eq!(made, committed);
}

#[test]
fn the_record_layer_makes_the_committed_records() {
    let committed: Value = serde_json::from_str(COMMITTED).unwrap();
    let secret: [u8; 32] = unhex(&committed["traffic_client"]["secret"]).try_into().unwrap();
    let mut sealer = Sealer::from_secret(secret);
    let mut check = |record: &Value| {
        let mut frame = BytesMut::from(&[5][..]);
        frame.extend_from_slice(&unhex(&record["plaintext"]));
        sealer.seal(&mut frame);
        assert_eq!(hex(&frame), record["frame"]);
        if record["seq"] == json!(2) {
            sealer.rekey();
        }
    };
    for name in ["handshake_client", "data_client", "rekey_client"] {
        check(&committed["records"][name]);
    }
    check(&committed["next_records"]["client"]);
}
