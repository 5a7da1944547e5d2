//! The relay's settings as flags and environment variables, for `mykube-relay` and `mykube relay` alike.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use mykube_protocol::{limits::RETRY_AFTER_MAX, units};
use mykube_relay_core::registry::Limits;
use serde::Serialize;
use tracing::info;

use crate::{
    config::{Config, TlsFiles},
    fallback::Fallback,
    listen,
    server::{Relay, RelayError},
    signals::Signals,
    workers,
};

/// An eighth of a ticket's life is between two renewals, and tickets hold whole seconds.
const TICKET_TTL_MIN: Duration = Duration::from_secs(8);

/// Where a relay listens that is told nothing.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// Headings of `--help`.
const TLS: &str = "TLS";
const FRONT: &str = "Proxies and browsers";
const SESSIONS: &str = "Codes and sessions";
const LIMITS: &str = "Limits";
const TIMES: &str = "Timeouts";
const LEGACY: &str = "The first mykube";

/// Every setting of a relay.
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    /// Where to listen: 0.0.0.0:443, localhost:8000, or :443 for all addresses. Port 0 lets the system choose one [default: 127.0.0.1:8000]
    #[arg(long, env = "MYKUBE_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen::parse)]
    pub listen: Option<SocketAddr>,
    /// Threads that carry sessions [default: as many as there are processors]
    #[arg(long, env = "MYKUBE_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Directory of the ticket key [default: $XDG_STATE_HOME/mykube/relay]
    #[arg(long, env = "MYKUBE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// TLS certificate chain, PEM. Read again when the file changes, and at SIGHUP
    #[arg(long, help_heading = TLS, env = "MYKUBE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// TLS private key, PEM
    #[arg(long, help_heading = TLS, env = "MYKUBE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// How often the TLS files are checked for a change
    #[arg(long, help_heading = TLS, env = "MYKUBE_TLS_RELOAD_INTERVAL", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub tls_reload_interval: Duration,
    /// Serve /metrics, /healthz and /readyz here, in plain HTTP
    #[arg(long, env = "MYKUBE_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = listen::parse)]
    pub metrics_listen: Option<SocketAddr>,
    /// Believe X-Forwarded-For or PROXY headers from these networks only; they hold proxies, no clients
    #[arg(long, help_heading = FRONT, env = "MYKUBE_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,
    /// Expect a PROXY protocol version 2 header on every connection; X-Forwarded-For is then not read
    #[arg(long, help_heading = FRONT, env = "MYKUBE_PROXY_PROTOCOL", requires = "trusted_proxy")]
    pub proxy_protocol: bool,
    /// Admit requests and WebSockets of browsers from this origin, like `https://console.example.com`
    #[arg(long, help_heading = FRONT, env = "MYKUBE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    /// Longest time that a code may wait for its client; each server chooses its own time up to this
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_CODE_TTL_MAX", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub code_ttl_max: Duration,
    /// How long a client that has claimed a code may take to connect
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_PAIR_TICKET_TTL", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub pair_ticket_ttl: Duration,
    /// How long a session ticket lives. Renewed every eighth of this: an end may be away for the other seven
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_TICKET_TTL", value_name = "TIME", default_value = "48h", value_parser = duration)]
    pub ticket_ttl: Duration,
    /// How long one end of a session may wait here for the other; no shorter than the ends' --resume-window
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_SESSION_GRACE", value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub session_grace: Duration,
    /// Sessions at once, in all
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_MAX_SESSIONS", value_name = "N", default_value_t = 10_000)]
    pub max_sessions: usize,
    /// Sessions at once of one address (IPv4 /32, IPv6 /64); a /56 may have four times as many, a /48 sixteen times
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_SESSIONS_PER_ADDRESS", value_name = "N", default_value_t = 256)]
    pub sessions_per_address: usize,
    /// Sessions of one address that wait for their client
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_WAITING_PER_ADDRESS", value_name = "N", default_value_t = 16)]
    pub waiting_per_address: usize,
    /// Connections at once, in all
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_MAX_CONNECTIONS", value_name = "N", default_value_t = 25_000)]
    pub max_connections: usize,
    /// Connections at once of one address; clients behind a trusted proxy count by the address it names
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value_t = 1024)]
    pub connections_per_address: usize,
    /// Requests a minute of one address on /api/sessions and /api/pair; 0 is no limit
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_API_RATE", value_name = "N", default_value_t = 20)]
    pub api_rate: u32,
    /// Largest body of an API request
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_BODY_LIMIT", value_name = "SIZE", default_value = "16KiB", value_parser = size)]
    pub body_limit: usize,
    /// Largest WebSocket frame
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_FRAME_LIMIT", value_name = "SIZE", default_value = "64KiB", value_parser = size)]
    pub frame_limit: usize,
    /// Most that one direction of a session holds while its reader is slow
    #[arg(long, help_heading = LIMITS, env = "MYKUBE_BUFFER", value_name = "SIZE", default_value = "128KiB", value_parser = size)]
    pub buffer: usize,
    /// Time for the PROXY header and the TLS handshake together
    #[arg(long, help_heading = TIMES, env = "MYKUBE_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub handshake_timeout: Duration,
    /// Time for a request's headers, for its body, and for a pause of the client that reads the answer
    #[arg(long, help_heading = TIMES, env = "MYKUBE_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub header_timeout: Duration,
    /// An end that has sent nothing for this long is pinged
    #[arg(long, help_heading = TIMES, env = "MYKUBE_PING_INTERVAL", value_name = "TIME", default_value = "15s", value_parser = duration)]
    pub ping_interval: Duration,
    /// An end that has sent nothing for this long, not even a pong, loses its socket; its session stays
    #[arg(long, help_heading = TIMES, env = "MYKUBE_SILENCE_LIMIT", value_name = "TIME", default_value = "45s", value_parser = duration)]
    pub silence_limit: Duration,
    /// Time for a closing socket to take the data that waits for it, and to answer
    #[arg(long, help_heading = TIMES, env = "MYKUBE_CLOSE_TIMEOUT", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub close_timeout: Duration,
    /// After a drain, ends come back at random moments within this time; at most 60s
    #[arg(long, help_heading = SESSIONS, env = "MYKUBE_DRAIN_SPREAD", value_name = "TIME", default_value = "2s", value_parser = spread)]
    pub drain_spread: Duration,
    /// Also serve the clients and servers of the first mykube; the relay knows their codes
    #[arg(long, help_heading = LEGACY, env = "MYKUBE_LEGACY")]
    pub legacy: bool,
    /// What `--legacy` was called.
    #[arg(long, hide = true, env = "MYKUBE_PLAIN_FORM")]
    pub plain_form: bool,
    /// Largest WebSocket message of a legacy session
    #[arg(long, help_heading = LEGACY, env = "MYKUBE_LEGACY_FRAME_LIMIT", value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub legacy_frame_limit: usize,
    /// How long a legacy code waits
    #[arg(long, help_heading = LEGACY, env = "MYKUBE_LEGACY_TTL", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub legacy_ttl: Duration,
    /// Pair requests for one legacy code
    #[arg(long, help_heading = LEGACY, env = "MYKUBE_LEGACY_MAX_ATTEMPTS", value_name = "N", default_value_t = 5)]
    pub legacy_max_attempts: u32,
    /// What `--legacy-frame-limit` was called.
    #[arg(long, hide = true, env = "MYKUBE_PLAIN_FRAME_LIMIT", value_parser = size)]
    pub plain_frame_limit: Option<usize>,
    /// What `--legacy-ttl` was called.
    #[arg(long, hide = true, env = "MYKUBE_PLAIN_TTL", value_parser = duration)]
    pub plain_ttl: Option<Duration>,
    /// What `--legacy-max-attempts` was called.
    #[arg(long, hide = true, env = "MYKUBE_PLAIN_MAX_ATTEMPTS")]
    pub plain_max_attempts: Option<u32>,
}

/// What a relay reports on standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The relay accepts connections.
    Listening {
        /// What `--relay-url` takes: `http(s)://host:port`.
        url: String,
        /// The address it listens on.
        listen: SocketAddr,
        /// A hint for the operator, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl Event {
    /// The same for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let Self::Listening { url, hint, .. } = self;
        let hint = hint.as_deref().map(|hint| format!(" {hint}")).unwrap_or_default();
        format!("The relay listens. Use it with --relay-url {url}{hint}")
    }
}

/// Runs a relay until SIGTERM or Ctrl-C; at SIGHUP it reads its TLS files again. `fallback` makes who answers what the relay
/// itself does not, once everything else can be had: signals that come meanwhile are heard when it is done.
///
/// # Errors
/// The relay cannot start.
pub async fn run<E: From<RelayError>>(
    config: Config,
    fallback: impl AsyncFnOnce() -> Result<Option<Arc<dyn Fallback>>, E>,
    mut output: impl FnMut(Event),
) -> Result<(), E> {
    let signals = Signals::new().map_err(RelayError::Signals)?;
    let relay = Relay::bind_with(config, fallback).await?;
    let ((url, hint), listen) = (relay.announced(), relay.local_addr());
    info!(url, %listen, metrics = relay.metrics_addr().map(tracing::field::display), "listening");
    output(Event::Listening { url, listen, hint });
    let reload = relay.reloads();
    relay.serve(signals.stop(reload)).await;
    Ok(())
}

impl RelayArgs {
    /// The configuration these settings make.
    ///
    /// # Errors
    /// No data directory is known, or two settings contradict each other.
    pub fn into_config(self) -> Result<Config, RelayError> {
        let data_dir = self.data_dir.or_else(default_data_dir).ok_or_else(|| {
            RelayError::Usage("there is neither $XDG_STATE_HOME nor $HOME: say where with --data-dir".to_owned())
        })?;
        if self.ticket_ttl < TICKET_TTL_MIN {
            return Err(RelayError::Usage("a --ticket-ttl is at least 8s, as tickets are renewed in it".to_owned()));
        }
        if self.silence_limit <= self.ping_interval {
            let error = "--silence-limit must be longer than --ping-interval: nobody could answer";
            return Err(RelayError::Usage(error.to_owned()));
        }
        let tls = self.tls_cert.zip(self.tls_key);
        Ok(Config {
            listen: self.listen.unwrap_or(LISTEN),
            metrics_listen: self.metrics_listen,
            threads: self.threads.unwrap_or_else(workers::default_count),
            data_dir,
            tls: tls.map(|(cert, key)| TlsFiles { cert, key, reload_interval: self.tls_reload_interval }),
            legacy: self.legacy || self.plain_form,
            trusted_proxies: self.trusted_proxy,
            proxy_protocol: self.proxy_protocol,
            allow_origins: self.allow_origin,
            sessions: Limits {
                code_ttl: self.code_ttl_max,
                pair_ticket_ttl: self.pair_ticket_ttl,
                ticket_ttl: self.ticket_ttl,
                session_grace: self.session_grace,
                sessions: self.max_sessions,
                sessions_per_address: self.sessions_per_address,
                waiting_per_address: self.waiting_per_address,
                legacy_ttl: self.plain_ttl.unwrap_or(self.legacy_ttl),
                legacy_attempts: self.plain_max_attempts.unwrap_or(self.legacy_max_attempts),
            },
            connections: self.max_connections,
            connections_per_address: self.connections_per_address,
            api_requests_per_minute: self.api_rate,
            request_body_max: self.body_limit,
            frame_max: self.frame_limit,
            legacy_frame_max: self.plain_frame_limit.unwrap_or(self.legacy_frame_limit),
            buffer: self.buffer,
            handshake_timeout: self.handshake_timeout,
            header_timeout: self.header_timeout,
            ping_interval: self.ping_interval,
            silence_limit: self.silence_limit,
            close_timeout: self.close_timeout,
            drain_spread: self.drain_spread,
        })
    }
}

fn default_data_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("mykube/relay"))
}

/// `500ms`, `90s`, `10m`, `4h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = units::time(text, &["ms", "s", "m", "h", ""]);
    let duration = duration.ok_or_else(|| "a time is a number and ms, s, m or h, like 90s".to_owned())?;
    let allowed = Duration::from_millis(1)..=Duration::from_secs(10 * 365 * 24 * 3600);
    if allowed.contains(&duration) { Ok(duration) } else { Err("a time is between 1ms and ten years".to_owned()) }
}

/// A time that ends would wait.
fn spread(text: &str) -> Result<Duration, String> {
    let spread = duration(text)?;
    if spread <= RETRY_AFTER_MAX { Ok(spread) } else { Err("ends wait for at most 60s".to_owned()) }
}

/// `64KiB`, `16MiB`; a bare number is bytes.
fn size(text: &str) -> Result<usize, String> {
    units::size(text)
        .filter(|n| (1 << 10..=1 << 30).contains(n))
        .ok_or_else(|| "a size is a number and B, KiB or MiB, like 64KiB, and at least 1KiB".to_owned())
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| address()).map_err(|_| "a network looks like 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        relay: RelayArgs,
    }

    #[test]
    fn the_flags_defaults_are_the_configurations() {
        let args = Cli::try_parse_from(["relay", "--data-dir", "/nowhere"]).unwrap().relay;
        let mut config = Config::new("/nowhere");
        config.listen.set_port(8000);
        assert_eq!(format!("{:?}", args.into_config().unwrap()), format!("{config:?}"));
    }

    #[test]
    fn flags_keep_their_former_names() {
        for name in ["--legacy", "--plain-form"] {
            let args = Cli::try_parse_from(["relay", "--data-dir", "/nowhere", name]).unwrap().relay;
            assert!(args.into_config().unwrap().legacy, "{name}");
        }
        let former = ["--plain-ttl", "7s", "--plain-max-attempts", "7", "--plain-frame-limit", "7KiB"];
        let args = Cli::try_parse_from([&["relay", "--data-dir", "/nowhere"][..], &former].concat()).unwrap().relay;
        let config = args.into_config().unwrap();
        assert_eq!((config.sessions.legacy_ttl, config.sessions.legacy_attempts), (Duration::from_secs(7), 7));
        assert_eq!(config.legacy_frame_max, 7168);
        assert!(!config.legacy);
    }

    #[test]
    fn help_names_no_former_flag() {
        use clap::CommandFactory as _;
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("--legacy-ttl") && help.contains("The first mykube:"), "{help}");
        assert!(!help.contains("--plain") && !help.contains("PLAIN_"), "{help}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (flags, named) in [
            (["--ping-interval", "45s"], "--silence-limit"),
            (["--silence-limit", "15s"], "--silence-limit"),
            (["--ticket-ttl", "7s"], "--ticket-ttl"),
        ] {
            let args = [&["relay", "--data-dir", "/nowhere"][..], &flags].concat();
            let error = Cli::try_parse_from(args).unwrap().relay.into_config().unwrap_err();
            assert!(error.to_string().contains(named), "{flags:?}: {error}");
        }
    }

    #[test]
    fn values_have_units() {
        for (text, expected) in [("500ms", 500), ("7", 7000), ("4h", 14_400_000), ("87600h", 315_360_000_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for bad in ["", "h", "1d", "-1s", "+1s", "99999999999999999999h"] {
            assert_eq!(duration(bad), Err("a time is a number and ms, s, m or h, like 90s".to_owned()), "{bad}");
        }
        for bad in ["0s", "0ms", "87601h", "99999999999999h", "18446744073709551615h"] {
            assert_eq!(duration(bad), Err("a time is between 1ms and ten years".to_owned()), "{bad}");
        }
        assert_eq!((size("64KiB"), size("1024"), size("1024MiB")), (Ok(65_536), Ok(1 << 10), Ok(1 << 30)));
        for bad in ["", "64kb", "1023", "1025MiB", "99999999999999999999"] {
            let why = "a size is a number and B, KiB or MiB, like 64KiB, and at least 1KiB";
            assert_eq!(size(bad), Err(why.to_owned()), "{bad}");
        }
        assert_eq!(spread("60s"), Ok(RETRY_AFTER_MAX));
        assert!(spread("61s").is_err());
        assert_eq!(network("10.0.0.1"), Ok("10.0.0.1/32".parse().unwrap()));
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn events_are_one_json_object() {
        let (url, listen) = ("http://127.0.0.1:8000".to_owned(), "0.0.0.0:8000".parse().unwrap());
        let event = |hint: Option<&str>| Event::Listening { url: url.clone(), listen, hint: hint.map(str::to_owned) };
        let json = serde_json::to_string(&event(None)).unwrap();
        assert_eq!(json, r#"{"event":"listening","url":"http://127.0.0.1:8000","listen":"0.0.0.0:8000"}"#);
        assert_eq!(
            event(Some("Say so.")).text(),
            "The relay listens. Use it with --relay-url http://127.0.0.1:8000 Say so."
        );
    }

    #[test]
    fn flags_that_need_each_other_say_so() {
        for args in
            [["relay", "--tls-cert", "x"].as_slice(), &["relay", "--proxy-protocol"], &["relay", "--threads", "0"]]
        {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
    }
}
