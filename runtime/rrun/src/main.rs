//! `rrun`: the OCI runtime's command line, flag for flag that of runc.
#![cfg_attr(not(test), no_main)]

mod cli;
mod command;
mod follow;
mod help;
mod rights;
mod words;

use std::io::Write;

use rrun_core::log;

#[cfg(not(test))]
rrun_sys::entry!(program);

#[cfg(test)]
fn main() {
    program();
}

fn program() -> i32 {
    if let Err(e) = rrun_sys::process::start() {
        log::say(&e.to_string());
        return 1;
    }
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    // Called by another name (a link where another runtime is expected), it answers by that name.
    let program = program.to_str().and_then(|w| w.rsplit('/').next()).filter(|w| !w.is_empty()).unwrap_or("rrun");
    let line: Vec<_> = args.collect();
    if let Some(answer) = help::asked_for(program, &line) {
        finish(&answer);
    }
    let cli = cli::Cli::parse(line).unwrap_or_else(|asked| finish(&help::answer(asked, program)));
    let format = if cli.global.log_format == cli::LogFormat::Json { log::Format::Json } else { log::Format::Text };
    if let Err(e) = log::init(cli.global.log.as_deref(), format, cli.global.debug) {
        log::say(&e.to_string());
        std::process::exit(1);
    }
    let failed_code = cli.command.failed_code();
    match command::run(cli) {
        Ok(code) => std::process::exit(code),
        // Who asked has heard enough.
        Err(e) if is_broken_pipe(&e) => std::process::exit(0),
        Err(e) => {
            // Engines read the last error of the log; people read stderr.
            let message = format!("{e:#}");
            log::error(&message);
            if log::is_file() {
                log::say(&message);
            }
            std::process::exit(failed_code);
        }
    }
}

fn finish(answer: &help::Answer) -> ! {
    // What cannot be printed cannot be told either.
    drop(std::io::stdout().write_all(answer.stdout.as_bytes()));
    if let Some(error) = &answer.error {
        drop(log::init(None, log::Format::Text, false));
        log::error(error);
    }
    std::process::exit(answer.code);
}

/// Whether it failed because nobody reads its output any more (`rrun list | head -1`).
fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe))
}
