//! Load passes through the stand-ins for kubectl and the API server unchanged.

use std::{fs, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mykube_lab::{
    load::{Direction, Load, Target},
    stand_in::{Api, Authority, How, User},
};

use super::{LIMIT, loopback};

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn load_passes_as_upgraded_streams_and_as_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let authority = Authority::new("test").unwrap();
    let signed = authority.sign(&["127.0.0.1".into()]).unwrap();
    fs::write(path("cert.pem"), &signed.certificate).unwrap();
    fs::write(path("key.pem"), &signed.key).unwrap();
    let target = Target::start(loopback()).unwrap();
    let api = Api::start(loopback(), target.address(), &path("cert.pem"), &path("key.pem")).unwrap();
    let data = |pem: &str| BASE64_STANDARD.encode(pem);
    let kubeconfig = serde_json::json!({
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{}", api.address()), "certificate-authority-data": data(&authority.pem()),
        }}],
        "users": [{"name": "u", "user": {
            "client-certificate-data": data(&signed.certificate), "client-key-data": data(&signed.key),
        }}],
    });
    fs::write(path("kubeconfig"), kubeconfig.to_string()).unwrap();
    for how in [How::Upgrade, How::Bodies] {
        let user = User::start(loopback(), &path("kubeconfig"), how).unwrap();
        let load = Load::new(user.address(), &target, Vec::new(), LIMIT);
        let integrity = load.integrity();
        assert!(integrity.same && integrity.complete && integrity.half_close, "{how:?}: {integrity:?}");
        for direction in [Direction::Down, Direction::Up] {
            let bulk = load.bulk(direction, 3, SHORT, SHORT);
            assert!(bulk.failed == 0 && bulk.mb_s > 0.0, "{how:?} {direction:?}: {bulk:?}");
            let stall = load.stall(direction, 4 * SHORT);
            assert!(stall.works_after && !stall.both.latency.hang, "{how:?} {direction:?}: {stall:?}");
        }
    }
}
