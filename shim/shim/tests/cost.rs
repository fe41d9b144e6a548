//! What a container costs in our processes. Run by hand, against release builds:
//! `RRUN_TEST_SHIM=… RRUN_TEST_RUNTIME=… cargo test -p containerd-shim-rrun-v2 --test cost -- --ignored --nocapture`

mod support;

use std::time::{Duration, Instant};

use support::{Host, memory_kib, shim_pid, wait};

const CONTAINERS: u32 = 50;
/// KiB of PSS per shim.
const BUDGET: u64 = 410;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: needs release builds and a quiet machine"]
async fn memory_and_time_per_container() {
    let shim = std::env::var_os("RRUN_TEST_SHIM").map_or_else(|| support::SHIM.into(), Into::into);
    let host = Host::with_shim(shim).await;
    let mut tasks = Vec::new();
    let (mut create, mut start) = (Vec::new(), Vec::new());
    for n in 0..CONTAINERS {
        let id = format!("c{n}");
        host.bundle(&id, &["sleep", "1000"], false).await;
        let began = Instant::now();
        let task = host.tasks.create(host.request(&id, host.log_stdio(&id), false)).await.expect("create");
        create.push(began.elapsed());
        let began = Instant::now();
        task.start(None).await.expect("start");
        start.push(began.elapsed());
        tasks.push(task);
    }
    let pss: u64 = tasks.iter().map(|task| memory_kib(shim_pid(&host.tasks.bundle_path(task.key())), "Pss:")).sum();
    let per_shim = pss / u64::from(CONTAINERS);
    println!("PSS per shim with {CONTAINERS} containers: {per_shim} KiB");
    println!("spawn of the shim + create: median {:?}; start: median {:?}", median(&mut create), median(&mut start));
    let began = Instant::now();
    for task in tasks {
        task.kill(None, 9, false).await.expect("kill");
        wait(&task, None).await;
        task.delete(None).await.expect("delete");
    }
    println!("kill + wait + delete: mean {:?}", began.elapsed() / CONTAINERS);
    assert!(per_shim <= BUDGET, "{per_shim} KiB is above {BUDGET}");
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
