//! Durations as Docker words them in `ps`.

use jiff::Timestamp;

/// `Less than a second`, `5 seconds`, `About a minute`, `3 hours`, `2 weeks` …
pub fn duration(seconds: i64) -> String {
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        // Docker rounds hours to the nearest.
        3600..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{} hours", (seconds + 1800) / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86_400),
        1_209_600..5_184_000 => format!("{} weeks", seconds / 604_800),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

pub fn since(time: Option<Timestamp>) -> String {
    duration(time.map_or(0, |time| Timestamp::now().duration_since(time).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn docker_s_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (179, "2 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (172_799, "48 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }
}
