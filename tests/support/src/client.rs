//! The command line clients that the suites run: ours, and docker's of two generations.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::programs;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Ours,
    Docker28,
    Docker20,
}

impl Client {
    /// The client's program.
    ///
    /// # Panics
    /// When it is not installed: a test that leaves a client out proves nothing for it.
    pub fn program(self) -> PathBuf {
        let (variable, version) = match self {
            Self::Ours => return programs().join("rdocker"),
            Self::Docker28 => ("DOCKER_28", "version 28."),
            Self::Docker20 => ("DOCKER_20", "version 20.10."),
        };
        // `./test setup` leaves what the machine does not have in target/clients.
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/docker-28");
        let given = std::env::var_os(variable).map(PathBuf::from);
        let mut places = given.into_iter().chain(["/usr/local/bin/docker".into(), "/usr/bin/docker".into(), built]);
        places
            .find(|path| is_of(path, version))
            .unwrap_or_else(|| panic!("no docker client of {version} here: run ./test setup, or set {variable}"))
    }

    /// Runs the test with this client. docker's own have races of their own, which no engine can mend: 20.10 tells the terminal's size when
    /// the program runs already, and both may find the pipe to an ssh that ended at once broken before they read what it said. What fails
    /// with one of them is run once more, and the first failure is shown whatever comes of that. With ours nothing is repeated.
    ///
    /// # Panics
    /// When the test does.
    pub fn run(self, test: impl Fn(Self)) {
        if self == Self::Ours {
            return test(self);
        }
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(self))) {
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let why = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            // Past the harness, which shows nothing of a test that passes in the end.
            drop(writeln!(std::io::stderr(), "REPEATED {name}: with docker's client it failed first: {}", why.unwrap_or("no message")));
            test(self);
        }
    }

    /// Whether it is docker's old one, whose words differ in places.
    pub fn is_old(self) -> bool {
        self == Self::Docker20
    }
}

fn is_of(path: &Path, version: &str) -> bool {
    let said = Command::new(path).arg("--version").output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(version))
}

/// Makes a test per client of each function `fn(Client)` named.
#[macro_export]
macro_rules! each_client {
    ($($name:ident),+ $(,)?) => {
        $crate::each_client!(@client ours Ours $($name)+);
        $crate::each_client!(@client docker_28 Docker28 $($name)+);
        $crate::each_client!(@client docker_20 Docker20 $($name)+);
    };
    (@client $module:ident $client:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                $crate::Client::$client.run(super::$name);
            })+
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// How often a test is run that fails the first `failures` times.
    fn runs(client: Client, failures: u32) -> (u32, bool) {
        let count = AtomicU32::new(0);
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            client.run(|_| assert!(count.fetch_add(1, Ordering::Relaxed) >= failures, "on purpose"));
        }));
        (count.into_inner(), passed.is_ok())
    }

    #[test]
    fn only_dockers_clients_get_a_second_chance_and_no_third() {
        assert_eq!(runs(Client::Ours, 1), (1, false));
        assert_eq!(runs(Client::Docker28, 0), (1, true));
        assert_eq!(runs(Client::Docker20, 1), (2, true));
        assert_eq!(runs(Client::Docker20, 2), (2, false));
    }
}
