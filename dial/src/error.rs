//! Why the relay, or another target, could not be reached; whose fault that is; and what a person can do.

use std::{io, path::PathBuf, time::Duration};

use mykube_protocol::text::printable;

/// Which of the documented exit codes an error belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The network, the proxy or the relay cannot be reached, or the address answers but is not a trusted relay (a login page,
    /// a redirect, an untrusted certificate): exit code 4.
    Unreachable,
    /// The pairing code is wrong, expired or used: exit code 3.
    Code,
    /// Anything else: exit code 1.
    Other,
}

/// What went wrong on the way to the relay. Holds no ticket and no password; texts from the network are cleaned and short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection, or no answer on it.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// `host:port`; for a proxy, also that it is one, and which setting names it.
        address: String,
        /// What happened.
        reason: Unreachable,
    },
    /// The proxy answers, but does not connect us to the target.
    #[error("the proxy {proxy} {problem}")]
    Proxy {
        /// `scheme://host:port (from VARIABLE)`, no credentials.
        proxy: String,
        /// What the proxy said.
        problem: ProxyProblem,
    },
    /// A proxy setting that cannot be read. The value is not shown: it may hold a password.
    #[error(
        "{setting} is not a usable proxy URL ({reason}): write it like http://USER:PASSWORD@HOST:PORT, special characters \
         of the password percent-encoded"
    )]
    ProxySetting {
        /// The variable or setting it came from.
        setting: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// `--ca-file` cannot be used.
    #[error("cannot use {} as --ca-file: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No certificate authority to trust.
    #[error(
        "this machine has no certificate authorities to trust{0}: install its ca-certificates package, or give the \
         relay's CA with --ca-file"
    )]
    NoRoots(String),
    /// TLS with the relay, or with an https proxy, failed.
    #[error("no trusted TLS connection to {address}: {problem}")]
    Tls {
        /// `host:port`.
        address: String,
        /// Why.
        problem: TlsProblem,
    },
    /// The address answers, but not as a mykube relay does.
    #[error(
        "{url} is not a mykube relay: {reason}. Check --relay-url, and whether a login page or a proxy answers in its place"
    )]
    NotARelay {
        /// The relay's address as given.
        url: String,
        /// What the answer was.
        reason: String,
    },
    /// Redirects are never followed: where to connect is the user's decision.
    #[error("{url} redirects to {to}, which is not followed: if that is the relay, give its address as --relay-url")]
    Redirected {
        /// The relay's address as given.
        url: String,
        /// Where it pointed to, cleaned.
        to: String,
    },
    /// No session waits under this nameplate.
    #[error(
        "no session waits under this code: it is mistyped, expired or used already. Check it, or ask for a new code \
         from `mykube server`"
    )]
    CodeUnknown,
    /// The session is over, or the relay has forgotten it.
    #[error("the relay does not know this session any more: a new code from `mykube server` is needed")]
    SessionUnknown,
    /// The relay does not take the ticket.
    #[error(
        "the relay refuses the ticket of this session (it has expired, or the relay was set up anew): pair again with a new code"
    )]
    TicketRefused,
    /// The relay does not take the token of an agent.
    #[error("the relay does not take this agent's token: it is mistyped, was revoked or replaced, or has expired")]
    AgentTokenRefused,
    /// The relay has no accounts, so that no agent has a name there.
    #[error("the relay {url} has no accounts, so that no agent has a name there: leave out --name")]
    NoAgents {
        /// Its address.
        url: String,
    },
    /// Too many requests.
    #[error("the relay has had too many requests from this address: try again {}", after(*retry_after))]
    RateLimited {
        /// Seconds, where the relay says.
        retry_after: Option<u64>,
    },
    /// The relay does not speak version 2.
    #[error("this relay does not speak mykube protocol version 2 ({message}): use a newer relay")]
    VersionUnsupported {
        /// What it said.
        message: String,
    },
    /// Another refusal, in the relay's words.
    #[error("the relay refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its message, cleaned.
        message: String,
    },
}

impl DialError {
    /// Which kind of failure it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::Tls { .. }
            | Self::NotARelay { .. }
            | Self::Redirected { .. } => ErrorClass::Unreachable,
            Self::CodeUnknown | Self::SessionUnknown => ErrorClass::Code,
            _ => ErrorClass::Other,
        }
    }

    /// The network, the proxy or the relay gave no answer: trying again later may help.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Proxy { .. })
    }

    /// There was an answer: the relay's, or that of something in its place for a while, like a login page or a proxy.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }

    /// The documented exit code of a command that ends with this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.class() {
            ErrorClass::Unreachable => 4,
            ErrorClass::Code => 3,
            ErrorClass::Other => 1,
        }
    }

    pub(crate) fn unreachable(address: impl Into<String>, reason: Unreachable) -> Self {
        Self::Unreachable { address: address.into(), reason }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The name has no address.
    #[error("its name cannot be resolved ({0}). Check the spelling, and that this machine has network and DNS")]
    Dns(String),
    /// Nothing listens there.
    #[error("connection refused. Check host and port, and that it is running")]
    Refused,
    /// No answer in time.
    #[error("no answer within {} s. Check the address, firewalls, and whether a proxy is needed (HTTPS_PROXY)", .0.as_secs_f32())]
    Timeout(Duration),
    /// It hung up.
    #[error("it closed the connection {0}")]
    Closed(&'static str),
    /// The relay, or a proxy in front of it, says that the relay is not available.
    #[error("it is not available at the moment (status {status}{}). Try again shortly", said(message.as_deref()))]
    Status {
        /// 502, 503 or 504.
        status: u16,
        /// The relay's own message, cleaned.
        message: Option<String>,
    },
    /// Anything else the system says.
    #[error("{0}")]
    Io(String),
}

impl Unreachable {
    /// From a failed connect, or a connection that broke `when`.
    pub(crate) fn from_io(error: &io::Error, when: &'static str) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            kind if is_reset(kind) => Self::Closed(when),
            _ => Self::Io(error.to_string()),
        }
    }
}

/// Whether a connection ended without a close. The system reports that differently at a read, at a write, and under TLS.
pub(crate) fn is_reset(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What a proxy said instead of connecting us. The text continues "the proxy http://host:port".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProblem {
    /// 407, and no credentials are set.
    #[error("asks for a user name and password: set {setting}=http://USER:PASSWORD@HOST:PORT{offers}")]
    CredentialsMissing {
        /// The variable or setting.
        setting: String,
        /// A remark where the proxy offers no Basic authentication; else empty.
        offers: String,
    },
    /// 407 to the credentials that are set.
    #[error(
        "does not accept the user name and password in {setting}: correct them (special characters percent-encoded){offers}"
    )]
    CredentialsWrong {
        /// The variable or setting.
        setting: String,
        /// A remark where the proxy offers no Basic authentication; else empty.
        offers: String,
    },
    /// The proxy could not reach the target.
    #[error("could not reach {target} ({reason}): check that address, and the proxy's own network")]
    CannotReach {
        /// `host:port`.
        target: String,
        /// Status or SOCKS reply.
        reason: String,
    },
    /// The proxy does not allow the target.
    #[error(
        "does not allow connections to {target} ({reason}): have it allowed there, or except the host with NO_PROXY"
    )]
    NotAllowed {
        /// `host:port`.
        target: String,
        /// Status or SOCKS reply.
        reason: String,
    },
    /// It does not answer as an HTTP or SOCKS proxy does.
    #[error("does not answer like a proxy ({0}): check its address and scheme")]
    NotAProxy(String),
}

/// Why TLS failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsProblem {
    /// Unknown issuer.
    #[error(
        "its certificate is not signed by an authority this machine trusts. If the relay has a CA of its own, or a proxy \
         inspects TLS here, give that CA's certificate with --ca-file FILE"
    )]
    Untrusted,
    /// Trusted, but for another name.
    #[error("its certificate is for {presented}, not for this name. Use the name it was made for, or have it renewed")]
    WrongName {
        /// The names in it, cleaned.
        presented: String,
    },
    /// Its time is over.
    #[error("its certificate has expired. Have it renewed, or check this machine's clock")]
    Expired,
    /// Its time has not begun.
    #[error("its certificate is not valid yet. Check this machine's clock")]
    NotYetValid,
    /// Not acceptable for another reason.
    #[error("its certificate is not acceptable: {0}. Have another one made")]
    Certificate(String),
    /// Not TLS at all.
    #[error("it does not speak TLS. Check the port, and whether the address should begin with http://")]
    NotTls,
    /// ALPN (RFC 7301) found nothing in common.
    #[error(
        "it takes HTTP/2 only, and WebSockets are carried over HTTP/1.1 here. Let what answers there (the proxy or balancer before the relay) \
         offer http/1.1 too"
    )]
    NoHttp1,
    /// The server ended the handshake with this alert.
    #[error("it broke the TLS handshake off ({0}). Check host and port; its own log may say more")]
    Alert(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A text from the network made fit for a message: one line, no control characters, short.
pub(crate) fn clean(text: &str) -> String {
    printable(text.trim(), 200)
}

fn after(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "in a minute".into(), |s| format!("in {s} s"))
}

fn said(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}
