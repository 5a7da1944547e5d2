//! `relay.toml`: what flags are too small for. Mistakes are told with their lines (of unknown keys the first), and
//! what is not built yet by its name.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use mykube_relay::Config as RelayConfig;
use mykube_relay_accounts::keys::Keys;
use mykube_relay_portal::{BootScope, Dev, PublicUrl, Settings, SignUp};
use mykube_relay_store::Database;
use serde::Deserialize;
use toml::{Spanned, de::DeTable};

use crate::config::{
    devices::DevicesTable,
    mail::MailTable,
    provider::ProviderTable,
    secret::{DEV_SECRET, SHORTEST, Secret},
};

mod devices;
mod env_file;
mod error;
mod mail;
mod not_built;
mod provider;
mod published;
mod relay_yaml;
mod secret;
mod sign_up;
mod value;

pub use error::{ConfigError, Problem};
pub(crate) use published::{Names, Published};

/// Where the password of PostgreSQL's role may also stand.
const DATABASE_PASSWORD: &str = "MYKUBE_DATABASE_PASSWORD";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    public_url: Option<Spanned<String>>,
    #[serde(default)]
    aliases: Vec<Spanned<String>>,
    keys_file: Option<PathBuf>,
    database: Option<Spanned<DatabaseTable>>,
    accounts: Option<Spanned<AccountsTable>>,
    dev: Option<Spanned<DevTable>>,
    browser: Option<BrowserTable>,
    devices: Option<DevicesTable>,
    mail: Option<Spanned<MailTable>>,
    #[serde(default)]
    provider: Vec<Spanned<ProviderTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DatabaseTable {
    url: Option<Spanned<Secret>>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsTable {
    sign_up: Option<Spanned<toml::Value>>,
    boot_scope: Option<Spanned<String>>,
    published_exchange: Option<bool>,
    provider_ca_file: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DevTable {
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BrowserTable {
    #[serde(default)]
    allow_origin: Vec<Spanned<String>>,
}

/// What the file says about accounts, once it makes sense.
pub(crate) struct Accounts {
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    /// Given under a published name, in place of the file.
    pub(crate) keys: Option<Keys>,
    pub(crate) keys_file: PathBuf,
}

impl Accounts {
    /// Says so where others may read what comes from the database, and be it.
    pub(crate) fn exposed(&self) -> Option<&'static str> {
        let Database::Postgres(postgres) = &self.database else { return None };
        postgres.is_exposed().then_some(
            "the database is on another machine, and `sslmode=disable` lets everybody between here and there read and \
             change what it says",
        )
    }

    /// Says so where nobody could sign in by the address that people have.
    pub(crate) fn unreachable(&self, relay: &RelayConfig) -> Option<&'static str> {
        let is_https = self.settings.public_url.as_str().starts_with("https:");
        let has_tls = relay.tls.is_some() || (!relay.proxy_protocol && !relay.trusted_proxies.is_empty());
        (is_https && !has_tls).then_some(
            "`public_url` is https, and nothing here says who serves it: nobody can sign in. Give --tls-cert, or name the proxy \
             in front with --trusted-proxy (one that speaks the PROXY protocol does not say what it took: it needs --tls-cert)",
        )
    }
}

/// Reads a file with nothing below it.
#[cfg(test)]
fn load(file: &Path, relay: &RelayConfig) -> Result<Option<Accounts>, ConfigError> {
    load_with(Some(file), Published::default(), relay)
}

/// Reads a file, if there is one, with published names below it. Nothing where neither has accounts. Paths in the file count
/// from its own directory.
///
/// # Errors
/// It cannot be read, or anything in it is wrong.
pub(crate) fn load_with(
    file: Option<&Path>,
    published: Published,
    relay: &RelayConfig,
) -> Result<Option<Accounts>, ConfigError> {
    let text = file.map_or(Ok(String::new()), |file| {
        fs::read_to_string(file).map_err(|error| {
            let problem = Problem { place: file.display().to_string(), text: format!("cannot be read: {error}") };
            ConfigError { problems: vec![problem] }
        })
    })?;
    let file = file.unwrap_or(Path::new(""));
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut reader = Reader { text: &text, file, directory, published, problems: Vec::new() };
    let accounts = reader.read(relay);
    ConfigError::unless_empty(reader.problems)?;
    Ok(accounts)
}

struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
    directory: &'a Path,
    published: Published,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: Option<usize>, text: impl Into<String>) {
        // What was given under a published name stands behind the file's end.
        let behind = at.and_then(|at| at.checked_sub(self.text.len() + 1)).and_then(|at| self.published.place(at));
        let line = at.and_then(|at| self.text.get(..at)).map(|before| before.matches('\n').count() + 1);
        let place = match (behind, line) {
            (Some(name), _) => name.to_owned(),
            (None, Some(line)) => format!("{}:{line}", self.file.display()),
            (None, None) => self.file.display().to_string(),
        };
        self.problems.push(Problem { place, text: text.into() });
    }

    fn read(&mut self, relay: &RelayConfig) -> Option<Accounts> {
        let mut parsed = match DeTable::parse(self.text) {
            Ok(table) => table,
            // Its message names what was expected, and quotes nothing.
            Err(error) => {
                self.wrong(error.span().map(|span| span.start), error.message());
                return None;
            }
        };
        let lost = self.published.fill(parsed.get_mut(), self.text.len());
        if !lost.is_empty() {
            self.problems.extend(lost);
            return None;
        }
        let not_built = not_built::find(parsed.get_ref());
        for (name, span) in &not_built {
            self.wrong(Some(span.start), format!("`{name}` is not built yet: remove it"));
        }
        if !not_built.is_empty() {
            return None;
        }
        let keys = parsed.get_ref().keys().map(|key| (key.get_ref().to_string(), key.span().start));
        let keys: Vec<_> = keys.collect();
        match File::deserialize(toml::de::Deserializer::from(parsed)) {
            Ok(file) if file.accounts.is_some() => self.understand(file, relay),
            // What is taken and does nothing would pass for a setting.
            Ok(_) => {
                for (key, at) in keys {
                    let text = match key.as_str() {
                        "dev" => "[dev] is a way to sign in: it needs [accounts]".to_owned(),
                        key => format!("`{key}` is of accounts: it needs [accounts]"),
                    };
                    self.wrong(Some(at), text);
                }
                None
            }
            Err(error) => {
                self.wrong(error.span().map(|span| span.start), error.message());
                None
            }
        }
    }

    fn understand(&mut self, file: File, relay: &RelayConfig) -> Option<Accounts> {
        let accounts = file.accounts.as_ref()?;
        let Some(public_url) = &file.public_url else {
            self.wrong(
                Some(accounts.span().start),
                "[accounts] needs `public_url`: the address people reach this relay by",
            );
            return None;
        };
        let public_url = self.url(public_url);
        let aliases: Vec<_> = file.aliases.iter().filter_map(|alias| self.url(alias)).collect();
        let boot_scope = self.boot_scope(accounts.get_ref().boot_scope.as_ref());
        let sign_up = accounts.get_ref().sign_up.as_ref().map_or(Some(SignUp::Closed), |given| self.sign_up(given));
        let ca_file = accounts.get_ref().provider_ca_file.as_ref();
        let directory = self.directory;
        let providers = provider::understand(&file.provider, ca_file, directory, &mut |at, text| self.wrong(at, text));
        let database = self.database(file.database.as_ref(), relay);
        let dev = file.dev.as_ref().and_then(|dev| self.dev(dev, public_url.as_ref(), relay));
        let mail =
            file.mail.as_ref().map(|mail| mail::understand(mail, directory, &mut |at, text| self.wrong(at, text)));
        let origins = file.browser.iter().flat_map(|browser| &browser.allow_origin);
        let allow_origins = origins.filter_map(|origin| self.origin(origin)).collect();
        let devices_life = devices::token_life(file.devices.as_ref());
        let devices_life = devices_life.map_err(|(at, why)| self.wrong(Some(at), why)).ok();
        let keys_file = file.keys_file.as_ref().map(|path| self.directory.join(path));
        Some(Accounts {
            settings: Settings {
                public_url: public_url?,
                aliases,
                sign_up: sign_up?,
                boot_scope,
                devices_life: devices_life?,
                published_exchange: accounts.get_ref().published_exchange.unwrap_or_default(),
                providers: Arc::new(providers.unwrap_or_default()),
                dev,
                mail: mail.flatten(),
                allow_origins,
                body_max: relay.request_body_max,
                body_time: relay.header_timeout,
            },
            database: database?,
            keys: self.published.keys.take().filter(|_| keys_file.is_none()),
            keys_file: keys_file.unwrap_or_else(|| relay.data_dir.join("keys")),
        })
    }

    fn url(&mut self, given: &Spanned<String>) -> Option<PublicUrl> {
        let url = PublicUrl::parse(given.get_ref());
        url.map_err(|error| self.wrong(Some(given.span().start), error.to_string())).ok()
    }

    fn origin(&mut self, given: &Spanned<String>) -> Option<String> {
        match PublicUrl::parse(given.get_ref()) {
            Ok(url) if url.is_origin() => Some(url.origin().to_owned()),
            _ => {
                let text = "an origin is scheme, host and port, as https://console.example.com";
                self.wrong(Some(given.span().start), text);
                None
            }
        }
    }

    fn sign_up(&mut self, given: &Spanned<toml::Value>) -> Option<SignUp> {
        let sign_up = sign_up::understand(given.get_ref());
        sign_up.map_err(|text| self.wrong(Some(given.span().start), text)).ok()
    }

    fn boot_scope(&mut self, given: Option<&Spanned<String>>) -> BootScope {
        match given.map(|given| given.get_ref().as_str()) {
            None | Some("browser") => BootScope::Browser,
            Some("all") => BootScope::All,
            Some(_) => {
                self.wrong(given.map(|given| given.span().start), "boot_scope is \"browser\" or \"all\"");
                BootScope::Browser
            }
        }
    }

    fn database(&mut self, table: Option<&Spanned<DatabaseTable>>, relay: &RelayConfig) -> Option<Database> {
        let Some(table) = table else { return Some(Database::Sqlite(relay.data_dir.join("relay.db"))) };
        let at = Some(table.span().start);
        let DatabaseTable { url, password, password_file, ca_file } = table.get_ref();
        let parsed = match url {
            Some(url) => Database::parse(url.get_ref().expose()).map_err(|error| (Some(url.span().start), error)),
            None => Ok(Database::Sqlite(relay.data_dir.join("relay.db"))),
        };
        match parsed {
            Ok(Database::Sqlite(_)) if password.is_some() || password_file.is_some() || ca_file.is_some() => {
                self.wrong(
                    at,
                    "`password`, `password_file` and `ca_file` are of PostgreSQL: `url = \"postgres://...\"`",
                );
                None
            }
            Ok(Database::Sqlite(path)) => Some(Database::Sqlite(self.directory.join(path))),
            Ok(Database::Postgres(mut postgres)) => {
                let file = password_file.as_ref().map(|path| self.directory.join(path));
                match secret::from_one_of("password", password.as_ref(), file.as_deref(), DATABASE_PASSWORD, 1) {
                    Ok(Some(_)) if postgres.has_password() => {
                        self.wrong(
                            at,
                            format!(
                                "give one of a password in `url`, `password`, `password_file` and {DATABASE_PASSWORD}"
                            ),
                        );
                        return None;
                    }
                    Ok(Some(password)) => postgres = postgres.with_password(password),
                    Ok(None) => {}
                    Err(why) => {
                        self.wrong(at, why);
                        return None;
                    }
                }
                if let Some(file) = ca_file {
                    let file = self.directory.join(file);
                    if let Err(error) = fs::File::open(&file) {
                        self.wrong(at, format!("cannot read {}: {error}", file.display()));
                        return None;
                    }
                    postgres = postgres.with_ca_file(file);
                }
                Some(Database::Postgres(postgres))
            }
            Err((at, error)) => {
                self.wrong(at, error.to_string());
                None
            }
        }
    }

    /// Dev mode lets in whoever knows one secret, as whomever they name: on this machine alone.
    fn dev(&mut self, dev: &Spanned<DevTable>, url: Option<&PublicUrl>, relay: &RelayConfig) -> Option<Dev> {
        let at = Some(dev.span().start);
        let table = dev.get_ref();
        let file = table.secret_file.as_ref().map(|path| self.directory.join(path));
        let secret = match secret::from_one_of("secret", table.secret.as_ref(), file.as_deref(), DEV_SECRET, SHORTEST) {
            Ok(Some(secret)) => Some(secret),
            Ok(None) => {
                self.wrong(at, format!("[dev] needs `secret`, `secret_file` or {DEV_SECRET}"));
                None
            }
            Err(why) => {
                self.wrong(at, why);
                None
            }
        };
        let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
        if !is_loopback(relay.listen.ip()) {
            self.wrong(
                at,
                format!("[dev] is for this machine alone: --listen must be a loopback address, not {}", relay.listen),
            );
        }
        if url.is_some_and(|url| !url.is_loopback()) {
            self.wrong(
                at,
                "[dev] is for this machine alone: `public_url` must be a loopback address, as http://127.0.0.1:8000",
            );
        }
        if !relay.trusted_proxies.is_empty() {
            self.wrong(at, "[dev] is for this machine alone: no --trusted-proxy may stand in front");
        }
        if relay.proxy_protocol {
            self.wrong(at, "[dev] is for this machine alone: no --proxy-protocol may stand in front");
        }
        secret.map(Dev::new)
    }
}

#[cfg(test)]
mod tests;
