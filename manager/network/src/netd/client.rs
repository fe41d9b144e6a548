//! The manager's side.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rcontainerd_types::{Error, Result};

use super::{Answer, Request, Serve};
use crate::dns::Endpoint;

/// Keeps netd running while there is something to serve, and told of everything. Methods block.
pub struct Netd {
    /// The program and arguments that become netd.
    command: Vec<String>,
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    serve: BTreeMap<String, Serve>,
    endpoints: BTreeMap<(String, String), Endpoint>,
}

struct Connection {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Netd {
    /// Nothing is started before something is to be served.
    pub fn new(command: Vec<String>, socket: PathBuf) -> Self {
        Self { command, socket, state: Mutex::default() }
    }

    /// Takes up everything that an earlier manager had served.
    ///
    /// # Errors
    /// When netd cannot be started, or a namespace cannot be served.
    pub fn restore(&self, serve: Vec<Serve>, endpoints: Vec<Endpoint>) -> Result<()> {
        let mut state = self.lock();
        state.serve = serve.into_iter().map(|serve| (serve.container.clone(), serve)).collect();
        state.endpoints = endpoints.into_iter().map(|endpoint| (key(&endpoint), endpoint)).collect();
        self.connect(&mut state)
    }

    /// Serves a namespace, or changes what it may ask.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn serve(&self, serve: Serve) -> Result<()> {
        let mut state = self.lock();
        state.serve.insert(serve.container.clone(), serve.clone());
        self.tell(&mut state, &Request::Serve(serve))
    }

    /// # Errors
    /// When netd cannot be told.
    pub fn stop(&self, container: &str) -> Result<()> {
        let mut state = self.lock();
        if state.serve.remove(container).is_none() {
            return Ok(());
        }
        let told = self.tell(&mut state, &Request::Stop { container: container.to_owned() });
        if state.serve.is_empty() {
            // netd ends by itself once nobody is connected and nothing is served.
            state.connection = None;
        }
        told
    }

    /// Tells who is called what; before anybody is served it is only remembered.
    ///
    /// # Errors
    /// When netd cannot be told.
    pub fn join(&self, endpoint: Endpoint) -> Result<()> {
        let mut state = self.lock();
        state.endpoints.insert(key(&endpoint), endpoint.clone());
        self.tell(&mut state, &Request::Join(endpoint))
    }

    /// # Errors
    /// When netd cannot be told.
    pub fn leave(&self, network: &str, container: &str) -> Result<()> {
        let mut state = self.lock();
        if state.endpoints.remove(&(network.to_owned(), container.to_owned())).is_none() {
            return Ok(());
        }
        self.tell(&mut state, &Request::Leave { network: network.to_owned(), container: container.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A netd that died is started anew and told everything, which includes this request.
    fn tell(&self, state: &mut State, request: &Request) -> Result<()> {
        let serves = !state.serve.is_empty() || matches!(request, Request::Stop { .. });
        if !serves {
            return Ok(());
        }
        if let Some(connection) = &mut state.connection {
            match connection.call(request) {
                Ok(answer) => return judge(answer),
                Err(err) => tracing::warn!("netd is gone ({err}); starting it anew"),
            }
        }
        self.connect(state)
    }

    /// Tells netd everything. One that has nothing to serve ends by itself once nobody is connected, and is not started for nothing.
    fn connect(&self, state: &mut State) -> Result<()> {
        state.connection = None;
        let all = Request::Sync { serve: state.serve.values().cloned().collect(), endpoints: state.endpoints.values().cloned().collect() };
        let (connection, answer) = match Connection::open(&self.socket, &all) {
            Ok(told) => told,
            Err(_) if state.serve.is_empty() => return Ok(()),
            // None is there, or it was just ending: it had nothing to serve.
            Err(_) => {
                self.start()?;
                Connection::open(&self.socket, &all)
                    .map_err(|err| Error::io(format!("tell netd at {} what to serve", self.socket.display()), err))?
            }
        };
        if !state.serve.is_empty() {
            state.connection = Some(connection);
        }
        judge(answer)
    }

    /// Starts netd in a session of its own; it says when its socket is there, and outlives us.
    fn start(&self) -> Result<()> {
        let [program, arguments @ ..] = self.command.as_slice() else { return Err(Error::internal("no command starts netd")) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let failed = |err| Error::io(format!("start {program} netd"), err);
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| Error::internal("netd has no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        if line != "ready\n" {
            let status = child.wait().map_err(failed)?;
            return Err(Error::internal(format!("netd did not start ({status}); see the manager's log")));
        }
        // Reaped by a thread that does nothing else, so that a netd that ends is no zombie.
        let reaper = std::thread::Builder::new().name("netd-reaper".into()).stack_size(64 << 10).spawn(move || child.wait());
        reaper.map(drop).map_err(failed)
    }
}

impl Connection {
    /// With the first request.
    fn open(socket: &Path, first: &Request) -> std::io::Result<(Self, Answer)> {
        let writer = UnixStream::connect(socket)?;
        let reader = BufReader::new(writer.try_clone()?);
        let mut connection = Self { writer, reader };
        let answer = connection.call(first)?;
        Ok((connection, answer))
    }

    fn call(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.writer.write_all(&line)?;
        let mut answer = String::new();
        if self.reader.read_line(&mut answer)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

fn judge(answer: Answer) -> Result<()> {
    answer.error.map_or(Ok(()), |error| Err(Error::internal(error)))
}

fn key(endpoint: &Endpoint) -> (String, String) {
    (endpoint.network.clone(), endpoint.container.clone())
}
