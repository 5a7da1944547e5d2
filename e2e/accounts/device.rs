//! `mykube login --device`.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Answer, Laptop, StandIn, json_answer, signed_in};

const POLL: &str = "POST /auth/device/poll";

fn status(status: &str) -> Answer {
    json_answer(200, &json!({ "status": status }))
}

#[test]
fn it_is_asked_for_through_limits_and_outages() {
    let relay = StandIn::start(|asked, own| {
        (asked.call == POLL).then(|| match asked.before {
            0 => status("pending"),
            1 => Answer::Bytes(b"HTTP/1.1 429 X\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n".to_vec()),
            // A restart: the connection ends, then a proxy answers in its place.
            2 => Answer::Bytes(Vec::new()),
            3 => Answer::Bytes(b"HTTP/1.1 502 X\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno".to_vec()),
            4 => status("pending"),
            _ => {
                let mut given = signed_in(own, "device");
                given["status"] = "authorized".into();
                json_answer(200, &given)
            }
        })
    });
    let laptop = Laptop::new();
    // By its other name, too.
    let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--remote"]).start();
    let code = login.event("device_code");
    assert_eq!((&code["user_code"], &code["url"]), (&"ABCD-EFGH".into(), &format!("{}/device", relay.url).into()));
    let done = login.process.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(done.stderr.matches("trying again while the code is good").count(), 2, "{}", done.stderr);
    assert!(!done.stderr.contains("device-code") && !done.stderr.contains("refresh-device"), "{}", done.stderr);
    let begun = relay.calls("POST /auth/device")[0].json();
    assert_eq!(begun["client"], "mykube");
    let polls: Vec<Value> = relay.calls(POLL).iter().map(|asked| asked.json()).collect();
    assert!(polls.iter().all(|poll| poll["deviceCode"] == "device-code" && poll["sig"].is_string()), "{polls:?}");
    assert_eq!(laptop.credentials()["refresh_token"], "refresh-device");
}

#[test]
fn a_code_that_is_over_or_refused_is_told() {
    for (said, words) in [("expired", "this code is over"), ("denied", "said no"), ("later", "not the JSON")] {
        let relay = StandIn::start(move |asked, _| {
            (asked.call == POLL).then(|| if asked.before == 0 { status(said) } else { status("expired") })
        });
        let login = Laptop::new().mykube("login").args(["--relay-url", &relay.url, "--device"]).start();
        if said == "later" {
            // Something else may answer in its place for a while.
            login.process.says(words);
            login.failed(1, &["this code is over"]);
        } else {
            login.failed(1, &[words]);
        }
    }
}

#[test]
fn a_sign_in_that_comes_after_ctrl_c_is_given_back() {
    let relay = StandIn::start(|asked, own| {
        (asked.call == POLL).then(|| {
            let mut given = signed_in(own, "late");
            given["status"] = "authorized".into();
            match asked.before {
                0 => Answer::Held(Box::new(json_answer(200, &given))),
                _ => status("expired"),
            }
        })
    });
    let laptop = Laptop::new();
    let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--device"]).start();
    relay.wait(POLL, 1);
    login.process.signal(Signal::INT);
    login.process.says("the answer to the last question is awaited");
    relay.go_on();
    login.failed(1, &["nothing has changed"]);
    assert_eq!(relay.calls("POST /auth/revoke")[0].json(), json!({"refresh_token": "refresh-late"}));
    laptop.mykube("whoami").args(["--relay-url", &relay.url]).fails(1, &["you are not signed in"]);
}
