//! Files of environment variables, as `--env-file` takes them: `NAME=VALUE` a line, `#` at the beginning of a comment.
//!
//! Programs that read such files differ in what `#`, `$`, a backslash and a quote mean within a value. One that any of them
//! would read differently is refused here unless it stands in single quotes, in which all take it as it is: a secret that is
//! another one than its owner thinks is worse than none.

use std::{io::Read as _, path::Path};

use zeroize::Zeroizing;

use super::{
    error::{ConfigError, Problem},
    secret,
    value::Value,
};

/// Longest file that is read.
const LONGEST: usize = 64 * 1024;

/// The variables of a private file, in their order.
///
/// # Errors
/// It cannot be read, others may read it, or what is wrong with each line.
pub(super) fn read(file: &Path) -> Result<Vec<(String, Value)>, ConfigError> {
    let failed = |why| ConfigError { problems: vec![Problem { place: file.display().to_string(), text: why }] };
    let opened = secret::open(file).map_err(|why| failed(format!("cannot be read: {why}")))?;
    // All at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    let read = opened.take(LONGEST as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| failed(format!("cannot be read: {error}")))?;
    if text.len() > LONGEST {
        return Err(failed(format!("it is longer than {LONGEST} bytes")));
    }
    let (mut values, mut problems): (Vec<(String, Value)>, _) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", file.display(), at + 1);
        match variable(line) {
            Ok((name, _)) if values.iter().any(|(before, _)| before == name) => {
                problems.push(Problem { place, text: format!("{name} stands here twice: remove one") });
            }
            Ok((name, text)) => {
                values.push((name.to_owned(), Value { text, place: format!("{place}: {name}") }));
            }
            Err(text) => problems.push(Problem { place, text: text.to_owned() }),
        }
    }
    ConfigError::unless_empty(problems)?;
    Ok(values)
}

fn variable(line: &str) -> Result<(&str, Zeroizing<String>), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("a line is NAME=VALUE")?;
    let (name, value) = (name.trim_end(), value.trim_start());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_name) {
        return Err("the name of a variable is of letters, digits and _");
    }
    if name.starts_with("MYKUBE_") {
        return Err("variables of mykube's own are read from the environment alone: this file is for published ones");
    }
    let quoted = |quote| value.strip_prefix(quote).map(|rest: &str| rest.strip_suffix(quote));
    let value = match (quoted('\''), quoted('"')) {
        (Some(Some(inside)), _) if !inside.contains('\'') => inside,
        (Some(_), _) => return Err("a value in single quotes begins and ends with one, and has none inside"),
        (_, Some(Some(inside))) if !inside.contains(['"', '\\', '$']) => inside,
        (None, None) if !value.contains(['"', '\'', '\\', '$', '#']) => value,
        _ => {
            return Err(
                "quotes, \\, $ and # in a value mean different things to different programs: put it in single quotes",
            );
        }
    };
    Ok((name, Zeroizing::new(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, mode: u32) -> Result<Vec<(String, String)>, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.env");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let read = read(&file).map_err(|error| error.to_string().replace(&format!("{}:", file.display()), ""))?;
        Ok(read.into_iter().map(|(name, value)| (name, value.text.to_string())).collect())
    }

    #[test]
    fn what_all_programs_read_alike_is_read() {
        let text = "# a comment\n\nPORT=8080\nexport A_1 = two words \nB='$it\\is \"#\"'\nC=\"in quotes\"\r\nD=\n";
        let pairs = read_text(text, 0o600).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [("PORT", "8080"), ("A_1", "two words"), ("B", "$it\\is \"#\""), ("C", "in quotes"), ("D", "")]
        );
    }

    #[test]
    fn what_some_read_otherwise_is_refused_by_its_line_and_shows_no_value() {
        for line in [
            "A=can#ary",
            "A=$canary",
            "A=can\\ary",
            "A=can\"ary",
            "A=\"can$ary\"",
            "A=\"canary",
            "A='canary",
            "A='can'ary'",
            "A='canary' # b",
            "canary",
            "=canary",
            "1A=canary",
            "A-B=canary",
            "MYKUBE_LISTEN=canary",
        ] {
            let told = read_text(&format!("PORT=1\n{line}\n"), 0o600).unwrap_err();
            assert!(told.starts_with("2: ") && !told.contains("canary"), "{line}: {told}");
        }
        assert!(read_text("A=1\nA=1\n", 0o600).unwrap_err().starts_with("2: A stands here twice"));
        assert!(read_text("A=1\n", 0o644).unwrap_err().contains("mode 644"));
    }
}
