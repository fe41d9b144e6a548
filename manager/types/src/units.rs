//! Sizes for people, as Docker prints them.

/// `12.35MB`: four significant digits, powers of 1000.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", four_digits(size), UNITS[unit])
}

/// C's `%.4g` for numbers from 0 up to 1000.
fn four_digits(number: f64) -> String {
    let decimals = match number {
        n if n >= 999.95 => return "1000".to_owned(),
        n if n >= 100.0 => 1,
        n if n >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        let cases =
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234, "1.234kB"), (12_345, "12.35kB"), (999_999, "1000kB"), (2_500_000, "2.5MB")];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
    }
}
