//! One request and its answer, from the head to the last byte; when it ends it writes a line of the audit log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use rand::RngExt as _;
use serde::Serialize;

use crate::{
    audit::{self, FIELD_MAX, LineSlot, shown},
    caller::Caller,
    connection_slot::ConnectionSlot,
    headers::head_len,
    inner::Wanted,
    progress::Progress,
    request_info::{RequestInfo, query_pairs},
    room::{Room, held},
};

/// Words of a command, and groups, that are written.
const WORDS: usize = 32;
/// Longest path that is written, in bytes: names in it have up to 253.
const PATH_MAX: usize = 1024;

/// How far a request's body has come. Lives until the exchange is over and hyper has dropped the body.
#[derive(Debug, Default)]
pub(crate) struct Uploaded {
    pub(crate) bytes: AtomicU64,
    pub(crate) whole: AtomicBool,
    /// The body could not be read to its end.
    pub(crate) broken: AtomicBool,
    /// Room for the request's head: hyper keeps the memory that it wrote one from as long as its connection to the API
    /// server, and a client's bytes still go up for a while after it has gone.
    room: Option<Room>,
}

/// Lives as long as the exchange, in whichever part holds the last byte.
pub(crate) struct Exchange {
    pub(crate) bytes_out: Arc<AtomicU64>,
    pub(crate) uploaded: Arc<Uploaded>,
    pub(crate) record: Record,
    /// The request asks what the API server offers.
    pub(crate) discovery: bool,
    /// The program of a pod or a service answers, and may use cookies.
    pub(crate) cookies: bool,
    started: Instant,
    slot: Option<LineSlot>,
    progress: Arc<Progress>,
    connection: Option<ConnectionSlot>,
    /// Room for the answer's head, unless it was taken.
    answer: Room,
}

/// A request's line in the audit log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record {
    time: String,
    event: &'static str,
    client: String,
    /// Its number in `mykube sessions`: names may be the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<u64>,
    pub(crate) audit_id: String,
    /// Missing where no method was read.
    #[serde(skip_serializing_if = "String::is_empty")]
    method: String,
    /// Missing where the path could not be read, or where the method is none of the API's.
    #[serde(skip_serializing_if = "String::is_empty")]
    verb: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_group: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// The path after the subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    subpath: String,
    /// Where the path names no resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upgrade: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    impersonated_groups: Vec<String>,
    /// The name of its recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recording: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) removed: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    decision: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: u64,
    end: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    /// Names of the fields that were changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shortened: Vec<&'static str>,
}

impl Record {
    fn field(&mut self, name: &'static str, text: &str) -> String {
        shown(text, FIELD_MAX, name, &mut self.shortened)
    }

    fn path(&mut self, name: &'static str, text: &str) -> String {
        shown(text, PATH_MAX, name, &mut self.shortened)
    }

    /// The first words, and a mark if there are more.
    fn words(&mut self, name: &'static str, mut words: impl Iterator<Item = String>) -> Vec<String> {
        let mut out: Vec<_> = words.by_ref().take(WORDS).map(|word| self.field(name, &word)).collect();
        if words.next().is_some() {
            out.push("…".to_owned());
            if !self.shortened.contains(&name) {
                self.shortened.push(name);
            }
        }
        out
    }
}

impl Exchange {
    pub(crate) fn new(
        caller: &Caller,
        method: Option<&http::Method>,
        raw_path: &str,
        headers: &HeaderMap,
        progress: Arc<Progress>,
        room: Option<Room>,
    ) -> Self {
        let user_agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let mut record = Record {
            time: audit::now(),
            event: "request",
            client_id: caller.id,
            audit_id: audit_id(),
            decision: "allowed",
            end: "aborted",
            ..Record::default()
        };
        record.client = record.field("client", &caller.name);
        record.method = record.field("method", method.map_or("", http::Method::as_str));
        record.path = record.path("path", raw_path);
        record.user_agent = record.field("user_agent", &user_agent.unwrap_or_default());
        Self {
            bytes_out: Arc::default(),
            uploaded: Arc::new(Uploaded { room, ..Uploaded::default() }),
            record,
            discovery: false,
            cookies: false,
            started: Instant::now(),
            slot: None,
            progress,
            connection: None,
            answer: caller.heads.enter(),
        }
    }

    /// Fills in what the request asks for, as its path says.
    pub(crate) fn describe(&mut self, info: &RequestInfo, query: Option<&str>) {
        self.cookies = info.is_application();
        let record = &mut self.record;
        record.shortened.retain(|field| *field != "path");
        record.verb = record.field("verb", &info.verb);
        record.path = record.path("path", if info.is_resource { "" } else { &info.path });
        if info.is_resource {
            record.api_group = Some(record.field("api_group", &info.group));
            record.api_version = record.field("api_version", &info.version);
            record.resource = record.field("resource", &info.resource);
            record.subresource = record.field("subresource", &info.subresource);
            record.namespace = record.field("namespace", &info.namespace);
            record.name = record.field("name", &info.name);
            record.subpath = record.path("subpath", &info.subpath);
        }
        // A kubelet's own API runs commands too: `/exec/...?command=`, `/run/...?cmd=`.
        let runs = info.subresource == "exec" || (info.is_proxy() && info.resource == "nodes");
        if runs {
            let words = query_pairs(query).filter(|(key, _)| matches!(key.as_str(), "command" | "cmd"));
            record.command = record.words("command", words.map(|(_, word)| word));
        }
    }

    /// The request asks for an upgrade.
    pub(crate) fn upgrades(&mut self, protocol: &HeaderValue) {
        let protocol = String::from_utf8_lossy(protocol.as_bytes());
        self.record.upgrade = Some(self.record.field("upgrade", &protocol));
    }

    /// The request asks to be made as another user.
    pub(crate) fn impersonates(&mut self, wanted: &Wanted) {
        let record = &mut self.record;
        record.impersonated = Some(record.field("impersonated", &wanted.user));
        record.impersonated_groups = record.words("impersonated_groups", wanted.groups.iter().cloned());
    }

    /// The log has a slot for its line.
    pub(crate) fn reserved(&mut self, slot: LineSlot) {
        self.slot = Some(slot);
    }

    /// The request has a slot for a connection to the API server.
    pub(crate) fn connected(&mut self, connection: ConnectionSlot) {
        self.connection = Some(connection);
    }

    /// How many bytes its head holds, beyond those that every head may.
    pub(crate) fn held(&self) -> usize {
        self.uploaded.room.as_ref().map_or(0, Room::held)
    }

    /// Takes room for the head of its answer; whether there is some.
    pub(crate) fn takes(&mut self, answer: &HeaderMap) -> bool {
        self.answer.grow(held(head_len(answer), answer.len()))
    }

    /// The room of its answer's head, for a holder that outlives the exchange.
    pub(crate) fn answer_room(&mut self) -> Room {
        self.answer.take()
    }

    /// The request was refused, not forwarded.
    pub(crate) fn refused(&mut self, reason: &str) {
        self.record.decision = "refused";
        self.failed(reason);
    }

    /// The API server gave no answer, for this reason.
    pub(crate) fn failed(&mut self, reason: &str) {
        self.record.reason = self.record.path("reason", reason);
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.record.status = Some(status.as_u16());
    }

    /// The exchange is complete.
    pub(crate) fn complete(mut self) {
        self.record.end = "complete";
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.progress.finish();
        let record = &mut self.record;
        record.bytes_in = self.uploaded.bytes.load(Ordering::Relaxed);
        record.bytes_out = self.bytes_out.load(Ordering::Relaxed);
        record.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(slot) = self.slot.take() {
            slot.write(record);
        }
    }
}

/// A random UUID (RFC 9562, version 4), as the API server makes them.
fn audit_id() -> String {
    let mut bits: u128 = rand::rng().random();
    bits = bits & !(0xf << 76) | 0x4 << 76;
    bits = bits & !(0x3 << 62) | 0x2 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::room::HeadRoom;

    #[tokio::test]
    async fn a_line_says_how_long_its_exchange_took() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = audit::Audit::file(&path, audit::AuditSettings::default()).unwrap();
        let caller = Caller { name: "ann".into(), id: None, policy: Arc::default(), heads: HeadRoom::default() };
        let (progress, headers) = (Arc::<Progress>::default(), HeaderMap::new());
        let mut exchange = Exchange::new(&caller, Some(&http::Method::GET), "/api", &headers, progress, None);
        exchange.reserved(log.reserve().await.unwrap());
        let began = Instant::now();
        let earlier = Duration::from_millis(5007);
        exchange.started = began.checked_sub(earlier).expect("the machine runs for longer");
        exchange.complete();
        let most = (began.elapsed() + earlier).as_millis();
        log.flush().await;
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let told = line["duration_ms"].as_u64().unwrap();
        assert!((5007..=most).contains(&u128::from(told)), "{line}");
    }

    #[test]
    fn audit_ids_are_random_uuids() {
        let ids: Vec<_> = (0..64).map(|_| audit_id()).collect();
        for id in &ids {
            assert_eq!(id.len(), 36);
            assert_eq!(&id[14..15], "4", "{id}");
            assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
        }
        assert!(ids.iter().collect::<std::collections::HashSet<_>>().len() == ids.len());
    }
}
