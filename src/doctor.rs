//! `mykube doctor`: what is in the way, tried in the order in which one thing depends on another.

mod cluster;
mod report;

use std::{
    path::PathBuf,
    time::{Instant, SystemTime},
};

use mykube_dial::{
    DialError, DialOptions, Dialer, ProxyEnv, RelayUrl,
    probe::{Presented, Probe, WebSocketProblem},
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

pub(crate) use cluster::missing_namespaces;

use report::Report;

use crate::{cli::DoctorArgs, dial, events::Name, exit::Failure, output::Output};

/// How far this machine's clock may be from the relay's: less than the shortest life of tickets and tokens.
const CLOCK_TOLERANCE: u64 = 30;
/// Words in the names of certificate authorities with which proxies inspect TLS.
const INSPECTORS: [&str; 20] = [
    "zscaler",
    "netskope",
    "fortinet",
    "fortigate",
    "palo alto",
    "blue coat",
    "bluecoat",
    "forcepoint",
    "websense",
    "sophos",
    "skyhigh",
    "mcafee",
    "umbrella",
    "check point",
    "barracuda",
    "mitmproxy",
    "squid",
    "kaspersky",
    "avast",
    "bitdefender",
];

/// Makes every check that can be made. Fails unless all of them pass.
pub(crate) async fn run(args: DoctorArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let url = dial::wanted(args.relay_url)?;
    let url = url.as_deref().map(str::parse::<RelayUrl>).transpose().map_err(Failure::usage)?;
    let mut report = Report::new(output);
    match url {
        Some(url) => relay(&mut report, url, ca_file.clone()).await,
        None => report.skip_until(Name::Kubeconfig, "no relay is named: give --relay-url URL to check the way to one"),
    }
    cluster::check(&mut report, args.kubeconfig, args.context, ca_file).await;
    report.finish()
}

/// The checks from the relay's name to a session on it.
async fn relay(report: &mut Report, url: RelayUrl, ca_file: Option<PathBuf>) {
    let options = DialOptions { ca_file, proxies: ProxyEnv::from_env(), ..DialOptions::default() };
    let probe = match Probe::new(url.clone(), &options) {
        Ok(probe) => probe,
        Err(error) => {
            let name = if matches!(error, DialError::ProxySetting { .. }) { Name::Proxy } else { Name::Tls };
            let depends = format!("depends on {}", name.shown());
            report.skip_until(name, &depends);
            report.fail(name, error);
            return report.skip_until(Name::Kubeconfig, &depends);
        }
    };
    if !reach(report, &probe, &url).await {
        return;
    }
    let dialer = match Dialer::new(url, options) {
        Ok(dialer) => dialer,
        Err(error) => {
            report.skip_until(Name::Relay, "see relay");
            return report.fail(Name::Relay, error);
        }
    };
    speak(report, &dialer).await;
}

/// Checks DNS, proxy and TLS; returns whether the later checks make sense.
async fn reach(report: &mut Report, probe: &Probe, url: &RelayUrl) -> bool {
    match probe.resolve().await {
        Ok((host, addresses)) if addresses.is_empty() => report.ok(Name::Dns, format!("{host} is an address")),
        Ok((host, addresses)) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let whose = if probe.proxy().is_some() { "the proxy" } else { "the relay" };
            report.ok(Name::Dns, format!("{whose}, {host}, is at {}", addresses.join(", ")));
        }
        Err(error) => {
            report.fail(Name::Dns, error);
            report.skip_until(Name::Kubeconfig, "depends on DNS");
            return false;
        }
    }
    let stream = match (probe.connect().await, probe.proxy()) {
        (Ok(stream), None) => {
            report.ok(Name::Proxy, "none on the way (HTTPS_PROXY is not set, or NO_PROXY excepts the relay)");
            stream
        }
        (Ok(stream), Some(proxy)) => {
            report.ok(Name::Proxy, format!("{proxy} lets us through to {}", url.address()));
            stream
        }
        (Err(error), Some(_)) => {
            report.fail(Name::Proxy, error);
            report.skip_until(Name::Kubeconfig, "depends on the proxy");
            return false;
        }
        (Err(error), None) => {
            report.ok(Name::Proxy, "none is set (HTTPS_PROXY)");
            report.skip_until(Name::Relay, "no connection, see relay");
            report.fail(Name::Relay, error);
            return false;
        }
    };
    if !url.is_tls() {
        report.skip(Name::Tls, "plain http, which stays on this machine");
        return true;
    }
    let proxied = probe.proxy().is_some();
    match probe.tls(stream).await {
        (Ok(()), presented) => {
            report.ok(
                Name::Tls,
                presented.map_or_else(|| "no certificate was shown".to_owned(), |p| trusted(&p, proxied)),
            );
            true
        }
        (Err(error), presented) => {
            let issuer = presented.map(|presented| issued(&presented)).unwrap_or_default();
            let issuer = if issuer.is_empty() { issuer } else { format!("; {issuer}") };
            report.fail(Name::Tls, format!("{error}{issuer}"));
            report.skip_until(Name::Kubeconfig, "depends on TLS");
            false
        }
    }
}

/// The issuer of a certificate, and whether it looks like a proxy's.
fn trusted(presented: &Presented, proxied: bool) -> String {
    let through = if presented.by_system { "the system's authorities" } else { "--ca-file" };
    let remark = if is_inspector(&presented.issuer) || presented.by_system || !proxied {
        ""
    } else {
        " (the relay's own authority, or that of a proxy which inspects TLS: what mykube sends stays sealed end to end)"
    };
    format!("{}, trusted through {through}{remark}", issued(presented))
}

fn issued(presented: &Presented) -> String {
    let Presented { issuer, .. } = presented;
    if issuer.is_empty() {
        return "the certificate does not name its issuer".to_owned();
    }
    let remark = if is_inspector(issuer) {
        " - a proxy seems to inspect TLS here; mykube works through it, what it sends stays sealed end to end"
    } else {
        ""
    };
    format!("the certificate was issued by \"{issuer}\"{remark}")
}

fn is_inspector(issuer: &str) -> bool {
    let issuer = issuer.to_lowercase();
    INSPECTORS.iter().any(|word| issuer.contains(word))
}

/// Checks WebSocket, clock and relay.
async fn speak(report: &mut Report, dialer: &Dialer) {
    let start = Instant::now();
    let session = dialer.create_session().await;
    let took = start.elapsed();
    match &session {
        Err(_) => report.skip(Name::Websocket, "needs a session on the relay, see relay"),
        Ok(session) => match dialer.try_websocket(session).await {
            Ok(()) => report.ok(Name::Websocket, "opens, and frames pass both ways"),
            Err(problem) => report.fail(Name::Websocket, blocked(&problem, dialer)),
        },
    }
    match dialer.date().await.map(|date| skew(date.as_deref(), SystemTime::now())) {
        Ok(Some(seconds)) if seconds.unsigned_abs() <= CLOCK_TOLERANCE => {
            report.ok(Name::Clock, format!("within {CLOCK_TOLERANCE} s of the relay's"));
        }
        Ok(Some(seconds)) => {
            let way = if seconds > 0 { "ahead of" } else { "behind" };
            report.fail(
                Name::Clock,
                format!(
                    "this machine's clock is {} s {way} the relay's: certificates and tokens depend on it. Correct the \
                     wrong one (`timedatectl set-ntp true`)",
                    seconds.unsigned_abs()
                ),
            );
        }
        Ok(None) => report.skip(Name::Clock, "the relay's answer has no date to compare with"),
        Err(_) => report.skip(Name::Clock, "no answer to compare with, see relay"),
    }
    match session {
        Ok(_) => report.ok(
            Name::Relay,
            format!("{} speaks mykube protocol 2 and answered in {} ms", dialer.url(), took.as_millis()),
        ),
        Err(error) => report.fail(Name::Relay, error),
    }
}

fn blocked(problem: &WebSocketProblem, dialer: &Dialer) -> String {
    let what = match problem {
        WebSocketProblem::Refused(DialError::NotARelay { reason, .. }) => format!("was not opened: {reason}"),
        problem => problem.to_string(),
    };
    format!(
        "{what}. The relay answers other calls, so something on the way (proxy, load balancer, firewall) does not pass \
         WebSockets on: have `Upgrade: websocket` allowed for {}",
        dialer.url().host()
    )
}

/// Seconds by which `now` is ahead of an HTTP date (RFC 9110 section 5.6.7).
fn skew(date: Option<&str>, now: SystemTime) -> Option<i64> {
    // RFC 2822's dates have the same form, with the zone as a number.
    let date = date?.trim().strip_suffix("GMT")?.trim_end().to_owned() + " +0000";
    let date = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
    Some((OffsetDateTime::from(now) - date).whole_seconds())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_compared_to_the_second() {
        let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(skew(date, then), Some(0));
        assert_eq!(skew(date, then + Duration::from_secs(31)), Some(31));
        assert_eq!(skew(date, then - Duration::from_secs(31)), Some(-31));
        for bad in [None, Some(""), Some("yesterday GMT"), Some("Sun, 06 Nov 1994 08:49:37 CET")] {
            assert_eq!(skew(bad, then), None, "{bad:?}");
        }
    }

    #[test]
    fn a_proxy_that_inspects_is_told_from_a_relay() {
        let seen = |issuer: &str, by_system, proxied| trusted(&Presented { issuer: issuer.into(), by_system }, proxied);
        assert!(!seen("R11, Let's Encrypt", true, true).contains("inspect"));
        assert!(!seen("My CA", false, false).contains("inspect"));
        assert!(seen("My CA", false, true).contains("a proxy which inspects TLS"));
        for through_proxy in [true, false] {
            let said = seen("Zscaler Root CA, Zscaler Inc.", true, through_proxy);
            assert!(said.contains("seems to inspect") && said.contains("the system's"), "{said}");
        }
        assert!(seen("", false, false).contains("does not name"));
    }

    #[test]
    fn a_check_is_one_line_of_json() {
        let line = |ok| {
            serde_json::to_string(&crate::events::JsonEvent::Check { name: Name::ApiServer, ok, detail: "d" }).unwrap()
        };
        assert_eq!(line(Some(true)), r#"{"event":"check","name":"api_server","ok":true,"detail":"d"}"#);
        assert_eq!(line(None), r#"{"event":"check","name":"api_server","ok":null,"detail":"d"}"#);
    }
}
