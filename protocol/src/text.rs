//! Texts from outside (the other end, the relay, a kubeconfig) are data: they are cleaned or checked here before they reach a
//! terminal, a file name or a path.

/// Removes control characters and bidirectional formatting (Unicode TR9, CVE-2021-42574), and cuts to `max` bytes.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    // Nearly every text is printable ASCII.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text[..text.len().min(max)].to_owned();
    }
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

/// Longest path of an API server's URL, in bytes. A proxy that serves several clusters has names in it, at times in base64.
pub const PATH_MAX: usize = 1024;

/// An absolute URL path that means the same everywhere: segments of RFC 3986's characters, at most [`PATH_MAX`] bytes.
///
/// No segment is empty, `.` or `..`. A character that may stand for itself is not escaped (`%41`, `%2e`). Escapes that
/// servers read in more than one way are refused: `%2F`, `%5C` and control characters.
#[must_use]
pub fn is_plain_path(text: &str) -> bool {
    let segment = |s: &str| {
        let mut rest = s.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            rest = match (first, tail) {
                (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                    (Some(high), Some(low)) if may_be_escaped(high << 4 | low) => tail,
                    _ => return false,
                },
                (first, tail) if is_path_byte(*first) => tail,
                _ => return false,
            };
        }
        !matches!(s, "" | "." | "..")
    };
    text.len() <= PATH_MAX && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

/// RFC 3986 section 3.3, `pchar` but for escapes.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Whether a byte may stand escaped: it must be, or Go escapes it although it need not (`!'()*`).
fn may_be_escaped(byte: u8) -> bool {
    !byte.is_ascii_control()
        && !matches!(byte, b'/' | b'\\')
        && (!is_path_byte(byte) || matches!(byte, b'!' | b'\'' | b'(' | b')' | b'*'))
}

/// One upper-case hexadecimal digit.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The text of a file as YAML's parsers decode it (YAML 1.2 section 5.2, byte order marks): UTF-16 where its mark stands
/// first, else UTF-8, without the mark. Nothing where it is neither.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        odd.is_empty().then(|| char::decode_utf16(units).collect::<Result<String, _>>().ok())?
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => std::str::from_utf8(rest).ok().map(str::to_owned),
    }
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
        assert_eq!((&*printable("a b~", 9), &*printable("a b~", 3), &*printable("a\x7fb~", 2)), ("a b~", "a b", "ab"));
    }

    #[test]
    fn plain_paths() {
        for good in [
            "/a",
            "/k8s/clusters/c-m-x1",
            "/~a/._-",
            "/clusters/root:org",
            "/v1/teleport/cm9vdA/a3ViZQ==",
            "/!$&'()*+,;=:@",
            "/%21%20%C3%A4%25",
            &format!("/{}", "x".repeat(1023)),
        ] {
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
            "/a%2Fb",
            "/a%5Cb",
            "/a%0A",
            "/a%7F",
            "/a%c3",
            "/a%C",
            "/a%",
            "/a%41",
            "/a?b",
            "/a\\b",
            "/a\"b",
            "/a<b",
            "/ä",
            "/a\n",
            &format!("/{}", "x".repeat(1024)),
        ] {
            assert!(!is_plain_path(bad), "{bad}");
        }
    }

    #[test]
    fn files_are_decoded_by_their_mark() {
        let utf16 = |mark: u16, unit: fn(u16) -> [u8; 2]| {
            std::iter::once(mark).chain("ä\u{1f600}\n".encode_utf16()).flat_map(unit).collect::<Vec<u8>>()
        };
        for bytes in [
            "ä\u{1f600}\n".as_bytes().to_vec(),
            "\u{feff}ä\u{1f600}\n".as_bytes().to_vec(),
            utf16(0xfeff, u16::to_le_bytes),
            utf16(0xfeff, u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some("ä\u{1f600}\n"), "{bytes:?}");
        }
        assert_eq!(decode(b"").as_deref(), Some(""));
        for bad in [&b"\xff"[..], b"\xff\xfea", b"\xff\xfe\x00\xd8", b"a\x80", b"\xfe\xff\xdc\x00"] {
            assert_eq!(decode(bad), None, "{bad:?}");
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
        for good in ["x", &"x".repeat(63)] {
            assert!(is_plain_name(good));
        }
        assert_eq!(to_plain_name(&"x".repeat(64), "cluster"), "x".repeat(63));
    }
}
