//! Which way a request came: 401 where it got as far as being asked who it is, 403 where it did not.

use super::*;

async fn status(site: &Site, address: [u8; 4], headers: &[(&str, &str)]) -> u16 {
    let arrival = Arrival { address: address.into(), is_private: false };
    site.ask(request(Method::GET, "/auth/status", headers, ""), arrival).await.status.as_u16()
}

#[tokio::test]
async fn a_proxy_that_nobody_declared_is_refused() {
    let site = Site::new(Settings { dev: None, ..settings() }).await;
    assert_eq!(status(&site, [127, 0, 0, 1], &[]).await, 401);
    assert_eq!(status(&site, [192, 0, 2, 1], &[]).await, 403);
    for name in ["x-forwarded-for", "forwarded", "via", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"] {
        assert_eq!(status(&site, [127, 0, 0, 1], &[(name, "x")]).await, 403, "{name}");
        // One that is declared names who asks.
        assert_eq!(site.get("/auth/status", &[(name, "x")]).await.status, 401, "{name}");
    }
}

#[tokio::test]
async fn dev_mode_is_reached_by_the_names_of_this_machine_alone() {
    let site = Site::new(settings()).await;
    for host in ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000"] {
        assert_eq!(status(&site, [127, 0, 0, 1], &[("host", host)]).await, 401, "{host}");
    }
    for host in ["relay.example", "relay.example:8000", "127.0.0.1.relay.example", "192.0.2.1", ""] {
        assert_eq!(status(&site, [127, 0, 0, 1], &[("host", host)]).await, 403, "{host}");
        assert_eq!(site.get("/auth/status", &[("host", host)]).await.status, 403, "over TLS too: {host}");
    }
    let site = Site::new(Settings { dev: None, ..settings() }).await;
    assert_eq!(status(&site, [127, 0, 0, 1], &[("host", "relay.example")]).await, 401);
}
