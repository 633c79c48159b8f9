//! The merged layers typed by serde. A value of the wrong type is kept as such instead of ending
//! the deserialisation: the validation reports all of them at once, and none with its text.

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A value that a key may have.
#[derive(Debug, Default)]
pub(super) enum Field<T> {
    /// No layer has it, defaults included.
    #[default]
    Absent,
    /// Of the right type.
    Is(T),
    /// Of another one: what was found.
    Wrong(&'static str),
}

/// A size: a number, or a text with a unit.
#[derive(Debug)]
pub(super) enum Size {
    Bytes(i64),
    Text(String),
}

/// What a type takes.
pub(super) trait Take: Sized {
    /// For faults: "must be ...".
    const EXPECTED: &'static str;
    fn text(_: String) -> Option<Self> {
        None
    }
    fn boolean(_: bool) -> Option<Self> {
        None
    }
    fn integer(_: i64) -> Option<Self> {
        None
    }
    fn list(_: Vec<String>) -> Option<Self> {
        None
    }
}

impl Take for String {
    const EXPECTED: &'static str = "a text";
    fn text(text: String) -> Option<Self> {
        Some(text)
    }
}

impl Take for bool {
    const EXPECTED: &'static str = "true or false";
    fn boolean(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Take for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn integer(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Take for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";
    fn list(items: Vec<String>) -> Option<Self> {
        Some(items)
    }
}

impl Take for Size {
    const EXPECTED: &'static str = super::size::EXAMPLES;
    fn text(text: String) -> Option<Self> {
        Some(Self::Text(text))
    }
    fn integer(number: i64) -> Option<Self> {
        Some(Self::Bytes(number))
    }
}

impl<'de, T: Take> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

struct FieldVisitor<T>(PhantomData<T>);

fn field<T>(taken: Option<T>, found: &'static str) -> Field<T> {
    taken.map_or(Field::Wrong(found), Field::Is)
}

impl<'de, T: Take> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(field(T::boolean(value), "true or false"))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(field(T::integer(number), "a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Wrong("a number with a fraction"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(field(T::text(text), "a text"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        let mut all_texts = true;
        while let Some(item) = items.next_element::<Field<String>>()? {
            match item {
                Field::Is(text) => texts.push(text),
                Field::Absent | Field::Wrong(_) => all_texts = false,
            }
        }
        if !all_texts {
            return Ok(Field::Wrong("a list with something else in it"));
        }
        Ok(field(T::list(texts), "a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong("a table"))
    }
}

macro_rules! raw {
    ($($section:ident: $name:ident { $($key:ident: $type:ty),* $(,)? })*) => {
        /// Every section as the layers give it.
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        pub(super) struct Raw { $(pub $section: $name,)* }

        $(
            #[derive(Debug, Default, serde::Deserialize)]
            #[serde(default)]
            pub(super) struct $name { $(pub $key: Field<$type>,)* }
        )*

        #[cfg(test)]
        pub(super) const FIELDS: &[&str] =
            &[$($(concat!(stringify!($section), ".", stringify!($key)),)*)*];
    };
}

raw! {
    server: RawServer {
        url: String,
        agent_key: String,
        agent_key_file: String,
        ca_file: String,
        pins: Vec<String>,
        allow_insecure: bool,
        proxy: String,
        no_proxy: Vec<String>,
    }
    state: RawState { dir: String, max_queue_bytes: Size, min_free_bytes: Size }
    log: RawLog { level: String, format: String }
    metrics: RawMetrics { listen: String }
    docker: RawDocker { socket: String, discovery: bool }
    hooks: RawHooks { enabled: bool, timeout: String }
    backup: RawBackup {
        spool_dir: String,
        spool: String,
        zstd_level: i64,
        gzip_level: i64,
        threads: i64,
        nice: i64,
        idle_io: bool,
        max_read_bytes_per_sec: Size,
        max_upload_bytes_per_sec: Size,
    }
    update: RawUpdate { enabled: bool, public_key_file: String }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_is_typed() {
        let table: Vec<_> = crate::settings::KEYS.iter().map(|key| key.name).collect();
        assert_eq!(FIELDS, table);
    }
}
