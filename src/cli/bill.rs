//! A bill as text and as JSON: device by device, part by part.

use std::collections::BTreeMap;

use serde::Serialize;

use super::table::{Cell, Column, Table};
use super::text::{safe, thousands};
use super::words::RAM;
use crate::memory::{Basis, Bill, Line, Pool};
use crate::units::Bytes;

/// One pool of a bill, for JSON.
#[derive(Debug, Serialize)]
pub(super) struct PoolForm {
    name: String,
    bytes: Bytes,
    parts: BTreeMap<&'static str, Bytes>,
}

/// Returns the bill as a table; `gpus` are the names its pools refer to.
pub(super) fn render(bill: &Bill, gpus: &[String], columns: Option<usize>) -> String {
    let mut table = Table::new([
        Column::left("").elastic(),
        Column::right(""),
        Column::right("").leaves(2),
        Column::left("").leaves(1),
    ]);
    for pool in pools(bill) {
        table.row([Cell::from(name(pool, gpus)), Cell::default(), Cell::default(), Cell::default()]);
        for line in lines(bill, pool) {
            let part = format!("  {}", line.part.name());
            table.row([part.into(), size(line.bytes), exact(line.bytes), basis(line.basis).into()]);
        }
        let total = bill.pool(pool);
        table.row(["  total".into(), size(total), exact(total), Cell::default()]);
    }
    let total = bill.total();
    table.row(["all together".into(), size(total), exact(total), Cell::default()]);
    table.render(columns)
}

/// Returns the bill pool by pool.
pub(super) fn forms(bill: &Bill, gpus: &[String]) -> Vec<PoolForm> {
    let form = |pool| {
        let mut parts = BTreeMap::new();
        for line in lines(bill, pool) {
            let part: &mut Bytes = parts.entry(line.part.name()).or_default();
            *part = part.saturating_add(line.bytes);
        }
        PoolForm { name: name(pool, gpus), bytes: bill.pool(pool), parts }
    };
    pools(bill).into_iter().map(form).collect()
}

/// Returns the pools that a bill names, GPUs first.
fn pools(bill: &Bill) -> Vec<Pool> {
    let mut pools: Vec<Pool> = bill.lines.iter().map(|line| line.pool).collect();
    pools.sort();
    pools.dedup();
    pools
}

/// Returns the lines of a pool, the largest kinds first as the parts are listed.
fn lines(bill: &Bill, pool: Pool) -> Vec<&Line> {
    let mut lines: Vec<&Line> = bill.lines.iter().filter(|line| line.pool == pool).collect();
    lines.sort_by_key(|line| (line.part, line.basis));
    lines
}

fn name(pool: Pool, gpus: &[String]) -> String {
    match pool {
        Pool::Host => RAM.into(),
        Pool::Gpu(index) => match gpus.get(usize::from(index)) {
            Some(name) => safe(name).into_owned(),
            None => format!("GPU {index}"),
        },
    }
}

fn size(bytes: Bytes) -> Cell {
    Cell::from(bytes.to_string())
}

fn exact(bytes: Bytes) -> Cell {
    Cell::from(thousands(bytes.0))
}

const fn basis(basis: Basis) -> &'static str {
    match basis {
        Basis::Exact => "exact",
        Basis::Measured => "measured",
        Basis::Formula => "formula",
        Basis::Guess => "guess",
    }
}
