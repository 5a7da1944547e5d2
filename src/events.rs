//! The events that a script reads on standard output, with their fields. README has a table of them.

use std::collections::BTreeMap;

use serde::Serialize;

/// One line of `--output json`: all events that exist.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum JsonEvent<'a> {
    /// The server's code, and for how many seconds it waits.
    Code {
        code: &'a str,
        expires_in: u64,
        client: &'a str,
        /// The client, away for long, that is replaced by the client that pairs with this code.
        #[serde(skip_serializing_if = "Option::is_none")]
        replaces: Option<&'a str>,
    },
    /// The code is of no use any more: the client that it would have replaced is back.
    Withdrawn { client: &'a str },
    /// A client was refused, mostly for a wrong code; after `left` more wrong guesses the code is burned.
    CodeRefused { client: &'a str, reason: &'a str, left: u32 },
    /// The code is burned, expired or lost.
    CodeEnded { client: &'a str, reason: &'a str },
    /// A client has paired with the server.
    Paired { client: &'a str },
    /// The client said goodbye, was lost, ended or replaced.
    ClientGone { client: &'a str, reason: &'a str },
    /// The connection is lost, and the session waits for another. A server says which client's.
    Lost {
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        reason: &'a str,
    },
    /// The connection is back after this many seconds; nothing was lost.
    Back {
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        after: f64,
    },
    /// The server ends.
    Stopped { reason: &'a str },
    /// A code that `mykube sessions new` asked for.
    Invited { code: &'a str },
    /// One client of a server, in `mykube sessions`.
    Session { server: u32, id: u64, name: &'a str, state: &'a str, seconds: u64, may: &'a str },
    /// The client's kubeconfig works.
    Connected {
        kubeconfig: &'a str,
        listen: &'a str,
        cluster: &'a str,
        /// Variables that kubectl needs to outlive an outage.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        environment: BTreeMap<&'a str, &'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        recorded: bool,
    },
    /// The client's context stands in the user's own kubeconfig too.
    Merged { kubeconfig: &'a str, context: &'a str },
    /// The client ends.
    Closed { reason: &'a str },
    /// One check of `mykube doctor`; `None` if it could not be made.
    Check { name: Name, ok: Option<bool>, detail: &'a str },
    /// Who is signed in at a relay.
    Account {
        relay: &'a str,
        account: &'a str,
        user_id: &'a str,
        email: &'a str,
        organisation: &'a str,
        signed_in_at: &'a str,
        /// When it ends, where it is not renewed.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<&'a str>,
    },
    /// The address at which a person signs in, with the browser of this machine.
    SignInAt { url: &'a str },
    /// The code that a person types in a browser anywhere.
    DeviceCode { url: &'a str, user_code: &'a str, expires_in: u64 },
    /// Whether a relay answers; and why not.
    RelayStatus {
        relay: &'a str,
        reachable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
        signed_in: Option<bool>,
    },
    /// A server of this machine; without a relay, where its release does not tell it.
    ServerHere { pid: u32, relay: Option<&'a str>, cluster: Option<&'a str>, connected: usize, waiting: usize },
    /// A client of this machine.
    ClientHere { pid: u32, relay: Option<&'a str>, cluster: &'a str, away: Option<&'a str> },
    /// A server or client of this machine was asked to end.
    Disconnected { pid: u32, kind: &'a str, ended: bool },
    /// The sign-in is over.
    SignedOut { relay: &'a str },
    /// An agent that has a name at the relay, in `mykube agents`.
    Agent {
        name: &'a str,
        state: &'a str,
        since: &'a str,
        created_at: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        relay_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        new_key_since: Option<&'a str>,
    },
    /// An agent's new token, shown this once.
    AgentToken { name: &'a str, token: &'a str, generation: u32 },
    /// An agent is removed.
    AgentRemoved { name: &'a str },
    /// The relay knows this server by its name.
    AgentLive { name: &'a str },
    /// It does not, for now.
    AgentLost { name: &'a str, reason: &'a str },
    /// Nor will it: it does not take the token.
    AgentRefused { name: &'a str, reason: &'a str },
    /// An event of the relay.
    #[serde(untagged)]
    Relay(&'a mykube_relay::Event),
}

/// The checks, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Dns,
    Proxy,
    Tls,
    Websocket,
    Clock,
    Relay,
    Kubeconfig,
    ApiServer,
    Rbac,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_what_scripts_rely_on() {
        let line = |event: JsonEvent<'_>| serde_json::to_string(&event).unwrap();
        assert_eq!(
            line(JsonEvent::Code { code: "04820417", expires_in: 120, client: "client-1", replaces: None }),
            r#"{"event":"code","code":"04820417","expires_in":120,"client":"client-1"}"#
        );
        assert_eq!(
            line(JsonEvent::Code { code: "04820417", expires_in: 9, client: "b", replaces: Some("a") }),
            r#"{"event":"code","code":"04820417","expires_in":9,"client":"b","replaces":"a"}"#
        );
        assert_eq!(line(JsonEvent::Withdrawn { client: "b" }), r#"{"event":"withdrawn","client":"b"}"#);
        assert_eq!(
            line(JsonEvent::CodeRefused { client: "b", reason: "r", left: 2 }),
            r#"{"event":"code_refused","client":"b","reason":"r","left":2}"#
        );
        assert_eq!(
            line(JsonEvent::CodeEnded { client: "b", reason: "r" }),
            r#"{"event":"code_ended","client":"b","reason":"r"}"#
        );
        assert_eq!(line(JsonEvent::Paired { client: "alice" }), r#"{"event":"paired","client":"alice"}"#);
        assert_eq!(
            line(JsonEvent::ClientGone { client: "a", reason: "r" }),
            r#"{"event":"client_gone","client":"a","reason":"r"}"#
        );
        assert_eq!(line(JsonEvent::Stopped { reason: "a\nb" }), r#"{"event":"stopped","reason":"a\nb"}"#);
        let connected = |environment: &[(&'static str, &'static str)], recorded| {
            let environment = environment.iter().copied().collect();
            line(JsonEvent::Connected { kubeconfig: "/k", listen: "127.0.0.1:1", cluster: "c", environment, recorded })
        };
        assert_eq!(
            connected(&[], false),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c"}"#
        );
        assert_eq!(
            connected(&[("A", "0")], false),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c","environment":{"A":"0"}}"#
        );
        assert_eq!(
            connected(&[], true),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c","recorded":true}"#
        );
        assert_eq!(
            line(JsonEvent::Merged { kubeconfig: "/k", context: "mykube-c" }),
            r#"{"event":"merged","kubeconfig":"/k","context":"mykube-c"}"#
        );
        assert_eq!(line(JsonEvent::Closed { reason: "r" }), r#"{"event":"closed","reason":"r"}"#);
    }

    /// The commands that emit an event. There is no other arm: a new event must be added here, in `every`, and in
    /// README.
    fn commands(event: &JsonEvent<'_>) -> &'static [&'static str] {
        match event {
            JsonEvent::Relay(mykube_relay::Event::Listening { .. }) => &["relay"],
            JsonEvent::Code { .. }
            | JsonEvent::Withdrawn { .. }
            | JsonEvent::CodeRefused { .. }
            | JsonEvent::CodeEnded { .. }
            | JsonEvent::Paired { .. }
            | JsonEvent::ClientGone { .. }
            | JsonEvent::Stopped { .. }
            | JsonEvent::Lost { client: Some(_), .. }
            | JsonEvent::Back { client: Some(_), .. } => &["server"],
            JsonEvent::Connected { .. }
            | JsonEvent::Merged { .. }
            | JsonEvent::Closed { .. }
            | JsonEvent::Lost { client: None, .. }
            | JsonEvent::Back { client: None, .. } => &["client"],
            JsonEvent::Invited { .. } | JsonEvent::Session { .. } => &["sessions"],
            JsonEvent::Check { .. } => &["doctor"],
            JsonEvent::Account { .. } => &["login", "whoami", "relay status"],
            JsonEvent::SignInAt { .. } | JsonEvent::DeviceCode { .. } => &["login"],
            JsonEvent::RelayStatus { .. } | JsonEvent::ServerHere { .. } | JsonEvent::ClientHere { .. } => {
                &["relay status"]
            }
            JsonEvent::Disconnected { .. } => &["relay disconnect", "logout"],
            JsonEvent::SignedOut { .. } => &["logout"],
            JsonEvent::Agent { .. } | JsonEvent::AgentToken { .. } | JsonEvent::AgentRemoved { .. } => &["agents"],
            JsonEvent::AgentLive { .. } | JsonEvent::AgentLost { .. } | JsonEvent::AgentRefused { .. } => &["server"],
        }
    }

    /// Each event, with all of its fields.
    fn every(relay: &mykube_relay::Event) -> Vec<JsonEvent<'_>> {
        let (client, reason) = ("c", "r");
        vec![
            JsonEvent::Relay(relay),
            JsonEvent::Code { code: "1", expires_in: 1, client, replaces: Some("b") },
            JsonEvent::CodeRefused { client, reason, left: 1 },
            JsonEvent::CodeEnded { client, reason },
            JsonEvent::Withdrawn { client },
            JsonEvent::Paired { client },
            JsonEvent::Lost { client: Some(client), reason },
            JsonEvent::Back { client: Some(client), after: 1.0 },
            JsonEvent::ClientGone { client, reason },
            JsonEvent::Stopped { reason },
            JsonEvent::Connected {
                kubeconfig: "k",
                listen: "l",
                cluster: "c",
                environment: [("A", "0")].into(),
                recorded: true,
            },
            JsonEvent::Merged { kubeconfig: "k", context: "c" },
            JsonEvent::Lost { client: None, reason },
            JsonEvent::Back { client: None, after: 1.0 },
            JsonEvent::Closed { reason },
            JsonEvent::Session { server: 1, id: 1, name: "n", state: "s", seconds: 1, may: "m" },
            JsonEvent::Invited { code: "1" },
            JsonEvent::Check { name: Name::ApiServer, ok: None, detail: "d" },
            JsonEvent::Account {
                relay: "r",
                account: "a",
                user_id: "u",
                email: "e",
                organisation: "o",
                signed_in_at: "s",
                until: Some("u"),
            },
            JsonEvent::SignInAt { url: "u" },
            JsonEvent::DeviceCode { url: "u", user_code: "c", expires_in: 1 },
            JsonEvent::RelayStatus { relay: "r", reachable: false, detail: Some("d"), signed_in: None },
            JsonEvent::ServerHere { pid: 1, relay: None, cluster: None, connected: 1, waiting: 1 },
            JsonEvent::ClientHere { pid: 1, relay: None, cluster: "c", away: None },
            JsonEvent::Disconnected { pid: 1, kind: "client", ended: true },
            JsonEvent::SignedOut { relay: "r" },
            JsonEvent::Agent {
                name: "n",
                state: "s",
                since: "s",
                created_at: "c",
                relay_key: Some("k"),
                new_key_since: Some("k"),
            },
            JsonEvent::AgentToken { name: "n", token: "t", generation: 1 },
            JsonEvent::AgentRemoved { name: "n" },
            JsonEvent::AgentLive { name: "n" },
            JsonEvent::AgentLost { name: "n", reason },
            JsonEvent::AgentRefused { name: "n", reason },
        ]
    }

    /// Command, event and fields, sorted.
    type Documented = (String, String, Vec<String>);

    /// The table in README: `| `command` | `event` (`field`, ...), ... |`.
    fn documented(readme: &str) -> Vec<Documented> {
        let table = readme.split_once("| | events, and their fields |").unwrap().1;
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|') || line.is_empty());
        let words = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let mut found = Vec::new();
        for row in rows.filter(|row| row.starts_with("| `")) {
            let command = words(row).remove(0);
            for (begin, _) in row.match_indices("` (") {
                let name = row[..begin].rsplit_once('`').unwrap().1;
                let mut fields = words(row[begin + 3..].split_once(')').unwrap().0);
                fields.sort();
                found.push((command.clone(), name.to_owned(), fields));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn readme_has_every_event_and_no_other() {
        let (url, listen) = ("u".to_owned(), "127.0.0.1:1".parse().unwrap());
        let relay = mykube_relay::Event::Listening { url, listen, hint: Some("h".to_owned()) };
        let mut told = Vec::new();
        for event in every(&relay) {
            let object = serde_json::to_value(&event).unwrap();
            let mut fields: Vec<_> =
                object.as_object().unwrap().keys().filter(|key| *key != "event").cloned().collect();
            fields.sort();
            let name = object["event"].as_str().unwrap();
            told.extend(
                commands(&event).iter().map(|command| ((*command).to_owned(), name.to_owned(), fields.clone())),
            );
        }
        told.sort();
        assert_eq!(documented(include_str!("../README.md")), told);
    }
}
