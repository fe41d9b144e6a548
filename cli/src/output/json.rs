//! JSON as Go's encoder lays it out.

use serde_json::Value;

/// One line, without spaces. Go's default escapes `<`, `>` and `&`.
pub fn compact(value: &Value, escape_html: bool) -> String {
    let text = value.to_string();
    if escape_html { escape(&text) } else { text }
}

fn escape(text: &str) -> String {
    // These three can only stand inside strings.
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// Several lines with the given indent and no final newline.
pub fn indented(value: &Value, indent: &str) -> String {
    reindent(&value.to_string(), indent)
}

/// Lays out a JSON text anew and leaves its strings and numbers as they are written.
pub fn reindent(text: &str, indent: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut chars = text.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push('"');
                copy_string(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(',');
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn copy_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' => out.extend(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_gos() {
        let text = r#"[{"a":{},"b":[],"c":[1,2.50],"d":"x{\"\\","e":null}]"#;
        let want = "[\n    {\n        \"a\": {},\n        \"b\": [],\n        \"c\": [\n            1,\n            2.50\n        ],\n        \"d\": \"x{\\\"\\\\\",\n        \"e\": null\n    }\n]";
        assert_eq!(reindent(text, "    "), want);
    }

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(compact(&serde_json::json!({"a": "<none> & b"}), true), r#"{"a":"\u003cnone\u003e \u0026 b"}"#);
    }
}
