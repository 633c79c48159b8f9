//! Lists in pages: `?limit=&cursor=` -> `{items, next_cursor, has_more}` (protocol section 8).

use super::super::error::ApiError;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Value, json};

const DEFAULT_LIMIT: usize = 50;
/// Protocol section 8.
const MAX_LIMIT: usize = 100;

/// What a caller says about the page that it wants.
#[derive(Debug, Default, Deserialize)]
pub struct PageQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By number, rising.
    Oldest,
    /// By number, falling.
    Newest,
}

impl PageQuery {
    /// The page of these items, each with its number: unique, and never changing.
    pub fn page<T>(
        &self,
        order: Order,
        items: impl IntoIterator<Item = (u64, T)>,
        show: impl Fn(T) -> Value,
    ) -> Result<Value, ApiError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ApiError::invalid(format!("limit: must be 1 to {MAX_LIMIT}")));
        }
        let after = self.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(number).transpose()?;
        let mut rest: Vec<(u64, T)> = items
            .into_iter()
            .filter(|(no, _)| match (order, after) {
                (_, None) => true,
                (Order::Oldest, Some(after)) => *no > after,
                (Order::Newest, Some(after)) => *no < after,
            })
            .collect();
        rest.sort_by_key(|(no, _)| *no);
        if order == Order::Newest {
            rest.reverse();
        }
        let has_more = rest.len() > limit;
        rest.truncate(limit);
        let next_cursor = rest.last().filter(|_| has_more).map(|(no, _)| cursor(*no));
        let items: Vec<Value> = rest.into_iter().map(|(_, item)| show(item)).collect();
        Ok(json!({"items": items, "next_cursor": next_cursor, "has_more": has_more}))
    }
}

fn cursor(no: u64) -> String {
    BASE64URL_NOPAD.encode(&no.to_be_bytes())
}

fn number(cursor: &str) -> Result<u64, ApiError> {
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| ApiError::invalid("cursor: not one of ours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(order: Order, limit: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let query = PageQuery { limit: Some(limit), cursor };
            let page = query.page(order, (1..=7).map(|no| (no, no)), |no| json!(no)).unwrap();
            seen.extend(page["items"].as_array().unwrap().iter().map(|no| no.as_u64().unwrap()));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            assert_eq!(page["has_more"], json!(cursor.is_some()));
            if cursor.is_none() {
                return seen;
            }
        }
    }

    #[test]
    fn pages_together_are_the_list_in_both_orders() {
        for limit in [1, 2, 3, 7, 100] {
            assert_eq!(walk(Order::Oldest, limit), (1..=7).collect::<Vec<_>>());
            assert_eq!(walk(Order::Newest, limit), (1..=7).rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_wrong_limit_or_cursor_is_refused() {
        for limit in [0, 101] {
            let query = PageQuery { limit: Some(limit), cursor: None };
            assert!(query.page(Order::Oldest, [(1, 1)], |no| json!(no)).is_err());
        }
        let query = PageQuery { limit: None, cursor: Some("x y".into()) };
        assert!(query.page(Order::Oldest, [(1, 1)], |no| json!(no)).is_err());
    }
}
