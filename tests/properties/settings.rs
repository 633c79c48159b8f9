//! Whatever stands in the file and in the variables: no panic, and no agent key in a message.

use backupy_agent::settings::{Faults, KEYS, Loaded, Sources, load};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsString;

const SECRET: &str = "bkpy_live_0123456789abcdefghijABCDEFGHIJ01";

fn loaded(text: &[u8], environment: BTreeMap<String, OsString>) -> Result<Loaded, Faults> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    load(&Sources { file: Some(file.clone()), default_file: file, environment, flags: Vec::new() })
}

/// Everything that an operator would see.
fn seen(result: &Result<Loaded, Faults>) -> String {
    match result {
        Ok(loaded) => format!("{:?} {:?} {:?}", loaded.rows, loaded.warnings, loaded.settings),
        Err(faults) => {
            assert!(faults.iter().count() > 0, "a refusal without a reason");
            for fault in faults.iter() {
                assert!(!fault.to_string().contains('\n'), "a fault of more than a line: {fault}");
            }
            faults.to_string()
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    let known = prop::sample::select(KEYS.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>());
    prop_oneof![4 => known, 1 => "[a-z_]{1,8}\\.[a-z_]{1,12}"]
}

/// A value in TOML, with the secret in many of them.
fn value() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(SECRET.to_owned()),
        Just(format!("https://{SECRET}@host/{SECRET}?k={SECRET}#{SECRET}")),
        Just(format!("{SECRET}{SECRET}")),
        "[ -~]{0,40}".prop_map(|around| format!("{around} {SECRET} {around}")),
        "\\PC{0,40}",
    ];
    let scalar = prop_oneof![
        4 => text.prop_map(|text| toml::Value::String(text).to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<bool>().prop_map(|value| value.to_string()),
        1 => Just("1979-05-27T07:32:00Z".to_owned()),
        1 => Just("inf".to_owned()),
        1 => Just("99999999999999999999999".to_owned()),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            inner.prop_map(|value| format!("{{ a = {value} }}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_in_the_file_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        seen(&loaded(&bytes, BTreeMap::new()));
    }

    #[test]
    fn no_text_in_the_file_makes_it_panic(text in "[\\[\\]{}\"'=#.,a-z0-9_ \n\\\\-]{0,200}") {
        seen(&loaded(text.as_bytes(), BTreeMap::new()));
    }

    #[test]
    fn no_fault_shows_the_agent_key(entries in prop::collection::vec((key(), value()), 1..6)) {
        let lines: String = entries.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let text = seen(&loaded(lines.as_bytes(), BTreeMap::new()));
        prop_assert!(!text.contains(SECRET), "{}\nfrom\n{}", text, lines);
    }

    #[test]
    fn no_fault_shows_an_agent_key_of_the_environment(
        entries in prop::collection::vec((prop::sample::select(KEYS.iter().flat_map(|key| key.variables).collect::<Vec<_>>()), "[ -~]{0,20}"), 1..6)
    ) {
        let environment = entries.iter().map(|(name, around)| ((**name).to_owned(), format!("{around}{SECRET}{around}").into()));
        let text = seen(&loaded(b"", environment.collect()));
        prop_assert!(!text.contains(SECRET), "{}", text);
    }
}

#[test]
fn deep_nesting_is_a_fault_and_no_overflow_of_the_stack() {
    for text in
        ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), format!("a = {}", "{b=".repeat(50_000))]
    {
        assert!(loaded(text.as_bytes(), BTreeMap::new()).is_err());
    }
}
