//! Different ways to write the same, and texts that look the same but differ.

use super::entry::{CLUSTER, CONTEXT, Entry, USER, config, plain, with_cluster, with_user};

pub(super) fn entries() -> Vec<Entry> {
    let insecure = |word: &str| with_cluster(&format!("server: 'https://$SERVER', insecure-skip-tls-verify: {word}"));
    let named = |name: &str| {
        plain()
            .replace("name: ctx", &format!("name: {name}"))
            .replace("current-context: ctx", &format!("current-context: {name}"))
    };
    let block = "apiVersion: v1\nkind: Config\ncurrent-context: ctx\nclusters:\n- name: c\n  cluster:\n    server: https://$SERVER\n    certificate-authority-data: $CA\ncontexts:\n- context:\n    cluster: c\n    user: u\n  name: ctx\nusers:\n- name: u\n  user:\n    token: tok\n";
    let indented = "apiVersion: v1\nkind: Config\ncurrent-context: ctx\nclusters:\n    - name: c\n      cluster:\n            server: https://$SERVER\n            certificate-authority-data: $CA\ncontexts:\n  -\n    name: ctx\n    context: {cluster: c,\n  user: u}\nusers:\n - name: u\n   user:\n    token: tok\n";
    let json = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "ctx", "clusters": [{"name": "c", "cluster": {"server": "https://$SERVER", "certificate-authority-data": "$CA"}}], "contexts": [{"name": "ctx", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {"token": "t\u006fk"}}]}"#;
    const WORDS: &str = "YAML 1.2 has it";
    vec![
        Entry::new("block form, as kubectl writes it", block),
        Entry::new("JSON", json),
        Entry::new("JSON over lines with tabs", json.replace(", \"", ",\n\t\"")),
        Entry::new("JSON without spaces", json.replace(": ", ":").replace(", ", ",")),
        Entry::new("JSON with `\\/`", json.replace("https://", "https:\\/\\/")).differs(WORDS),
        Entry::new("CRLF", block.replace('\n', "\r\n")),
        Entry::new("CR alone", block.replace('\n', "\r")),
        Entry::new("no last newline", block.trim_end()),
        Entry::new("trailing white space", block.replace("token: tok", "token: tok  \t ")),
        Entry::new("a tab after a colon", block.replace("token: tok", "token:\ttok")),
        Entry::new("tabs as indentation", block.replace("    token: tok", "\ttoken: tok")),
        Entry::new("a tab after a dash", block.replace("- name: u", "-\tname: u")).differs(WORDS),
        Entry::new("comments everywhere", block.replace('\n', " # x\n# y\n")),
        Entry::new("lists indented", indented),
        Entry::new("UTF-8 with a byte order mark", block).encoded(|text| [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        Entry::new("UTF-16, little end first", block).encoded(|text| utf16(&text, u16::to_le_bytes)),
        Entry::new("UTF-16, big end first", block).encoded(|text| utf16(&text, u16::to_be_bytes)),
        Entry::new("UTF-16 without a mark", block)
            .encoded(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        Entry::new("UTF-16 cut in a character", block)
            .encoded(|text| [&utf16(&text, u16::to_le_bytes)[..], b"\n"].concat()),
        Entry::new("Latin-1", block).encoded(|text| [text.as_bytes(), b"# \xe4\n"].concat()),
        Entry::new("a control character", format!("{block}# \u{1}\n")),
        Entry::new("a NUL", format!("{block}\0")),
        Entry::new("a document's start and end", format!("---\n{block}...\n")),
        Entry::new("%YAML 1.1", format!("%YAML 1.1\n---\n{block}")),
        Entry::new("%YAML 1.2", format!("%YAML 1.2\n---\n{block}"))
            .differs("it says itself which YAML it is, and mykube's parser reads that one"),
        Entry::new("a second document", format!("{block}---\napiVersion: v1\nkind: Secret\n")),
        Entry::new("a second document that is no YAML", format!("{block}---\n{{ not: [yaml\n")),
        Entry::new("the first document empty", format!("---\n---\n{block}")),
        Entry::new("the first document a comment", format!("# first\n---\n{block}")),
        Entry::new(
            "anchors and aliases",
            block
                .replace("token: tok", "token: &t tok")
                .replace("users:", "x-more: *later\nusers:")
                .replace("kind:", "x-first: &later {a: 1}\nkind:"),
        ),
        Entry::new(
            "an alias as the token",
            block.replace("kind:", "x-token: &t tok\nkind:").replace("token: tok", "token: *t"),
        ),
        Entry::new("an alias of nothing", block.replace("token: tok", "token: *t")),
        Entry::new("an alias of what it stands in", block.replace("kind:", "x: &x [*x]\nkind:")),
        Entry::new(
            "a merge key",
            block
                .replace("kind:", "x-user: &u {token: tok, username: ''}\nkind:")
                .replace("    token: tok", "    <<: *u"),
        ),
        Entry::new(
            "a merge key that is overwritten",
            block
                .replace("kind:", "x-user: &u {token: other}\nkind:")
                .replace("    token: tok", "    <<: *u\n    token: tok"),
        ),
        Entry::new(
            "a merge key that overwrites",
            block
                .replace("kind:", "x-user: &u {token: tok}\nkind:")
                .replace("    token: tok", "    token: other\n    <<: *u"),
        ),
        Entry::new(
            "a merge of several",
            block
                .replace("kind:", "x-users: [&a {token: tok}, &b {token: other}]\nkind:")
                .replace("    token: tok", "    <<: [*a, *b]"),
        ),
        Entry::new("a merge of a text", block.replace("    token: tok", "    <<: x\n    token: tok")),
        Entry::new("a key twice", block.replace("    token: tok", "    token: first\n    token: tok")),
        Entry::new(
            "current-context twice",
            format!("{block}current-context: ctx\n").replacen("current-context: ctx", "current-context: none", 1),
        ),
        Entry::new("a list twice", format!("users:\n- name: other\n{block}")),
        Entry::new("a key twice in an unused entry", format!("{block}- name: o\n  user: {{token: a, token: b}}\n")),
        Entry::new(
            "two clusters of one name",
            block.replace("clusters:\n", "clusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:1'}\n"),
        ),
        Entry::new("two users of one name", format!("{block}- name: u\n  user: {{token: other}}\n")),
        Entry::new(
            "two unused contexts of one name",
            block.replace("contexts:\n", "contexts:\n- name: o\n- name: o\n"),
        ),
        Entry::new(
            "two extensions of one name",
            format!("{block}extensions: [{{name: x, extension: 1}}, {{name: x, extension: 2}}]\n"),
        )
        .differs("mykube needs one extension of one cluster and does not look at others"),
        Entry::new(
            "unknown keys",
            format!("{}colour: blue\nclusterz: []\n", block.replace("token: tok", "token: tok\n    tokenn: x")),
        ),
        Entry::new("unknown keys with infinities", format!("{block}x: .inf\n")),
        Entry::new("keys in another case", block.replace("current-context", "Current-Context")),
        Entry::new("kind in another case", block.replace("kind: Config", "Kind: Secret"))
            .differs("kubectl finds `Kind` where it looks for the kind and nowhere else"),
        Entry::new("another kind", block.replace("kind: Config", "kind: Secret")),
        Entry::new(
            "another apiVersion",
            block.replace("apiVersion: v1", "apiVersion: client.authentication.k8s.io/v1"),
        ),
        Entry::new("a list at the top", "- a\n- b\n"),
        Entry::new("a word at the top", "hello\n"),
        Entry::new(
            "clusters as a map",
            config(CLUSTER, USER, CONTEXT).replace("clusters:\n- name: c\n  cluster:", "clusters:\n  c:"),
        ),
        Entry::new("a user as a list", with_user("").replace("{}", "[]")),
        Entry::new("boolean true", insecure("true")),
        Entry::new("boolean TRUE", insecure("TRUE")),
        Entry::new("boolean yes", insecure("yes")),
        Entry::new("boolean on", insecure("on")),
        Entry::new("boolean y", insecure("y")),
        Entry::new("boolean !!bool yes", insecure("!!bool yes")),
        Entry::new("boolean \"true\"", insecure("\"true\"")),
        Entry::new("boolean 1", insecure("1")),
        Entry::new("boolean tRUE", insecure("tRUE")),
        Entry::new("disable-compression is a text", with_cluster(&format!("{CLUSTER}, disable-compression: maybe"))),
        Entry::new("preferences.colors is a text", format!("{block}preferences: {{colors: blue}}\n"))
            .differs("mykube has no use for preferences and does not look at them"),
        Entry::new("a token that is a number", with_user("token: 1234567890")),
        Entry::new("a token that is a quoted number", with_user("token: '1234567890'")),
        Entry::new("a token that is a float", with_user("token: 1e10")),
        Entry::new("a token that looks like a date", with_user("token: 2024-01-01")),
        Entry::new("a token that looks like a time", with_user("token: 12:30:45")),
        Entry::new("a token that looks like a version", with_user("token: 1.2.3")),
        Entry::new("a token that is !!str 123", with_user("token: !!str 123")),
        Entry::new("a token in !!binary", with_user("token: !!binary dG9r")),
        Entry::new("a token with a tag of its own", with_user("token: !secret tok")),
        Entry::new("a token as OpenShift has them", with_user("token: sha256~AbC_dEf-123")),
        Entry::new("an unused number as a token", format!("{block}- name: o\n  user: {{token: 5}}\n")),
        Entry::new("a namespace that is a number", config(CLUSTER, USER, "cluster: c, user: u, namespace: 123")),
        Entry::new("a name that is a number", named("2024")),
        Entry::new("a name that is a quoted number", named("'2024'")),
        Entry::new("a name that is `on`", named("on")),
        Entry::new("a name that is `y`", named("y")),
        Entry::new("a name that is `null`", named("null"))
            .differs("there kubectl takes the context that has no name; nobody chose it"),
        Entry::new("a name with umlauts, slashes and colons", named("'Prod Zürich / eu:1'")),
        Entry::new("a name in Cyrillic", named("админ@prod")),
        Entry::new("an ARN as a name", named("arn:aws:eks:us-east-1:123456789012:cluster/prod")),
        Entry::new("a name with escapes", plain().replace("name: ctx", "name: \"c\\x74x\"")),
        Entry::new("a name over two lines", named("\"a\n   b\"")),
        Entry::new("a block scalar as the token", block.replace("token: tok", "token: |-\n      tok")),
        Entry::new("a folded scalar as the token", block.replace("token: tok", "token: >-\n      tok")),
        Entry::new(
            "base64 in a block scalar",
            block.replace("certificate-authority-data: $CA", "certificate-authority-data: |\n      $CA"),
        ),
        Entry::new("explicit keys", block.replace("    token: tok", "    ? token\n    : tok")),
        Entry::new("quoted keys", block.replace("token:", "\"token\":").replace("users:", "'users':")),
        Entry::new("a colon without a space in flow form", plain().replace("{token: tok}", "{\"token\":tok}")),
        Entry::new("a trailing comma in flow form", plain().replace("{token: tok}", "{token: tok,}")),
        Entry::new("flow form under-indented", plain().replace("{token: tok}", "{\ntoken: tok\n}")),
        Entry::new("a plain scalar over two lines", block.replace("kind:", "x: a\n  b\nkind:")),
        Entry::new("a plain scalar with a colon", block.replace("kind:", "x: a:b\nkind:")),
        Entry::new("a plain scalar with ` #`", block.replace("token: tok", "token: tok #en")),
        Entry::new("a plain scalar that begins with @", block.replace("token: tok", "token: @tok")),
        Entry::new("a plain scalar that begins with %", block.replace("token: tok", "token: %tok")),
        Entry::new("an escape of YAML 1.2 only", block.replace("token: tok", "token: \"t\\/k\"")).differs(WORDS),
        Entry::new("not closed", format!("{block}x: [1, 2\n")),
        Entry::new("a text beside a map", format!("{block}just text\n")),
        Entry::new("300 levels", format!("{block}x: {}{}\n", "[".repeat(300), "]".repeat(300)))
            .differs("mykube's parser has a limit of 255 levels, kubectl's of 10,000; a kubeconfig has 6"),
        Entry::new("aliases that would fill the memory", {
            let mut text = format!("{block}x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n");
            for level in 1..9 {
                text += &format!("x{level}: &x{level} [{}]\n", [format!("*x{}", level - 1).as_str(); 10].join(", "));
            }
            text
        }),
    ]
}

/// With a byte order mark.
fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
}
