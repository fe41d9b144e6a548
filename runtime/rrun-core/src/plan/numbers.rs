//! Lists of CPUs and memory nodes (`0-3,7`) as bit masks.

/// As many CPUs or nodes as a mask may name: the kernel's own largest configuration.
const LIMIT: u64 = 8192;

/// Bit n of the words is number n of the list. The error says which part is wrong.
pub fn mask(list: &str) -> Result<Vec<u64>, String> {
    let mut words: Vec<u64> = Vec::new();
    for part in list.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{part:?} is no number or range"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!("{part:?} runs backwards"));
        }
        if last >= LIMIT {
            return Err(format!("{part:?} is too large: the kernel knows numbers below {LIMIT}"));
        }
        for n in first..=last {
            let word = (n / 64) as usize;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (n % 64);
        }
    }
    Ok(words)
}

/// How many numbers a mask holds.
pub fn count(mask: &[u64]) -> u32 {
    mask.iter().map(|word| word.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(mask("0-3,7").unwrap(), [0x8f]);
        assert_eq!(mask("64, 1").unwrap(), [2, 1]);
        assert_eq!(count(&mask("0-7,64").unwrap()), 9);
        for bad in ["", "a", "1-", "-1", "3-1", "0-9876543210", "8192", "1,,2"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
