//! The results of the checks, in their order.

use crate::{
    events::{JsonEvent, Name},
    exit::Failure,
    output::Output,
};

impl Name {
    pub(super) fn shown(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Proxy => "proxy",
            Self::Tls => "TLS",
            Self::Websocket => "WebSocket",
            Self::Clock => "clock",
            Self::Relay => "relay",
            Self::Kubeconfig => "kubeconfig",
            Self::ApiServer => "API server",
            Self::Rbac => "RBAC",
        }
    }
}

/// The results so far.
pub(super) struct Report {
    output: Output,
    next: usize,
    made: usize,
    failed: Vec<&'static str>,
}

impl Report {
    const ALL: [Name; 9] = [
        Name::Dns,
        Name::Proxy,
        Name::Tls,
        Name::Websocket,
        Name::Clock,
        Name::Relay,
        Name::Kubeconfig,
        Name::ApiServer,
        Name::Rbac,
    ];

    pub(super) fn new(output: Output) -> Self {
        Self { output, next: 0, made: 0, failed: Vec::new() }
    }

    pub(super) fn ok(&mut self, name: Name, detail: impl std::fmt::Display) {
        self.made += 1;
        self.line(name, Some(true), &detail.to_string());
    }

    pub(super) fn fail(&mut self, name: Name, detail: impl std::fmt::Display) {
        self.made += 1;
        self.failed.push(name.shown());
        self.line(name, Some(false), &detail.to_string());
    }

    pub(super) fn skip(&mut self, name: Name, detail: &str) {
        self.line(name, None, detail);
    }

    /// Skips all checks that come before this one.
    pub(super) fn skip_until(&mut self, end: Name, detail: &str) {
        while let Some(name) = Self::ALL.get(self.next).filter(|name| **name != end) {
            self.skip(*name, detail);
        }
    }

    pub(super) fn skip_rest(&mut self, detail: &str) {
        while let Some(name) = Self::ALL.get(self.next) {
            self.skip(*name, detail);
        }
    }

    fn line(&mut self, name: Name, ok: Option<bool>, detail: &str) {
        debug_assert_eq!(Self::ALL.get(self.next), Some(&name), "checks are told in their order");
        self.next += 1;
        let (verdict, colour) = match ok {
            Some(true) => ("ok", "1;32"),
            Some(false) => ("FAIL", "1;31"),
            None => ("skip", "2"),
        };
        self.output.verdict(verdict, colour, &format!("{:<10}  {detail}", name.shown()), ok == Some(false));
        self.output.event(&JsonEvent::Check { name, ok, detail });
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        match (self.made, self.failed.as_slice()) {
            (0, _) => Err(Failure::usage(
                "there was nothing to check: give --relay-url URL, beside the cluster a kubeconfig, or both",
            )),
            (_, []) => {
                self.output.say("All is well.");
                Ok(())
            }
            (_, failed) => Err(Failure::failed(format!("not well: {}", failed.join(", ")))),
        }
    }
}
