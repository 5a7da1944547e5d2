//! The table of results: fault by operation, as JSON and as Markdown.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use serde_json::{Value, json};

use super::operations::Outcome;

/// One operation under one fault.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) operation: &'static str,
    pub(super) outcome: Outcome,
    /// Time from when the network was whole until something arrived.
    pub(super) again: Option<Duration>,
    /// The longest time without an arrival.
    pub(super) gap: Duration,
    /// What is wrong with it.
    pub(super) wrong: Option<String>,
}

/// One fault in one mode.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) mode: &'static str,
    pub(super) fault: String,
    pub(super) cells: Vec<Cell>,
    /// Failures before or besides the operations.
    pub(super) wrong: Option<String>,
    /// The client's `lost` and `back` events.
    pub(super) outages: Vec<Value>,
    pub(super) took: Duration,
}

impl Row {
    pub(super) fn failures(&self) -> Vec<String> {
        let here = |what: &str, why: &str| format!("{} mode, {}: {what}: {why}", self.mode, self.fault);
        let cells = self.cells.iter().filter_map(|cell| Some(here(cell.operation, cell.wrong.as_ref()?)));
        cells.chain(self.wrong.iter().map(|why| here("all", why))).collect()
    }

    /// One line, with the failures.
    pub(super) fn summary(&self) -> String {
        let failures: String = self.failures().iter().map(|failure| format!("\n  {failure}")).collect();
        format!("{} mode, {}: took {} s{failures}", self.mode, self.fault, self.took.as_secs())
    }

    fn json(&self) -> Value {
        let cells: Vec<_> = self.cells.iter().map(Cell::json).collect();
        json!({
            "mode": self.mode, "fault": self.fault, "operations": cells, "wrong": self.wrong, "outages": self.outages,
            "took_s": self.took.as_secs_f64(),
        })
    }
}

impl Cell {
    fn json(&self) -> Value {
        json!({
            "operation": self.operation, "survived": self.outcome.complete, "bytes_lost": self.outcome.lost,
            "bytes_doubled": self.outcome.doubled, "exit_code": self.outcome.code, "said": self.outcome.said,
            "seconds_to_flow": self.again.map(|it| it.as_secs_f64()), "longest_gap_s": self.gap.as_secs_f64(),
            "wrong": self.wrong,
        })
    }

    fn text(&self) -> String {
        let outcome = &self.outcome;
        let word = match (outcome.complete, outcome.code) {
            (true, _) => match self.again {
                Some(again) => format!("{:.2} s", again.as_secs_f64()),
                None => "survived".into(),
            },
            (false, Some(code)) => format!("ended ({code})"),
            (false, None) if outcome.said.starts_with("hangs") => "hung".into(),
            (false, None) => "failed".into(),
        };
        match (outcome.lost, outcome.doubled) {
            (0, 0) => word,
            (lost, doubled) => format!("{word}, {lost} B lost, {doubled} B doubled"),
        }
    }
}

/// Writes `target/NAME.json` and `target/NAME.md`, and returns the latter. Says so if rows are missing.
pub(super) fn write(name: &str, rows: &BTreeMap<usize, Row>, all: usize) -> String {
    let mut table = String::new();
    if rows.len() < all {
        let _ = writeln!(table, "{} of {all} rows: the others were not over when this was written.", rows.len());
    }
    for mode in ["guarded", "shared", "bore", "kubectl alone"] {
        let rows: Vec<_> = rows.values().filter(|row| row.mode == mode).collect();
        let Some(widest) = rows.iter().max_by_key(|row| row.cells.len()) else { continue };
        let operations: Vec<_> = widest.cells.iter().map(|cell| cell.operation).collect();
        let _ = writeln!(table, "\n| {mode} | {} |", operations.join(" | "));
        let _ = writeln!(table, "| --- |{}", " --- |".repeat(operations.len()));
        for row in rows {
            let text = |operation: &&str| {
                row.cells.iter().find(|cell| cell.operation == *operation).map_or("-".into(), Cell::text)
            };
            let cells: Vec<_> = operations.iter().map(text).collect();
            let _ = writeln!(table, "| {} | {} |", row.fault, cells.join(" | "));
        }
    }
    let rows: Vec<_> = rows.values().map(Row::json).collect();
    keep(&format!("{name}.json"), &format!("{:#}\n", json!(rows)));
    keep(&format!("{name}.md"), &table);
    table
}

/// Writes a process's output to `target/e2e-faults-logs`.
pub(super) fn keep_log(name: &str, text: &str) {
    keep(&format!("e2e-faults-logs/{name}.log"), text);
}

/// Writes a file below `target`.
pub(super) fn keep(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join(name);
    std::fs::create_dir_all(path.parent().expect("a directory")).and_then(|()| std::fs::write(path, text)).unwrap();
}
