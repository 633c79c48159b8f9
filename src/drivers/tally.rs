//! The tables of a dump and their rows, counted in the stream itself: no question to the server, no load, and the
//! same snapshot as the dump.

use crate::model::{Manifest, TableRows};
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A database with more tables is backed up without a manifest: counting must not cost memory that grows with it.
const MAX_TABLES: usize = 50_000;

/// Of all their names together.
const MAX_NAMES_BYTES: usize = 4 * 1024 * 1024;

/// More differences help nobody.
const SHOWN_DIFFERENCES: usize = 5;

/// Every table with its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    rows: BTreeMap<String, u64>,
    names_bytes: usize,
    /// There were too many, or something that could not be read: what is counted is of no use.
    given_up: bool,
}

impl Tally {
    /// Counts rows of a table. The same table may come again.
    pub fn add(&mut self, name: &str, rows: u64) {
        if self.given_up {
            return;
        }
        if let Some(known) = self.rows.get_mut(name) {
            *known += rows;
            return;
        }
        self.names_bytes += name.len();
        if self.rows.len() >= MAX_TABLES || self.names_bytes > MAX_NAMES_BYTES {
            return self.give_up();
        }
        self.rows.insert(name.to_owned(), rows);
    }

    /// Leaves a table out of what is compared.
    pub fn forget(&mut self, name: &str) {
        self.rows.remove(name);
    }

    /// Whether the table was named before.
    pub fn knows(&self, name: &str) -> bool {
        self.rows.contains_key(name)
    }

    /// What was counted is not all.
    pub fn give_up(&mut self) {
        *self = Self { given_up: true, ..Self::default() };
    }

    /// It is: nothing of the dump was left out.
    pub fn is_whole(&self) -> bool {
        !self.given_up
    }

    /// Every table with its rows, by name.
    pub fn rows(&self) -> &BTreeMap<String, u64> {
        &self.rows
    }

    /// All rows.
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }

    /// What is recorded of it; None where not all was counted.
    pub fn manifest(&self) -> Option<Manifest> {
        if self.given_up {
            return None;
        }
        let mut digest = Context::new(&SHA256);
        for (name, rows) in &self.rows {
            digest.update(name.as_bytes());
            digest.update(format!("\0{rows}\n").as_bytes());
        }
        let mut largest: Vec<_> =
            self.rows.iter().map(|(name, rows)| TableRows { name: name.clone(), rows: *rows }).collect();
        largest.sort_by_key(|table| Reverse(table.rows));
        largest.truncate(Manifest::MAX_NAMED);
        let mut bytes = 0;
        largest.retain(|table| {
            bytes += table.name.len();
            bytes <= Manifest::MAX_NAMES_BYTES
        });
        Some(Manifest {
            tables: self.rows.len() as u64,
            rows: self.total(),
            digest: HEXLOWER.encode(digest.finish().as_ref()),
            largest,
        })
    }

    /// Where this one, called `here`, has something else than the manifest, called `there`; empty where it has the same.
    pub fn against(&self, manifest: &Manifest, here: &str, there: &str) -> Vec<String> {
        let Some(own) = self.manifest() else { return Vec::new() };
        if own.digest == manifest.digest {
            return Vec::new();
        }
        let mut found: Vec<String> = manifest
            .largest
            .iter()
            .filter_map(|table| {
                let rows = self.rows.get(&table.name).copied();
                (rows != Some(table.rows)).then(|| told(&table.name, Some(table.rows), there, rows, here))
            })
            .take(SHOWN_DIFFERENCES)
            .collect();
        if found.is_empty() {
            found.push(format!(
                "{} tables with {} rows in {there}, {} with {} in {here}",
                manifest.tables, manifest.rows, own.tables, own.rows
            ));
        }
        found
    }

    /// Where the other one, called `there`, has something else than this one, called `here`.
    pub fn differences(&self, other: &Self, here: &str, there: &str) -> Vec<String> {
        let mut names: Vec<&String> = self.rows.keys().chain(other.rows.keys()).collect();
        names.sort();
        names.dedup();
        let mut found = Vec::new();
        let mut more = 0_u64;
        for name in names {
            let (own, others) = (self.rows.get(name).copied(), other.rows.get(name).copied());
            if own == others {
                continue;
            }
            if found.len() < SHOWN_DIFFERENCES {
                found.push(told(name, own, here, others, there));
            } else {
                more += 1;
            }
        }
        if more > 0 {
            found.push(format!("and {more} tables more"));
        }
        found
    }
}

fn told(name: &str, rows: Option<u64>, here: &str, others: Option<u64>, there: &str) -> String {
    let count =
        |rows: Option<u64>| rows.map_or_else(|| "is not".to_owned(), |rows| format!("has {rows} rows"));
    format!("{name} {} in {here} and {} in {there}", count(rows), count(others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(tables: &[(&str, u64)]) -> Tally {
        let mut tally = Tally::default();
        tables.iter().for_each(|(name, rows)| tally.add(name, *rows));
        tally
    }

    #[test]
    fn the_digest_tells_every_difference_and_no_order() {
        let one = tally(&[("a", 1), ("b", 2), ("b", 3)]);
        let same = tally(&[("b", 5), ("a", 1)]);
        let manifest = one.manifest().unwrap();
        assert_eq!(Some(&manifest), same.manifest().as_ref());
        assert_eq!((manifest.tables, manifest.rows), (2, 6));
        assert_eq!(manifest.largest[0], TableRows { name: "b".into(), rows: 5 });
        // By Python's hashlib, of b"a\x001\nb\x005\n".
        assert_eq!(manifest.digest, "f23e4e0b3744be620d7e2042cd1d33b88c96c9d74b1f3d82f0c9546c56b309d0");
        for other in [&[("a", 1), ("b", 4)][..], &[("a", 1)], &[("a", 1), ("b", 5), ("c", 0)]] {
            let other = tally(other);
            assert_ne!(other.manifest().unwrap().digest, manifest.digest);
            assert_eq!(other.against(&manifest, "the dump", "the manifest").len(), 1);
            assert_eq!(one.differences(&other, "the dump", "the server").len(), 1);
        }
        assert!(same.against(&manifest, "x", "y").is_empty() && one.differences(&same, "x", "y").is_empty());
        let words = tally(&[("a", 1)]).against(&manifest, "the dump", "the manifest");
        assert_eq!(words, ["b has 5 rows in the manifest and is not in the dump"]);
    }

    #[test]
    fn too_many_tables_are_no_manifest_and_a_manifest_is_small() {
        let mut many = Tally::default();
        (0..MAX_TABLES).for_each(|n| many.add(&format!("table number {n}"), n as u64));
        let manifest = many.manifest().unwrap();
        assert_eq!((manifest.tables, manifest.largest.len()), (MAX_TABLES as u64, Manifest::MAX_NAMED));
        many.add("one more", 1);
        assert!(many.manifest().is_none() && many.rows().is_empty());

        let mut long = Tally::default();
        (0..40).for_each(|n| long.add(&format!("{n}{}", "x".repeat(500)), n));
        let text = serde_json::to_string(&long.manifest().unwrap()).unwrap();
        assert!(text.len() < 2 * Manifest::MAX_NAMES_BYTES, "{}", text.len());
        (0..9_000).for_each(|n| long.add(&format!("{n}{}", "y".repeat(500)), n));
        assert!(!long.is_whole());
    }
}
