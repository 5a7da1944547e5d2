//! `[[provider]]`: where people sign in.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use mykube_relay_accounts::{
    identity::{Kind, Provider},
    name::Name,
};
use mykube_relay_provider::{Providers, RelyingParty, Settings, Web};
use serde::Deserialize;
use toml::Spanned;

use super::{
    secret::{self, Secret},
    sign_up::domain_of,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderTable {
    name: Spanned<String>,
    kind: Option<Spanned<String>>,
    issuer: Option<Spanned<String>>,
    api: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    client_secret_file: Option<PathBuf>,
    #[serde(default)]
    email_domains: Vec<Spanned<String>>,
    #[serde(default)]
    id_token_audiences: Vec<Spanned<String>>,
}

/// Whose people `userId` shows with `email:` and their address.
const EMAIL: &str = "email";
const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
const GITHUB: &str = "https://github.com";
/// What issuers of Microsoft begin with, one for each directory of a company; those of its national clouds too.
const MICROSOFT: [&str; 4] = [
    "https://login.microsoftonline.com/",
    "https://login.microsoftonline.us/",
    "https://login.partner.microsoftonline.cn/",
    "https://sts.windows.net/",
];

/// Everything that can be known of providers without asking them: one that is away keeps no relay from starting. What is
/// `wrong` is told with where it stands; paths count from `directory`.
pub(super) fn understand(
    tables: &[Spanned<ProviderTable>],
    ca_file: Option<&Spanned<PathBuf>>,
    directory: &Path,
    wrong: &mut dyn FnMut(Option<usize>, String),
) -> Option<Providers> {
    Reader { directory, wrong }.providers(tables, ca_file)
}

/// Reads tables, and goes on where one is wrong.
struct Reader<'a> {
    directory: &'a Path,
    wrong: &'a mut dyn FnMut(Option<usize>, String),
}

impl Reader<'_> {
    fn wrong(&mut self, at: Option<usize>, text: impl Into<String>) {
        (self.wrong)(at, text.into());
    }

    fn providers(
        &mut self,
        tables: &[Spanned<ProviderTable>],
        ca_file: Option<&Spanned<PathBuf>>,
    ) -> Option<Providers> {
        if tables.is_empty() {
            if let Some(file) = ca_file {
                self.wrong(Some(file.span().start), "provider_ca_file is for a [[provider]], and there is none");
            }
            return Some(Providers::default());
        }
        let path = ca_file.map(|file| self.directory.join(file.get_ref()));
        let web = Web::from_env(path.as_deref());
        let web = web.map_err(|error| self.wrong(ca_file.map(|file| file.span().start), error.to_string())).ok()?;
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        let mut google = false;
        for table in tables {
            let name = &table.get_ref().name;
            if !names.insert(name.get_ref().as_str()) {
                self.wrong(Some(name.span().start), "another [[provider]] has this name already");
            }
            let Some(party) = self.provider(table, &web) else { continue };
            if party.provider().kind == Kind::Google && std::mem::replace(&mut google, true) {
                let text = "one [[provider]] alone can be Google: its redirect URI, /auth/callback, is one";
                self.wrong(Some(table.span().start), text);
            }
            all.push(party);
        }
        Some(Providers::new(all))
    }

    fn provider(&mut self, table: &Spanned<ProviderTable>, web: &Web) -> Option<RelyingParty> {
        let (at, table) = (Some(table.span().start), table.get_ref());
        let name = self.provider_name(&table.name);
        let kind = self.provider_kind(table);
        let issuer = match (&table.issuer, kind) {
            // In one spelling: an account is known by it.
            (Some(issuer), Some(Kind::Google)) if is_google(issuer.get_ref()) => Some(GOOGLE[0]),
            (Some(issuer), Some(Kind::GitHub)) => Some(issuer.get_ref().trim_end_matches('/')),
            (Some(issuer), _) => Some(issuer.get_ref().as_str()),
            (None, Some(Kind::Google)) => Some(GOOGLE[0]),
            (None, Some(Kind::GitHub)) => Some(GITHUB),
            (None, None) => None,
            (None, Some(_)) => {
                self.wrong(at, "`issuer` is missing: the address by which the provider calls itself");
                None
            }
        };
        if table.api.is_some() && kind.is_some_and(|kind| kind != Kind::GitHub) {
            self.wrong(at, "`api` is for kind = \"github\"");
        }
        if kind == Some(Kind::GitHub) && !table.id_token_audiences.is_empty() {
            self.wrong(at, "GitHub gives no ID tokens: remove `id_token_audiences`");
        }
        let domains: Vec<_> = table.email_domains.iter().filter_map(|domain| self.domain(domain)).collect();
        let audiences = table.id_token_audiences.iter().filter_map(|audience| self.audience(audience)).collect();
        let file = table.client_secret_file.as_ref().map(|path| self.directory.join(path));
        let name = name?;
        let variable = secret_variable(&name);
        let client_secret =
            secret::from_one_of("client_secret", table.client_secret.as_ref(), file.as_deref(), &variable, 1);
        let client_secret = client_secret.map_err(|why| self.wrong(at, why)).ok()?;
        let settings = Settings {
            provider: Provider { name, kind: kind?, issuer: issuer?.to_owned(), email_domains: domains },
            client_id: table.client_id.clone().unwrap_or_default(),
            client_secret: client_secret.map(|secret| secret.as_str().to_owned().into()),
            id_token_audiences: audiences,
            github_api: table.api.clone(),
        };
        RelyingParty::new(settings, web).map_err(|error| self.wrong(at, error.to_string())).ok()
    }

    fn provider_name(&mut self, given: &Spanned<String>) -> Option<Name> {
        let at = Some(given.span().start);
        if given.get_ref() == EMAIL {
            self.wrong(at, "no provider is called `email`: people who sign in by a code are shown under that name");
            return None;
        }
        let name = Name::parse_unreserved(given.get_ref());
        name.map_err(|error| self.wrong(at, format!("`name`: {error}"))).ok()
    }

    /// By `kind`, or by an issuer that everybody knows: what its `email` says depends on it.
    fn provider_kind(&mut self, table: &ProviderTable) -> Option<Kind> {
        let issuer = table.issuer.as_ref().map(|issuer| issuer.get_ref().as_str()).unwrap_or_default();
        let known = if is_google(issuer) {
            Kind::Google
        } else if MICROSOFT.iter().any(|known| issuer.starts_with(known)) {
            Kind::Microsoft
        } else {
            Kind::Oidc
        };
        let Some(given) = &table.kind else { return Some(known) };
        match given.get_ref().as_str() {
            "oidc" => Some(known),
            "github" => Some(Kind::GitHub),
            "google" => Some(Kind::Google),
            "microsoft" => Some(Kind::Microsoft),
            _ => {
                let text = "kind is \"oidc\", \"github\", \"google\" or \"microsoft\"";
                self.wrong(Some(given.span().start), text);
                None
            }
        }
    }

    fn domain(&mut self, given: &Spanned<String>) -> Option<String> {
        let domain = domain_of(given.get_ref());
        if domain.is_none() {
            self.wrong(Some(given.span().start), "email_domains are domains, as example.com");
        }
        domain
    }

    fn audience(&mut self, given: &Spanned<String>) -> Option<String> {
        if given.get_ref().is_empty() {
            self.wrong(Some(given.span().start), "an audience is a client id: this one is empty");
            return None;
        }
        Some(given.get_ref().clone())
    }
}

fn is_google(issuer: &str) -> bool {
    GOOGLE.contains(&issuer.trim_end_matches('/'))
}

/// Where a provider's secret may also stand.
fn secret_variable(name: &Name) -> String {
    format!("MYKUBE_PROVIDER_{}_CLIENT_SECRET", name.as_str().to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mykube_relay::Config as RelayConfig;

    use super::*;
    use crate::config::load;

    /// A file with these lines from its third on.
    fn load_with(provider: &str) -> Result<super::super::Accounts, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.toml");
        fs::write(&file, format!("public_url = \"https://relay.example\"\n[accounts]\n{provider}")).unwrap();
        fs::write(dir.path().join("open"), "canary-of-a-client").unwrap();
        let loaded = load(&file, &RelayConfig::new(dir.path()));
        loaded.map(Option::unwrap).map_err(|error| error.to_string().replace(&format!("{}:", file.display()), ""))
    }

    #[test]
    fn a_provider_is_of_the_kind_that_its_issuer_is_known_to_be() {
        let accounts = load_with(
            "published_exchange = true\n\
             [[provider]]\nname = \"google\"\nkind = \"google\"\nclient_id = \"a\"\nclient_secret = \"s\"\n\
             [[provider]]\nname = \"work\"\nissuer = \"https://login.microsoftonline.com/x/v2.0\"\nclient_id = \"b\"\n\
             [[provider]]\nname = \"github\"\nkind = \"github\"\nclient_id = \"c\"\nclient_secret = \"s\"\n\
             [[provider]]\nname = \"okta\"\nkind = \"oidc\"\nissuer = \"https://okta.example\"\nclient_id = \"d\"\n\
             email_domains = [\"Example.com\"]\nid_token_audiences = [\"cli\"]\n",
        );
        let settings = accounts.unwrap().settings;
        assert!(settings.published_exchange);
        let all: Vec<_> = settings.providers.iter().map(|party| party.provider()).collect();
        let told: Vec<_> = all.iter().map(|it| (it.name.as_str(), it.kind, it.issuer.as_str())).collect();
        assert_eq!(
            told,
            [
                ("google", Kind::Google, "https://accounts.google.com"),
                ("work", Kind::Microsoft, "https://login.microsoftonline.com/x/v2.0"),
                ("github", Kind::GitHub, "https://github.com"),
                ("okta", Kind::Oidc, "https://okta.example"),
            ]
        );
        assert_eq!(all[3].email_domains, ["example.com"]);
        assert!(settings.providers.takes_id_tokens());
        assert_eq!(format!("{:?}", settings.providers), "[google, work, github, okta]");
        for issuer in ["https://accounts.google.com", "https://accounts.google.com/", "accounts.google.com"] {
            let text = format!("[[provider]]\nname = \"g\"\nissuer = \"{issuer}\"\nclient_id = \"a\"\n");
            let settings = load_with(&text).unwrap().settings;
            let Provider { kind, issuer, .. } = settings.providers.get("g").unwrap().provider();
            assert_eq!((*kind, issuer.as_str()), (Kind::Google, "https://accounts.google.com"));
        }
        let ours = "[[provider]]\nname = \"g\"\nkind = \"github\"\nissuer = \"https://git.example/\"\n\
                    client_id = \"a\"\nclient_secret = \"s\"\n";
        let settings = load_with(ours).unwrap().settings;
        assert_eq!(settings.providers.get("g").unwrap().provider().issuer, "https://git.example");
    }

    #[test]
    fn every_mistake_has_its_line() {
        let oidc = "[[provider]]\nname = \"a\"\nissuer = \"https://a.example\"\nclient_id = \"x\"\n";
        for (text, expected) in [
            ("[[provider]]\nkind = \"oidc\"\n".to_owned(), "3: missing field `name`"),
            (oidc.replace("client_id", "client"), "6: unknown field `client`"),
            (oidc.replace("\"a\"", "\"auth\""), "4: `name`: this name is the relay's own"),
            (oidc.replace("\"a\"", "\"email\""), "4: no provider is called `email`"),
            (oidc.replace("\"a\"", "\"A b\""), "4: `name`: a name has"),
            (oidc.replace("https:", "http:"), "3: `issuer` does not begin with https://"),
            (oidc.replace("issuer = \"https://a.example\"\n", ""), "3: `issuer` is missing"),
            (oidc.replace("client_id = \"x\"\n", ""), "3: `client_id` is missing"),
            (format!("{oidc}{oidc}"), "8: another [[provider]] has this name"),
            (format!("{oidc}kind = \"saml\"\n"), "7: kind is"),
            (format!("{oidc}kind = \"github\"\n"), "3: `client_secret` is missing"),
            (format!("{oidc}api = \"https://x\"\n"), "3: `api` is for"),
            (format!("{oidc}email_domains = [\"@example.com\"]\n"), "7: email_domains are"),
            (format!("{oidc}id_token_audiences = [\"\"]\n"), "7: an audience is"),
            (format!("{oidc}client_secret = \"\"\n"), "3: `client_secret` is empty"),
            (format!("{oidc}client_secret = 7070\n"), "7: a secret is a text in quotes"),
            (format!("{oidc}client_secret_file = \"open\"\n"), "3: cannot read"),
            (
                format!("{oidc}client_secret = \"canary\"\nclient_secret_file = \"open\"\n"),
                "3: give one of `client_secret`",
            ),
            (
                format!("{oidc}client_secret = \"canary\"\nkind = \"github\"\nid_token_audiences = [\"x\"]\n"),
                "3: GitHub gives no ID tokens",
            ),
            (
                format!("{oidc}kind = \"google\"\n{}kind = \"google\"\n", oidc.replace("\"a\"", "\"b\"")),
                "8: one [[provider]] alone can be Google",
            ),
            ("provider_ca_file = \"x\"\n".to_owned(), "3: provider_ca_file is for"),
            (format!("provider_ca_file = \"nothing\"\n{oidc}"), "3: "),
        ] {
            let told = load_with(&text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(told.starts_with(expected) && !told.contains('\n'), "{text}: {told}");
            assert!(!told.contains("canary") && !told.contains("7070"), "{told}");
        }
    }

    #[test]
    fn a_secret_may_stand_in_the_environment() {
        assert_eq!(secret_variable(&"my-okta".parse().unwrap()), "MYKUBE_PROVIDER_MY_OKTA_CLIENT_SECRET");
    }
}
