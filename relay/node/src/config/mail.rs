//! `[mail]`: by which server the relay sends codes.

use std::path::{Path, PathBuf};

use mykube_relay_portal::Mail;
use serde::Deserialize;
use toml::Spanned;

use super::secret::{self, Secret};

/// Where the server's password may also stand.
const PASSWORD: &str = "MYKUBE_SMTP_PASSWORD";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailTable {
    smtp: Option<Spanned<String>>,
    from: Option<Spanned<String>>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    ca_file: Option<Spanned<PathBuf>>,
    #[serde(default)]
    otp_reset_unlocks: bool,
}

/// The way to the server. What is wrong is told, each with where it stands.
pub(super) fn understand(
    given: &Spanned<MailTable>,
    directory: &Path,
    wrong: &mut dyn FnMut(Option<usize>, String),
) -> Option<Mail> {
    let (at, table) = (given.span(), given.get_ref());
    let file = table.password_file.as_ref().map(|path| directory.join(path));
    // It is the server's: how long it is was decided there.
    let password = secret::from_one_of("password", table.password.as_ref(), file.as_deref(), PASSWORD, 1);
    let password = password.map_err(|why| wrong(Some(at.start), why.to_string())).ok()?;
    let (Some(smtp), Some(from)) = (&table.smtp, &table.from) else {
        let text = "[mail] needs `smtp`, as \"smtps://user@smtp.example.com\", and `from`, as \"relay@example.com\"";
        wrong(Some(at.start), text.to_string());
        return None;
    };
    let ca_file = table.ca_file.as_ref().map(|path| directory.join(path.get_ref()));
    let mail = Mail::new(smtp.get_ref(), from.get_ref(), password, ca_file.as_deref());
    let mail = mail.map_err(|error| {
        let at = match error.setting() {
            "from" => from.span(),
            "ca_file" => table.ca_file.as_ref().map_or(at, Spanned::span),
            "password" => at,
            _ => smtp.span(),
        };
        wrong(Some(at.start), error.to_string());
    });
    mail.ok().map(|mail| mail.with_otp_reset_unlocks(table.otp_reset_unlocks))
}
