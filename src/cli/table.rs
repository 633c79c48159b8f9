//! Facts for people: a label and a value a line.

use std::fmt;

/// Labels and values, aligned.
#[derive(Debug, Default)]
pub struct Table(Vec<(&'static str, String)>);

impl Table {
    /// Adds a line; an empty label continues the one above.
    pub fn row(&mut self, label: &'static str, value: impl Into<String>) {
        self.0.push((label, value.into()));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(label, value)| writeln!(f, "{label:width$}  {value}"))
    }
}

/// How long ago, in the largest unit that is at least one.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A size with one digit after the point.
#[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_shown_in_units_that_people_read() {
        let shown = [0, 59, 60, 3599, 3600, 172_799, 172_800].map(|s| ago(0, s * 1000));
        assert_eq!(
            shown,
            ["now", "59 s ago", "1 min ago", "59 min ago", "1 h ago", "47 h ago", "2 days ago"]
        );
        assert_eq!(ago(5000, 0), "now");
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
