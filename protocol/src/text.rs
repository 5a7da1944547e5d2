//! What comes from the other end is data: nothing of it reaches a terminal uncleaned.

/// Removes control characters and bidirectional formatting (Unicode TR9, CVE-2021-42574), and cuts to `max` bytes.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars().filter(|c| !is_unsafe(*c)) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

/// A name that is safe as a file name, a YAML scalar and a word in a prompt: `[A-Za-z0-9._-]{1,63}`, not `.` or `..`.
#[must_use]
pub fn is_plain_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(text, "." | "..")
}

/// Makes a plain name out of any text: other characters become `-`.
#[must_use]
pub fn to_plain_name(text: &str, fallback: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .take(63)
        .collect();
    let name = name.trim_matches(['-', '.']);
    if is_plain_name(name) { name.to_owned() } else { fallback.to_owned() }
}

/// An absolute URL path that means the same everywhere: `(/[A-Za-z0-9._~-]+)+`, at most 256 bytes, no `.` or `..`.
#[must_use]
pub fn is_plain_path(text: &str) -> bool {
    let segment = |s: &str| {
        !matches!(s, "" | "." | "..")
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'))
    };
    text.len() <= 256 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(printable("a\x1b[31mb\r\nc\u{202e}d\u{9b}e", 100), "a[31mbcde");
        assert_eq!(printable("ääää", 5), "ää");
    }

    #[test]
    fn plain_paths() {
        for good in ["/a", "/k8s/clusters/c-m-x1", "/~a/._-"] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a",
            "/a/",
            "//a",
            "/a/../b",
            "/.",
            "/a b",
            "/a%2e",
            "/a?b",
            "/a\n",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert!(!is_plain_path(bad), "{bad}");
        }
    }

    #[test]
    fn hostile_names_become_plain() {
        assert_eq!(to_plain_name("gke_project_zone", "cluster"), "gke_project_zone");
        assert_eq!(to_plain_name("../../etc/passwd", "cluster"), "etc-passwd");
        assert_eq!(to_plain_name("$(reboot)", "cluster"), "reboot");
        assert_eq!(to_plain_name("\u{1b}\n", "cluster"), "cluster");
        for bad in ["", ".", "..", "a/b", "a b", "a\n", &"x".repeat(64)] {
            assert!(!is_plain_name(bad));
        }
    }
}
