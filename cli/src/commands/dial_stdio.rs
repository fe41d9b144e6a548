//! `system dial-stdio`: joins stdin and stdout to the engine, for clients that come by ssh.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::Cli;
use crate::client::dial;
use crate::cmdline::{Command, Matches, Outcome, leaf};
use crate::session::stdin;

pub static COMMAND: Command =
    Command { usage: "", about: "Join the standard streams to the daemon's connection", ..leaf(|cli, matches| Box::pin(go(cli, matches))) };

async fn go(cli: &Cli, _: &Matches) -> Outcome {
    let connection = dial(cli.client()?.endpoint()).await?;
    let (mut from, mut to) = tokio::io::split(connection);
    let up = async {
        stdin::copy(&mut to, None).await;
        // The engine may have closed first; its answer is on the other way.
        to.shutdown().await.ok();
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            match from.read(&mut buffer).await? {
                0 => return Outcome::Ok(()),
                count => crate::output::bytes(&buffer[..count])?,
            }
        }
    };
    tokio::select! {
        done = down => done,
        () = up => Ok(()),
    }
}
