//! One request and its answer, from its head to its last byte; at its end stands a line of the audit log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderMap, StatusCode, header};
use mykube_protocol::text::printable;
use rand::RngExt as _;
use serde::Serialize;

use super::{
    audit::{self, FIELD_MAX, Slot},
    body::Uploaded,
    forwarder::Place,
    intake::Progress,
    request_info::{RequestInfo, query_pairs},
};

/// Words of a command that are written.
const COMMAND_WORDS: usize = 32;

/// Lives as long as the exchange, in whatever holds its last byte.
pub(super) struct Exchange {
    pub(super) bytes_out: Arc<AtomicU64>,
    pub(super) uploaded: Arc<Uploaded>,
    pub(super) record: Record,
    /// It asks what the API server offers.
    pub(super) discovery: bool,
    started: Instant,
    slot: Option<Slot>,
    progress: Arc<Progress>,
    connection: Option<Place>,
}

/// What is written of a request.
#[derive(Debug, Default, Serialize)]
pub(super) struct Record {
    time: String,
    event: &'static str,
    client: String,
    pub(super) audit_id: String,
    method: String,
    /// Missing where the path could not be read, or resources know no such method.
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
    /// Where no resource is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upgrade: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated: Option<String>,
    /// The name of its recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recording: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) removed: Vec<&'static str>,
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
}

impl Exchange {
    pub(super) fn new(
        client: &str,
        method: &http::Method,
        raw_path: &str,
        headers: &HeaderMap,
        progress: Arc<Progress>,
    ) -> Self {
        let user_agent = headers.get(header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let record = Record {
            time: audit::now(),
            event: "request",
            client: shown(client),
            audit_id: audit_id(),
            method: shown(method.as_str()),
            path: shown(raw_path),
            user_agent: shown(&user_agent.unwrap_or_default()),
            decision: "allowed",
            end: "aborted",
            ..Record::default()
        };
        Self {
            bytes_out: Arc::default(),
            uploaded: Arc::default(),
            record,
            discovery: false,
            started: Instant::now(),
            slot: None,
            progress,
            connection: None,
        }
    }

    /// What it asks for is known.
    pub(super) fn describe(&mut self, info: &RequestInfo, query: Option<&str>) {
        let record = &mut self.record;
        record.verb = shown(&info.verb);
        record.path = shown(if info.is_resource { "" } else { &info.path });
        if info.is_resource {
            record.api_group = Some(shown(&info.group));
            record.api_version = shown(&info.version);
            record.resource = shown(&info.resource);
            record.subresource = shown(&info.subresource);
            record.namespace = shown(&info.namespace);
            record.name = shown(&info.name);
        }
        if info.subresource == "exec" {
            let words = query_pairs(query).filter(|(key, _)| key == "command").map(|(_, word)| shown(&word));
            record.command = words.take(COMMAND_WORDS).collect();
        }
    }

    /// Its line has a place.
    pub(super) fn reserved(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// It holds a connection to the API server.
    pub(super) fn connected(&mut self, connection: Place) {
        self.connection = Some(connection);
    }

    /// It was not forwarded.
    pub(super) fn refused(&mut self, reason: &str) {
        self.record.decision = "refused";
        self.failed(reason);
    }

    /// It was not answered by the API server.
    pub(super) fn failed(&mut self, reason: &str) {
        self.record.reason = shown(reason);
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.record.status = Some(status.as_u16());
    }

    /// It came to its own end.
    pub(super) fn complete(mut self) {
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

fn shown(text: &str) -> String {
    printable(text, FIELD_MAX)
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
    use super::*;

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
