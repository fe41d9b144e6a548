//! `events`.

use http_body_util::BodyExt;
use proto_docker::events::Event;
use serde_json::Value;

use super::common::{filters, json_format_flag};
use crate::cli::Cli;
use crate::cmdline::{Command, Flag, Matches, Outcome, filter, leaf, string};
use crate::failure::Failure;
use crate::output::template::{Answers, Subject};
use crate::output::{self, progress, units};

static FLAGS: &[Flag] = &[
    filter("f", "Show only what fits the conditions"),
    json_format_flag(""),
    string("since", "", "Show what happened since a time"),
    string("until", "", "Stop at a time"),
];

pub static COMMAND: Command = Command {
    usage: "[OPTIONS]",
    about: "Get real time events from the server",
    names: &["system events", "events"],
    flags: &[FLAGS],
    ..leaf(|cli, matches| Box::pin(go(cli, matches)))
};

async fn go(cli: &Cli, matches: &Matches) -> Outcome {
    let format = matches.str("format").filter(|format| !format.is_empty());
    let template = format.map(|format| Answers::parse(format, Subject::Event)).transpose()?;
    template.as_ref().map_or(Ok(()), Answers::fits_events)?;
    let time = |flag: &str| units::timestamp(matches.str(flag).unwrap_or_default()).map_err(Failure::message);
    let call = cli.client()?.get("/events").query_set("since", time("since")?).query_set("until", time("until")?);
    let mut body = call.query_set("filters", filters(matches.list("filter"))).send().await?.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failure::message(format!("the daemon's answer broke off: {err}")))?;
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        let used = progress::take_values(&buffer, &mut |event: Value| show(&event, template.as_ref()))?;
        buffer.drain(..used);
    }
    Ok(())
}

fn show(value: &Value, template: Option<&Answers>) -> Outcome {
    match template {
        Some(template) => {
            let mut text = String::new();
            let done = template.execute(Subject::Event, value, &mut text);
            output::line(&text)?;
            done
        }
        None => {
            let event: Event =
                serde_json::from_value(value.clone()).map_err(|err| Failure::message(format!("an event is not understood: {err}")))?;
            output::line(&line(&event))
        }
    }
}

fn line(event: &Event) -> String {
    let nanos = if event.time_nano == 0 { event.time * 1_000_000_000 } else { event.time_nano };
    let mut out = format!("{} {} {} {}", units::local_rfc3339_nano(nanos), event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        out.push_str(&format!(" ({})", pairs.join(", ")));
    }
    out
}
