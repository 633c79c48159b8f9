//! A small shop's database: the same rows on every machine, about 100 MB, in WAL mode.

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags, Transaction, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CUSTOMERS: u32 = 12_000;
const PRODUCTS: u32 = 400;
/// Orders that make the file some 100 MB.
pub const ORDERS: u32 = 420_000;
/// How often the open shop sells something while it is backed up.
const SALE_EVERY: Duration = Duration::from_millis(10);
/// A writer waits for the lock instead of failing.
const BUSY: Duration = Duration::from_secs(5);
/// Orders between two looks at who watches.
const REPORT_EVERY: u32 = 5_000;
/// 2023-01-01, unix seconds: the first order.
const OPENING_S: u32 = 1_672_531_200;

const SCHEMA: &str = "
create table customers (
    id integer primary key, name text not null, email text not null unique, city text not null);
create table products (id integer primary key, name text not null, price_cents integer not null);
create table orders (
    id integer primary key, customer_id integer not null references customers, ordered_at text not null,
    status text not null, items integer not null, note text not null);
create table order_items (
    id integer primary key, order_id integer not null references orders,
    product_id integer not null references products, quantity integer not null, price_cents integer not null);
";

const FIRST: [&str; 20] = [
    "Ada", "Amir", "Björn", "Chiara", "Daniela", "Emeka", "Fatima", "Grace", "Hugo", "Ines", "Jonas", "Kofi",
    "Lena", "Mei", "Nadia", "Olga", "Pablo", "Ravi", "Sofia", "Tomás",
];
const LAST: [&str; 20] = [
    "Abe",
    "Bauer",
    "Castro",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haddad",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Rossi",
    "Silva",
    "Tanaka",
    "Weber",
];
const CITIES: [&str; 10] =
    ["Bergen", "Gdańsk", "Ghent", "Graz", "Leeds", "Lyon", "Porto", "Tartu", "Turin", "Utrecht"];
const THINGS: [&str; 20] = [
    "kettle",
    "lamp",
    "notebook",
    "backpack",
    "teapot",
    "blanket",
    "bicycle bell",
    "fountain pen",
    "wool scarf",
    "chopping board",
    "rain jacket",
    "board game",
    "headphones",
    "garden shears",
    "candle",
    "thermos",
    "tool box",
    "bookend",
    "picture frame",
    "coffee grinder",
];
const KINDS: [&str; 20] = [
    "blue",
    "oak",
    "steel",
    "small",
    "large",
    "hand-made",
    "folding",
    "second-hand",
    "green",
    "brass",
    "linen",
    "light",
    "heavy",
    "glass",
    "red",
    "walnut",
    "enamel",
    "round",
    "tall",
    "striped",
];
const REMARKS: [&str; 16] = [
    "please ring twice",
    "leave it with the neighbour",
    "a gift, no invoice in the parcel",
    "deliver after six",
    "call before delivery",
    "the blue one if there is a choice",
    "second attempt",
    "paid by transfer",
    "wants a receipt by post",
    "the gate code is on the invoice",
    "fragile",
    "collects it at the shop",
    "to be sent with the previous order",
    "asked about spare parts",
    "third floor, no lift",
    "returned a broken one",
];
const STATUS: [&str; 5] = ["paid", "packed", "sent", "delivered", "returned"];

/// A generator with no other purpose than to be the same everywhere (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `below`, which is not 0.
    fn roll(&mut self, below: u32) -> u32 {
        // The remainder fits.
        (self.next() % u64::from(below)) as u32
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let at = self.roll(from.len() as u32) as usize;
        from.get(at).copied().unwrap_or_default()
    }
}

/// Makes the database with so many orders; `watch` hears the part that is done and may end it by false.
///
/// # Errors
/// Of SQLite, and when `watch` ends it.
pub fn generate(path: &Path, orders: u32, mut watch: impl FnMut(f64) -> bool) -> Result<()> {
    let mut database = Connection::open(path).with_context(|| format!("{}", path.display()))?;
    // Nothing here needs to survive a crash: speed is all.
    database
        .execute_batch("pragma page_size = 4096; pragma journal_mode = off; pragma synchronous = off;")?;
    let all = database.transaction()?;
    all.execute_batch(SCHEMA)?;
    people_and_things(&all)?;
    let mut dice = Dice(2);
    for id in 1..=orders {
        order(&all, &mut dice, id)?;
        if id.is_multiple_of(REPORT_EVERY) && !watch(f64::from(id) / f64::from(orders)) {
            bail!("stopped");
        }
    }
    all.execute_batch("create index orders_by_customer on orders (customer_id);")?;
    all.commit()?;
    database.execute_batch("pragma journal_mode = wal;")?;
    Ok(())
}

fn people_and_things(to: &Transaction<'_>) -> Result<()> {
    let mut dice = Dice(1);
    let mut insert = to.prepare("insert into customers values (?, ?, ?, ?)")?;
    for id in 1..=CUSTOMERS {
        let (first, last) = (dice.pick(&FIRST), dice.pick(&LAST));
        let email = format!("{}.{}{id}@example.org", first.to_lowercase(), last.to_lowercase());
        insert.execute(params![id, format!("{first} {last}"), email, dice.pick(&CITIES)])?;
    }
    let mut insert = to.prepare("insert into products values (?, ?, ?)")?;
    for id in 1..=PRODUCTS {
        let name = format!("{} {}", dice.pick(&KINDS), dice.pick(&THINGS));
        insert.execute(params![id, name, 199 + dice.roll(19_800)])?;
    }
    Ok(())
}

/// One order with its items.
fn order(to: &Connection, dice: &mut Dice, id: u32) -> rusqlite::Result<()> {
    let items = 1 + dice.roll(3);
    let mut note = format!("ref {:016x}{:08x}", dice.next(), dice.roll(u32::MAX));
    for _ in 0..dice.roll(6) + 2 {
        note.push_str("; ");
        note.push_str(dice.pick(&REMARKS));
    }
    to.prepare_cached("insert into orders values (?, ?, datetime(?, 'unixepoch'), ?, ?, ?)")?.execute(
        params![
            id,
            1 + dice.roll(CUSTOMERS),
            OPENING_S + id * 240 + dice.roll(240),
            dice.pick(&STATUS),
            items,
            note
        ],
    )?;
    let mut insert = to.prepare_cached(
        "insert into order_items (order_id, product_id, quantity, price_cents) values (?, ?, ?, ?)",
    )?;
    for _ in 0..items {
        insert.execute(params![id, 1 + dice.roll(PRODUCTS), 1 + dice.roll(4), 199 + dice.roll(19_800)])?;
    }
    Ok(())
}

/// The shop while it is open: another connection that goes on selling, as an application would.
pub struct Shop {
    open: Arc<AtomicBool>,
    sold: Arc<AtomicU64>,
    seller: Option<JoinHandle<Result<()>>>,
}

impl Shop {
    /// Opens it.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let database = Connection::open(path)?;
        database.busy_timeout(BUSY)?;
        let open = Arc::new(AtomicBool::new(true));
        let sold = Arc::new(AtomicU64::new(0));
        let (is_open, count) = (Arc::clone(&open), Arc::clone(&sold));
        let seller = std::thread::Builder::new()
            .name("shop".into())
            .spawn(move || sell(database, &is_open, &count))?;
        Ok(Self { open, sold, seller: Some(seller) })
    }

    /// Orders sold so far.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Relaxed)
    }

    /// Closes it; how many orders it sold.
    ///
    /// # Errors
    /// When a sale failed: a backup must not disturb anybody.
    pub fn close(mut self) -> Result<u64> {
        self.open.store(false, Ordering::Relaxed);
        if let Some(seller) = self.seller.take() {
            seller.join().map_err(|_| anyhow::anyhow!("the shop panicked"))?.context("a sale failed")?;
        }
        Ok(self.sold())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Relaxed);
    }
}

fn sell(mut database: Connection, is_open: &AtomicBool, sold: &AtomicU64) -> Result<()> {
    let mut dice = Dice(3);
    let mut id: u32 = database.query_row("select max(id) from orders", [], |row| row.get(0))?;
    while is_open.load(Ordering::Relaxed) {
        id += 1;
        // An order and its items, or neither: a backup between them would be seen.
        let sale = database.transaction()?;
        order(&sale, &mut dice, id)?;
        sale.commit()?;
        sold.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(SALE_EVERY);
    }
    Ok(())
}

/// Some rows to look at.
///
/// # Errors
/// Of SQLite.
pub fn peek(path: &Path) -> Result<Vec<String>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut rows = database.prepare(
        "select o.id, c.name, c.city, i.quantity || ' x ' || p.name, printf('%.2f', i.quantity * i.price_cents / 100.0)
         from orders o join customers c on c.id = o.customer_id
         join order_items i on i.order_id = o.id join products p on p.id = i.product_id
         where o.id % 100003 = 7 group by o.id order by o.id",
    )?;
    let rows = rows.query_map([], |row| {
        let (id, name, city): (u32, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (what, price): (String, String) = (row.get(3)?, row.get(4)?);
        Ok(format!("order {id:>6}  {name:<18} {city:<9} {what:<28} {price:>8}"))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The database's file, without what waits in its log.
///
/// # Errors
/// When it is not there.
pub fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| PathBuf::from(path).display().to_string())?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_are_the_same_on_every_machine() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        generate(&one, 100, |_| true).unwrap();
        generate(&two, 100, |_| true).unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());
        let mode: String =
            Connection::open(&one).unwrap().query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(peek(&one).unwrap().len(), 1);
    }

    #[test]
    fn who_watches_can_end_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(generate(&dir.path().join("x"), REPORT_EVERY + 1, |_| false).is_err());
    }

    #[test]
    fn an_open_shop_sells_and_a_closed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop");
        generate(&path, 100, |_| true).unwrap();
        let shop = Shop::open(&path).unwrap();
        while shop.sold() < 3 {
            std::thread::yield_now();
        }
        let sold = shop.close().unwrap();
        let database = Connection::open(&path).unwrap();
        let orders: u32 = database.query_row("select count(*) from orders", [], |row| row.get(0)).unwrap();
        assert_eq!(u64::from(orders), 100 + sold);
    }
}
