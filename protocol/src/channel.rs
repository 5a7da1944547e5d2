//! Messages inside the end-to-end channel. Text is control, binary is data (docs/protocol.md, "Streams").

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    limits::{CONTROL_MAX, REASON_MAX},
    text::printable,
};

/// A stream's number. The client opens odd ones, the agent even ones, strictly increasing; 0 is the session.
pub type StreamId = u32;

/// The target that asks an agent whether it keeps more than 256 streams at once: one that does answers with a plain
/// `done`, any other with a reason, as to every target it does not know.
pub const STREAMS_ASK: &str = "?streams";
/// The target of a stream to the API server whose first window is the narrow one, both ways. Only for agents that have
/// answered [`STREAMS_ASK`].
pub const STREAM_NARROW: &str = "?narrow";

/// A text that is none of the channel's messages, or over its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a control message of this protocol")]
pub struct ChannelError;

/// Control text (kind 2), numbered and sent again after a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// `new:{id}` or `new:{id}:{target}`.
    New {
        /// The new stream.
        id: StreamId,
        /// Where to, if not the API server.
        target: Option<String>,
    },
    /// `credit:{id}:{n}`: n more bytes may be sent; id 0 is the session as a whole.
    Credit {
        /// The stream, or 0.
        id: StreamId,
        /// Bytes.
        n: u64,
    },
    /// `eof:{id}`: no more bytes this way.
    Eof {
        /// The stream.
        id: StreamId,
    },
    /// `done:{id}` or `done:{id}:{reason}`: over, both ways.
    Done {
        /// The stream.
        id: StreamId,
        /// Why, when it is a failure.
        reason: Option<String>,
    },
    /// `bye:{reason}`: the session is over.
    Bye {
        /// Why.
        reason: String,
    },
}

/// Upkeep text (kind 4), unnumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// `ack:{m}`: the next message expected.
    Ack(u64),
    /// `ping:{n}`.
    Ping(u64),
    /// `pong:{n}`.
    Pong(u64),
    /// `rekey`: the last record under this key.
    Rekey,
}

/// A reason fit for the wire and for a terminal.
#[must_use]
pub fn reason(text: &str) -> String {
    printable(text, REASON_MAX)
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New { id, target: None } => write!(f, "new:{id}"),
            Self::New { id, target: Some(target) } => write!(f, "new:{id}:{target}"),
            Self::Credit { id, n } => write!(f, "credit:{id}:{n}"),
            Self::Eof { id } => write!(f, "eof:{id}"),
            Self::Done { id, reason: None } => write!(f, "done:{id}"),
            Self::Done { id, reason: Some(reason) } => write!(f, "done:{id}:{reason}"),
            Self::Bye { reason } => write!(f, "bye:{reason}"),
        }
    }
}

impl FromStr for Control {
    type Err = ChannelError;

    fn from_str(s: &str) -> Result<Self, ChannelError> {
        if s.len() > CONTROL_MAX {
            return Err(ChannelError);
        }
        let (verb, rest) = s.split_once(':').ok_or(ChannelError)?;
        if verb == "bye" {
            return Ok(Self::Bye { reason: checked_reason(rest)? });
        }
        let (id, arg) = match rest.split_once(':') {
            Some((id, arg)) => (id, Some(arg)),
            None => (rest, None),
        };
        let id = StreamId::try_from(number(id)?).map_err(|_| ChannelError)?;
        match (verb, id, arg) {
            ("credit", id, Some(n)) => Ok(Self::Credit { id, n: number(n)? }),
            (_, 0, _) => Err(ChannelError),
            ("new", id, target) => Ok(Self::New { id, target: target.map(str::to_owned) }),
            ("eof", id, None) => Ok(Self::Eof { id }),
            ("done", id, None) => Ok(Self::Done { id, reason: None }),
            ("done", id, Some(reason)) => Ok(Self::Done { id, reason: Some(checked_reason(reason)?) }),
            _ => Err(ChannelError),
        }
    }
}

impl fmt::Display for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack(m) => write!(f, "ack:{m}"),
            Self::Ping(n) => write!(f, "ping:{n}"),
            Self::Pong(n) => write!(f, "pong:{n}"),
            Self::Rekey => f.write_str("rekey"),
        }
    }
}

impl FromStr for Upkeep {
    type Err = ChannelError;

    fn from_str(s: &str) -> Result<Self, ChannelError> {
        if s == "rekey" {
            return Ok(Self::Rekey);
        }
        let (verb, n) = s.split_once(':').ok_or(ChannelError)?;
        let n = number(n)?;
        match verb {
            "ack" => Ok(Self::Ack(n)),
            "ping" => Ok(Self::Ping(n)),
            "pong" => Ok(Self::Pong(n)),
            _ => Err(ChannelError),
        }
    }
}

/// Decimal without sign, leading zeros or overflow: one number has one form.
fn number(s: &str) -> Result<u64, ChannelError> {
    let canonical = s == "0" || (s.bytes().all(|b| b.is_ascii_digit()) && !s.starts_with('0'));
    if canonical { s.parse().map_err(|_| ChannelError) } else { Err(ChannelError) }
}

fn checked_reason(s: &str) -> Result<String, ChannelError> {
    if s.len() > REASON_MAX { Err(ChannelError) } else { Ok(printable(s, REASON_MAX)) }
}

/// How the client may use the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The client's kubeconfig holds the cluster's credentials; streams are raw TCP to the API server.
    Shared,
    /// Credentials stay with the agent.
    Guarded,
}

/// The agent's first application message; later ones replace the credentials. Typed fields only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Shared or guarded.
    pub mode: Mode,
    /// Cluster name, `[A-Za-z0-9._-]{1,63}`.
    pub cluster: String,
    /// Name to verify the API server's certificate against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Path of the API server's URL, as [`crate::text::is_plain_path`] has it: `https://host/prefix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// PEM certificates the API server is verified against. Nothing: the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The source kubeconfig itself said not to verify the API server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
    /// Default namespace of the source context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Guarded mode: `exec` and `attach` are recorded at the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recorded: bool,
    /// Shared mode only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// What the client shows the API server. Wiped on drop, prints nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// PEM client certificate chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// PEM private key of `certificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Basic authentication, name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Basic authentication, password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The credentials expire: the client keeps the token in a file, which it writes anew with each later welcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expiring: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_round_trips() {
        for text in [
            "new:1",
            "new:3:metrics:9000",
            "credit:0:65536",
            "credit:7:1",
            "eof:1",
            "done:2",
            "done:2:dial tcp: refused",
            "bye:",
            "bye:over",
        ] {
            assert_eq!(text.parse::<Control>().unwrap().to_string(), text);
        }
        for text in ["ack:0", "ping:18446744073709551615", "pong:3", "rekey"] {
            assert_eq!(text.parse::<Upkeep>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn one_number_has_one_form_and_nothing_overflows() {
        for text in [
            "new:0",
            "new:01",
            "new:+1",
            "new:4294967296",
            "new:",
            "eof:1:x",
            "credit:1",
            "credit:1:-1",
            "credit:1:18446744073709551616",
            "done:0",
            "bye",
            "ack:1",
            "",
            ":",
            "eof:1 ",
        ] {
            assert!(text.parse::<Control>().is_err(), "{text}");
        }
        for text in ["ack:", "ack:01", "ping:-1", "rekey:1", "eof:1", "ack:18446744073709551616"] {
            assert!(text.parse::<Upkeep>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_may_be_as_long_as_its_limit_and_no_longer() {
        for (begin, longest) in [
            ("new:1:", CONTROL_MAX - "new:1:".len()),
            ("new:4294967295:", CONTROL_MAX - "new:4294967295:".len()),
            ("done:4294967295:", REASON_MAX),
            ("bye:", REASON_MAX),
        ] {
            let text = |len| format!("{begin}{}", "x".repeat(len));
            assert_eq!(text(longest).parse::<Control>().map(|control| control.to_string()), Ok(text(longest)));
            assert_eq!(text(longest + 1).parse::<Control>(), Err(ChannelError), "{begin}");
        }
        // In bytes, not in characters.
        let wide = |more: &str| format!("bye:{}{more}", "ä".repeat(REASON_MAX / 2)).parse::<Control>();
        assert_eq!((wide("").is_ok(), wide("x")), (true, Err(ChannelError)));
        assert_eq!((CONTROL_MAX, REASON_MAX), (4096, 256), "as docs/protocol.md has them");
        assert_eq!(reason(&"x".repeat(300)).len(), REASON_MAX);
    }

    #[test]
    fn a_number_may_be_as_large_as_its_type_and_no_larger() {
        for (largest, larger) in [
            ("new:4294967295", "new:4294967296"),
            ("eof:4294967295", "eof:4294967296"),
            ("done:4294967295", "done:4294967296"),
            ("credit:4294967295:18446744073709551615", "credit:4294967295:18446744073709551616"),
            ("credit:4294967295:0", "credit:4294967296:0"),
        ] {
            assert_eq!(largest.parse::<Control>().unwrap().to_string(), largest);
            assert_eq!(larger.parse::<Control>(), Err(ChannelError));
        }
        for verb in ["ack", "ping", "pong"] {
            let largest = format!("{verb}:18446744073709551615");
            assert_eq!(largest.parse::<Upkeep>().unwrap().to_string(), largest);
            assert_eq!(format!("{verb}:18446744073709551616").parse::<Upkeep>(), Err(ChannelError));
        }
    }

    #[test]
    fn reasons_are_cleaned() {
        assert_eq!(
            "done:1:a\x1b[0mb".parse::<Control>().unwrap(),
            Control::Done { id: 1, reason: Some("a[0mb".into()) }
        );
    }
}
