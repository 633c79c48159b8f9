//! Unix milliseconds as people and protocols write them.

const SECONDS_A_DAY: u64 = 86_400;

/// Year, month 1..=12, day 1..=31 of a moment, UTC.
pub fn civil(unix_ms: u64) -> (u64, u64, u64) {
    // Days are counted from 0000-03-01, so that the leap day is the last of its year.
    let days = unix_ms / 1000 / SECONDS_A_DAY + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// RFC 3339 with milliseconds, UTC: `RegisterAck.server_time_iso`.
pub fn iso(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms);
    let seconds = unix_ms / 1000 % SECONDS_A_DAY;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(1_709_251_200_001), "2024-03-01T00:00:00.001Z");
        assert_eq!(iso(4_102_444_799_000), "2099-12-31T23:59:59.000Z");
    }
}
