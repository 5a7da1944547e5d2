//! Hellos that break the rules, on both sides: each is refused with a reason, costs no tag and counts as no wrong secret.

use bytes::BytesMut;
use mykube_tunnel::{HandshakeError, protocol::limits};
use serde_json::{Value, json};

use crate::{
    adversary::{agent, agent_says, agent_says_to_frame, answer, at, client_says, did, greet, hello_agent, misbehaved},
    pair::{CODE, rng},
    second::{bytes_of, frame_of, json_of, text_of},
};

#[test]
fn no_common_version_says_so() {
    let version = |peer: &str| Err(HandshakeError::Version { peer: peer.into() });
    assert_eq!(client_says(&hello_agent(|hello| hello["versions"] = json!([1, 3]))), version("1, 3"));
    assert_eq!(client_says(&hello_agent(|hello| hello["versions"] = json!([]))), version("none"));
    assert_eq!(client_says(&hello_agent(|hello| hello["versions"] = json!([3, 2]))), Ok(()));
    assert_eq!(client_says(b"\x01{\"versions\":[3],\"all\":\"else is new\"}"), version("3"));
    assert_eq!(agent_says(|hello| hello["version"] = json!(3)), version("3"));
    let many = client_says(&hello_agent(|hello| hello["versions"] = json!(vec![7; 500])));
    assert_eq!(many, version("7, 7, 7, 7, 7, 7, 7, 7"));
}

#[test]
fn wrong_role_mode_and_session_are_refused_on_both_sides() {
    for (field, value, why) in [
        ("role", "client", "wrong role"),
        ("mode", "device", "a mode other than pairing by code"),
        ("session_id", "08080808080808080808080808080808", "a hello of another session"),
    ] {
        assert_eq!(misbehaved(&client_says(&hello_agent(|hello| hello[field] = json!(value))).unwrap_err()), why);
    }
    for (field, value, why) in [
        ("role", "agent", "wrong role"),
        ("mode", "device", "a mode other than pairing by code"),
        ("session_id", "08080808080808080808080808080808", "a hello of another session"),
    ] {
        assert_eq!(misbehaved(&agent_says(|hello| hello[field] = json!(value)).unwrap_err()), why);
    }
}

#[test]
fn unknown_missing_doubled_and_malformed_fields_are_refused() {
    const MALFORMED: &str = "a hello with unknown, missing or malformed fields";
    let fields: Vec<String> = json_of(&hello_agent(|_| {})).as_object().unwrap().keys().cloned().collect();
    for field in fields {
        let without = hello_agent(|hello| drop(hello.as_object_mut().unwrap().remove(&field)));
        assert_eq!(misbehaved(&client_says(&without).unwrap_err()), MALFORMED, "{field} missing");
        let null = hello_agent(|hello| hello[&field] = Value::Null);
        assert_eq!(misbehaved(&client_says(&null).unwrap_err()), MALFORMED, "{field} null");
        // The first value again, under the same name.
        let hello = hello_agent(|_| {});
        let value = json_of(&hello)[&field].to_string();
        let doubled = [&hello[..hello.len() - 1], format!(",\"{field}\":{value}}}").as_bytes()].concat();
        assert_eq!(misbehaved(&client_says(&doubled).unwrap_err()), MALFORMED, "{field} twice");
    }
    for field in ["version", "session_id", "role", "mode", "x25519", "mlkem768", "spake2", "verify"] {
        let missing = agent_says(|hello| drop(hello.as_object_mut().unwrap().remove(field)));
        assert_eq!(misbehaved(&missing.unwrap_err()), MALFORMED, "{field} missing");
    }
    assert!(client_says(&hello_agent(|hello| hello["extra"] = json!(1))).is_err());
    assert!(agent_says(|hello| hello["extra"] = json!(1)).is_err());
    for (field, bad) in [
        ("x25519", json!("AAAA")),
        ("x25519", json!("*")),
        ("commit", json!(text_of(&[0; 33]))),
        ("verify", json!("yes")),
        ("verify", json!(1)),
        ("versions", json!(2)),
        ("session_id", json!("07070707070707070707070707070707 ")),
    ] {
        assert!(client_says(&hello_agent(|hello| hello[field] = bad)).is_err(), "{field}");
    }
    // Padded and standard base64, trailing bits, an array in place of the object, something after it.
    let hello = hello_agent(|_| {});
    let key = json_of(&hello)["x25519"].as_str().unwrap().to_owned();
    assert!(client_says(&hello_agent(|hello| hello["x25519"] = json!(format!("{key}=")))).is_err());
    let last = key.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() | 1).unwrap();
    let trailing = format!("{}{next}", &key[..key.len() - 1]);
    assert!(client_says(&hello_agent(|hello| hello["x25519"] = json!(trailing))).is_err());
    let values: Vec<Value> =
        ["versions", "session_id", "role", "mode", "x25519", "mlkem768", "spake2", "commit", "verify"]
            .map(|field| json_of(&hello)[field].clone())
            .to_vec();
    assert!(client_says(&frame_of(1, &Value::Array(values))).is_err());
    assert!(client_says(&[&hello[..], b"{}"].concat()).is_err());
    for frame in [&b""[..], b"\x01", b"\x01{}", b"\x02{}", b"\x05", b"\xff", b"\x01\xff\xfe"] {
        assert!(client_says(frame).is_err());
    }
}

#[test]
fn over_long_hellos_are_refused() {
    let pad = |hello: &[u8], len: usize| [hello, &vec![b' '; len - hello.len()]].concat();
    let hello = hello_agent(|_| {});
    assert_eq!(client_says(&pad(&hello, limits::HELLO_MAX + 1)), Ok(()));
    let long = pad(&hello, limits::HELLO_MAX + 2);
    assert_eq!(misbehaved(&client_says(&long).unwrap_err()), "a hello of more than 8 KiB");
    let long = agent_says_to_frame(|hello| pad(hello, limits::HELLO_MAX + 2));
    assert_eq!(misbehaved(&long.unwrap_err()), "a hello of more than 8 KiB");
}

#[test]
fn x25519_keys_of_small_order_are_refused() {
    // Every point of small order on the curve and its twist, canonical or not (RFC 7748 section 6.1, Cr.yp.to/ecdh.html).
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        for high_bit in [0, 0x80] {
            let mut point = data_encoding::HEXLOWER.decode(point.as_bytes()).unwrap();
            point[31] |= high_bit;
            let why = client_says(&hello_agent(|hello| hello["x25519"] = text_of(&point))).unwrap_err();
            assert_eq!(misbehaved(&why), "an X25519 key of small order");
            let why = agent_says(|hello| hello["x25519"] = text_of(&point)).unwrap_err();
            assert_eq!(misbehaved(&why), "an X25519 key of small order");
        }
    }
}

#[test]
fn ml_kem_input_that_fails_fips_203_is_refused() {
    // The modulus check of section 7.2: a coefficient of 3329 or more, twelve bits each.
    let ek = bytes_of(&json_of(&hello_agent(|_| {})), "mlkem768");
    for (position, low, high) in [(0, 0x01, 0x0d), (0, 0xff, 0x0f), (1149, 0x01, 0x0d)] {
        let mut ek = ek.clone();
        ek[position] = low;
        ek[position + 1] = (ek[position + 1] & 0xf0) | high;
        let why = client_says(&hello_agent(|hello| hello["mlkem768"] = text_of(&ek))).unwrap_err();
        assert_eq!(misbehaved(&why), "an ML-KEM-768 key that fails FIPS 203's check");
    }
    for len in [0, 1183, 1185, 1088, 800] {
        assert!(client_says(&hello_agent(|hello| hello["mlkem768"] = text_of(&vec![0; len]))).is_err());
    }
    for len in [0, 1087, 1089, 1184] {
        assert!(agent_says(|hello| hello["mlkem768"] = text_of(&vec![0; len])).is_err());
    }
    // A ciphertext of the right length that was made for another key: implicit rejection, so only the tag fails.
    let (mut agent, rng) = (agent(), &mut rng(18));
    let hello = greet(&mut agent, at(0), 1, rng);
    let (_, hello_client, record) = answer(CODE, &hello, rng);
    let mut value = json_of(&hello_client);
    value["mlkem768"] = text_of(&[7; 1088]);
    agent.handle_frame(at(0), BytesMut::from(&frame_of(2, &value)[..]));
    agent.handle_frame(at(0), record);
    assert_eq!(did(&mut agent).refused, [(HandshakeError::WrongCode, 2)]);
}

#[test]
fn spake2_garbage_is_refused() {
    const NO_ELEMENT: &str = "a SPAKE2 message that is no group element";
    let good = bytes_of(&json_of(&hello_agent(|_| {})), "spake2");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bad = good.clone();
        change(&mut bad);
        text_of(&bad)
    };
    // y = 2 is not on the curve; the sides are A, B and S.
    let mut off_curve = vec![0x41; 1];
    off_curve.extend([2]);
    off_curve.extend([0; 31]);
    for bad in [text_of(&off_curve), with(&|m| m[0] = b'B'), with(&|m| m[0] = b'S'), with(&|m| m[0] = 0)] {
        let why = client_says(&hello_agent(|hello| hello["spake2"] = bad.clone())).unwrap_err();
        assert_eq!(misbehaved(&why), NO_ELEMENT);
        let why = agent_says(|hello| hello["spake2"] = with(&|m| m[0] = b'A')).unwrap_err();
        assert_eq!(misbehaved(&why), NO_ELEMENT);
    }
    for bad in [with(&|m| m.truncate(32)), with(&|m| m.push(0)), text_of(&[])] {
        assert!(client_says(&hello_agent(|hello| hello["spake2"] = bad.clone())).is_err());
    }
}
