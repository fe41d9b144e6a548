//! The stream of pull, push and load: lines that move on a terminal, plain ones elsewhere.

use std::io::Write;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use proto_docker::progress::{JsonMessage, ProgressDetail};

use super::units;
use crate::failure::Failure;

/// Shows a stream of progress messages as they come.
pub struct Display<'a> {
    out: &'a mut dyn Write,
    /// Width of the terminal, if it is one.
    terminal: Option<usize>,
    /// Things in progress, in the order of their lines.
    lines: Vec<String>,
}

impl<'a> Display<'a> {
    pub fn new(out: &'a mut dyn Write, terminal: Option<usize>) -> Self {
        Self { out, terminal, lines: Vec::new() }
    }

    /// Shows one message.
    ///
    /// # Errors
    /// The error that the message carries, or a failed write.
    pub fn show(&mut self, message: &JsonMessage) -> Result<(), Failure> {
        if let Some(text) = error_of(message) {
            return Err(Failure::message(text));
        }
        // Facts for programs, such as the digest of what was pushed.
        if message.aux.is_some() {
            return Ok(());
        }
        let moving = message.progress_detail.is_some() || !message.progress.is_empty();
        let mut up = 0;
        if !message.id.is_empty() && moving {
            up = self.line_of(&message.id)?;
            if self.terminal.is_some() && up > 0 {
                write!(self.out, "\x1b[{up}A")?;
            }
        } else {
            self.lines.clear();
        }
        self.write(message)?;
        if self.terminal.is_some() && up > 0 {
            write!(self.out, "\x1b[{up}B")?;
        }
        Ok(self.out.flush()?)
    }

    /// How many lines above the cursor the line of this thing is; a new thing gets a new line.
    fn line_of(&mut self, id: &str) -> Result<usize, Failure> {
        let index = match self.lines.iter().position(|known| known == id) {
            Some(index) => index,
            None => {
                self.lines.push(id.to_owned());
                if self.terminal.is_some() {
                    self.out.write_all(b"\n")?;
                }
                self.lines.len() - 1
            }
        };
        Ok(self.lines.len() - index)
    }

    fn write(&mut self, message: &JsonMessage) -> Result<(), Failure> {
        let bar = message.progress_detail.as_ref().map(|detail| bar(detail, self.terminal.unwrap_or(200))).unwrap_or_default();
        let on_line = self.terminal.is_some() && message.stream.is_empty() && message.progress_detail.is_some();
        if !on_line && !bar.is_empty() {
            return Ok(());
        }
        let mut line = String::new();
        if on_line {
            line.push_str("\x1b[2K\r");
        }
        if !message.id.is_empty() {
            line.push_str(&message.id);
            line.push_str(": ");
        }
        if !message.stream.is_empty() {
            line.push_str(&message.stream);
        } else if on_line {
            line.push_str(&format!("{} {bar}\r", message.status));
        } else {
            line.push_str(&message.status);
            line.push('\n');
        }
        Ok(self.out.write_all(line.as_bytes())?)
    }
}

fn error_of(message: &JsonMessage) -> Option<String> {
    match &message.error_detail {
        Some(detail) if detail.code == 401 => Some("authentication is required".to_owned()),
        Some(detail) if !detail.message.is_empty() => Some(detail.message.clone()),
        _ if !message.error.is_empty() => Some(message.error.clone()),
        _ => None,
    }
}

/// `[===>      ]  1.2MB/3.4MB`; the bar only where the terminal is wide.
fn bar(detail: &ProgressDetail, width: usize) -> String {
    let (current, total) = (detail.current, detail.total);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    let amount = |n: i64| if detail.units.is_empty() { units::human_size(n) } else { n.to_string() };
    if total <= 0 {
        return format!("{:>8}{}", amount(current), if detail.units.is_empty() { String::new() } else { format!(" {}", detail.units) });
    }
    let percent = usize::try_from((current.max(0) * 100 / total).min(100)).unwrap_or(100) / 2;
    let mut out = String::new();
    if width > 110 {
        let rest = 50 - percent;
        let blanks = " ".repeat(rest);
        out.push_str(&format!("[{}>{blanks}] ", "=".repeat(percent)));
    }
    if detail.hide_counts {
        return out;
    }
    let current_text = amount(current);
    if current > total {
        out.push_str(&format!("{current_text:>8}"));
    } else if detail.units.is_empty() {
        out.push_str(&format!("{current_text:>8}/{}", amount(total)));
    } else {
        out.push_str(&format!("{current}/{total} {}", detail.units));
    }
    out
}

/// Reads a body as a sequence of JSON messages.
///
/// # Errors
/// A broken connection, a malformed message, or what `each` returns.
pub async fn messages(mut body: Incoming, mut each: impl FnMut(JsonMessage) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let frame: Option<Bytes> = match body.frame().await {
            Some(Ok(frame)) => frame.into_data().ok(),
            Some(Err(err)) => return Err(Failure::message(format!("the daemon's answer broke off: {err}"))),
            None => break,
        };
        if let Some(data) = frame {
            buffer.extend_from_slice(&data);
            let used = take_values(&buffer, &mut each)?;
            buffer.drain(..used);
        }
    }
    if buffer.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    Err(Failure::message("the daemon's answer broke off in the middle of a message"))
}

/// Handles every complete value in the buffer and says how many bytes they took.
pub fn take_values<T: serde::de::DeserializeOwned>(
    buffer: &[u8],
    each: &mut impl FnMut(T) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let mut stream = serde_json::Deserializer::from_slice(buffer).into_iter::<T>();
    let mut used = 0;
    loop {
        match stream.next() {
            Some(Ok(value)) => {
                used = stream.byte_offset();
                each(value)?;
            }
            Some(Err(err)) if err.is_eof() => return Ok(used),
            Some(Err(err)) => return Err(Failure::message(format!("the daemon's answer is not understood: {err}"))),
            None => return Ok(buffer.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, status: &str, detail: Option<(i64, i64)>) -> JsonMessage {
        JsonMessage {
            id: id.into(),
            status: status.into(),
            progress_detail: detail.map(|(current, total)| ProgressDetail { current, total, ..ProgressDetail::default() }),
            ..JsonMessage::default()
        }
    }

    fn shown(terminal: Option<usize>, messages: &[JsonMessage]) -> String {
        let mut out = Vec::new();
        let mut display = Display::new(&mut out, terminal);
        for message in messages {
            display.show(message).expect("shows");
        }
        String::from_utf8(out).expect("is text")
    }

    #[test]
    fn plain_output_has_no_bars() {
        let stream = [
            message("latest", "Pulling from library/x", None),
            message("aaa", "Pulling fs layer", Some((0, 0))),
            message("aaa", "Downloading", Some((5, 10))),
            message("aaa", "Pull complete", Some((0, 0))),
            message("", "Digest: sha256:1", None),
        ];
        assert_eq!(shown(None, &stream), "latest: Pulling from library/x\naaa: Pulling fs layer\naaa: Pull complete\nDigest: sha256:1\n");
    }

    #[test]
    fn terminal_output_moves_to_its_line() {
        let stream =
            [message("a", "Waiting", Some((0, 0))), message("b", "Waiting", Some((0, 0))), message("a", "Downloading", Some((5, 10)))];
        let want = concat!(
            "\n\x1b[1A\x1b[2K\ra: Waiting \r\x1b[1B",
            "\n\x1b[1A\x1b[2K\rb: Waiting \r\x1b[1B",
            "\x1b[2A\x1b[2K\ra: Downloading       5B/10B\r\x1b[2B"
        );
        assert_eq!(shown(Some(80), &stream), want);
    }

    #[test]
    fn facts_for_programs_print_nothing() {
        let aux = JsonMessage { aux: Some(serde_json::json!({"Tag": "v1"})), ..JsonMessage::default() };
        assert_eq!(shown(None, std::slice::from_ref(&aux)) + &shown(Some(80), &[aux]), "");
    }

    #[test]
    fn an_error_message_is_an_error() {
        let mut out = Vec::new();
        let broken = JsonMessage { error: "no such tag".into(), ..JsonMessage::default() };
        let failure = Display::new(&mut out, None).show(&broken).expect_err("is an error");
        assert_eq!(failure.text(), Some("no such tag"));
    }

    #[test]
    fn values_split_between_reads() {
        let mut seen = Vec::new();
        let text = br#"{"status":"a"}{"status":"b"}{"sta"#;
        let used = take_values(text, &mut |m: JsonMessage| {
            seen.push(m.status);
            Ok(())
        })
        .expect("reads");
        assert_eq!((seen, used), (vec!["a".to_owned(), "b".to_owned()], 28));
    }
}
