//! Credentials of a user: tokens, passwords, certificates, impersonation.

use super::entry::{CLUSTER, CONTEXT, Entry, config, with_cluster, with_user};

pub(super) fn entries() -> Vec<Entry> {
    const CERTIFICATE: &str = "client-certificate-data: $CERT, client-key-data: $KEY";
    const TOKEN: &str = "a token is one line of printable characters; others are a spoiled file, and kubectl finds out at the API server";
    const TWICE: &str = "kubectl refuses it with the words that the data overrides; mykube takes the data";
    const BASE: &str = "token: tok";
    let acting = |fields: &str| with_user(&format!("{BASE}, {fields}"));
    vec![
        Entry::new("a token", with_user(BASE)),
        Entry::new("a token with a newline", with_user("token: \"tok\\n\"")),
        Entry::new("a token with a space inside", with_user("token: 'a b'")).differs(TOKEN),
        Entry::new("a token in Cyrillic", with_user("token: 'ток'")).differs(TOKEN),
        Entry::new("a token file", with_user("tokenFile: tok")).file("tok", "from-file"),
        Entry::new("a token file that ends with a newline", with_user("tokenFile: tok")).file("tok", "from-file\n"),
        Entry::new("a token file beside a token", with_user("token: tok, tokenFile: tok")).file("tok", "from-file"),
        Entry::new("a token file that is not there", with_user("tokenFile: tok")),
        Entry::new("a token file that is not there, beside a token", with_user("token: tok, tokenFile: gone")),
        Entry::new("an empty token file", with_user("tokenFile: tok")).file("tok", ""),
        Entry::new("an absolute token file", with_user("tokenFile: $HOME/tok")).file("tok", "from-file"),
        Entry::new("a token file above", with_user("tokenFile: sub/../tok")).file("tok", "from-file").file("sub/x", ""),
        Entry::new("a password", with_user("username: me, password: secret")),
        Entry::new("a password with a colon and umlauts", with_user("username: me, password: 'a:ü'")),
        Entry::new("a user name without password", with_user("username: me")),
        Entry::new("a password without user name", with_user("password: secret")),
        Entry::new("a password beside a token", with_user("token: tok, username: me, password: secret")),
        Entry::new("a password beside a token file", with_user("tokenFile: tok, username: me, password: secret"))
            .file("tok", "from-file"),
        Entry::new("a certificate", with_user(CERTIFICATE)),
        Entry::new("a certificate beside a token", with_user(&format!("{CERTIFICATE}, token: tok"))),
        Entry::new(
            "a certificate beside a password",
            with_user(&format!("{CERTIFICATE}, username: me, password: secret")),
        ),
        Entry::new("a certificate in files", with_user("client-certificate: c.crt, client-key: c.key"))
            .file("c.crt", "$CRTPEM")
            .file("c.key", "$KEYPEM"),
        Entry::new(
            "a certificate in a file, its key in data",
            with_user("client-certificate: c.crt, client-key-data: $KEY"),
        )
        .file("c.crt", "$CRTPEM"),
        Entry::new(
            "a certificate in data and in a file",
            with_user(&format!("{CERTIFICATE}, client-certificate: c.crt")),
        )
        .file("c.crt", "$CRTPEM")
        .differs(TWICE),
        Entry::new("a key in data and in a file", with_user(&format!("{CERTIFICATE}, client-key: c.key")))
            .file("c.key", "$KEYPEM")
            .differs(TWICE),
        Entry::new("a certificate whose file is not there", with_user("client-certificate: c.crt, client-key: c.key")),
        Entry::new("a certificate without key", with_user("client-certificate-data: $CERT")),
        Entry::new("a key without certificate, beside a token", with_user("client-key-data: $KEY, token: tok")),
        Entry::new(
            "a certificate that is no PEM",
            with_user("client-certificate-data: aGVsbG8=, client-key-data: $KEY"),
        ),
        Entry::new(
            "a certificate with another key",
            with_user("client-certificate-data: $CERT, client-key-data: $CERT"),
        ),
        Entry::new("a certificate with a comment before it", with_user("client-certificate: c.crt, client-key: c.key"))
            .file("c.crt", "Bag Attributes\n    x: y\n$CRTPEM")
            .file("c.key", "# mine\n$KEYPEM"),
        Entry::new("certificate and key in one file", with_user("client-certificate: c.pem, client-key: c.pem"))
            .file("c.pem", "$CRTPEM$KEYPEM"),
        Entry::new("as", acting("as: ann")),
        Entry::new("as with groups", acting("as: ann, as-groups: [dev, 'ops: 1']")),
        Entry::new("as with uid", acting("as: ann, as-uid: '7'")),
        Entry::new("as with extra", acting("as: ann, as-user-extra: {scopes: [a, b], example.com/x: [c]}")),
        Entry::new("as with a key of extra that is a number", acting("as: ann, as-user-extra: {7: [a]}")),
        Entry::new("as with a service account", acting("as: 'system:serviceaccount:ns:sa'")),
        Entry::new("as with an empty group", acting("as: ann, as-groups: [null]"))
            .differs("an empty name is nobody's, and mykube says so"),
        Entry::new("as with extra without values", acting("as: ann, as-user-extra: {scopes: []}")),
        Entry::new("as with umlauts", acting("as: 'änn'")),
        Entry::new("as-groups without as", acting("as-groups: [dev]")),
        Entry::new("as-uid without as", acting("as-uid: '7'")),
        Entry::new("as-uid that is a number", acting("as: ann, as-uid: 7")),
        Entry::new("as-groups that is a text", acting("as: ann, as-groups: dev")),
        Entry::new("a dangling user", config(CLUSTER, BASE, "cluster: c, user: gone")),
        Entry::new("credentials over http", with_cluster("server: 'http://$SERVER'")),
        Entry::new("extensions of a user", with_user("token: tok, extensions: [{name: x, extension: {a: ~}}]")),
        Entry::new(
            "an unused user with a dangling file",
            format!("{}- name: o\n  user: {{tokenFile: /no/such, client-certificate: /no/such}}\n", with_user(BASE)),
        ),
        Entry::new(
            "an unused user with auth-provider gcp",
            format!(
                "{}- name: o\n  user: {{auth-provider: {{name: gcp, config: {{expiry: '2020-01-01'}}}}}}\n",
                with_user(BASE)
            ),
        ),
        Entry::new(
            "a context with a user of its own",
            config(CLUSTER, BASE, CONTEXT).replace("users:\n", "users:\n- name: o\n  user: {token: other}\n"),
        ),
    ]
}
