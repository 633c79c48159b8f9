//! Until when an upload URL may be used.

use crate::model::RunOrder;
use std::time::Duration;

/// A URL without an expiry is used so long: presigned ones seldom live longer, and a run must end.
pub const UNDATED_LIFE: Duration = Duration::from_secs(60 * 60);

/// The end of the order's URL in unix milliseconds; one without an expiry lives [`UNDATED_LIFE`] from `since_ms`.
pub fn upload_deadline_ms(order: &RunOrder, since_ms: u64) -> u64 {
    if order.expires_at_ms > 0 {
        return order.expires_at_ms;
    }
    since_ms.saturating_add(u64::try_from(UNDATED_LIFE.as_millis()).unwrap_or(u64::MAX))
}

/// A moment in unix milliseconds, for people: `2026-11-23 17:06:11 UTC`.
pub fn expiry_text(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / DAY_S, seconds % DAY_S);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The moment of a signature, `20261123T170611Z`, in unix milliseconds.
pub fn signed_at_ms(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    if text.len() != 16 || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some((days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second) * 1000)
}

const DAY_S: u64 = 86_400;
const DAYS_BEFORE_1970: u64 = 719_468; // from 0000-03-01
const ERA: u64 = 146_097; // days of 400 years

/// The inverse of [`civil`].
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let shifted = (month + 9) % 12;
    let (era, year_of_era) = (year / 400, year % 400);
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - DAYS_BEFORE_1970
}

/// Days since 1970-01-01 as a date of the Gregorian calendar, counted in years that begin in March, so
/// that the leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let of_era = days % ERA;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = days / ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_people_read_them() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_763_917_571_000, "2025-11-23 17:06:11 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(expiry_text(ms), text);
            let basic: String = text.chars().filter(char::is_ascii_digit).collect();
            let signed = format!("{}T{}Z", &basic[..8], &basic[8..]);
            assert_eq!(signed_at_ms(&signed), Some(ms / 1000 * 1000), "{signed}");
        }
        for other in ["", "20261123", "2026-11-23T17:06Z", "20261323T170611Z", "20261123T1706\u{fc}1Z"] {
            assert_eq!(signed_at_ms(other), None, "{other}");
        }
    }
}
