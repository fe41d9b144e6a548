//! `WWW-Authenticate` (RFC 9110, 11.6.1): one header may carry several challenges, each a scheme and parameters.

use std::collections::HashMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower case.
    pub scheme: String,
    /// Names in lower case.
    pub parameters: HashMap<String, String>,
}

/// All challenges of all headers, in order; what cannot be read is left out.
pub(crate) fn parse_all<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    headers.flat_map(parse).collect()
}

fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        let word_end = rest.find([' ', '\t', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word_end);
        if word.is_empty() {
            return challenges;
        }
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, tail) = parameter_value(value.trim_start_matches([' ', '\t']));
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
                rest = tail;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: HashMap::new() });
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_with_quoted_commas() {
        let challenges = parse(r#"Bearer realm="https://auth.example/token",service="reg \"x\"",scope="repository:a/b:pull,push""#);
        assert_eq!(challenges.len(), 1);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(challenges[0].parameters["realm"], "https://auth.example/token");
        assert_eq!(challenges[0].parameters["service"], "reg \"x\"");
        assert_eq!(challenges[0].parameters["scope"], "repository:a/b:pull,push");
    }

    #[test]
    fn several_challenges_in_one_header_and_unquoted_values() {
        let challenges = parse(r#"Basic realm=x, BEARER Realm = "y" , service=z"#);
        assert_eq!(challenges.iter().map(|c| c.scheme.as_str()).collect::<Vec<_>>(), ["basic", "bearer"]);
        assert_eq!(challenges[0].parameters["realm"], "x");
        assert_eq!(challenges[1].parameters["realm"], "y");
        assert_eq!(challenges[1].parameters["service"], "z");
    }

    #[test]
    fn garbage_ends_without_a_challenge_or_a_panic() {
        for garbage in ["", ",,,", "=x", "\"", "Bearer realm=\"open", "Bearer realm=\"open\\", "é=\"", "a\u{a0}b"] {
            let _challenges = parse(garbage);
        }
        assert!(parse("=x").is_empty());
    }
}
