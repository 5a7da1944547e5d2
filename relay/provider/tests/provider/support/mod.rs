//! What the tests share: the way to providers, settings, and a sign-in's secrets.

pub(crate) mod browser;
pub(crate) mod running;
pub(crate) mod server;
pub(crate) mod signer;
pub(crate) mod stand_in;

use std::{sync::LazyLock, time::Duration};

use mykube_dial::{ProxyEnv, Trust, tls::Verifier};
use mykube_relay_accounts::{
    identity::{Kind, Provider},
    provider_state::Sent,
    secret::Secret,
    time::UnixTime,
};
use mykube_relay_provider::{Callback, Outcome, RelyingParty, Settings, Web};
use rand::{SeedableRng as _, rngs::StdRng};

/// The time of all tests but those with providers that have clocks of their own.
pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
pub(crate) const REDIRECT_URI: &str = "https://relay.example/auth/callback/here";
/// How long a call may take that is answered.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Trusts an authority that nobody has: all providers of these tests are on this machine.
pub(crate) static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let authority = rcgen::generate_simple_self_signed(vec!["nobody.example".into()]).unwrap();
    Trust::by(Verifier::new([authority.cert.der().clone()]).unwrap())
});

pub(crate) fn web() -> Web {
    Web::with_limit(TRUST.clone(), ProxyEnv::default(), LIMIT)
}

/// A provider that proves `example.com`, at which this relay is the client `relay`.
pub(crate) fn settings(kind: Kind, issuer: &str) -> Settings {
    let (name, issuer) = ("here".parse().unwrap(), issuer.to_owned());
    Settings {
        provider: Provider { name, kind, issuer, email_domains: vec!["example.com".into()] },
        client_id: "relay".into(),
        client_secret: Some(String::from("secret").into()),
        id_token_audiences: vec!["relay".into()],
        github_api: None,
    }
}

pub(crate) fn party(issuer: &str) -> RelyingParty {
    RelyingParty::new(settings(Kind::Oidc, issuer), &web()).unwrap()
}

/// The secrets of a sign-in; of the same seed, the same ones.
pub(crate) fn sent(seed: u64) -> Sent {
    let mut rng = StdRng::seed_from_u64(seed);
    Sent { state: Secret::random(&mut rng), nonce: Secret::random(&mut rng), verifier: Secret::random(&mut rng) }
}

/// What a provider sends with this query to the sign-in of `sent`.
pub(crate) fn outcome(query: &str, sent: &Sent) -> Outcome {
    Callback::parse(&format!("state={}&{query}", sent.state.expose())).unwrap().outcome
}
