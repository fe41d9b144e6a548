//! Faults for real, at random: a mixed load on a manager that is killed again and again; at the end what was acknowledged is there, what was
//! removed is gone, and nothing else is on the host.
//!
//! `CHAOS_SECONDS` says how long (45), `CHAOS_SEED` repeats a run's choices (their timing is the machine's).

mod load;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use load::Worker;
use rcontainerd_tests::{Random, TestHost};

const WORKERS: usize = 3;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|err| panic!("{name}={text}: {err}")))
}

fn lock(host: &Mutex<TestHost>) -> std::sync::MutexGuard<'_, TestHost> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Also when the test succeeds. What fails is told by the panic alone, at the very end, behind what the managers log.
fn tell(what: std::fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "{what}").expect("standard error is there");
}

#[test]
fn a_manager_that_is_killed_at_random_points_loses_nothing_and_leaves_nothing() {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").subsec_nanos();
    let seed = number("CHAOS_SEED", nanoseconds.into());
    let time = Duration::from_secs(number("CHAOS_SECONDS", 45));
    tell(format_args!("CHAOS_SEED={seed} CHAOS_SECONDS={}", time.as_secs()));
    let host = Mutex::new(TestHost::with_busybox());
    let stop = AtomicBool::new(false);
    let (workers, kills) = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..WORKERS)
            .map(|n| {
                let mut worker = Worker::new(&host, n, Random::new(seed.wrapping_add(1 + n as u64)));
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        worker.step();
                    }
                    worker
                })
            })
            .collect();
        // Also when a kill panics: the workers would go on for ever.
        let _stop = StopAtEnd(&stop);
        let kills = disturb(&host, &mut Random::new(seed), time, &handles);
        stop.store(true, Ordering::Relaxed);
        (handles.into_iter().map(|handle| handle.join().expect("a worker that lasts")).collect::<Vec<_>>(), kills)
    });
    let done: u64 = workers.iter().map(Worker::done).sum();
    tell(format_args!("{kills} kills under {done} commands that succeeded"));
    assert!(kills > 0 && done > 0, "nothing was tried");
    let wrong: Vec<String> = workers.iter().flat_map(Worker::check).collect();
    assert!(wrong.is_empty(), "CHAOS_SEED={seed}:\n{}", wrong.join("\n"));
    remove_containers(&lock(&host));
    for worker in workers {
        worker.remove_all();
    }
    let host = host.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(host.lasting_leftovers(), Vec::<String>::new(), "CHAOS_SEED={seed}");
    host.fsck(&[]).success();
}

/// Those, too, that a client never heard of.
fn remove_containers(host: &TestHost) {
    let ids = host.rdocker(["ps", "-aq"]).success().stdout;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        host.rdocker(["rm", "-f"].into_iter().chain(ids)).success();
    }
    host.rdocker(["ps", "-aq"]).success().stdout("");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills and starts the manager until the time is over; says how often.
fn disturb<T>(host: &Mutex<TestHost>, random: &mut Random, time: Duration, workers: &[std::thread::ScopedJoinHandle<'_, T>]) -> u64 {
    let end = Instant::now() + time;
    let mut kills = 0;
    while Instant::now() < end {
        // The fault's moment is what is random here; nothing waits for it.
        std::thread::park_timeout(Duration::from_millis(random.below(1500)));
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker gave up");
        let mut host = lock(host);
        if random.below(6) == 0 {
            host.stop_manager();
        } else {
            host.kill_manager();
        }
        host.start_manager();
        kills += 1;
    }
    kills
}
