//! A restored database held against the original.

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// What the comparison of a database with its restored backup found.
pub struct Comparison {
    /// Table and rows, each the same on both sides.
    pub tables: Vec<(String, u64)>,
    /// Orders in the source that were sold after the moment that the backup holds.
    pub later_orders: u32,
}

impl Comparison {
    /// Rows that were compared.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }
}

/// Holds a restored database against the source: whole in itself, and every row of it, in order, the source's.
/// Rows are only added here, so what the source has more came later.
///
/// # Errors
/// What differs first.
pub fn compare(source: &Path, restored: &Path) -> Result<Comparison> {
    whole(restored)?;
    let original = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let copy = Connection::open_with_flags(restored, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let schema = "select name, sql from sqlite_master where sql is not null order by name";
    same_rows(&original, &copy, schema, "the schema", false)?;

    let mut tables = Vec::new();
    for table in ["customers", "products", "orders", "order_items"] {
        let rows = same_rows(&original, &copy, &format!("select * from {table} order by id"), table, true)?;
        tables.push((table.to_owned(), rows));
    }
    let count =
        |database: &Connection| database.query_row("select count(*) from orders", [], |row| row.get(0));
    let (all, held): (u32, u32) = (count(&original)?, count(&copy)?);
    Ok(Comparison { tables, later_orders: all.saturating_sub(held) })
}

/// Whole as a file, and as one moment of the shop: no order without its items.
fn whole(restored: &Path) -> Result<()> {
    let copy = Connection::open(restored).with_context(|| format!("{}", restored.display()))?;
    let integrity: String = copy.query_row("pragma integrity_check", [], |row| row.get(0))?;
    if integrity != "ok" {
        bail!("{}: integrity_check says {integrity}", restored.display());
    }
    let torn: u32 = copy.query_row(
        "select count(*) from orders o
         left join (select order_id, count(*) as n from order_items group by order_id) i on i.order_id = o.id
         where i.n is not o.items",
        [],
        |row| row.get(0),
    )?;
    if torn > 0 {
        bail!("{}: {torn} orders without all their items: not one moment of the shop", restored.display());
    }
    Ok(())
}

/// The number of rows that the copy gives, each the same as the original's in its place.
fn same_rows(
    original: &Connection,
    copy: &Connection,
    query: &str,
    what: &str,
    more_may_follow: bool,
) -> Result<u64> {
    let mut left = original.prepare(query)?;
    let mut right = copy.prepare(query)?;
    let columns = left.column_count();
    let (mut left, mut right) = (left.query([])?, right.query([])?);
    let mut rows = 0;
    while let Some(found) = right.next()? {
        let Some(expected) = left.next()? else {
            bail!("{what}: the backup has more rows than the database");
        };
        for column in 0..columns {
            if found.get_ref(column)? != expected.get_ref(column)? {
                bail!("{what}: row {} differs in column {}", rows + 1, column + 1);
            }
        }
        rows += 1;
    }
    if !more_may_follow && left.next()?.is_some() {
        bail!("{what}: the backup has fewer rows than the database");
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::database::generate;

    /// What the comparison says of a copy that was changed by `sql`; `later` changes the original.
    fn compared(sql: &str, later: &str) -> Result<Comparison> {
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
        generate(&original, 100, |_| true).unwrap();
        std::fs::copy(&original, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        Connection::open(&original).unwrap().execute_batch(later).unwrap();
        compare(&original, &copy)
    }

    #[test]
    fn a_true_copy_has_the_same_rows() {
        let found = compared("", "").unwrap();
        assert_eq!(found.later_orders, 0);
        assert_eq!(found.tables[2], ("orders".to_owned(), 100));
        assert!(found.rows() > 12_000);
    }

    #[test]
    fn rows_that_came_later_are_no_difference() {
        let later = "insert into orders values (101, 1, '', '', 1, ''); insert into order_items values (9999, 101, 1, 1, 1)";
        assert_eq!(compared("", later).unwrap().later_orders, 1);
    }

    #[test]
    fn every_difference_is_found() {
        let cases = [
            ("update orders set note = note || 'x' where id = 50", "orders: row 50 differs in column 6"),
            ("delete from products where id = 1", "products: row 1 differs"),
            ("insert into customers values (99999, 'x', 'y', 'z')", "more rows than the database"),
            ("drop index orders_by_customer", "the schema"),
            ("delete from order_items where order_id = 7", "without all their items"),
        ];
        for (sql, expected) in cases {
            let error = compared(sql, "").err().expect(sql).to_string();
            assert!(error.contains(expected), "{sql}: {error}");
        }
    }
}
