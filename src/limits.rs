//! Limits and timeouts of `mykube server`: flags with defaults that fit most.

use std::{ops::RangeInclusive, time::Duration};

use clap::Args;
use mykube_agent_gateway::{AuditSettings, Settings};
use mykube_agent_upstream::KubeconfigSource;
use mykube_protocol::units;

/// Each forwarded request has a connection, and with it a descriptor, here and at the API server.
const REQUESTS: RangeInclusive<usize> = 1..=10_000;
/// A line of the audit log has some hundred bytes, and at most some thousand.
const QUEUE: RangeInclusive<usize> = 1..=1_000_000;
/// kubectl's heads stay below 8 KiB but for long commands of `exec`; the API server takes 1 MiB.
const HEADER: RangeInclusive<usize> = 8 << 10..=1 << 20;
/// Longest time that these flags take.
const TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);

/// Flags of limits.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Requests forwarded to the API server at once, watches included, all clients together
    #[arg(long, env = "MYKUBE_MAX_REQUESTS", value_name = "N", default_value = "512", value_parser = count(REQUESTS))]
    pub(crate) max_requests: usize,
    /// How long a request waits to be one of them before it is answered 429
    #[arg(long, env = "MYKUBE_QUEUE_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) queue_timeout: Duration,
    /// Longest head of a request, as the API server takes it; a longer one is answered 431
    #[arg(long, env = "MYKUBE_HEADER_LIMIT", value_name = "SIZE", default_value = "1MiB", value_parser = header_size)]
    pub(crate) header_limit: usize,
    /// How long a request's head may take from its first byte
    #[arg(long, env = "MYKUBE_HEADER_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) header_timeout: Duration,
    /// How long connecting to the API server may take, and TLS with it as long again
    #[arg(long, env = "MYKUBE_API_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) api_timeout: Duration,
    /// How long an idle connection to the API server is kept
    #[arg(long, env = "MYKUBE_API_IDLE", value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) api_idle: Duration,
    /// How long the kubeconfig's exec plugin may take, a login in a browser included
    #[arg(long, env = "MYKUBE_PLUGIN_TIMEOUT", value_name = "TIME", default_value = "2m", value_parser = duration)]
    pub(crate) plugin_timeout: Duration,
    /// Lines of the audit log that may wait for the disk, requests under way included
    #[arg(long, env = "MYKUBE_AUDIT_QUEUE", value_name = "N", default_value = "4096", value_parser = count(QUEUE))]
    pub(crate) audit_queue: usize,
    /// How long a request waits for room among them before it is answered 503
    #[arg(long, env = "MYKUBE_AUDIT_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) audit_timeout: Duration,
}

impl LimitArgs {
    /// The settings of guarded mode.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            upstream_connections: self.max_requests,
            queue_timeout: self.queue_timeout,
            header_max: self.header_limit,
            header_timeout: self.header_timeout,
            handshake_timeout: self.api_timeout,
            pool_idle: self.api_idle,
            ..Settings::default()
        }
    }

    /// The settings of the audit log.
    pub(crate) fn audit(&self) -> AuditSettings {
        AuditSettings { lines: self.audit_queue, patience: self.audit_timeout }
    }

    /// The settings of the kubeconfig.
    pub(crate) fn bound(&self, source: KubeconfigSource) -> KubeconfigSource {
        KubeconfigSource { exec_timeout: self.plugin_timeout, connect_timeout: self.api_timeout, ..source }
    }
}

fn count(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let n = text.parse().ok().filter(|n| range.contains(n));
        n.ok_or_else(|| format!("a number from {} to {}", range.start(), range.end()))
    }
}

/// `500ms`, `90s`, `2m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let time = units::time(text, &["ms", "s", "m", "h", ""]).filter(|time| TIME.contains(time));
    time.ok_or_else(|| "a time from 1ms to 1h, like 500ms, 90s or 2m".to_owned())
}

/// `64KiB`; a bare number is bytes.
fn header_size(text: &str) -> Result<usize, String> {
    let size = units::size(text).filter(|size| HEADER.contains(size));
    size.ok_or_else(|| "a size from 8KiB to 1MiB, like 64KiB".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn limits(line: &str) -> LimitArgs {
        Only::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{error}")).limits
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        let limits = limits("x");
        assert_eq!(format!("{:?}", limits.settings()), format!("{:?}", Settings::default()));
        assert_eq!(format!("{:?}", limits.audit()), format!("{:?}", AuditSettings::default()));
        let source = limits.bound(KubeconfigSource { exec_timeout: Duration::ZERO, ..Default::default() });
        assert_eq!(format!("{source:?}"), format!("{:?}", KubeconfigSource::default()));
    }

    #[test]
    fn each_flag_sets_its_limit() {
        let limits = limits(
            "x --max-requests 7 --queue-timeout 1s --header-limit 8KiB --header-timeout 2s --api-timeout 3s \
             --api-idle 4s --plugin-timeout 5s --audit-queue 8 --audit-timeout 6s",
        );
        let seconds = Duration::from_secs;
        let settings = limits.settings();
        assert_eq!((settings.upstream_connections, settings.header_max), (7, 8192));
        let times = (settings.queue_timeout, settings.header_timeout, settings.handshake_timeout, settings.pool_idle);
        assert_eq!(times, (seconds(1), seconds(2), seconds(3), seconds(4)));
        assert_eq!((limits.audit().lines, limits.audit().patience), (8, seconds(6)));
        let source = limits.bound(KubeconfigSource::default());
        assert_eq!((source.connect_timeout, source.exec_timeout), (seconds(3), seconds(5)));
    }

    #[test]
    fn numbers_times_and_sizes_have_bounds() {
        for (text, expected) in [("1ms", 1), ("250ms", 250), ("90", 90_000), ("60m", 3_600_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for bad in ["", "s", "0s", "3600001ms", "61m", "-1s", "+1s", "1d", "18446744073709551615h"] {
            assert_eq!(duration(bad), Err("a time from 1ms to 1h, like 500ms, 90s or 2m".to_owned()), "{bad}");
        }
        assert_eq!((header_size("8192"), header_size("1MiB")), (Ok(8192), Ok(1 << 20)));
        for bad in ["", "8191", "1048577", "2MiB", "64KB", "99999999999999999999KiB"] {
            assert_eq!(header_size(bad), Err("a size from 8KiB to 1MiB, like 64KiB".to_owned()), "{bad}");
        }
        for bad in ["--max-requests=0", "--max-requests=10001", "--audit-queue=0", "--audit-queue=x"] {
            assert!(Only::try_parse_from(["x", bad]).is_err(), "{bad}");
        }
    }
}
