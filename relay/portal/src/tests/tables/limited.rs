//! Every call to its figure and one over it, on the clock that the test sets.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::limits::call;

#[tokio::test]
async fn each_call_has_its_figure_and_the_next_one_waits_as_long_as_it_is_told() {
    let site = Site::new(settings()).await;
    let mut rows = Vec::new();
    let nowhere = ["GET /nothing", "POST /nothing", "GET /v1/nothing"].map(str::to_owned);
    for route in routes(&site).into_iter().chain(nowhere) {
        let (method, path) = call_of(&route);
        let Some(limited) = call(&method, &path) else {
            assert_eq!(path, "/health", "what is asked without a limit");
            rows.push(vec![route, "none".to_owned(), String::new()]);
            continue;
        };
        let limit = limited.limit();
        let from = anywhere();
        let ask = async || {
            let headers = [("content-type", "application/json"), ("origin", URL)];
            site.ask(request(method.clone(), &path, &headers, "{}"), from).await
        };
        for n in 0..limit.address {
            let answer = ask().await;
            assert_ne!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{route}: the one after {n}");
        }
        let over = ask().await;
        assert_eq!(over.status, StatusCode::TOO_MANY_REQUESTS, "{route}: over {}", limit.address);
        let told: u64 = over.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!(told <= limit.per.as_secs() + 1, "{route}: {told}");
        wait(Duration::from_secs(told.saturating_sub(3)));
        assert_eq!(ask().await.status, StatusCode::TOO_MANY_REQUESTS, "{route}: earlier than it was told");
        wait(Duration::from_secs(3));
        assert_ne!(ask().await.status, StatusCode::TOO_MANY_REQUESTS, "{route}: after the time that it was told");
        rows.push(vec![route, limit.address.to_string(), limit.per.as_secs().to_string()]);
    }
    let title = "How often one address may call, each walked to its figure and one over it";
    write("limits", title, &["call", "times", "seconds"], &rows);
}

/// `| calls | figures | ...`: one figure of all of them, or one each; a path without a method has the one before it.
#[test]
fn the_documented_figures_are_these() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/accounts.md")).unwrap();
    let (_, docs) = docs.split_once("\n## Calls\n").unwrap();
    let mut told = BTreeMap::new();
    let rows = docs.lines().filter(|line| line.starts_with("| `GET /") || line.starts_with("| `POST /"));
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let figures: Vec<u32> = cells[2].split(", ").filter_map(|figure| figure.parse().ok()).collect();
        let mut method = "";
        for (n, call) in cells[1].split(", ").map(|call| call.trim_matches('`')).enumerate() {
            let (its, path) = call.split_once(' ').unwrap_or((method, call));
            method = its;
            told.insert(format!("{method} {path}"), figures.get(n).or(figures.first()).copied());
        }
    }
    assert!(told.len() >= 13, "{told:?}");
    for (route, figure) in &told {
        let (method, path) = call_of(route);
        let limit = call(&method, &path).filter(|call| call.limit().per == Duration::from_mins(1));
        assert_eq!(limit.map(|call| call.limit().address), *figure, "{route}");
    }
}
