//! `[accounts] sign_up`: a word, or a table of the domains whose people come in.

use mykube_relay_accounts::email::Email;
use mykube_relay_portal::SignUp;
use toml::Value;

const FORMS: &str = "sign_up is \"closed\", \"open\", or { email_domains = [\"example.com\"] }";

/// What the setting means.
///
/// # Errors
/// It means nothing: why.
pub(super) fn understand(given: &Value) -> Result<SignUp, String> {
    let table = match given {
        Value::String(word) if word == "closed" => return Ok(SignUp::Closed),
        Value::String(word) if word == "open" => return Ok(SignUp::Open),
        Value::Table(table) if table.len() == 1 => table,
        _ => return Err(FORMS.to_owned()),
    };
    let domains = table.get("email_domains").and_then(Value::as_array).filter(|domains| !domains.is_empty());
    let domains = domains.ok_or(FORMS)?.iter().map(domain).collect::<Result<_, _>>()?;
    Ok(SignUp::Domains(domains))
}

/// A domain as addresses have it.
pub(super) fn domain_of(text: &str) -> Option<String> {
    format!("a@{text}").parse::<Email>().ok().map(|address| address.domain().to_owned())
}

fn domain(given: &Value) -> Result<String, String> {
    given
        .as_str()
        .and_then(domain_of)
        .ok_or_else(|| format!("{given} is no domain like \"example.com\": each domain is named in whole"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SignUp, String> {
        understand(&toml::from_str::<toml::Table>(&format!("sign_up = {text}")).unwrap()["sign_up"])
    }

    #[test]
    fn who_may_sign_up_is_one_of_three() {
        assert_eq!(read("\"closed\""), Ok(SignUp::Closed));
        assert_eq!(read("\"open\""), Ok(SignUp::Open));
        let domains = ["example.com".to_owned(), "xn--bcher-kva.example".to_owned()];
        let given = "{ email_domains = [\"Example.COM\", \"b\u{fc}cher.example\"] }";
        assert_eq!(read(given), Ok(SignUp::Domains(domains.into())));
        for wrong in [
            "\"Open\"",
            "true",
            "[\"example.com\"]",
            "{}",
            "{ email_domains = [] }",
            "{ email_domains = \"example.com\" }",
            "{ domains = [\"example.com\"] }",
            "{ email_domains = [\"example.com\"], open = true }",
        ] {
            assert_eq!(read(wrong), Err(FORMS.to_owned()), "{wrong}");
        }
        for wrong in ["*.example.com", "@example.com", "a@example.com", "", "example.com."] {
            let told = read(&format!("{{ email_domains = [\"{wrong}\"] }}")).unwrap_err();
            assert!(told.contains("no domain like"), "{told}");
        }
        assert!(read("{ email_domains = [1] }").unwrap_err().contains("no domain like"));
    }
}
