//! Exec plugins and `auth-provider`: where the program is, what it is told, its answers, and other fields beside it.

use super::entry::{CLUSTER, CONTEXT, Entry, config, with_user};

/// A plugin that prints this.
fn says(text: &str) -> String {
    format!("#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
}

const V1: &str = "client.authentication.k8s.io/v1";
const GOOD: &str =
    r#"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "good"}}"#;

fn status(status: &str) -> String {
    says(&format!(r#"{{"apiVersion": "{V1}", "kind": "ExecCredential", "status": {status}}}"#))
}

/// A user with a plugin in flow form: its command, and more fields.
fn plugin(command: &str, more: &str) -> String {
    format!("exec: {{apiVersion: {V1}, interactiveMode: Never, command: {command}{more}}}")
}

pub(super) fn entries() -> Vec<Entry> {
    [places(), answers(), times(), told(), beside(), providers()].into_iter().flatten().collect()
}

fn places() -> Vec<Entry> {
    let at = |name, command: &str| Entry::new(name, with_user(&plugin(command, "")));
    let its_path = plugin("my-auth", ", env: [{name: PATH, value: '$HOME/its:/usr/bin:/bin'}]");
    let path = "$HOME/ours:/usr/bin:/bin";
    let other = says(&GOOD.replace("good", "its"));
    vec![
        at("plugin: ./plugin", "./plugin").program("plugin", says(GOOD)),
        at("plugin: sub/plugin", "sub/plugin").program("sub/plugin", says(GOOD)),
        at("plugin: an absolute path", "$HOME/plugin").program("plugin", says(GOOD)),
        at("plugin: a name on PATH", "my-auth").program("ours/my-auth", says(GOOD)).env("PATH", path),
        at("plugin: a name only beside the file", "plugin").program("plugin", says(GOOD)),
        at("plugin: a name on a relative PATH", "my-auth")
            .program("ours/my-auth", says(GOOD))
            .env("PATH", "ours:/usr/bin:/bin"),
        Entry::new("plugin: our PATH has one and exec.env's another", with_user(&its_path))
            .program("ours/my-auth", says(GOOD))
            .program("its/my-auth", other.clone())
            .env("PATH", path),
        Entry::new("plugin: only the PATH of exec.env has it", with_user(&its_path))
            .program("its/my-auth", other)
            .env("PATH", path),
        at("plugin: PATH has a file that is no program first", "my-auth")
            .file("data/my-auth", GOOD)
            .program("ours/my-auth", says(GOOD))
            .env("PATH", format!("$HOME/data:{path}")),
        at("plugin: is not there", "./plugin"),
        at("plugin: is no program", "./plugin").file("plugin", GOOD),
        at("plugin: has no #!", "./plugin").program("plugin", format!("echo '{GOOD}'\n")),
        at("plugin: command empty", "''"),
    ]
}

fn answers() -> Vec<Entry> {
    let of = |name, script: String| Entry::new(name, with_user(&plugin("./plugin", ""))).program("plugin", script);
    let json = |name, text: &str| of(name, says(text));
    let beta = GOOD.replace("/v1", "/v1beta1");
    let as_beta = plugin("./plugin", "").replace("k8s.io/v1", "k8s.io/v1beta1");
    vec![
        json("answer: no kind", &GOOD.replace(r#""kind": "ExecCredential", "#, "")),
        json("answer: kind null", &GOOD.replace(r#""ExecCredential""#, "null")),
        json("answer: another kind", &GOOD.replace("ExecCredential", "TokenReview")),
        json("answer: no apiVersion", &GOOD.replace(&format!(r#""apiVersion": "{V1}", "#), "")),
        json("answer: v1beta1 where v1 was asked", &beta),
        Entry::new("answer: v1 where v1beta1 was asked", with_user(&as_beta)).program("plugin", says(GOOD)),
        Entry::new("answer: v1beta1 where it was asked", with_user(&as_beta)).program("plugin", says(&beta)),
        json("answer: YAML", &format!("apiVersion: {V1}\nkind: ExecCredential\nstatus:\n  token: good")),
        json("answer: YAML with a key twice", &format!("apiVersion: {V1}\nstatus:\n  token: bad\n  token: good")),
        json("answer: JSON with a key twice", &GOOD.replace(r#""token""#, r#""token": "bad", "token""#)),
        json("answer: keys in another case", &GOOD.replace("status", "Status")),
        json(
            "answer: unknown fields",
            &GOOD.replace(r#""status""#, r#""metadata": {"name": "x"}, "colour": 1, "status""#),
        ),
        json("answer: empty lines around it", &format!("\n\n{GOOD}\n\n")),
        json("answer: a log line before it", &format!("level=info msg=hello\n{GOOD}")),
        json("answer: a log line after it", &format!("{GOOD}\nbye")),
        json("answer: two of them", &format!("{GOOD}\n{GOOD}")),
        json("answer: two YAML documents", &format!("{GOOD}\n---\n{GOOD}")),
        json("answer: a byte order mark before it", &format!("\u{feff}{GOOD}")),
        of("answer: nothing", "#!/bin/sh\n".into()),
        of("answer: a good one and status 1", format!("{}exit 1\n", says(GOOD))),
        of("answer: status null", status("null")),
        of("answer: an empty token", status(r#"{"token": ""}"#)),
        of("answer: a token with a line end", status(r#"{"token": "good\n"}"#)),
        of("answer: a token that is a number", status(r#"{"token": 5}"#)),
        of("answer: a certificate without key", status(r#"{"clientCertificateData": "x"}"#)),
        of("answer: a key without certificate, and a token", status(r#"{"clientKeyData": "x", "token": "good"}"#)),
        certificate("answer: a certificate from files", ""),
        certificate("answer: a certificate and a token", "  token: good\n"),
    ]
}

/// The plugin gives the certificate of the zoo, in YAML, where PEM needs no escapes.
fn certificate(name: &'static str, more: &str) -> Entry {
    let script = format!(
        "#!/bin/sh\nprintf 'apiVersion: {V1}\\nkind: ExecCredential\\nstatus:\\n{}  clientCertificateData: |\\n'\n\
         sed 's/^/    /' '$HOME/c.crt'\nprintf '  clientKeyData: |\\n'\nsed 's/^/    /' '$HOME/c.key'\n",
        more.replace('\n', "\\n")
    );
    Entry::new(name, with_user(&plugin("./plugin", "")))
        .file("c.crt", "$CRTPEM")
        .file("c.key", "$KEYPEM")
        .program("plugin", script)
}

fn times() -> Vec<Entry> {
    let at = |name, time: &str| {
        let script = status(&format!(r#"{{"token": "good", "expirationTimestamp": {time}}}"#));
        Entry::new(name, with_user(&plugin("./plugin", ""))).program("plugin", script)
    };
    vec![
        at("expirationTimestamp: null", "null"),
        at("expirationTimestamp: empty", r#""""#),
        at("expirationTimestamp: far away", r#""2099-01-01T00:00:00Z""#),
        at("expirationTimestamp: long ago", r#""2001-01-01T00:00:00Z""#),
        at("expirationTimestamp: a fraction", r#""2099-01-01T00:00:00.123456Z""#),
        at("expirationTimestamp: a fraction after a comma", r#""2099-01-01T00:00:00,5Z""#),
        at("expirationTimestamp: an offset", r#""2099-01-01T02:00:00+02:00""#),
        at("expirationTimestamp: an hour of one digit", r#""2099-01-01T2:00:00Z""#),
        at("expirationTimestamp: no zone", r#""2099-01-01T00:00:00""#),
        at("expirationTimestamp: a space", r#""2099-01-01 00:00:00Z""#),
        at("expirationTimestamp: small letters", r#""2099-01-01t00:00:00z""#),
        at("expirationTimestamp: a leap second", r#""2098-12-31T23:59:60Z""#),
        at("expirationTimestamp: a number", "4070908800"),
    ]
}

/// The plugin's token tells its input: a sum of its fields, as their order is undefined.
fn told() -> Vec<Entry> {
    let script = format!(
        "#!/bin/sh\ntoken=$(printf '%s' \"$KUBERNETES_EXEC_INFO\" | tr ',{{}}' '\\n\\n\\n' | grep . | sort | cksum | tr -dc 0-9)\n\
         printf '{{\"apiVersion\": \"{V1}\", \"kind\": \"ExecCredential\", \"status\": {{\"token\": \"%s-%s-%s\"}}}}' \"$A\" \"$1\" \"$token\"\n"
    );
    let of = |name, cluster: &str, more: &str| {
        let cluster = format!("{CLUSTER}{cluster}");
        Entry::new(name, config(&cluster, &plugin("./plugin", more), CONTEXT)).program("plugin", script.clone())
    };
    const INFO: &str = ", provideClusterInfo: true";
    vec![
        of("told: no cluster", "", ""),
        of("told: provideClusterInfo null", "", ", provideClusterInfo: null"),
        of("told: the cluster", "", INFO),
        of("told: tls-server-name", ", tls-server-name: localhost", INFO),
        of("told: disable-compression", ", disable-compression: true", INFO),
        of(
            "told: an extension",
            ", extensions: [{name: client.authentication.k8s.io/exec, extension: {a: [1 x, true], b: {c: null}}}]",
            INFO,
        ),
        of(
            "told: an extension that is null",
            ", extensions: [{name: client.authentication.k8s.io/exec, extension: null}]",
            INFO,
        ),
        of("told: another extension", ", extensions: [{name: x, extension: {a: 1}}]", INFO),
        of("told: IfAvailable without a terminal", "", INFO)
            .with("interactiveMode: Never", "interactiveMode: IfAvailable"),
        of("told: Always without a terminal", "", INFO).with("interactiveMode: Never", "interactiveMode: Always"),
        of("told: env and args", "", ", env: [{name: A, value: a}], args: [x]"),
        of("told: a variable twice", "", ", env: [{name: A, value: a}, {name: A, value: b}]"),
        of("told: its variable wins over ours", "", ", env: [{name: A, value: a}]").env("A", "ours"),
        of("told: ours", "", "").env("A", "ours"),
        of("told: args are no shell's", "", ", args: ['$A']"),
    ]
}

fn beside() -> Vec<Entry> {
    const STATIC: &str = "client-certificate-data: $CERT, client-key-data: $KEY";
    let of = |name, user: &str, script: String| {
        Entry::new(name, with_user(&format!("{user}, {}", plugin("./plugin", "")))).program("plugin", script)
    };
    let fails = || "#!/bin/sh\nexit 1\n".to_owned();
    vec![
        of("beside a plugin: a certificate", STATIC, says(GOOD)),
        of("beside a plugin that fails: a certificate", STATIC, fails()),
        Entry::new(
            "beside a plugin that is not there: a certificate",
            with_user(&format!("{STATIC}, {}", plugin("./gone", ""))),
        ),
        of("beside a plugin: a token", "token: tok", says(GOOD)),
        of("beside a plugin that fails: a token", "token: tok", fails()),
        of("beside a plugin: a token file", "tokenFile: tok", says(GOOD)).file("tok", "from-file"),
        of("beside a plugin: a password", "username: me, password: pw", fails()),
        of("beside a plugin: impersonation", "as: jane", says(GOOD)),
        of("beside a plugin that would need a terminal: a token", "token: tok", says(GOOD))
            .with("interactiveMode: Never", "interactiveMode: Always"),
        of(
            "beside a plugin: auth-provider",
            "auth-provider: {name: oidc, config: {idp-issuer-url: 'https://127.0.0.1:1', client-id: k}}",
            says(GOOD),
        ),
        of("beside a plugin of an old version: a token", "token: tok", says(GOOD))
            .with(V1, "client.authentication.k8s.io/v1alpha1"),
    ]
}

/// Claims `{"exp": 4070908800}` and `{"exp": 1}`.
const LASTING: &str = "e30.eyJleHAiOiA0MDcwOTA4ODAwfQ.c2ln";
const OVER: &str = "e30.eyJleHAiOiAxfQ.c2ln";

fn providers() -> Vec<Entry> {
    let of = |name, user: &str| Entry::new(name, with_user(user));
    let oidc = |fields: &str| {
        format!(
            "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'https://127.0.0.1:1', client-id: k, {fields}}}}}"
        )
    };
    vec![
        of("oidc: an id-token that lasts", &oidc(&format!("id-token: {LASTING}, refresh-token: r"))),
        of("oidc: the same without refresh-token", &oidc(&format!("id-token: {LASTING}"))),
        of("oidc: an id-token that is over", &oidc(&format!("id-token: {OVER}"))),
        of("oidc: nobody to refresh it", &oidc(&format!("id-token: {OVER}, refresh-token: r"))),
        of("oidc: an id-token that is none", &oidc("id-token: a.b, refresh-token: r")),
        of("oidc: an id-token without end", &oidc("id-token: e30.e30.c2ln")),
        of("oidc: a field null", &oidc(&format!("id-token: {LASTING}, client-secret: null"))),
        of("oidc: beside a token", &format!("token: tok, {}", oidc(&format!("id-token: {LASTING}")))),
        of("oidc: beside a token, itself no good", &format!("token: tok, {}", oidc("id-token: a.b"))),
        of(
            "oidc: beside a password",
            &format!("username: me, password: pw, {}", oidc(&format!("id-token: {LASTING}"))),
        ),
        of(
            "oidc: beside a certificate",
            &format!(
                "client-certificate-data: $CERT, client-key-data: $KEY, {}",
                oidc(&format!("id-token: {LASTING}"))
            ),
        ),
        of("oidc: no issuer", &format!("auth-provider: {{name: oidc, config: {{client-id: k, id-token: {LASTING}}}}}")),
        of("oidc: config null", "auth-provider: {name: oidc, config: null}"),
        of("oidc: config null, beside a token", "token: tok, auth-provider: {name: oidc, config: null}"),
        of("auth-provider: no name", &format!("auth-provider: {{config: {{id-token: {LASTING}}}}}")),
        of(
            "auth-provider: gcp",
            "auth-provider: {name: gcp, config: {access-token: x, expiry: '2099-01-01T00:00:00Z'}}",
        ),
        of("auth-provider: azure", "auth-provider: {name: azure, config: {client-id: y, tenant-id: z}}"),
        of("auth-provider: gcp, beside a token", "token: tok, auth-provider: {name: gcp}"),
        of("auth-provider: of nobody", "auth-provider: {name: ldap, config: {}}"),
    ]
}
