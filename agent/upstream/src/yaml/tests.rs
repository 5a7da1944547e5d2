use serde_json::json;

use super::*;

#[track_caller]
fn reads(text: &str, expected: Value) {
    assert_eq!(read(text.as_bytes()).map(|document| document.clone()), Ok(expected), "{text}");
}

fn fails(text: &str) -> YamlError {
    read(text.as_bytes()).err().unwrap_or_else(|| panic!("{text} was read"))
}

/// Made with sigs.k8s.io/yaml 1.6.0.
#[test]
fn words_are_those_of_go_yaml() {
    for (text, expected) in [
        ("[y, Yes, on, TRUE, N, off, 'no']", json!([true, true, true, true, false, false, "no"])),
        ("[yEs, tRUE, nope, Y es]", json!(["yEs", "tRUE", "nope", "Y es"])),
        ("[~, null, Null, NULL, nULL, '']", json!([null, null, null, null, "nULL", ""])),
        ("[0, 007, 08, 0x1F, 0b11, 0o17, 1_000, -0x10, +5]", json!([0, 7, 8.0, 31, 3, 15, 1000, -16, 5])),
        ("[18446744073709551615, 18446744073709551616]", json!([u64::MAX, 18_446_744_073_709_551_616.0])),
        ("[1e3, .5, 1., -1.5E-2, 1e999, .1_0]", json!([1000.0, 0.5, 1.0, -0.015, "1e999", 0.1])),
        (
            "[2024-01-01, 12:30:45, 1.2.3, 0x, 0xZ, +, ., .e1]",
            json!(["2024-01-01", "12:30:45", "1.2.3", "0x", "0xZ", "+", ".", ".e1"]),
        ),
        ("[!!str 5, !!int '7', !!float 1, !!bool yes, !own x, !!null '']", json!(["5", 7, 1.0, true, "x", null])),
        ("[!!binary aGk=, <<]", json!(["hi", "<<"])),
        ("{1: a, yes: b, 1.5: c, 0x10: d, '~': e}", json!({"1": "a", "true": "b", "1.5": "c", "16": "d", "~": "e"})),
    ] {
        reads(text, expected);
    }
    for text in ["[.inf]", "a: .nan", "!!int x", "!!bool 1", "!!binary '*'", "{~: a}", "{[a]: b}", "{{a: b}: c}"] {
        assert_eq!(fails(text), YamlError::Meaning, "{text}");
    }
}

#[test]
fn the_last_of_equal_keys_wins_and_merges_stand_where_they_stand() {
    reads("{a: 1, b: 2, a: 3}", json!({"a": 3, "b": 2}));
    reads("x: &x {a: 1, b: 2}\nz: {a: 0, <<: *x, b: 3}\n", json!({"x": {"a": 1, "b": 2}, "z": {"a": 1, "b": 3}}));
    reads("- &x {a: 1}\n- &y {a: 2, b: 2}\n- <<: [*x, *y]\n", json!([{"a": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 2}]));
    reads("[&a [1, &b x], *a, *b, &a 2, *a]", json!([[1, "x"], [1, "x"], "x", 2, 2]));
    for text in ["{<<: 1}", "- &x [1]\n- <<: *x\n", "{<<: [1]}", "&a [*a]"] {
        assert_eq!(fails(text), YamlError::Meaning, "{text}");
    }
    assert!(matches!(fails("[*nobody]"), YamlError::Syntax(1, _)));
}

#[test]
fn only_the_first_document_is_read() {
    for text in ["", "\n", "# nothing\n", "---\n", "---\n---\na: 1\n", "---\n...\n"] {
        reads(text, Value::Null);
    }
    reads("a: 1\n---\n{ not: [yaml\n", json!({"a": 1}));
    reads("%YAML 1.1\n---\na: 1\n...\n", json!({"a": 1}));
    assert_eq!(fails("a: 1\u{1}"), YamlError::NotText);
    assert_eq!(fails("a: [1\nb: 2\n"), YamlError::Syntax(2, 2));
    assert!(matches!(fails(&"[".repeat(100_000)), YamlError::Syntax(1, _)));
}

#[test]
fn no_text_is_too_strange() {
    let text = "---\n# \u{fc}\na: &a !!str [1, \u{fc}, {b: *c}]\n<<: &c {d: |-\n  x\n}\n? [e]\n: -0x1_f\n...\n";
    for (at, _) in text.char_indices() {
        for odd in ["", "\n", "-", ":", "{", "]", "#", "\t", "\"", "*a", "&b ", "? ", "!!int ", "<<: ", "0", "\u{feff}"]
        {
            // Its value does not matter, only that it ends.
            let _ = read(format!("{}{odd}{}", &text[..at], &text[at..]).as_bytes());
            let _ = read(format!("{odd}{}", &text[at..]).as_bytes());
        }
    }
}

#[test]
fn aliases_are_bounded() {
    let long = "x".repeat(1024 * 1024);
    let many = |count: usize| format!("- &a {long}\n{}", "- *a\n".repeat(count));
    assert!(read(many(15).as_bytes()).is_ok());
    assert_eq!(fails(&many(16)), YamlError::Aliases);
    // Each line's list is in the next one's: deeper than any stack, though no single line is.
    let nested = |inner: &str, depth: usize| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
    let lines = |count: usize| {
        let line = |at: usize| format!("- &a{} {}\n", at + 1, nested(&format!("*a{at}"), 240));
        format!("- &a0 x\n{}", (0..count).map(line).collect::<String>())
    };
    assert!(read(lines(1).as_bytes()).is_ok());
    assert_eq!(fails(&lines(2)), YamlError::Aliases);
    assert_eq!(fails(&lines(2000)), YamlError::Aliases);
    let merges: String = (1..2000).map(|at| format!("- &a{at} {{<<: *a{}}}\n", at - 1)).collect();
    assert_eq!(fails(&format!("- &a0 {{a: 1}}\n{merges}")), YamlError::Aliases);
    // Without aliases only the parser's own bound counts.
    assert!(read(nested("x", 250).as_bytes()).is_ok());
    assert!(matches!(fails(&nested("x", 300)), YamlError::Syntax(1, _)));
}

#[test]
fn values_are_counted() {
    let count = |text: &str, nodes| document(text, nodes).map(|root| root.is_some());
    for text in ["[1, [], {}]", "{a: 1, b}", "[&a x, *a, *a]"] {
        let needed = if text.starts_with('{') { 5 } else { 4 };
        assert_eq!(count(text, needed), Ok(true), "{text}");
        assert_eq!(count(text, needed - 1), Err(YamlError::TooMany), "{text}");
    }
    assert_eq!(fails(&format!("[{}]", "[],".repeat(NODES_MAX))), YamlError::TooMany);
}

#[test]
fn a_scalar_is_found_where_it_stands() {
    let text = "# \u{fc}\na: [x, {b: 'it''s', c: \u{fc}ber, d: &d \"q\"}]\nb: *d\na: [x, {b: \"two\", c: [*d]}]\n";
    for (pointer, expected) in [
        ("/a/0", Some("x")),
        ("/a/1/b", Some("\"two\"")),
        ("/b", None),
        ("/a/1/c/0", None),
        ("/a", None),
        ("/c", None),
        ("/a/9", None),
    ] {
        assert_eq!(span(text, pointer).map(|at| &text[at]), expected, "{pointer}");
    }
    let first = text.replace("\na: [x, {b: \"two\"", "\nx: [x, {b: \"two\"");
    for (pointer, expected) in [("/a/1/b", "'it''s'"), ("/a/1/c", "\u{fc}ber"), ("/a/1/d", "\"q\"")] {
        assert_eq!(span(&first, pointer).map(|at| &first[at]), Some(expected), "{pointer}");
    }
}
