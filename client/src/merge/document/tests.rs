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
        emptied = document.remove(list, 0, None).unwrap();
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
fn lists_that_are_not_there_are_made_and_unmade() {
    for text in [
        "",
        "\n",
        " \n\n",
        "# nothing\n",
        "# nothing",
        "# nothing\r\n",
        "---\n",
        "--- # first\n# nothing",
        "%YAML 1.1\n---\n",
        "---\n---\nclusters: [a]\n",
        "---\n...\n",
        "apiVersion: v1\nkind: Config\n",
        "apiVersion: v1",
        "# mine\n\n  apiVersion: v1\n  kind: Config\n# end",
        "---\r\napiVersion: v1\r\nkind: Config\r\n...\r\n",
        "{}",
        "--- {} # odd\n",
        "{ }\n",
        "{\n}\n",
        "{\"kind\": \"Config\"}",
        "{\"kind\":\"Config\",\"clusters\":null,\"users\":[]}",
        "{\n\t\"kind\": \"Config\",\n\t\"contexts\": null\n}\n",
        "clusters:\ncontexts: null # soon\nusers: ~\n",
        "clusters:   # none\n\nkind: Config\ncontexts:\t\nusers: Null",
        "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n",
        "users:\n- name: a\n",
        "contexts: [a]\ncontexts:\n",
        "contexts: null\n---\ncontexts: [a]\n---\n{ no: [yaml\n",
    ] {
        // In every order of coming and going.
        for turn in 0..6 {
            let mut lists = LISTS.map(|(list, _)| list);
            lists.rotate_left(turn % 3);
            let mut full = text.to_owned();
            let mut was = Vec::new();
            for list in lists {
                let document = Document::parse(&full).unwrap();
                was.push((list, document.absence(list).map(str::to_owned)));
                full = document.insert(list, &item()).unwrap_or_else(|error| panic!("{error}: {full:?}"));
                assert_eq!(
                    Document::parse(&full).unwrap().items(list)[0].get("name").unwrap().scalar(),
                    Some("mykube-a")
                );
            }
            assert!(turn > 0 || full.contains("# soon") == text.contains("# soon"), "{full}");
            was.rotate_left(turn / 2);
            for (list, was) in was {
                let document = Document::parse(&full).unwrap();
                full = document.remove(list, 0, was.as_deref()).unwrap_or_else(|error| panic!("{error}: {full:?}"));
            }
            assert_eq!(full, text);
        }
    }
}

#[test]
fn what_the_user_changed_meanwhile_stays() {
    for (text, was, rest) in [
        // Something in our list, or on our line.
        ("clusters: [{name: b}, {name: c}]\n", "none", "clusters: [{name: c}]\n"),
        ("clusters: [{name: b}] # why\nkind: Config\n", "none", "clusters: [] # why\nkind: Config\n"),
        ("clusters: [{name: b}]\nkind: Config\n", "none", "kind: Config\n"),
        ("clusters: [{name: b}] # why\n", "null", "clusters: null # why\n"),
        ("clusters: [{name: b}] # why\n", "", "clusters: # why\n"),
        // By kubectl, which writes lists in block form.
        ("clusters:\n- name: b\nkind: Config\n", "none", "clusters: []\nkind: Config\n"),
        // By hand, and wrong.
        ("clusters: [{name: b}]\n", "[{name: x}]", "clusters: []\n"),
    ] {
        assert_eq!(Document::parse(text).unwrap().remove("clusters", 0, Some(was)).as_deref(), Ok(rest), "{text}");
    }
}

#[test]
fn of_equal_keys_the_last_counts() {
    let text = "clusters: [{name: a}]\ncurrent-context: x\nclusters:\n- name: b\ncurrent-context: y\n";
    let document = Document::parse(text).unwrap();
    assert_eq!(document.current_context(), Some("y"));
    let full = document.insert("clusters", &item()).unwrap();
    let document = Document::parse(&full).unwrap();
    assert_eq!(document.items("clusters").len(), 2);
    assert_eq!(document.remove("clusters", 0, None).as_deref(), Ok(text));
}

#[test]
fn lists_that_come_from_elsewhere_are_not_hidden() {
    let text = "x: &x {clusters: [{name: a}]}\n<<: *x\n";
    assert_eq!(Document::parse(text).unwrap().insert("clusters", &item()), Err(DocumentError::Unsafe("clusters")));
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
        assert_eq!(Document::parse(&text).unwrap().remove("clusters", index, None).as_deref(), Ok(rest), "{text}");
    }
}

#[test]
fn what_is_no_kubeconfig_is_refused() {
    let error = |text: &str| Document::parse(text).unwrap_err();
    assert_eq!(error("a: [1\nb: 2\n"), DocumentError::Syntax { line: 2, column: 2 });
    assert!(matches!(error("- a\n"), DocumentError::Shape(_)));
    assert!(matches!(error("just text"), DocumentError::Shape(_)));
    assert!(matches!(error("null"), DocumentError::Shape(_)));
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
                if let Ok(shorter) = document.remove(list, index, document.absence(list)) {
                    assert_eq!(Document::parse(&shorter).unwrap().items(list).len() + 1, document.items(list).len());
                }
            }
        }
    }
    assert!(changed > 1000, "{changed}");
}
