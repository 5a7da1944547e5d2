//! Tokens that are not quite this relay's, at each call that takes one, from where it takes it.

use aws_lc_rs::hmac;
use data_encoding::{BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use mykube_relay_accounts::keys::Purpose;

use super::*;

/// Calls that take a token, from where, and of which class.
const PLACES: [(&str, From, Class); 9] = [
    ("GET /v1/whoami", From::Bearer, Class::Mykube),
    ("GET /v1/agents", From::Bearer, Class::Mykube),
    ("GET /v1/audit", From::Bearer, Class::Mykube),
    ("GET /auth/status", From::Cookie, Class::Browser),
    ("POST /auth/device/verify", From::Cookie, Class::Browser),
    ("POST /auth/logout", From::Cookie, Class::Browser),
    ("POST /auth/dev", From::Cookie, Class::Browser),
    ("POST /auth/refresh", From::Body, Class::Devices),
    ("POST /auth/revoke", From::Body, Class::Daemon),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Bearer,
    Cookie,
    Body,
}

/// A token, and what is known of it.
struct Forged {
    name: String,
    token: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is none of this relay's.
    Foreign,
    /// This relay has signed it, and it is not good now, or not here: who has it may end it.
    Other,
    /// It is good.
    Good,
}

/// Makes tokens of any form, with the relay's own key.
struct Smith {
    key: [u8; 32],
    kid: String,
    claims: Value,
}

fn encode(text: &str) -> String {
    BASE64URL_NOPAD.encode(text.as_bytes())
}

fn sign(algorithm: hmac::Algorithm, key: &[u8], message: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, key), message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

impl Smith {
    /// Of whoever has this good token.
    fn new(site: &Site, good: &str) -> Self {
        let key = site.keys.accepted().next().unwrap();
        let claims = BASE64URL_NOPAD.decode(good.split('.').nth(1).unwrap().as_bytes()).unwrap();
        Self {
            key: *key.derive(Purpose::Jwt),
            kid: key.kid().to_string(),
            claims: serde_json::from_slice(&claims).unwrap(),
        }
    }

    fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": "HS256", "kid": self.kid})
    }

    /// Signed as the relay signs, over these texts.
    fn text(&self, header: &str, claims: &str) -> String {
        sign(hmac::HMAC_SHA256, &self.key, &format!("{}.{}", encode(header), encode(claims)))
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        self.text(&with(self.header(), name, value).to_string(), &self.claims.to_string())
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        self.text(&self.header().to_string(), &with(self.claims.clone(), name, value).to_string())
    }

    fn all(&self, good: &str) -> Vec<Forged> {
        let mut all = Vec::new();
        let mut add = |name: &str, kind, token: String| all.push(Forged { name: name.to_owned(), token, kind });
        let own = self.text(&self.header().to_string(), &self.claims.to_string());
        add("as it was given", Kind::Good, good.to_owned());
        add("made by this test with the relay's key", Kind::Good, own.clone());
        let now = clock().secs();
        add("iat an hour ahead: a clock was set back", Kind::Good, self.with_claim("iat", json!(now + 3600)));
        add("a claim that nobody knows", Kind::Good, self.with_claim("zzz", json!([1])));

        // Algorithms and keys.
        let unsigned = |alg: &str| {
            let header = with(self.header(), "alg", json!(alg)).to_string();
            format!("{}.{}.", encode(&header), encode(&self.claims.to_string()))
        };
        for alg in ["none", "None", "NONE", "nOnE", "HS256", ""] {
            add(&format!("alg {alg:?}, no signature"), Kind::Foreign, unsigned(alg));
        }
        for alg in ["none", "RS256", "ES256", "EdDSA", "HS384", "HS512", "hs256", " HS256", "HS256 ", "\u{48}S256\0"] {
            add(&format!("alg {alg:?}, signed as HS256"), Kind::Foreign, self.with_header("alg", json!(alg)));
        }
        for (alg, algorithm) in [("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
            let header = with(self.header(), "alg", json!(alg)).to_string();
            let message = format!("{}.{}", encode(&header), encode(&self.claims.to_string()));
            add(&format!("{alg} by the relay's key"), Kind::Foreign, sign(algorithm, &self.key, &message));
        }
        for wrong in [Value::Null, json!(7), json!(["HS256"]), json!({})] {
            add(&format!("alg {wrong}"), Kind::Foreign, self.with_header("alg", wrong));
        }
        let message = own.rsplit_once('.').unwrap().0;
        for (name, key) in [("zeros", &[0; 32][..]), ("nothing", &[]), ("its kid", self.kid.as_bytes())] {
            add(&format!("signed with {name}"), Kind::Foreign, sign(hmac::HMAC_SHA256, key, message));
        }
        for kid in
            ["0123456789abcdef", "", "../../dev/null", "' OR 1=1", &self.kid.to_uppercase(), &format!("{} ", self.kid)]
        {
            add(
                &format!("kid {kid:?}")
                    .replace(&self.kid.to_uppercase(), "in capitals")
                    .replace(&self.kid, "and a space"),
                Kind::Foreign,
                self.with_header("kid", json!(kid)),
            );
        }
        for wrong in [Value::Null, json!(7), json!([self.kid])] {
            add(
                &format!("kid {}", wrong.to_string().replace(&self.kid, "..")),
                Kind::Foreign,
                self.with_header("kid", wrong),
            );
        }
        for (name, value) in [
            ("jwk", json!({"kty": "oct", "k": BASE64URL_NOPAD.encode(&self.key)})),
            ("jku", json!("https://evil.example/keys")),
            ("x5u", json!("https://evil.example/chain")),
            ("crit", json!(["b64"])),
            ("b64", json!(false)),
            ("cty", json!("JWT")),
        ] {
            add(&format!("header {name}"), Kind::Foreign, self.with_header(name, value));
        }
        for typ in [Value::Null, json!("jwt"), json!("at+jwt"), json!(1)] {
            add(&format!("typ {typ}"), Kind::Foreign, self.with_header("typ", typ));
        }
        let twice = format!(r#"{{"alg":"none",{}"#, &self.header().to_string()[1..]);
        add("alg twice", Kind::Foreign, self.text(&twice, &self.claims.to_string()));

        // Times.
        for (name, end, kind) in [
            ("ended three days ago", json!(now - 3 * 86_400), Kind::Other),
            ("ended in 1970", json!(0), Kind::Other),
            ("exp missing", Value::Null, Kind::Foreign),
            ("exp a text", json!((now + 60).to_string()), Kind::Foreign),
            ("exp a fraction", json!(now as f64 + 60.5), Kind::Foreign),
            ("exp negative", json!(-1), Kind::Foreign),
            ("exp true", json!(true), Kind::Foreign),
            ("exp 1e30", json!(1e30), Kind::Foreign),
        ] {
            add(name, kind, self.with_claim("exp", end));
        }
        add("nbf a minute ahead", Kind::Other, self.with_claim("nbf", json!(now + 60)));
        add("nbf a text", Kind::Foreign, self.with_claim("nbf", json!("x")));
        add("iat missing", Kind::Foreign, self.with_claim("iat", Value::Null));
        add("iat a text", Kind::Foreign, self.with_claim("iat", json!("now")));

        // For whom, from whom, whose.
        let aud = self.claims["aud"].as_str().unwrap();
        for (name, value, kind) in [
            ("aud missing", Value::Null, Kind::Foreign),
            ("aud a list of the right one", json!([aud]), Kind::Foreign),
            ("aud a list of all", json!(["mykube", "devices", "daemon", "browser"]), Kind::Foreign),
            ("aud another class", json!(if aud == "mykube" { "daemon" } else { "mykube" }), Kind::Other),
            ("aud in capitals", json!(aud.to_uppercase()), Kind::Other),
            ("aud and a space", json!(format!("{aud} ")), Kind::Other),
            ("aud empty", json!(""), Kind::Other),
        ] {
            add(name, kind, self.with_claim("aud", value));
        }
        for (name, value) in [
            ("iss missing", Value::Null),
            ("iss another relay", json!("https://evil.example")),
            ("iss with a path", json!(format!("{URL}/"))),
            ("iss in capitals", json!(URL.to_uppercase())),
            ("iss a list", json!([URL])),
        ] {
            add(name, Kind::Foreign, self.with_claim("iss", value));
        }
        for claim in ["sub", "jti", "sid", "auth_time", "email", "userId"] {
            add(&format!("{claim} missing"), Kind::Foreign, self.with_claim(claim, Value::Null));
            add(&format!("{claim} a list"), Kind::Foreign, self.with_claim(claim, json!([self.claims[claim]])));
        }
        add("sub an address", Kind::Foreign, self.with_claim("sub", json!("alice@example.com")));
        for claim in ["sub", "aud", "exp", "iss", "sid"] {
            let twice = format!("{{\"{claim}\":{},{}", self.claims[claim], &self.claims.to_string()[1..]);
            add(&format!("{claim} twice"), Kind::Foreign, self.text(&self.header().to_string(), &twice));
        }

        // Forms.
        let parts: Vec<_> = good.split('.').collect();
        let long = self.with_claim("email", json!("x".repeat(8192)));
        add("8 KiB of address", Kind::Foreign, long);
        add("claims that are a list", Kind::Foreign, self.text(&self.header().to_string(), "[]"));
        add("claims that are no JSON", Kind::Foreign, self.text(&self.header().to_string(), "x"));
        add("claims and more", Kind::Foreign, self.text(&self.header().to_string(), &format!("{} x", self.claims)));
        for (name, token) in [
            ("two parts", format!("{}.{}", parts[0], parts[1])),
            ("four parts", format!("{good}.x")),
            ("a part more before", format!("x.{good}")),
            ("dots", "..".to_owned()),
            ("no header", format!(".{}.{}", parts[1], parts[2])),
            ("no claims", format!("{}..{}", parts[0], parts[2])),
            ("a space within", format!("{}. {}.{}", parts[0], parts[1], parts[2])),
            ("a tab within", good.replacen('.', "\t.", 1)),
            ("twice", format!("{good}{good}")),
            (
                "padded",
                own.split('.')
                    .map(|part| BASE64URL.encode(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()))
                    .collect::<Vec<_>>()
                    .join(".")
                    + "=",
            ),
            ("half of it", good[..good.len() / 2].to_owned()),
            ("less its last letter", good[..good.len() - 1].to_owned()),
            ("its last letter another with the same bytes", other_bits(good)),
            (
                "its claims another's",
                format!(
                    "{}.{}.{}",
                    parts[0],
                    encode(&with(self.claims.clone(), "email", json!("eve@example.com")).to_string()),
                    parts[2]
                ),
            ),
            ("quoted", format!("\"{good}\"")),
        ] {
            add(name, Kind::Foreign, token);
        }
        let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
        for at in [0, signature.len() / 2, signature.len() - 1] {
            let mut flipped = signature.clone();
            flipped[at] ^= 1;
            let token = format!("{}.{}.{}", parts[0], parts[1], BASE64URL_NOPAD.encode(&flipped));
            add(&format!("a bit of its signature, in byte {at}"), Kind::Foreign, token);
        }
        let standard = |text: &str| BASE64_NOPAD.encode(text.as_bytes());
        let questions = with(self.claims.clone(), "email", json!("?".repeat(9))).to_string();
        let message = format!("{}.{}", encode(&self.header().to_string()), standard(&questions));
        add("the other alphabet", Kind::Foreign, sign(hmac::HMAC_SHA256, &self.key, &message));
        all
    }
}

/// 32 bytes are 43 letters, whose last has two bits that say nothing.
fn other_bits(token: &str) -> String {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = token.split_at(token.len() - 1);
    let at = LETTERS.find(last).unwrap();
    format!("{rest}{}", &LETTERS[at ^ 1..][..1])
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    if new.is_null() {
        value.as_object_mut().unwrap().remove(name);
    } else {
        value[name] = new;
    }
    value
}

async fn signed_in(site: &Site, path: &str) -> Answer {
    let body = json!({"email": "alice@example.com", "secret": SECRET}).to_string();
    site.ask(request(Method::POST, path, &[("content-type", "application/json")], &body), anywhere()).await
}

/// A good token of this class.
async fn good(site: &Site, class: Class) -> String {
    let daemon = signed_in(site, "/auth/dev/token").await.json()["token"].as_str().unwrap().to_owned();
    site.token(class, &daemon)
}

async fn show(site: &Site, (route, from, _): (&str, From, Class), token: &str) -> Answer {
    let (method, path) = call_of(route);
    let (bearer, cookie) = (bearer(token), format!("lukan_token={token}"));
    let mut headers = vec![("content-type", "application/json")];
    match from {
        From::Bearer => headers.push(("authorization", &bearer)),
        // A known page of another origin has this cookie alone.
        From::Cookie => headers.extend([("cookie", &*cookie), ("origin", "https://console.example")]),
        From::Body => {}
    }
    let mut body = match from {
        From::Body => json!({"jwt": token}),
        _ => json!({"email": "eve@example.com", "secret": SECRET}),
    };
    if path == "/auth/device/verify" {
        let code = site.ask(request(Method::POST, "/auth/device", &[], ""), anywhere()).await;
        // The secret would open it without a cookie, and does not beside one that is wrong.
        body["userCode"] = code.json()["userCode"].clone();
    }
    let body = if method == Method::GET { String::new() } else { body.to_string() };
    site.ask(request(method, &path, &headers, &body), anywhere()).await
}

#[tokio::test]
async fn no_token_that_is_not_quite_this_relays_opens_anything() {
    // The same key at every run: its id has letters.
    let site = Site::with_keys(settings(), Keys::from_configured(&[7; 32]).unwrap()).await;
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut order = Vec::new();
    for place in PLACES {
        let (route, from, class) = place;
        // What ends a sign-in has one of its own each time.
        let ends = ["POST /auth/logout", "POST /auth/dev", "POST /auth/revoke"].contains(&route);
        let mut token = good(&site, class).await;
        let names: Vec<_> = Smith::new(&site, &token).all(&token).iter().map(|forged| forged.name.clone()).collect();
        for name in names {
            if ends {
                token = good(&site, class).await;
            }
            let forged = Smith::new(&site, &token).all(&token).into_iter().find(|forged| forged.name == name).unwrap();
            let answer = show(&site, place, &forged.token).await;
            let lives = site.portal.shared().verify(&token, &[class]).is_ok();
            let cell = match route {
                // These answer alike; what counts is whether they end the sign-in.
                "POST /auth/logout" | "POST /auth/dev" => {
                    assert_eq!(answer.status, StatusCode::OK, "{route}: {name}");
                    assert_eq!(!lives, forged.kind == Kind::Good, "{route}: {name}");
                    if lives { "nothing ends" } else { "ends" }.to_owned()
                }
                "POST /auth/revoke" => {
                    let counts = forged.kind != Kind::Foreign;
                    assert_eq!(
                        answer.status.as_u16(),
                        if counts { 200 } else { 401 },
                        "{route}: {name}: {}",
                        answer.body
                    );
                    answer.status.as_u16().to_string()
                }
                _ => {
                    let opens = forged.kind == Kind::Good;
                    assert_eq!(
                        answer.status.as_u16(),
                        if opens { 200 } else { 401 },
                        "{route}: {name}: {}",
                        answer.body
                    );
                    assert!(lives && answer.cookies().is_empty(), "{route}: {name}");
                    answer.status.as_u16().to_string()
                }
            };
            assert!(!answer.body.contains(&forged.token) || forged.token.len() < 8, "{route}: {name} is in the answer");
            if !rows.contains_key(&name) {
                order.push(name.clone());
            }
            rows.entry(name.clone()).or_insert_with(|| vec![name]).push(cell);
        }
        assert!(from != From::Bearer || route.contains("/v1/"));
    }
    let rows: Vec<_> = order.iter().map(|name| rows[name].iter().map(|cell| cell.replace('|', "")).collect()).collect();
    let head: Vec<_> = std::iter::once("token").chain(PLACES.map(|(route, ..)| route)).collect();
    write("forged", "What each call answers to tokens that are not quite this relay's", &head, &rows);
}

/// A call that the class table says is opened by one and not by another takes tokens: it stands here, or is the portal's own
/// cookie's.
#[test]
fn every_call_that_takes_a_token_is_shown_forged_ones() {
    for (call, cells) in classes::ROWS {
        let opens = |cell: &u16| *cell < 300;
        let differ = |cells: &[u16]| cells.iter().any(|cell| opens(cell) != opens(&cells[0]));
        // Column 9 and 10 have the portal's own cookie.
        let others = [&cells[..9], &cells[11..]].concat();
        // It asks for its token as `GET /v1/agents` does, and could make an agent of a name once.
        if differ(&others) && call != "POST /v1/agents" {
            assert!(PLACES.iter().any(|(route, ..)| *route == call), "{call} takes tokens");
        }
    }
}

/// Tokens as published relays make them, signed with the very secret that stands in `JWT_SECRET` here.
#[tokio::test]
async fn a_token_of_a_published_relay_is_nobodys_here_though_the_secret_is_the_same() {
    const BASE: &str = "a-secret-of-a-published-relay-that-moved-here";
    let site = Site::with_keys(settings(), Keys::from_configured(BASE.as_bytes()).unwrap()).await;
    let ours = good(&site, Class::Browser).await;
    let smith = Smith::new(&site, &ours);
    let now = clock().secs();
    let header = json!({"typ": "JWT", "alg": "HS256"});
    let (sub, email) = (&smith.claims["sub"], &smith.claims["email"]);
    let lukan = json!({"sub": sub, "email": email, "iat": now, "exp": now + 86_400});
    let utter = json!({"userId": email, "iat": now, "exp": now + 86_400});
    for key in [BASE.to_owned(), format!("{BASE}:browser:{}", "0b7ad7a1-5c5f-4d0c-8a1a-3a5b9f0c6f5e")] {
        // The last two are what a relay like this one would sign, with its key taken as it stands.
        for (header, claims) in
            [(&header, &lukan), (&header, &utter), (&header, &smith.claims), (&smith.header(), &smith.claims)]
        {
            let message = format!("{}.{}", encode(&header.to_string()), encode(&claims.to_string()));
            let token = sign(hmac::HMAC_SHA256, key.as_bytes(), &message);
            for place in
                PLACES.into_iter().filter(|(route, ..)| !["POST /auth/logout", "POST /auth/dev"].contains(route))
            {
                let answer = show(&site, place, &token).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}: {claims}", place.0);
            }
        }
    }
    assert_eq!(show(&site, PLACES[3], &ours).await.status, StatusCode::OK, "its own is taken");
}
