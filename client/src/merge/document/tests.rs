use serde_json::json;

use super::*;

fn item() -> Value {
    json!({"name": "mykube-a", "cluster": {"server": "https://127.0.0.1:1", "odd": "'\"\\ #: {[\u{7f}\u{85}\u{2028}é\u{1f600}"}})
}

/// Inserts into each list and takes it out again; gives the text in between.
#[track_caller]
fn round_trip(text: &str) -> String {
    let full = insert_all(text);
    let mut emptied = full.clone();
    for (list, _) in LISTS {
        let document = Document::parse(&emptied).unwrap();
        assert_eq!(document.items(list)[0].get("name").unwrap().scalar(), Some("mykube-a"), "{emptied}");
        emptied = document.remove(list, 0).unwrap();
    }
    assert_eq!(emptied, text, "what was there before stands again, to the byte");
    full
}

#[track_caller]
fn insert_all(text: &str) -> String {
    let mut text = text.to_owned();
    for (list, _) in LISTS {
        text = Document::parse(&text).unwrap().insert(list, &item()).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    text
}

#[test]
fn every_byte_of_the_rest_stays() {
    for text in [
        // As kubectl writes it.
        "apiVersion: v1\nclusters:\n- cluster:\n    server: https://a\n  name: a\ncontexts:\n- context:\n    cluster: a\n    user: a\n  name: a\ncurrent-context: a\nkind: Config\npreferences: {}\nusers:\n- name: a\n  user:\n    token: x\n",
        // By hand: comments everywhere, indented lists, a dash on its own line, no line break at the end.
        "# mine\napiVersion: v1 # first\nclusters: # all\n\n  # one\n  - name: a # a\n    cluster: {server: 'https://a'} # yes\n  # after\ncontexts:\n  -\n    name: b\n    context: {}\n  - name: c\n# users follow\nusers:\n  - {name: a, user: {token: x}}",
        // Flow style, JSON, and empty lists.
        "{\"clusters\": [{\"name\": \"a\"}], \"contexts\": [], \"users\": [ # none\n {\"name\": \"u\",}, ]}\n",
        "clusters: []\ncontexts: []   # none\nusers: [ ]\n",
        // Windows line ends, a document's start and end.
        "---\r\nclusters:\r\n- name: a\r\ncontexts:\r\n- name: a\r\nusers:\r\n- name: a\r\n  user:\r\n    token: |-\r\n      x\r\n...\r\n",
        // Anchors, tags and unknown fields.
        "clusters: !!seq\n- &c\n  name: a\n  cluster: &d {server: x}\ncontexts: &all\n- name: a\nusers:\n- name: a\nx-more: [*c, *all, !odd {? k : v}]\n",
    ] {
        round_trip(text);
    }
}

#[test]
fn lists_that_are_not_there_are_made() {
    for text in [
        "",
        "# nothing\n",
        "# nothing",
        "apiVersion: v1\nkind: Config\n",
        "  apiVersion: v1\n  kind: Config\n",
        "{}",
        "{\"kind\": \"Config\"}",
        "clusters:\ncontexts: null # soon\nusers: ~\n",
        "clusters: # none\n\nkind: Config\n",
    ] {
        let full = insert_all(text);
        let document = Document::parse(&full).unwrap();
        for (list, _) in LISTS {
            assert_eq!(document.items(list).len(), 1, "{full}");
        }
        assert_eq!(full.contains("# soon"), text.contains("# soon"));
        let emptied =
            LISTS.iter().fold(full, |text, (list, _)| Document::parse(&text).unwrap().remove(list, 0).unwrap());
        assert_eq!(Document::parse(&emptied).unwrap().names().count(), 0, "{emptied}");
    }
}

#[test]
fn an_item_is_removed_however_kubectl_has_written_it_since() {
    let mine = "- cluster:\n    extensions:\n    - extension:\n        pid: 1\n      name: mykube\n    server: https://b\n  name: b\n";
    for (text, index, rest) in [
        (format!("clusters:\n{mine}- name: a # x\n"), 0, "clusters:\n- name: a # x\n"),
        (format!("clusters:\n- name: a # x\n{mine}"), 1, "clusters:\n- name: a # x\n"),
        (
            format!("clusters:\n- name: a # x\n{mine}# end\nkind: Config\n"),
            1,
            "clusters:\n- name: a # x\n# end\nkind: Config\n",
        ),
        (format!("clusters: # all\n# one\n{mine}kind: Config\n"), 0, "clusters: [] # all\n# one\nkind: Config\n"),
        ("clusters:\n- name: a\n- name: b\n  note:\n- name: c\n".into(), 1, "clusters:\n- name: a\n- name: c\n"),
        ("clusters: [{name: a}, {name: b}]\n".into(), 1, "clusters: [{name: a}]\n"),
        ("clusters: [{name: a}, {name: b},]\n".into(), 1, "clusters: [{name: a},]\n"),
        ("clusters: [{name: a}, {name: b}, c]\n".into(), 1, "clusters: [{name: a}, c]\n"),
    ] {
        assert_eq!(Document::parse(&text).unwrap().remove("clusters", index).as_deref(), Ok(rest), "{text}");
    }
}

#[test]
fn what_is_no_kubeconfig_is_refused() {
    let error = |text: &str| Document::parse(text).unwrap_err();
    assert_eq!(error("a: [1\nb: 2\n"), DocumentError::Syntax { line: 2, column: 2 });
    assert!(matches!(error("- a\n"), DocumentError::Shape(_)));
    assert!(matches!(error("just text"), DocumentError::Shape(_)));
    assert!(matches!(error("null"), DocumentError::Shape(_)));
    assert!(matches!(error("a: 1\n---\nb: 2\n"), DocumentError::Shape(_)));
    assert!(matches!(error("a: 1\na: 2\n"), DocumentError::Shape(_)));
    assert!(matches!(error("? [a]\n: 1\n"), DocumentError::Shape(_)));
    assert_eq!(error("clusters: {}\n"), DocumentError::NotAList("clusters"));
    assert_eq!(error("x: &x []\nusers: *x\n"), DocumentError::NotAList("users"));
    assert_eq!(error("contexts: some\n"), DocumentError::NotAList("contexts"));
    assert_eq!(error("contexts: ''\n"), DocumentError::NotAList("contexts"));
    assert!(Document::parse(&"[".repeat(100_000)).is_err());
    assert!(Document::parse(&format!("clusters: {}", "[".repeat(100_000))).is_err());
}

#[test]
fn no_text_is_too_strange() {
    let text = "---\n# ü\nclusters: !!seq # x\n- &c\n  name: a\n  cluster: {server: 'https://a', list: [1, ü,]}\ncontexts:\n  -\n    name: \"b\"\n    ctx: |-\n      ü\n\nusers: [ {name: c}, *c ]\n";
    let mut texts = Vec::new();
    for (at, _) in text.char_indices() {
        texts.push(text[..at].to_owned());
        texts.push(text[at..].to_owned());
        for odd in ["\n", "-", ":", "{", "]", "#", "\t", "ü", "\"", "&a ", "? "] {
            texts.push(format!("{}{odd}{}", &text[..at], &text[at..]));
        }
    }
    let mut changed = 0;
    for text in texts {
        let Ok(document) = Document::parse(&text) else { continue };
        for (list, _) in LISTS {
            if let Ok(longer) = document.insert(list, &item()) {
                changed += 1;
                let longer = Document::parse(&longer).unwrap();
                assert_eq!(longer.items(list).len(), document.items(list).len() + 1);
            }
            for index in 0..document.items(list).len() + 1 {
                if let Ok(shorter) = document.remove(list, index) {
                    assert_eq!(Document::parse(&shorter).unwrap().items(list).len() + 1, document.items(list).len());
                }
            }
        }
    }
    assert!(changed > 1000, "{changed}");
}
