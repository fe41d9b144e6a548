//! The stream of JSON objects that pull, push and load answer with, one per line.

use bytes::Bytes;
use proto_docker::progress::{ErrorDetail, JsonMessage, ProgressDetail};
use rcontainerd_core::images::{LayerStep, PullEvent, PushEvent, PushStep};
use rcontainerd_types::Error;
use rcontainerd_types::units::human_size;

/// One object as dockerd writes it, with CR LF.
pub(crate) fn line(message: &JsonMessage) -> Bytes {
    let mut bytes = serde_json::to_vec(message).expect("strings and numbers can always be written as JSON");
    bytes.extend_from_slice(b"\r\n");
    bytes.into()
}

/// What a pull's event looks like.
pub(crate) fn pull_message(event: &PullEvent) -> JsonMessage {
    match event {
        PullEvent::Started { reference } => JsonMessage {
            status: format!("Pulling from {}", reference.path()),
            id: reference.tag().map_or_else(|| reference.digest().map(ToString::to_string).unwrap_or_default(), str::to_owned),
            ..JsonMessage::default()
        },
        PullEvent::Layer { id, step } => layer_message(id, step),
        PullEvent::Digest(digest) => status(format!("Digest: {digest}")),
        PullEvent::Finished { reference, is_new: true } => status(format!("Status: Downloaded newer image for {}", reference.familiar())),
        PullEvent::Finished { reference, is_new: false } => status(format!("Status: Image is up to date for {}", reference.familiar())),
    }
}

/// A push, as dockerd tells it.
pub(crate) fn push_messages(event: &PushEvent) -> Vec<JsonMessage> {
    match event {
        PushEvent::Refers(name) => vec![status(format!("The push refers to repository [{name}]"))],
        PushEvent::Layer { id, step } => {
            let (told, numbers) = match step {
                PushStep::Preparing => ("Preparing".to_owned(), None),
                PushStep::AlreadyExists => ("Layer already exists".to_owned(), None),
                PushStep::Pushing(current, total) => ("Pushing".to_owned(), Some((*current, *total))),
                PushStep::MountedFrom(from) => (format!("Mounted from {from}"), None),
                PushStep::Pushed => ("Pushed".to_owned(), None),
            };
            vec![with_progress(id, told, numbers)]
        }
        PushEvent::Tagged { tag, digest, size } => {
            let aux = serde_json::json!({ "Tag": tag, "Digest": digest.to_string(), "Size": size });
            let done = JsonMessage { progress_detail: Some(ProgressDetail::default()), aux: Some(aux), ..JsonMessage::default() };
            vec![status(format!("{tag}: digest: {digest} size: {size}")), done]
        }
    }
}

/// The object that ends a stream which failed after its head was sent.
pub(crate) fn error_message(error: &Error) -> JsonMessage {
    JsonMessage {
        error_detail: Some(ErrorDetail { message: error.message().to_owned(), ..ErrorDetail::default() }),
        error: error.message().to_owned(),
        ..JsonMessage::default()
    }
}

/// A line of text for `docker load`.
pub(crate) fn stream(text: String) -> JsonMessage {
    JsonMessage { stream: text, ..JsonMessage::default() }
}

/// What is under way, or the id of what was made.
pub(crate) fn status(status: String) -> JsonMessage {
    JsonMessage { status, ..JsonMessage::default() }
}

fn layer_message(id: &str, step: &LayerStep) -> JsonMessage {
    let (status, numbers) = match step {
        LayerStep::AlreadyExists => ("Already exists".to_owned(), None),
        LayerStep::PullingFsLayer => ("Pulling fs layer".to_owned(), None),
        LayerStep::Waiting => ("Waiting".to_owned(), None),
        LayerStep::Downloading(current, total) => ("Downloading".to_owned(), Some((*current, *total))),
        LayerStep::Retrying(1) => ("Retrying in 1 second".to_owned(), None),
        LayerStep::Retrying(seconds) => (format!("Retrying in {seconds} seconds"), None),
        LayerStep::VerifyingChecksum => ("Verifying Checksum".to_owned(), None),
        LayerStep::DownloadComplete => ("Download complete".to_owned(), None),
        LayerStep::Extracting(current, total) => ("Extracting".to_owned(), Some((*current, *total))),
        LayerStep::PullComplete => ("Pull complete".to_owned(), None),
    };
    with_progress(id, status, numbers)
}

fn with_progress(id: &str, status: String, numbers: Option<(u64, u64)>) -> JsonMessage {
    let detail =
        |(current, total): (u64, u64)| ProgressDetail { current: signed(current), total: signed(total), ..ProgressDetail::default() };
    JsonMessage {
        status,
        progress_detail: Some(numbers.map(detail).unwrap_or_default()),
        progress: numbers.map(|(current, total)| bar(current, total)).unwrap_or_default(),
        id: id.to_owned(),
        ..JsonMessage::default()
    }
}

/// `[=====>     ]  1.2MB/12MB`; a bare number when the total is not known.
fn bar(current: u64, total: u64) -> String {
    if current == 0 && total == 0 {
        return String::new();
    }
    if total == 0 {
        return format!("{:>8}", human_size(current));
    }
    let done = usize::try_from((u128::from(current) * 50 / u128::from(total)).min(50)).expect("at most fifty");
    let numbers =
        if current > total { format!("{:>8}", human_size(current)) } else { format!("{:>8}/{}", human_size(current), human_size(total)) };
    format!("[{}>{}] {numbers}", "=".repeat(done), " ".repeat(50 - done))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcontainerd_types::Reference;

    fn written(event: &PullEvent) -> String {
        String::from_utf8(line(&pull_message(event)).to_vec()).expect("text")
    }

    fn layer(step: LayerStep) -> String {
        written(&PullEvent::Layer { id: "4f4fb700ef54".into(), step })
    }

    #[test]
    fn pull_lines_are_byte_for_byte_those_of_dockerd() {
        let reference: Reference = "busybox".parse::<Reference>().expect("a name").or_latest();
        assert_eq!(
            written(&PullEvent::Started { reference: reference.clone() }),
            "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n"
        );
        assert_eq!(layer(LayerStep::PullingFsLayer), "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"4f4fb700ef54\"}\r\n");
        assert_eq!(
            layer(LayerStep::Downloading(1_234_567, 2_500_000)),
            "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1234567,\"total\":2500000},\
             \"progress\":\"[========================\\u003e                          ]  1.235MB/2.5MB\",\"id\":\"4f4fb700ef54\"}\r\n"
                .replace("\\u003e", ">")
        );
        assert_eq!(
            written(&PullEvent::Finished { reference, is_new: true }),
            "{\"status\":\"Status: Downloaded newer image for busybox:latest\"}\r\n"
        );
    }

    #[test]
    fn push_lines_are_those_of_dockerd() {
        let told = |event: &PushEvent| {
            let lines: Vec<_> =
                push_messages(event).iter().map(|message| String::from_utf8(line(message).to_vec()).expect("text")).collect();
            lines.concat()
        };
        assert_eq!(
            told(&PushEvent::Refers("127.0.0.1:5000/x".into())),
            "{\"status\":\"The push refers to repository [127.0.0.1:5000/x]\"}\r\n"
        );
        assert_eq!(
            told(&PushEvent::Layer { id: "4f4fb700ef54".into(), step: PushStep::MountedFrom("lib/x".into()) }),
            "{\"status\":\"Mounted from lib/x\",\"progressDetail\":{},\"id\":\"4f4fb700ef54\"}\r\n"
        );
        let digest = rcontainerd_types::Digest::sha256(b"");
        let tagged = told(&PushEvent::Tagged { tag: "v1".into(), digest: digest.clone(), size: 7 });
        assert_eq!(
            tagged,
            format!(
                "{{\"status\":\"v1: digest: {digest} size: 7\"}}\r\n{{\"progressDetail\":{{}},\"aux\":{{\"Tag\":\"v1\",\"Digest\":\"{digest}\",\"Size\":7}}}}\r\n"
            )
        );
    }

    #[test]
    fn bars_are_full_at_the_end_and_bare_without_total() {
        assert_eq!(bar(5, 5), format!("[{}>]       5B/5B", "=".repeat(50)));
        assert_eq!(bar(1500, 0), "   1.5kB");
        assert_eq!(bar(0, 0), "");
    }

    #[test]
    fn errors_are_told_in_both_members() {
        let message = error_message(&Error::not_found("no such manifest"));
        assert_eq!(&line(&message)[..], b"{\"errorDetail\":{\"message\":\"no such manifest\"},\"error\":\"no such manifest\"}\r\n");
    }
}
